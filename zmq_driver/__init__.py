# SPDX-License-Identifier: Apache-2.0
"""A brokerless ZeroMQ driver for oslo.messaging, on native threads.

A message is followed from left to right: ``driver`` -> ``client`` ->
(``matchmaker``, ``pool``) -> ``envelope`` -> ``server``.
"""

__version__ = '0.1.0'
