# SPDX-License-Identifier: Apache-2.0
"""Which store a driver has, and what it is called."""

from typing import Any
from typing import cast

import oslo_messaging
from stevedore import driver as stevedore_driver
from stevedore import extension as stevedore_extension

from zmq_driver.store import base

#: The stevedore namespace of stores.
STORES = 'zmq_driver.notification_stores'

#: The store that goes with a matchmaker, unless it is sqlite.
_DEFAULTS = {'redis': 'redis', 'sentinel': 'redis'}


def load_store(name: str) -> type[base.NotificationStore]:
    """Return the store that an entry point names.

    :raises RuntimeError: there is none of this name
    """
    manager: stevedore_driver.DriverManager[Any] = (
        stevedore_driver.DriverManager(STORES, name)
    )
    store: Any = manager.driver
    return cast('type[base.NotificationStore]', store)


def store_names() -> list[str]:
    """Return the names of all stores that are installed."""
    manager: stevedore_extension.ExtensionManager[Any] = (
        stevedore_extension.ExtensionManager(STORES)
    )
    return sorted(manager.names())


def make_store(settings: base.StoreSettings) -> base.NotificationStore:
    """Return the store of the option ``notification_store``, not opened.

    :raises RuntimeError: there is none of this name, or not for this URL
    """
    wrong = problem(settings.options.notification_store, settings.matchmaker)
    if wrong:
        raise RuntimeError(wrong)
    return load_store(store_name(settings))(settings)


def problem(name: str, matchmaker: str) -> str:
    """Return what is wrong with a ``notification_store``; '' if nothing is.

    :param matchmaker: the name of the matchmaker that goes with it
    """
    if name == 'auto':
        return ''
    try:
        load_store(name)
    except RuntimeError:
        names = ', '.join(['auto', *store_names()])
        return f'there is no notification_store {name!r}; use one of: {names}'
    if name == 'redis' and matchmaker not in _DEFAULTS:
        return (
            'notification_store "redis" is for zmq+redis:// and '
            "zmq+sentinel://: hosts that do not find each other must not see "
            "each other's notifications"
        )
    return ''


def store_name(settings: base.StoreSettings) -> str:
    """Return the name of the store that a driver has."""
    name = settings.options.notification_store
    if name != 'auto':
        return name
    return _DEFAULTS.get(settings.matchmaker, 'sqlite')


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
