# SPDX-License-Identifier: Apache-2.0
"""Notifications that wait for a listener."""
