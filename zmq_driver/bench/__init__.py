# SPDX-License-Identifier: Apache-2.0
"""``zmq-driver bench``: any oslo.messaging drivers, side by side."""
