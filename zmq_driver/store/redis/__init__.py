# SPDX-License-Identifier: Apache-2.0
"""The store in Redis Streams, which all hosts of a deployment share."""
