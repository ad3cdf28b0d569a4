# SPDX-License-Identifier: Apache-2.0
"""Who listens where: registrations, lookups and the cache before them."""
