# SPDX-License-Identifier: Apache-2.0
"""The RPC server that the examples share, apart from who runs it."""

import os
import socket
import time

from oslo_config import cfg
import oslo_messaging

TRANSPORT_URL = os.environ.get('TRANSPORT_URL', 'zmq://')


class Endpoint:
    """What clients can call."""

    def add(self, ctxt: object, a: int, b: int) -> dict[str, int]:
        """Return the sum, and who has added."""
        return {'sum': a + b, 'pid': os.getpid()}

    def work(self, ctxt: object, seconds: float) -> dict[str, int]:
        """Take some time."""
        time.sleep(seconds)
        return {'pid': os.getpid()}


class Calculator:
    """A transport, made by the parent, and a server, which a worker starts.

    All workers have the same server name, as in OpenStack; clients use them
    in turn.

    Thread: any.
    """

    def __init__(self) -> None:
        """Make the transport, which opens nothing."""
        self._transport = oslo_messaging.get_rpc_transport(
            cfg.CONF, TRANSPORT_URL
        )
        self._server = oslo_messaging.get_rpc_server(
            self._transport,
            oslo_messaging.Target(
                topic='calculator', server=socket.gethostname()
            ),
            [Endpoint()],
            executor='threading',
        )

    def start(self) -> None:
        """Serve until :meth:`stop`."""
        self._server.start()

    def stop(self) -> None:
        """Accept no more, finish what was accepted, and send the replies."""
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()
