# SPDX-License-Identifier: Apache-2.0
"""The memory of requests, which keeps them from running twice.

A sender whose connection is lost asks again over another one. Rules DL-50 to
DL-52 of ``doc/specs/delivery.rst``.

A request is known by its message id and the listener that it names, because
a fanout and a notification have one id for several listeners.
"""

import collections
import threading
from typing import NamedTuple

from zmq_driver import clock as clock_
from zmq_driver import duplicate_options
from zmq_driver import envelope

#: Makers of messages whose last forgotten message is remembered.
MAX_MAKERS = 10000
#: Bytes of a message id that name its maker; the others count.
MAKER_SIZE = 8

#: The header and the body of an answer.
Answer = tuple[bytes, bytes]


class Record:
    """A request that was taken.

    Thread: any; all but ``routing_id`` is for the memory, under its lock.
    """

    __slots__ = (
        'answer',
        'finished_at',
        'key',
        'refused',
        'resent',
        'routing_id',
    )

    def __init__(self, key: bytes, routing_id: bytes, resent: int = 0) -> None:
        """Describe a request that is not finished.

        :param key: the message id, followed by what tells the listener
        :param routing_id: the connection that it came from
        :param resent: envelope.RESENT, or 0
        """
        self.key = key
        #: Where answers go: the connection that asked last.
        self.routing_id = routing_id
        #: Whether that one said RESENT.
        self.resent = resent
        #: Monotonic seconds; None: it is under way.
        self.finished_at: float | None = None
        #: What a call was answered, as long as it is kept.
        self.answer: Answer | None = None
        #: Whether it was not taken, though it was sent again.
        self.refused = False


class Repeat(NamedTuple):
    """What to answer a request that must not be handed over.

    Thread: any (immutable).
    """

    #: Whether the request is known; if not, it may have been.
    known: bool
    #: Whether nothing is left to answer but that it may have run.
    forgotten: bool = False
    #: The answer of a call or notification, to be sent again.
    answer: Answer | None = None
    #: Whether its sender was told before that it is not taken.
    refused: bool = False


class Recent:
    """Remembers what is under way, and for a while what is finished.

    Thread: any; the router takes, workers finish.
    """

    def __init__(
        self,
        settings: duplicate_options.DuplicateSettings | None = None,
        clock: clock_.Clock = clock_.monotonic,
        max_makers: int = MAX_MAKERS,
    ) -> None:
        """Remember nothing yet.

        :param settings: the bounds of the memory; None: the defaults
        :param max_makers: how many makers' marks are kept
        """
        settings = settings or duplicate_options.DuplicateSettings()
        self._ttl = settings.duplicate_ttl
        self._max = settings.duplicate_max
        self._max_bytes = settings.duplicate_max_bytes
        self._clock = clock
        self._max_makers = max_makers
        self._lock = threading.Lock()
        # What follows is under the lock.
        self._records: dict[bytes, Record] = {}
        # Both in the order in which the requests were finished.
        self._finished: collections.deque[Record] = collections.deque()
        self._answered: collections.deque[Record] = collections.deque()
        self._bytes = 0
        # For each maker the highest message id that was dropped. What counts
        # higher was never taken, or is among the records.
        self._marks: collections.OrderedDict[bytes, bytes] = (
            collections.OrderedDict()
        )
        self._lost_marks = False

    def take(
        self, header: envelope.Header, routing_id: bytes
    ) -> Record | Repeat:
        """Remember a request before it is handed over, if it may be.

        :returns: the record, if it may be handed over; finish it or refuse
            it then
        """
        key = _key(header)
        with self._lock:
            record = self._records.get(key)
            resent = header.flags & envelope.RESENT
            if record is not None and not (record.refused and resent):
                return _repeat_locked(record, header, routing_id)
            if (
                record is None
                and resent
                and self._may_have_been_locked(header)
            ):
                return Repeat(known=False, forgotten=True)
            record = self._records[key] = Record(key, routing_id, resent)
            return record

    def refuse(self, record: Record) -> bytes:
        """Take note that a request is not taken: nothing ran.

        It is forgotten, unless an earlier copy may still come.

        :returns: the connection to say so to
        """
        with self._lock:
            if record.finished_at is None:
                if record.resent:
                    record.refused = True
                    self._finish_locked(record)
                else:
                    del self._records[record.key]
            return record.routing_id

    def finish(self, record: Record, answer: Answer | None = None) -> bytes:
        """Keep what became of a request; repeats are answered with it.

        :param answer: what a call is answered; None: it is no call. The ACK
            of a notification need not be kept.
        :returns: the connection to send the answer to
        """
        with self._lock:
            if answer is not None:
                record.answer = answer
                self._bytes += _size(answer)
                self._answered.append(record)
                while self._bytes > self._max_bytes:
                    self._drop_answer_locked()
            self._finish_locked(record)
            return record.routing_id

    def expire(self) -> None:
        """Drop what was finished too long ago."""
        # An empty deque is empty under the lock too, or will be looked at
        # the next time.
        if self._finished:
            with self._lock:
                self._shrink_locked(self._clock())

    def counts(self) -> tuple[int, int, int]:
        """Return requests, bytes of answers, and makers remembered."""
        with self._lock:
            return len(self._records), self._bytes, len(self._marks)

    def _may_have_been_locked(self, header: envelope.Header) -> bool:
        """Return whether an unknown request may have been taken before."""
        if header.incarnation == envelope.ANY_INCARNATION:
            # It may have been for a process that had this endpoint before.
            return True
        mark = self._marks.get(header.message_id[:MAKER_SIZE])
        if mark is None:
            return self._lost_marks
        return header.message_id <= mark

    def _finish_locked(self, record: Record) -> None:
        record.finished_at = self._clock()
        self._finished.append(record)
        self._shrink_locked(record.finished_at)

    def _shrink_locked(self, now: float) -> None:
        finished = self._finished
        before = now - self._ttl
        while finished:
            at = finished[0].finished_at
            if len(finished) <= self._max and at is not None and at > before:
                return
            self._drop_locked(finished.popleft())

    def _drop_locked(self, record: Record) -> None:
        if record.answer is not None:
            # No older record has an answer any more.
            self._drop_answer_locked()
        if self._records.get(record.key) is record:
            del self._records[record.key]
        message_id = record.key[: envelope.ID_SIZE]
        maker = message_id[:MAKER_SIZE]
        self._marks[maker] = max(self._marks.get(maker, b''), message_id)
        self._marks.move_to_end(maker)
        if len(self._marks) > self._max_makers:
            self._marks.popitem(last=False)
            self._lost_marks = True

    def _drop_answer_locked(self) -> None:
        record = self._answered.popleft()
        if record.answer is not None:
            self._bytes -= _size(record.answer)
            record.answer = None


def _key(header: envelope.Header) -> bytes:
    if header.incarnation != envelope.ANY_INCARNATION:
        return header.message_id + header.incarnation
    # Listener pools of one process may share an id and the topic.
    return header.message_id + header.server.encode()


def _size(answer: Answer) -> int:
    return len(answer[0]) + len(answer[1])


def _repeat_locked(
    record: Record, header: envelope.Header, routing_id: bytes
) -> Repeat:
    if record.refused:
        return Repeat(known=True, refused=True)
    if not header.flags & (envelope.WANT_REPLY | envelope.NOTIFICATION):
        return Repeat(known=True)
    if record.finished_at is None:
        resent = header.flags & envelope.RESENT
        # The first one may be overtaken; its connection is lost.
        if resent or not record.resent:
            record.routing_id, record.resent = routing_id, resent
        return Repeat(known=True)
    if header.flags & envelope.NOTIFICATION:
        ack = envelope.encode_ack(header.message_id)
        return Repeat(known=True, answer=(ack, b''))
    if record.answer is None:
        return Repeat(known=True, forgotten=True)
    return Repeat(known=True, answer=record.answer)
