# SPDX-License-Identifier: Apache-2.0
"""Implementations that are found by name, as entry points."""

from typing import Any
from typing import cast
from typing import Generic
from typing import TypeVar

from stevedore import driver as stevedore_driver
from stevedore import extension as stevedore_extension

T = TypeVar('T')


class Namespace(Generic[T]):
    """The implementations of one base class; each is loaded once.

    Thread: any.
    """

    def __init__(self, name: str) -> None:
        """Remember the stevedore namespace; nothing is loaded yet."""
        self._name = name
        self._loaded: dict[str, type[T]] = {}

    def load(self, name: str) -> type[T]:
        """Return the implementation that an entry point names.

        :raises RuntimeError: there is none of this name
        """
        loaded = self._loaded.get(name)
        if loaded is None:
            manager: stevedore_driver.DriverManager[Any] = (
                stevedore_driver.DriverManager(self._name, name)
            )
            found: Any = manager.driver
            # If two threads come here, they found the same.
            loaded = self._loaded[name] = cast('type[T]', found)
        return loaded

    def names(self) -> list[str]:
        """Return the names of all that are installed, in order."""
        manager: stevedore_extension.ExtensionManager[Any] = (
            stevedore_extension.ExtensionManager(self._name)
        )
        return sorted(manager.names())
