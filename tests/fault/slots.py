# SPDX-License-Identifier: Apache-2.0
"""Places for processes that come and go."""

import dataclasses

from tests.fixtures import process


@dataclasses.dataclass
class Slot:
    """A place for one process after the other.

    Thread: owner only.
    """

    name: str
    pool: str | None = None
    program: process.Program | None = None
    #: The process' name: each has its own.
    life: str = ''
    #: Until when it must have ended, since it was told to.
    until: float | None = None
    down: bool = False

    @property
    def running(self):
        return self.program is not None and self.until is None

    @property
    def ready(self):
        return self.running and bool(self.program.all('ready'))
