# SPDX-License-Identifier: Apache-2.0
"""The figures of this process, on request, while it runs.

A service that uses oslo.reports finds them in its Guru Meditation Report
(``kill -USR2``), with nothing to configure. Any other program calls
:func:`log_on_signal` once.
"""

import _thread
from collections.abc import Callable
import logging
import signal
import sys
import types
from typing import Any

from zmq_driver import statistics

LOG = logging.getLogger(__name__)

#: Of the section in a Guru Meditation Report.
TITLE = 'ZeroMQ driver'

#: Seconds that a report waits for the figures. The thread that a signal has
#: interrupted may hold the lock of the pool, and goes on only afterwards.
PATIENCE = 1.0

_REPORTS = 'oslo_reports.guru_meditation_report'

#: The report classes that have our section.
_with_section: set[type] = set()


def text() -> str:
    """Return the figures of every driver of this process, a line each.

    It takes locks, so a signal handler may not call it.
    """
    lines = [str(stats) for stats in statistics.snapshots()]
    return '\n'.join(lines) or 'no driver is in use'


def text_within(timeout: float) -> str:
    """Return what :func:`text` does, from any place, a signal handler too.

    :param timeout: seconds after which it says that it could not find out
    """
    found: list[str] = []
    # Not of threading, whose own locks the interrupted thread may hold.
    done = _thread.allocate_lock()
    done.acquire()

    def read() -> None:
        try:
            found.append(text())
        except Exception as error:
            found.append(f'the figures cannot be read: {error}')
        finally:
            done.release()

    _thread.start_new_thread(read, ())
    done.acquire(timeout=timeout)
    return found[0] if found else 'busy; ask again'


def add_section() -> bool:
    """Add a section to Guru Meditation Reports, if the process makes them.

    oslo.reports is not imported: who uses it has imported it.

    :returns: whether there is such a section now
    """
    module = sys.modules.get(_REPORTS)
    report: Any = getattr(module, 'TextGuruMeditation', None)
    if report is None:
        return False
    if report not in _with_section:
        _with_section.add(report)
        report.register_section(TITLE, lambda: text_within(PATIENCE))
    return True


def log_on_signal(
    signum: int = signal.SIGUSR2,
) -> Callable[[int, types.FrameType | None], Any] | int | None:
    """Log the figures of this process, at INFO, whenever *signum* arrives.

    It replaces the handler of the signal, and must be called by the main
    thread, as :func:`signal.signal` must.

    :returns: the handler before, as of :func:`signal.signal`
    :raises ValueError: it was not called by the main thread
    """
    return signal.signal(signum, _log_soon)


def _log_soon(signum: int, frame: types.FrameType | None) -> None:
    # The interrupted thread may hold any lock, of logging too.
    _thread.start_new_thread(_log_now, ())


def _log_now() -> None:
    for line in text().splitlines():
        LOG.info('statistics of %s', line)
