# SPDX-License-Identifier: Apache-2.0
"""How long the machine kept a thread that wanted to run from running."""

import threading
import time

#: Seconds between two beats.
BEAT = 0.02


class Pulse:
    """Beats on a thread of its own while it is entered.

    Thread: owner only.
    """

    def __init__(self, clock=time.monotonic):
        #: The most seconds that a beat was late.
        self.latest = 0.0
        self._clock = clock
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._end.set()
        self._thread.join(10)

    def _run(self):
        due = self._clock() + BEAT
        while not self._end.wait(max(0.0, due - self._clock())):
            now = self._clock()
            self.latest = max(self.latest, now - due)
            due = now + BEAT
