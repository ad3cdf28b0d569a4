# SPDX-License-Identifier: Apache-2.0
"""Programs to begin with; the tests run them."""
