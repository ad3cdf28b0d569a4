# SPDX-License-Identifier: Apache-2.0
"""How far the benchmark is, for somebody who watches."""

import importlib.util
import types
from typing import Any
from typing import TextIO


class Progress:
    """A bar on a terminal; nothing elsewhere.

    tqdm draws it, where it is installed; else there is a counter. Use it in a
    ``with`` block.

    Thread: owner only.
    """

    def __init__(self, total: int, stream: TextIO) -> None:
        """Show nothing yet.

        :param total: how many steps there are
        :param stream: where to show it, if that is a terminal
        """
        self._total = total
        self._stream = stream
        self._done = 0
        self._bar: Any = None

    def __enter__(self) -> 'Progress':
        if self._stream.isatty() and importlib.util.find_spec('tqdm'):
            import tqdm

            self._bar = tqdm.tqdm(
                total=self._total, file=self._stream, leave=False
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._stream.isatty():
            self._write('')

    def show(self, text: str) -> None:
        """Say what is being done."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._stream.isatty():
            self._write(f'{self._done}/{self._total} {text}')

    def step(self) -> None:
        """Count a step as done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()

    def _write(self, text: str) -> None:
        """Replace the line."""
        self._stream.write(f'\r\x1b[K{text}')
        self._stream.flush()
