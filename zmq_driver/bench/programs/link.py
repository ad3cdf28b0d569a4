# SPDX-License-Identifier: Apache-2.0
"""How a process of the benchmark talks with the one that started it.

Lines of JSON: commands on the standard input, one answer to each on the
standard output. When the input ends, so does the process.
"""

from collections.abc import Callable
import io
import json
import logging
import os
import pathlib
import queue
import resource
import sys
import threading
import time
from typing import Any

#: Seconds that a process has to end by itself once its input has ended.
GRACE = 5.0
#: Seconds between two looks whether a command has come.
_SLICE = 5.0

Command = dict[str, Any]
Handler = Callable[[Command], dict[str, Any]]


class Link:
    """The two pipes of this process.

    Thread: owner only (the main thread), except the one that reads.
    """

    def __init__(self) -> None:
        """Take over the standard input and output."""
        # What a library prints must not be taken for an answer.
        self._output = os.fdopen(os.dup(1), 'w')
        os.dup2(2, 1)
        self._commands: queue.Queue[Command | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def serve(self, handlers: dict[str, Handler]) -> None:
        """Run commands until the input ends.

        :param handlers: what to do for each command; returns the answer
        """
        while (command := self._next()) is not None:
            try:
                answer = handlers[command['do']](command)
            except Exception as error:
                answer = {'error': f'{type(error).__name__}: {error}'}
            try:
                self._output.write(json.dumps(answer) + '\n')
                self._output.flush()
            except BrokenPipeError:
                return

    def _next(self) -> Command | None:
        while True:
            try:
                return self._commands.get(timeout=_SLICE)
            except queue.Empty:
                continue

    def _read(self) -> None:
        for line in io.TextIOWrapper(io.FileIO(0, closefd=False)):
            self._commands.put(json.loads(line))
        self._commands.put(None)
        # Whatever hangs (a broker that is gone, a lock) does not keep us.
        time.sleep(GRACE)
        os._exit(1)


def begin() -> Link:
    """Prepare this process; return its link."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format='%(message)s'
    )
    return Link()


def sample(command: Command) -> dict[str, Any]:
    """Return what this process uses: CPU seconds, bytes, counts."""
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return {
        'cpu': time.process_time(),
        'memory': pages * resource.getpagesize(),
        # Without the one that the directory is read by.
        'descriptors': _entries('/proc/self/fd') - 1,
        'threads': _entries('/proc/self/task'),
    }


def _entries(directory: str) -> int:
    return sum(1 for _ in pathlib.Path(directory).iterdir())
