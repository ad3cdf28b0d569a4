# SPDX-License-Identifier: Apache-2.0
"""What the driver raises, sorted by what the caller may conclude.

.. code-block:: text

    oslo_messaging.MessagingException
    +-- DriverClosed              cleanup() was called
    +-- IpcDirectoryUnusable      rpc_zmq_ipc_dir cannot be used
    +-- ListenFailure             this process cannot receive messages
    +-- ReplyUndecodable          has run: the reply does not parse
    +-- MessagingTimeout
    |   +-- ServerNotFound        not sent: nobody to send to in time
    |   +-- ReplyTimeout          may have run: no reply in time
    |   +-- PeerLost              may have run: the server went away
    +-- MessageDeliveryFailure
        +-- DeliveryRefused       not sent: nobody took it
        +-- DeliveryUnconfirmed   may have run: no acknowledgement
        +-- MessageTooLarge       not sent: over max_message_size
    oslo_messaging.MessageUndeliverable
                                  not sent: at_least_once, and nobody there

Every one of them that concerns a message has a class attribute
``may_have_run``: False means that no server has started the message and that
sending it again cannot run it twice.

Inside the driver, :class:`PeerNotReady` and :class:`Refused` report one
attempt that did not reach a server; they lead to the next attempt and never
to the application.
"""

import oslo_messaging


class DriverClosed(oslo_messaging.MessagingException):  # type: ignore[misc]
    """The transport was used after its ``cleanup()``."""

    may_have_run = False


class IpcDirectoryUnusable(oslo_messaging.MessagingException):  # type: ignore[misc]
    """The directory of the ipc sockets cannot be used; says why."""

    may_have_run = False


class ReplyUndecodable(oslo_messaging.MessagingException):  # type: ignore[misc]
    """Has run: the server replied, and the reply does not parse."""

    may_have_run = True


class ListenFailure(oslo_messaging.MessagingException):  # type: ignore[misc]
    """The process cannot be reached: no endpoint, or no registration."""

    may_have_run = False


class ServerNotFound(oslo_messaging.MessagingTimeout):  # type: ignore[misc]
    """Not sent: by the deadline there was no server to send to."""

    may_have_run = False


class ReplyTimeout(oslo_messaging.MessagingTimeout):  # type: ignore[misc]
    """May have run: the request was sent and no reply came in time."""

    may_have_run = True


class PeerLost(oslo_messaging.MessagingTimeout):  # type: ignore[misc]
    """May have run: the server went away before it replied."""

    may_have_run = True


class DeliveryRefused(oslo_messaging.MessageDeliveryFailure):  # type: ignore[misc]
    """Not sent: no server took the message."""

    may_have_run = False


class DeliveryUnconfirmed(oslo_messaging.MessageDeliveryFailure):  # type: ignore[misc]
    """May have run: it was sent, and nobody confirmed to have it."""

    may_have_run = True


class MessageTooLarge(oslo_messaging.MessageDeliveryFailure, ValueError):  # type: ignore[misc]
    """Not sent: the message is larger than ``max_message_size``."""

    may_have_run = False


class PeerNotReady(Exception):
    """One attempt: the peer is not connected, so nothing was sent."""


class NoTimeLeft(PeerNotReady):
    """One attempt: it was not made, because the deadline has come."""


class Refused(Exception):
    """One attempt: the peer answered that it will not run the message."""


class RefusedAgain(Refused):
    """One attempt: refused when it was sent again after a lost connection.

    The peer refuses the earlier copy too, should that still arrive; so this
    message is RESENT from now on.
    """


class Busy(Refused):
    """One attempt: the peer has enough to do; it is still the right one."""


class BusyAgain(Busy, RefusedAgain):
    """One attempt: both."""
