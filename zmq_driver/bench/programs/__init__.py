# SPDX-License-Identifier: Apache-2.0
"""The processes of the benchmark: servers, and clients that load them."""
