# SPDX-License-Identifier: Apache-2.0
"""The threads of a client process, and what they record."""

import array
import collections
from collections.abc import Sequence
import contextlib
import threading
import time
from typing import Any
from typing import Protocol

from zmq_driver.bench import histogram
from zmq_driver.bench.programs import executions
from zmq_driver.bench.programs import link
from zmq_driver.bench.programs import senders

#: Seconds that a thread may take to be ready, and waits for the start.
READY_TIMEOUT = 30.0
#: What a thread sleeps after an error, so that it does not count them by the
#: hundred thousand.
ERROR_PAUSE = 0.05
#: Numbers of senders that one process has.
SENDERS = 4096
#: Characters of an error that are kept.
_MOST_TEXT = 200


class Sender(Protocol):
    """What sends for all threads.

    Thread: any.
    """

    def opened(
        self, pattern: str, number: int
    ) -> contextlib.AbstractContextManager[senders.Send]:
        """Give what sends on the calling thread."""


class Worker:
    """What one thread does and finds.

    Thread: owner only, once started; anybody after it has ended.
    """

    def __init__(self, number: int) -> None:
        """Send under this number."""
        self.number = number
        #: Seconds of each message that succeeded.
        self.latencies = array.array('d')
        #: How many of them ended within the duration.
        self.in_time = 0
        self.sent = 0
        #: Sequence numbers of those that failed.
        self.failed: list[int] = []
        self.errors: collections.Counter[str] = collections.Counter()
        self.thread: threading.Thread | None = None

    def send_until(
        self, end: float, send: senders.Send, order: 'Order'
    ) -> None:
        """Send one message after the other until *end*."""
        now = time.monotonic
        payloads, run, limit = order.payloads, order.run, order.limit
        base = self.number << executions.SEQUENCE_BITS
        # So that threads do not send the same lengths at the same time.
        offset = self.number * 61
        sequence = 0
        begin = now()
        while begin < end and sequence < limit:
            payload = payloads[(offset + sequence) % len(payloads)]
            try:
                send([run, base + sequence], payload)
            except Exception as error:
                text = f'{type(error).__name__}: {error}'.splitlines()[0]
                self.errors[text[:_MOST_TEXT]] += 1
                self.failed.append(sequence)
                time.sleep(ERROR_PAUSE)
            else:
                finished = now()
                self.latencies.append(finished - begin)
                self.in_time += finished <= end
            sequence += 1
            if order.think:
                time.sleep(order.think)
            begin = now()
        self.sent = sequence


class Order:
    """One run: its parameters, its threads.

    Thread: owner only (the main thread), but for the threads it starts.
    """

    def __init__(
        self, sender: Sender, payloads: Sequence[str], command: link.Command
    ) -> None:
        """Start the threads; return when they wait for the start."""
        self.run: int = command['run']
        self.payloads = payloads
        self.think: float = command['think']
        self.limit: int = command['limit']
        self._pattern: str = command['pattern']
        self._duration: float = command['duration']
        self._sender = sender
        self._go = threading.Event()
        self._end = 0.0
        threads = command['threads']
        self._ready = threading.Barrier(threads + 1)
        first = command['process'] * SENDERS
        self._workers = [Worker(first + number) for number in range(threads)]
        for worker in self._workers:
            worker.thread = threading.Thread(
                target=self._work, args=(worker,), daemon=True
            )
            worker.thread.start()
        self._ready.wait(READY_TIMEOUT)

    def _work(self, worker: Worker) -> None:
        with self._sender.opened(self._pattern, worker.number) as send:
            self._ready.wait(READY_TIMEOUT)
            if self._go.wait(READY_TIMEOUT):
                worker.send_until(self._end, send, self)

    def carry_out(self, patience: float) -> dict[str, Any]:
        """Let the threads go; return what they found.

        :param patience: seconds that they may take beyond the duration
        :raises TimeoutError: one does not end
        """
        cpu = time.process_time()
        begin = time.monotonic()
        self._end = begin + self._duration
        self._go.set()
        for worker in self._workers:
            left = self._end + patience - time.monotonic()
            if worker.thread is not None:
                worker.thread.join(max(left, 0.0))
                if worker.thread.is_alive():
                    raise TimeoutError('a message does not come to an end')
        cpu = time.process_time() - cpu
        return {'begin': begin, **self._result(), 'cpu_used': cpu}

    def _result(self) -> dict[str, Any]:
        found = histogram.Histogram()
        errors: collections.Counter[str] = collections.Counter()
        for worker in self._workers:
            found.add(worker.latencies)
            errors.update(worker.errors)
        return {
            'latencies': found.as_json(),
            'in_time': sum(worker.in_time for worker in self._workers),
            'errors': errors,
            'senders': [
                [worker.number, worker.sent, worker.failed]
                for worker in self._workers
            ],
        }
