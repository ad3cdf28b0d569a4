# SPDX-License-Identifier: Apache-2.0
"""What a member has published in Redis, or may have: its own memory."""

from collections.abc import Iterator
import contextlib
import threading

from zmq_driver import address
from zmq_driver import clock
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker.redis import store

_Records = list[store.Published]


class PublishedRecords:
    """The records of one member: wanted, or to be removed.

    A round of renewal works on a copy of both. Whoever changes a record says
    so here first, and then waits for the round that may still have the old
    copy: so no renewal brings back what was withdrawn.

    Thread: any.
    """

    def __init__(self) -> None:
        """Begin with nothing published."""
        self._changed = threading.Condition()
        self._wanted: dict[address.Registration, bytes] = {}
        self._leaving: dict[address.Registration, bytes] = {}
        self._in_round = False
        self._ended = ''

    def want(self, registration: address.Registration, member: bytes) -> None:
        """Note a record that is about to be published.

        :raises base.MatchmakerUnavailable: the matchmaker has ended
        """
        with self._changed:
            if self._ended:
                raise base.MatchmakerUnavailable(self._ended)
            self._wanted[registration] = member
            self._leaving.pop(registration, None)

    def leave(self, registration: address.Registration) -> bytes | None:
        """Note that a record is to be removed; None if it never was there."""
        with self._changed:
            member = self._wanted.pop(registration, None)
            if member is not None:
                self._leaving[registration] = member
            return self._leaving.get(registration)

    def left(self, registration: address.Registration) -> None:
        """Note that a record was removed."""
        with self._changed:
            self._leaving.pop(registration, None)

    def ended(self) -> str:
        """Return why nothing is published any more; '' as long as it is."""
        return self._ended

    def end(self, why: str) -> None:
        """Publish nothing from now on."""
        with self._changed:
            self._ended = self._ended or why

    def take_all(self) -> _Records:
        """Return every record that may be there, and forget them."""
        with self._changed:
            found = {**self._wanted, **self._leaving}
            self._wanted, self._leaving = {}, {}
        return _records(found)

    @contextlib.contextmanager
    def round(self) -> Iterator[tuple[_Records, _Records]]:
        """Give what to publish and what to remove in one round.

        What was to be removed is forgotten if the round succeeds.
        """
        with self._changed:
            self._in_round = True
            wanted, leaving = dict(self._wanted), dict(self._leaving)
        try:
            yield _records(wanted), _records(leaving)
            with self._changed:
                for registration in leaving:
                    self._leaving.pop(registration, None)
        finally:
            with self._changed:
                self._in_round = False
                self._changed.notify_all()

    def wait_for_round(self, deadline: clock.Deadline) -> None:
        """Wait until no round works with an older copy.

        :raises base.MatchmakerUnavailable: it takes too long
        """
        with self._changed:
            # A round that began later has the newer copy, and waiting for it
            # too is harmless.
            if not self._changed.wait_for(
                lambda: not self._in_round, deadline.left()
            ):
                raise base.MatchmakerUnavailable(
                    'no time left to wait for the renewal of registrations, '
                    'which Redis does not answer'
                )

    def forget(self, why: str) -> None:
        """Let go of what a forked child inherited."""
        self._changed = threading.Condition()
        self._wanted, self._leaving = {}, {}
        self._in_round = False
        self._ended = self._ended or why


def _records(found: dict[address.Registration, bytes]) -> _Records:
    return [(key.address, member) for key, member in found.items()]
