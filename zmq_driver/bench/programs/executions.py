# SPDX-License-Identifier: Apache-2.0
"""What a server ran."""

import array
import base64
import time
from typing import Any
import zlib

#: Bits of a message id that count the messages of its sender.
SEQUENCE_BITS = 32


class Executions:
    """The ids of the messages that this process ran, by run.

    Thread: any; what executor workers do is one atomic append.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._runs: dict[int, array.array[int]] = {}
        self._last = 0.0

    def begin(self, run: int) -> None:
        """Forget earlier runs; count a new one."""
        self._runs = {run: array.array('Q')}

    def add(self, message: list[int]) -> None:
        """Record a message, by its run and its number."""
        run, number = message
        found = self._runs.get(run)
        if found is not None:
            found.append(number)
            self._last = time.monotonic()

    def count(self, run: int) -> dict[str, Any]:
        """Return how many there were, and when the last one was."""
        return {'count': len(self._runs[run]), 'last': self._last}

    def collect(self, run: int) -> dict[str, Any]:
        """Return the numbers of all, for :func:`unpack`."""
        packed = zlib.compress(self._runs[run].tobytes(), 1)
        return {'numbers': base64.b64encode(packed).decode()}


def unpack(text: str) -> 'array.array[int]':
    """Return the numbers that :meth:`Executions.collect` packed."""
    found = array.array('Q')
    found.frombytes(zlib.decompress(base64.b64decode(text)))
    return found
