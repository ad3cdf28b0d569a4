# SPDX-License-Identifier: Apache-2.0
"""The fault laboratory: what callers are told is compared with what ran."""
