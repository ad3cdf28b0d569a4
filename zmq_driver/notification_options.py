# SPDX-License-Identifier: Apache-2.0
"""The options of notifications that are stored.

:mod:`zmq_driver.options` reads them.
"""

import dataclasses

from oslo_config import cfg

from zmq_driver import option_types

_WEEK = 7 * 86400.0

_SYNC = {
    'normal': 'What is stored survives the death of any process, also '
    'kill -9. A power failure or a crash of the operating system does not '
    'damage the file, but may undo the last transactions: what was stored is '
    'lost then, and what was delivered may be delivered again. How long ago '
    'they were has no bound in time.',
    'full': 'Each notification for which notify() returned is on the disk, as '
    'far as the disk tells the truth, and survives a power failure too. Each '
    'waits for the disk, often some milliseconds.',
}

_OVERFLOW = {
    'refuse': 'The notifier fails with an error; nothing that was stored is '
    'dropped. When one has waited for longer than '
    'notification_store_max_age, more for the same listener pool are refused.',
    'drop_oldest': 'The oldest are dropped, counted and logged, and so are '
    'those that are older than notification_store_max_age.',
}

OPTIONS = [
    cfg.StrOpt(
        'notification_store',
        default='auto',
        help='Where notifications wait whose listeners are away. "sqlite": '
        'in a file of this host, see notification_store_directory. "redis": '
        'in the Redis of zmq+redis:// or zmq+sentinel://, from where any '
        'host delivers them; they are as safe as Redis keeps its data. '
        '"none": nowhere, the notifier waits for notify_timeout and then '
        'fails. "auto": "redis" with those two URLs, "sqlite" with others.',
    ),
    cfg.StrOpt(
        'notification_store_directory',
        sample_default='that of rpc_zmq_ipc_dir',
        help='Directory of the file of the store "sqlite"; the processes of '
        'a host deliver what any of them stored when they share it. What is '
        'in /run or /tmp does not survive a restart of the host, and takes '
        'memory if that is a tmpfs: for stored notifications to survive it '
        'name a directory on a disk, such as /var/lib/zmq-driver. It must '
        'not be on a network file system. While less than 16 MiB of its file '
        'system are free, or a quarter of a smaller one, notifications that '
        'would have to be stored are refused, so that the store does not '
        'take the room in which services register.',
    ),
    cfg.StrOpt(
        'notification_store_sync',
        default='normal',
        choices=list(_SYNC.items()),
        help='When a stored notification is safe. It does not concern those '
        'that listeners take at once.',
    ),
    cfg.IntOpt(
        'notification_store_max_count',
        default=1_000_000,
        min=1,
        help='Notifications that the store holds at most; one that waits for '
        'several listener pools counts for each. Beyond it '
        'notification_store_overflow says what happens.',
    ),
    cfg.IntOpt(
        'notification_store_max_size',
        default=1024 * 1024 * 1024,
        min=4096,
        help='Bytes that the notifications in the store may have together, '
        'as they are on the wire; the file takes some more. Beyond it '
        'notification_store_overflow says what happens.',
    ),
    option_types.seconds(
        'notification_store_max_age',
        _WEEK,
        0.0,
        help='Seconds that a notification may wait in the store; 0: for '
        'ever. After it notification_store_overflow says what happens.',
    ),
    cfg.StrOpt(
        'notification_store_overflow',
        default='refuse',
        choices=list(_OVERFLOW.items()),
        help='What happens at a bound of the store: by count, size or age.',
    ),
    option_types.seconds(
        'notification_pool_retention',
        _WEEK,
        1.0,
        help='Seconds for which notifications are stored for a listener pool '
        'none of whose members is there. After it the pool is forgotten, '
        'together with the notifications that wait for it; this is logged.',
    ),
    option_types.seconds(
        'notification_direct_timeout',
        0.5,
        0.001,
        help='Seconds within which a listener must have handled a '
        'notification that it is sent directly; beyond that, it is stored '
        'and the notifier goes on. The wait for a connection counts. A '
        'larger value stores less when listeners are slow, and holds up '
        'the notifier for longer. Without a store, notify_timeout counts.',
    ),
    cfg.IntOpt(
        'notification_max_deliveries',
        default=10,
        min=1,
        help='How many listeners are given a stored notification that none '
        'of them handles, because it ends or fails, before it is put aside '
        'as a dead letter. A larger value survives more restarts of '
        'listeners; a smaller one saves them from a notification that '
        'kills whoever gets it.',
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotificationSettings:
    """The value of every option in :data:`OPTIONS`, of the same name.

    Thread: any (immutable).
    """

    notification_store: str = 'auto'
    notification_store_directory: str | None = None
    notification_store_sync: str = 'normal'
    notification_store_max_count: int = 1_000_000
    notification_store_max_size: int = 1024 * 1024 * 1024
    notification_store_max_age: float = _WEEK
    notification_store_overflow: str = 'refuse'
    notification_pool_retention: float = _WEEK
    notification_direct_timeout: float = 0.5
    notification_max_deliveries: int = 10
