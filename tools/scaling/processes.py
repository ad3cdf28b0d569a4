# SPDX-License-Identifier: Apache-2.0
"""Processes to measure: forked, told what to do and asked in JSON."""

import json
import os
import pathlib
import select
import signal
import sys
import threading
import traceback

#: Seconds after which something hangs.
PATIENCE = 120.0


class Process:
    """A forked child that answers lines of JSON, and ends with its parent."""

    def __init__(self, work, *arguments):
        """Call ``work(ask, *arguments)`` in a child.

        The child's ``ask(answer)`` tells the answer, and waits for the next
        line that the parent sends, which it returns.
        """
        here, self._tell = os.pipe()
        answers, there = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._tell)
            os.close(answers)
            try:
                _run(here, there, work, arguments)
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os.close(here)
        os.close(there)
        self._answers = os.fdopen(answers)

    def answer(self):
        """Return the next thing that the child tells."""
        ready, _, _ = select.select([self._answers], [], [], PATIENCE)
        line = self._answers.readline() if ready else ''
        assert line, 'a process has ended, or hangs'
        return json.loads(line)

    def ask(self, what):
        """Send something, and return the answer."""
        os.write(self._tell, json.dumps(what).encode() + b'\n')
        return self.answer()

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._tell)
        self._answers.close()


def _run(here, there, work, arguments):
    asked = os.fdopen(here)
    told = os.fdopen(there, 'w', buffering=1)

    def ask(answer):
        told.write(json.dumps(answer) + '\n')
        line = asked.readline()
        if not line:
            os._exit(0)
        return json.loads(line)

    threading.excepthook = _end_badly
    work(ask, *arguments)


def _end_badly(args):
    print(f'{args.thread}: {args.exc_value!r}', file=sys.stderr)
    os._exit(1)


def memory(pid='self'):
    """Return the resident memory of a process, in KiB."""
    text = pathlib.Path(f'/proc/{pid}/status').read_text()
    line = next(at for at in text.splitlines() if at.startswith('VmRSS:'))
    return int(line.split()[1])


def descriptors(pid='self'):
    """Return how many descriptors a process has open."""
    return len(list(pathlib.Path(f'/proc/{pid}/fd').iterdir()))


def cpu(pid):
    """Return the seconds of processor time that a process has used."""
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    ticks = stat.rpartition(')')[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf('SC_CLK_TCK')
