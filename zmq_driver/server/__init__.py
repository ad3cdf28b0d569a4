# SPDX-License-Identifier: Apache-2.0
"""The receiving side: router thread, listeners, incoming messages."""
