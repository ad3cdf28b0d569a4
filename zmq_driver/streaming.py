# SPDX-License-Identifier: Apache-2.0
"""A socket for many messages at once to one peer."""

from zmq_driver import context as context_
from zmq_driver import socket_options
from zmq_driver import sockets


class StreamSocket(sockets.PeerSocket):
    """A DEALER with many messages under way, and another one as its pulse.

    The peer does not read all of them at once, so libzmq stops to receive
    for it in between. If the connection is lost just then and a heartbeat is
    among what was received already, libzmq aborts the peer (see
    ``socket_options.configure_heartbeats``). So the connection with the
    messages has no heartbeats, and a second one to the same peer, over which
    nothing else goes, has them for both.

    Thread: owner only (checked).
    """

    __slots__ = ('_pulse',)

    def __init__(
        self,
        context: context_.DriverContext,
        endpoint: str,
        options: socket_options.SocketOptions,
    ) -> None:
        """Open both sockets and start to connect; does not wait.

        :raises zmq.ZMQError: no descriptor is left, or a bad endpoint
        """
        super().__init__(
            context,
            endpoint,
            options,
            socket_options.PIPE_STREAMED,
            heartbeats=False,
        )
        try:
            self._pulse = sockets.PeerSocket(context, endpoint, options)
        except BaseException:
            super().close()
            raise

    def wait_connected(self, timeout: float) -> bool:
        """Wait until the handshakes of both are done.

        :param timeout: seconds, for each
        :returns: False if they are not done yet
        :raises errors.PeerNotReady: it is known that they never will be
        """
        return super().wait_connected(timeout) and self._pulse.wait_connected(
            timeout
        )

    def connected(self) -> bool:
        """Return whether both connections stand, as far as is known now."""
        return super().connected() and self._pulse.connected()

    def close(self) -> None:
        """Close both; what was sent lingers for ``linger`` seconds."""
        self._pulse.close()
        super().close()
