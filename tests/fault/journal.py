# SPDX-License-Identifier: Apache-2.0
"""Files of JSON lines that outlive the process that writes them."""

import dataclasses
import json
import os


class Journal:
    """Appends whole lines by one system call each: SIGKILL loses none.

    Thread: any.
    """

    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, **record):
        line = json.dumps(record, separators=(',', ':')).encode() + b'\n'
        written = os.write(self._fd, line)
        assert written == len(line), 'the disk of the journals is full'

    def close(self):
        os.close(self._fd)


class Reader:
    """Reads what was appended since the last time.

    Thread: owner only.
    """

    def __init__(self, path):
        self._path = path
        self._offset = 0

    def read(self):
        try:
            with open(self._path, 'rb') as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b'\n') + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


@dataclasses.dataclass
class Told:
    """One operation, and what its caller was told.

    Times are those of the host's monotonic clock, in seconds.
    """

    id: str
    pattern: str
    begin: float
    #: Seconds that the operation may take.
    deadline: float
    end: float | None = None
    #: 'ok', or the name of the error's class; None: it has not ended.
    outcome: str | None = None
    may_have_run: bool | None = None
    text: str = ''


@dataclasses.dataclass(frozen=True)
class Ran:
    """One execution."""

    id: str
    server: str
    pid: int
    at: float


@dataclasses.dataclass
class Life:
    """One process of a server: from when until when it was registered.

    ``killed_at`` is the time of a SIGKILL, if it got one.
    """

    server: str
    pid: int
    since: float
    until: float | None = None
    killed_at: float | None = None


class ToldReader:
    """Puts the two records of each operation together.

    Thread: owner only.
    """

    def __init__(self, paths):
        self._readers = [Reader(path) for path in paths]
        self._open = {}

    def read(self):
        """Return what has ended since the last time."""
        ended = []
        for reader in self._readers:
            for record in reader.read():
                if 'begin' in record:
                    told = Told(**record)
                    self._open[told.id] = told
                else:
                    told = self._open.pop(record.pop('id'))
                    ended.append(dataclasses.replace(told, **record))
        return ended

    def hanging(self):
        """Return what has begun and not ended, once."""
        found = list(self._open.values())
        self._open = {}
        return found
