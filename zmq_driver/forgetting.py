# SPDX-License-Identifier: Apache-2.0
"""Has forked children let go of what they inherited, unasked."""

import os
from typing import Protocol
import weakref


class Forgetful(Protocol):
    """What belongs to the process that made it.

    Thread: any.
    """

    def forget(self) -> None:
        """Let go of what a forked child inherited."""


# Only looked through where there is one thread, so it needs no lock.
_of_this_process: 'weakref.WeakSet[Forgetful]' = weakref.WeakSet()


def in_children(one: Forgetful) -> None:
    """Call ``forget()`` of *one* in each child that is forked."""
    _of_this_process.add(one)


def _forget_inherited() -> None:
    for one in tuple(_of_this_process):
        one.forget()
    _of_this_process.clear()


os.register_at_fork(after_in_child=_forget_inherited)
