# SPDX-License-Identifier: Apache-2.0
"""The processes of one peer, and how they are measured."""

from collections.abc import Iterable
from collections.abc import Sequence
import os
import time
from typing import Any
import uuid

from zmq_driver import clock
from zmq_driver.bench import child
from zmq_driver.bench import histogram
from zmq_driver.bench import ledger
from zmq_driver.bench import masking
from zmq_driver.bench import plan as plan_
from zmq_driver.bench import results
from zmq_driver.bench.programs import executions

_SERVER = 'zmq_driver.bench.programs.server'
_CLIENT = 'zmq_driver.bench.programs.client'

#: Seconds that all processes of a peer may take to end.
STOP_TIMEOUT = 5.0
#: Seconds that a process may take for what it should do at once.
ANSWER_TIMEOUT = 30.0
#: Seconds between two questions what servers have run.
_POLL = 0.02
#: Seconds that nothing may come before the next trial message is sent.
_TRIAL = 1.0


class Site:
    """Servers and clients of a peer.

    Thread: owner only (the main thread).
    """

    def __init__(
        self,
        plan: plan_.Plan,
        peer: plan_.Peer,
        directory: str,
        masker: masking.Masker,
    ) -> None:
        """Start the processes; :meth:`wait_ready` waits for them.

        :param directory: for what our driver keeps on disk
        """
        self._plan = plan
        self._peer = peer
        self._run = 0
        self._servers: list[child.Child] = []
        self._clients: list[child.Child] = []
        name = f'zmq-driver-bench-{uuid.uuid4().hex[:8]}'
        where = {
            'kind': peer.kind,
            'url': peer.url,
            'topic': name,
            'directory': directory,
            'parent': os.getpid(),
            'servers': plan.servers,
            'patterns': plan.patterns_of(peer),
            'config_files': list(plan.config_files),
            'timeout': plan.timeout,
            'payload': plan.payload,
            'seed': plan.seed,
        }
        self._where = where
        try:
            for number in range(plan.servers):
                name = f'server {number} of {peer.shown}'
                self._servers.append(child.Child(name, _SERVER, masker))
            for number in range(plan.processes):
                name = f'client {number} of {peer.shown}'
                self._clients.append(child.Child(name, _CLIENT, masker))
        except BaseException:
            self.end()
            self.reap()
            raise

    def wait_ready(self) -> None:
        """Wait until messages of every pattern arrive.

        :raises BenchError: they do not, in time
        """
        deadline = clock.Deadline(self._plan.start_timeout)
        for group in (self._servers, self._clients):
            for number, process in enumerate(group):
                process.tell('start', **self._where, number=number)
            for process in group:
                process.answer(deadline, 'is not ready')
        for pattern in self._plan.patterns_of(self._peer):
            self._try(pattern, deadline)

    def _try(self, pattern: plan_.Pattern, deadline: clock.Deadline) -> None:
        """Send one message after the other until one has arrived."""
        failure = ''
        while not deadline.passed():
            cell = plan_.Cell(pattern, 1)
            found = self._carry_out(
                cell, deadline.left(), limit=1, drain=_TRIAL, deadline=deadline
            )
            if not found.errors and not found.lost:
                return
            failure = next(iter(found.errors), failure)
            time.sleep(_POLL)
        text = (
            f'{self._peer.shown}: no {pattern} arrived within '
            f'{deadline.timeout:g} s'
        )
        raise plan_.BenchError(f'{text}: {failure}' if failure else text)

    def measure(self, step: plan_.Step) -> results.Measurement:
        """Warm up, and measure a cell.

        :raises BenchError: a process does not do what it should
        """
        if self._plan.warmup:
            self._carry_out(step.cell, self._plan.warmup)
        return self._carry_out(
            step.cell, self._plan.duration, number=step.round
        )

    def _carry_out(
        self,
        cell: plan_.Cell,
        duration: float,
        *,
        limit: int = 1 << 62,
        drain: float | None = None,
        number: int = 0,
        deadline: clock.Deadline | None = None,
    ) -> results.Measurement:
        """Send for *duration* seconds, and wait for what servers run.

        :param limit: the most messages of each thread
        :param drain: seconds to wait; None: as planned
        :param number: of the round
        :param deadline: for the clients; None: what they need at most
        """
        self._run += 1
        before = _ask(self._servers, _soon(), 'begin', run=self._run)
        order = {
            'run': self._run,
            'pattern': cell.pattern,
            'threads': cell.threads,
            'duration': duration,
            'think': self._plan.think,
            'limit': limit,
        }
        _ask(self._clients, _soon(), 'prepare', **order)
        # The longest that one message and one pause after it can take.
        rest = self._plan.timeout + self._plan.think + ANSWER_TIMEOUT
        deadline = deadline or clock.Deadline(duration + 2 * rest)
        found = _ask(self._clients, deadline, 'go', patience=rest)
        last = self._drain(cell, found, drain)
        after = _ask(self._servers, _soon(), 'end', run=self._run)
        return self._measurement(
            cell, duration, number, before, found, last, after
        )

    def _drain(
        self,
        cell: plan_.Cell,
        found: list[dict[str, Any]],
        timeout: float | None,
    ) -> float:
        """Wait until servers have run what was sent.

        :returns: when the last one was run, of the monotonic clock
        """
        deadline = clock.Deadline(
            self._plan.drain if timeout is None else timeout
        )
        due = ledger.expected(ledger.merge_senders(found))
        if cell.pattern is plan_.Pattern.FANOUT:
            due *= self._plan.servers
        while True:
            counts = _ask(self._servers, _soon(), 'count', run=self._run)
            ran = sum(one['count'] for one in counts)
            if ran >= due or deadline.passed() or not self._records:
                return float(max(one['last'] for one in counts))
            time.sleep(_POLL)

    @property
    def _records(self) -> bool:
        """Whether servers know what they ran."""
        return self._peer.kind is not plan_.Kind.RAW

    def _measurement(
        self,
        cell: plan_.Cell,
        duration: float,
        number: int,
        before: list[dict[str, Any]],
        found: list[dict[str, Any]],
        last: float,
        after: list[dict[str, Any]],
    ) -> results.Measurement:
        latencies = histogram.Histogram()
        errors: dict[str, int] = {}
        for one in found:
            latencies.merge(histogram.Histogram.from_json(one['latencies']))
            for text, count in one['errors'].items():
                errors[text] = errors.get(text, 0) + count
        kept = None
        if self._records:
            kept = ledger.account(
                ledger.merge_senders(found),
                [executions.unpack(one['numbers']) for one in after],
                fanout=cell.pattern is plan_.Pattern.FANOUT,
            )
        if cell.pattern is plan_.Pattern.CALL or kept is None:
            messages = latencies.count
            rate = sum(one['in_time'] for one in found) / duration
        else:
            messages = kept.delivered
            begin = min(one['begin'] for one in found)
            # Servers that have run all before the end waited for senders.
            rate = messages / max(last - begin, duration)
        return results.Measurement(
            round=number,
            rate=rate,
            latencies=latencies,
            errors=errors,
            messages=messages,
            lost=kept.lost if kept else None,
            duplicated=kept.duplicated if kept else None,
            client=_usage(found, sum(one['cpu_used'] for one in found)),
            server=_usage(after, _cpu(after) - _cpu(before)),
        )

    def end(self) -> None:
        """Ask all processes to end."""
        for process in (*self._clients, *self._servers):
            process.end()

    def reap(self) -> None:
        """Wait for the end of all processes, which comes in time."""
        deadline = clock.Deadline(STOP_TIMEOUT)
        for process in (*self._clients, *self._servers):
            process.reap(deadline)


def _soon() -> clock.Deadline:
    """Return the deadline for what should be done at once."""
    return clock.Deadline(ANSWER_TIMEOUT)


def _ask(
    processes: Sequence[child.Child],
    deadline: clock.Deadline,
    do: str,
    **arguments: Any,
) -> list[dict[str, Any]]:
    """Have all processes do something at once; return their answers."""
    for process in processes:
        process.tell(do, **arguments)
    return [process.answer(deadline) for process in processes]


def _cpu(samples: Iterable[dict[str, Any]]) -> float:
    return float(sum(one['cpu'] for one in samples))


def _usage(samples: list[dict[str, Any]], cpu: float) -> results.Usage:
    return results.Usage(
        cpu,
        *(
            sum(one[name] for one in samples)
            for name in ('memory', 'descriptors', 'threads')
        ),
    )
