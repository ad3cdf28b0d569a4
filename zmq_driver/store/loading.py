# SPDX-License-Identifier: Apache-2.0
"""Which store a driver has, and what it is called."""

import oslo_messaging

from zmq_driver import plugins
from zmq_driver.store import base

#: The stores that are installed.
STORES: plugins.Namespace[base.NotificationStore] = plugins.Namespace(
    'zmq_driver.notification_stores'
)

#: The store that goes with a matchmaker, unless it is sqlite.
_DEFAULTS = {'redis': 'redis', 'sentinel': 'redis'}


def make_store(settings: base.StoreSettings) -> base.NotificationStore:
    """Return the store of the option ``notification_store``, not opened.

    :raises RuntimeError: there is none of this name, or not for this URL
    """
    kind = choose(settings.options.notification_store, settings.matchmaker)
    return kind(settings)


def choose(name: str, matchmaker: str) -> type[base.NotificationStore]:
    """Return the store that a ``notification_store`` means.

    :param matchmaker: the name of the matchmaker that goes with it
    :raises RuntimeError: there is none of this name, or not for this one
    """
    if name == 'auto':
        name = _DEFAULTS.get(matchmaker, 'sqlite')
    try:
        store = STORES.load(name)
    except RuntimeError:
        names = ', '.join(['auto', *STORES.names()])
        raise RuntimeError(
            f'there is no notification_store {name!r}; use one of: {names}'
        ) from None
    if name == 'redis' and matchmaker not in _DEFAULTS:
        raise RuntimeError(
            'notification_store "redis" is for zmq+redis:// and '
            "zmq+sentinel://: hosts that do not find each other must not see "
            "each other's notifications"
        )
    return store


def site(
    matchmaker: str,
    virtual_host: str,
    url: oslo_messaging.TransportURL | None = None,
) -> str:
    """Return the name of a deployment, for :class:`base.StoreSettings`.

    Drivers that find the same listeners get the same one, and it has no user
    and no password.

    :param matchmaker: the name of the matchmaker
    :param virtual_host: the virtual host, as the matchmaker names it
    """
    words = [matchmaker, '/' + virtual_host]
    if url is not None:
        words += sorted(
            f'{host.hostname or ""}:{host.port or ""}' for host in url.hosts
        )
        # With some matchmakers it says more: a ring file, a master.
        if (url.virtual_host or '') != virtual_host:
            words.append(str(url.virtual_host))
    return ' '.join(words)
