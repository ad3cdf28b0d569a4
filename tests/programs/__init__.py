# SPDX-License-Identifier: Apache-2.0
"""Programs that the functional tests run as processes of their own.

They use oslo.messaging's public API only.
"""
