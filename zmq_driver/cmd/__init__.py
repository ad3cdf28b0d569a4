# SPDX-License-Identifier: Apache-2.0
"""The ``zmq-driver`` command line."""
