# SPDX-License-Identifier: Apache-2.0
"""The sending side: calls, casts, fanouts and notifications."""
