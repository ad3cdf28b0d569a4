# SPDX-License-Identifier: Apache-2.0
"""Names and values for tests of matchmakers."""

import os

from zmq_driver import address
from zmq_driver import clock


def deadline(timeout=30.0):
    return clock.Deadline(timeout)


def member():
    return os.urandom(8).hex()


def where(topic='topic', exchange='exchange', scope=address.Scope.RPC):
    return address.Address(scope, exchange, topic)


def route(server='server', endpoint='ipc:///tmp/x.ipc'):
    return address.Route(endpoint, os.urandom(16), server)


def registration(at=None, **kwargs):
    """Return a new listener at an address."""
    return address.Registration(at or where(), route(**kwargs))


def die(matchmaker):
    """Leave a matchmaker as the kernel leaves that of a killed process."""
    matchmaker.forget()
