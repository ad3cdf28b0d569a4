# SPDX-License-Identifier: Apache-2.0
"""The options of duplicate suppression, DL-52.

:mod:`zmq_driver.options` reads them.
"""

import dataclasses

from oslo_config import cfg

from zmq_driver import option_types

OPTIONS = [
    option_types.seconds(
        'duplicate_ttl',
        30.0,
        2.0,
        help='Seconds for which a server remembers a request that it has '
        'finished, and its reply, so that a sender whose connection was '
        'lost can ask again. Senders do that for about a second; a larger '
        'value covers networks that deliver later, and takes more memory.',
    ),
    cfg.IntOpt(
        'duplicate_max',
        default=20000,
        min=0,
        help='Finished requests that a server remembers at most, some 400 '
        'bytes each. With fewer, a busy server has to tell a sender that '
        'asks again that it does not know whether the request ran.',
    ),
    cfg.IntOpt(
        'duplicate_max_bytes',
        default=16 * 1024 * 1024,
        min=0,
        help='Bytes that the replies which a server remembers may have '
        'together; the oldest are dropped first. With a smaller value, '
        'calls with large replies fail when their connection is lost.',
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicateSettings:
    """The value of every option in :data:`OPTIONS`, of the same name.

    Thread: any (immutable).
    """

    duplicate_ttl: float = 30.0
    duplicate_max: int = 20000
    duplicate_max_bytes: int = 16 * 1024 * 1024
