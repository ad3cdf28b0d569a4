# SPDX-License-Identifier: Apache-2.0
"""A server or client process, seen from the one that started it."""

import collections
import contextlib
import json
import queue
import subprocess
import sys
import threading
from typing import Any
from typing import IO

from zmq_driver import clock
from zmq_driver.bench import masking
from zmq_driver.bench import plan as plan_

#: Without the warnings that oslo's own modules give when imported.
_PYTHON = (sys.executable, '-W', 'ignore', '-m')
#: Lines of its standard error that are kept.
_MOST_LINES = 50
#: Seconds that a reader takes after the process has ended.
_READ_END = 2.0


class Child:
    """A process that is told what to do, one command at a time.

    It ends when its standard input does, and so when this process does,
    however that ends.

    Thread: owner only, except the threads that read.
    """

    def __init__(self, name: str, module: str, masker: masking.Masker) -> None:
        """Start it.

        :param name: what errors call it
        :param module: its main module
        :param masker: for what it says
        """
        self.name = name
        self._masker = masker
        self._said: collections.deque[str] = collections.deque(
            maxlen=_MOST_LINES
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        # In a session of its own: the terminal's SIGINT is for us alone.
        self._process = subprocess.Popen(
            [*_PYTHON, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors='replace',
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=target, args=(stream,), daemon=True)
            for target, stream in (
                (self._read_answers, self._process.stdout),
                (self._read_errors, self._process.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _read_answers(self, stream: IO[str]) -> None:
        for line in stream:
            self._answers.put(line)
        self._answers.put(None)

    def _read_errors(self, stream: IO[str]) -> None:
        for line in stream:
            if line.strip():
                self._said.append(line.strip())

    def tell(self, do: str, **arguments: Any) -> None:
        """Send a command; :meth:`answer` has what comes of it.

        :raises BenchError: the process is gone
        """
        line = json.dumps({'do': do, **arguments}) + '\n'
        if self._process.stdin is None:
            raise self.error('cannot be told anything')
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            raise self.error('has ended') from None

    def answer(
        self, deadline: clock.Deadline, problem: str = 'does not answer'
    ) -> dict[str, Any]:
        """Return the answer to the oldest command without one.

        :param problem: what it means if there is none in time
        :raises BenchError: there is none in time, or it failed
        """
        try:
            line = self._answers.get(timeout=deadline.left())
        except queue.Empty:
            raise self.error(
                f'{problem} within {deadline.timeout:g} s'
            ) from None
        if line is None:
            self._readers[1].join(_READ_END)
            raise self.error('has ended')
        found: dict[str, Any] = json.loads(line)
        if 'error' in found:
            raise self.error(f'failed: {found["error"]}')
        return found

    def error(self, problem: str) -> plan_.BenchError:
        """Return the error that tells what is wrong with this process."""
        text = f'{self.name} {problem}'
        if self._said:
            text += f'; it said: {self._said[-1]}'
        return plan_.BenchError(self._masker.apply(text))

    def end(self) -> None:
        """Ask it to end; :meth:`reap` waits for it."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def reap(self, deadline: clock.Deadline) -> None:
        """Wait for its end, which comes by force at the deadline."""
        try:
            self._process.wait(deadline.left())
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also when a second SIGINT interrupts the wait.
            self._process.kill()
            self._process.wait(_READ_END)
        for reader in self._readers:
            reader.join(_READ_END)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
