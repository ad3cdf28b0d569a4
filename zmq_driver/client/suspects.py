# SPDX-License-Identifier: Apache-2.0
"""Routes that could not be connected to, and how long they are avoided."""

import random
import threading

from zmq_driver import address
from zmq_driver import clock as clock_

#: Seconds for which a route is avoided after its first failure, and at most.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0

#: Seconds for which a listener that has stopped is avoided. It will never
#: come back, but whoever tells that may be wrong.
STOPPED_PAUSE = 60.0

#: Routes that are remembered; beyond, the one that was added first is not.
MAX_ROUTES = 1000


class _Suspect:
    """What is known about one route.

    Thread: caller holds the lock.
    """

    __slots__ = ('is_tried', 'pause', 'stopped', 'until')

    def __init__(self) -> None:
        self.pause = FIRST_PAUSE
        #: Not to be tried before; 0.0 at first.
        self.until = 0.0
        #: Whether it said that it will never take anything again.
        self.stopped = False
        #: Whether somebody tries it now that the pause is over.
        self.is_tried = False


class Suspects:
    """Keeps callers from waiting for the same dead peer again and again.

    A route whose last attempt failed is avoided for a pause. When that is
    over, one caller tries it while the others go on to avoid it. The pauses
    double, with jitter, so that the clients of a dead peer do not come back
    in step.

    Thread: any.
    """

    def __init__(
        self, patience: float, clock: clock_.Clock = clock_.monotonic
    ) -> None:
        """Suspect nobody.

        :param patience: seconds that one caller gets to try a route again
        """
        #: The suspects. Empty nearly always, which is what to look at first;
        #: only methods of this object change it.
        self.routes: dict[address.Route, _Suspect] = {}
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()

    def failed(self, route: address.Route) -> None:
        """Take note that *route* could not be connected to."""
        now = self._clock()
        with self._lock:
            suspect = self._suspect_locked(route, now)
            if suspect.stopped and now < suspect.until:
                return
            if suspect.is_tried or 0.0 < suspect.until <= now:
                suspect.pause = min(LONGEST_PAUSE, 2 * suspect.pause)
            elif suspect.until:
                # Others have failed at the same time, which counts once.
                return
            suspect.is_tried = False
            suspect.until = now + suspect.pause * random.uniform(0.5, 1.0)

    def gone(self, route: address.Route) -> None:
        """Avoid *route* for long: its listener has stopped."""
        now = self._clock()
        with self._lock:
            suspect = self._suspect_locked(route, now)
            suspect.stopped = True
            suspect.is_tried = False
            suspect.until = now + STOPPED_PAUSE

    def connected(self, route: address.Route) -> None:
        """Take note that *route* can be connected to."""
        with self._lock:
            suspect = self.routes.get(route)
            if suspect is not None and not (
                suspect.stopped and self._clock() < suspect.until
            ):
                del self.routes[route]

    def forget(self, route: address.Route) -> None:
        """Suspect *route* no more: it has left."""
        with self._lock:
            self.routes.pop(route, None)

    def has_stopped(self, route: address.Route) -> bool:
        """Return whether the listener of *route* will never take anything."""
        suspect = self.routes.get(route)
        return (
            suspect is not None
            and suspect.stopped
            and self._clock() < suspect.until
        )

    def avoids(self, route: address.Route) -> bool:
        """Return whether another route is to be preferred now."""
        suspect = self.routes.get(route)
        return suspect is not None and self._clock() < suspect.until

    def take(self, route: address.Route) -> bool:
        """Return whether to try *route* now, and keep others from it if so.

        They are kept from it until the outcome is known.
        """
        if route not in self.routes:
            return True
        now = self._clock()
        with self._lock:
            suspect = self.routes.get(route)
            if suspect is None:
                return True
            if now < suspect.until:
                return False
            suspect.is_tried = True
            suspect.stopped = False
            suspect.until = now + self._patience
            return True

    def _suspect_locked(self, route: address.Route, now: float) -> _Suspect:
        suspect = self.routes.get(route)
        if suspect is None:
            # Those that nobody has asked for since have left unseen.
            for old in [
                other
                for other, it in self.routes.items()
                if it.until + STOPPED_PAUSE < now
            ]:
                del self.routes[old]
            suspect = self.routes[route] = _Suspect()
            if len(self.routes) > MAX_ROUTES:
                del self.routes[next(iter(self.routes))]
        return suspect
