# SPDX-License-Identifier: Apache-2.0
"""Puts the parts together that send, from the pool to the clients."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

from zmq_driver import counters as counters_
from zmq_driver import options
from zmq_driver import pool as pool_
from zmq_driver import sockets
from zmq_driver.client import delivery as delivery_
from zmq_driver.client import drain
from zmq_driver.client import exchange
from zmq_driver.client import fanout
from zmq_driver.client import notifier as notifier_
from zmq_driver.client import outbox as outbox_
from zmq_driver.client import routing as routing_
from zmq_driver.client import rpc as rpc_
from zmq_driver.client import sender as sender_
from zmq_driver.client import suspects as suspects_
from zmq_driver.store import base as store_


class Clients(NamedTuple):
    """What a driver sends with.

    Thread: any.
    """

    rpc: rpc_.RpcClient
    notifier: notifier_.Notifier
    #: Brings to listeners what the notifier has stored.
    outbox: outbox_.Outbox


def assemble(
    pool: pool_.SocketPool[str, sockets.PeerSocket],
    lookups: routing_.Lookups,
    suspects: suspects_.Suspects,
    counters: counters_.Counters,
    settings: options.Settings,
    sleep: Callable[[float], object],
    allowed_remote_exmods: Sequence[str],
    store: store_.NotificationStore,
    open_stream: Callable[[str], sockets.PeerSocket],
    member: str,
) -> Clients:
    """Return clients that send over *pool* to whom *lookups* finds.

    :param sleep: waits for the given seconds, or raises when there is no
        point in waiting any more
    :param store: where notifications wait for listeners
    :param open_stream: opens a socket for many messages at once
    :param member: names the driver in this process
    """
    routing = routing_.Routing(
        lookups, settings.retry_interval, sleep, suspects
    )
    sender = sender_.Sender(
        pool, routing, counters, settings.connect_timeout, sleep
    )
    delivery = delivery_.Delivery(sender, routing, counters, sleep)
    ids = exchange.MessageIds()

    def make_drain() -> drain.Drain:
        return drain.Drain(
            store,
            routing,
            open_stream,
            counters,
            settings.notification_max_deliveries,
        )

    outbox = outbox_.Outbox(
        member,
        store,
        make_drain,
        min(outbox_.PRESENCE, settings.notification_pool_retention / 4),
    )
    return Clients(
        rpc_.RpcClient(
            delivery,
            fanout.Fanout(sender, routing, counters),
            ids,
            counters,
            allowed_remote_exmods,
        ),
        notifier_.Notifier(
            delivery,
            sender,
            routing,
            ids,
            outbox,
            settings.notification_direct_timeout,
        ),
        outbox,
    )
