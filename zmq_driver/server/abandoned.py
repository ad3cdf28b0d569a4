# SPDX-License-Identifier: Apache-2.0
"""Messages that a server took, and dropped without dealing with them."""

import collections
from collections.abc import Callable
import logging

LOG = logging.getLogger(__name__)


class Abandoned:
    """Lets the router thread deal with what was collected.

    A message may be collected on any thread, also while that holds a lock
    that dealing with it needs. So nothing is done there.

    Thread: any, also a finalizer; :meth:`settle`: router.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._actions: collections.deque[Callable[[], None]] = (
            collections.deque()
        )

    def add(self, action: Callable[[], None]) -> None:
        """Let the router call *action* within half a second."""
        self._actions.append(action)

    def settle(self) -> None:
        """Do what is to be done (router)."""
        while self._actions:
            try:
                self._actions.popleft()()
            except Exception:
                LOG.exception('a dropped message was not dealt with')
