# SPDX-License-Identifier: Apache-2.0
"""The matchmakers of many hosts: Redis, and Redis behind Sentinel.

``doc/specs/matchmaker-redis.rst`` has the rules.
"""
