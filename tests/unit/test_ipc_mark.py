# SPDX-License-Identifier: Apache-2.0
"""The mark by which processes know that they share an ipc directory."""

import os
import pathlib
import re
import shutil
import stat
import tempfile

import pytest

from zmq_driver import ipc


@pytest.fixture
def path():
    path = pathlib.Path(tempfile.mkdtemp(prefix='zd'))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.spec('MM-67')
def test_it_is_made_once_and_read_by_all(path):
    one = ipc.IpcDirectory(str(path))
    mark = one.mark()
    assert re.fullmatch('[0-9a-f]{32}', mark)
    assert [one.mark(), ipc.IpcDirectory(str(path)).mark()] == [mark] * 2
    assert os.listdir(path) == [ipc.MARK_NAME]
    assert stat.S_IMODE((path / ipc.MARK_NAME).stat().st_mode) == 0o600


@pytest.mark.spec('MM-67')
def test_other_directories_have_others(path):
    marks = set()
    for name in 'abc':
        (path / name).mkdir(0o700)
        marks.add(ipc.IpcDirectory(str(path / name)).mark())
    assert len(marks) == 3


@pytest.mark.spec('MM-67')
def test_many_processes_make_it_at_once(path):
    """They all read the one that won, whole."""
    for round_ in range(20):
        place = path / str(round_)
        place.mkdir(0o700)
        read, write = os.pipe()
        go, start = os.pipe()
        children = []
        for _ in range(8):
            pid = os.fork()
            if not pid:
                os.close(start)
                os.read(go, 1)  # returns when the parent closes its end
                try:
                    told = ipc.IpcDirectory(str(place)).mark()
                except BaseException as exc:
                    told = repr(exc)
                os.write(write, told.encode() + b'\n')
                os._exit(0)
            children.append(pid)
        for end in (start, go, write):
            os.close(end)
        with os.fdopen(read) as pipe:
            found = pipe.read().splitlines()
        for pid in children:
            os.waitpid(pid, 0)
        assert len(found) == 8
        assert set(found) == {ipc.IpcDirectory(str(place)).mark()}
        assert os.listdir(place) == [ipc.MARK_NAME]


@pytest.mark.spec('MM-67')
@pytest.mark.parametrize('content', [b'', b'nonsense', b'0' * 32, b'g' * 33])
def test_a_damaged_one_is_refused(path, content):
    (path / ipc.MARK_NAME).write_bytes(content)
    with pytest.raises(ipc.IpcDirectoryError, match='is damaged: remove it'):
        ipc.IpcDirectory(str(path)).mark()


@pytest.mark.spec('MM-67')
@pytest.mark.parametrize('kind', ['directory', 'link'])
def test_what_is_no_file_is_refused(path, kind):
    mark = path / ipc.MARK_NAME
    if kind == 'directory':
        mark.mkdir()
    else:
        mark.symlink_to('/etc/passwd')
    with pytest.raises(ipc.IpcDirectoryError, match=str(path)):
        ipc.IpcDirectory(str(path)).mark()


@pytest.mark.spec('MM-67')
@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give files away')
def test_a_group_shares_it(path):
    os.chown(path, 0, 2010)
    path.chmod(0o770)
    ipc.IpcDirectory(str(path)).mark()
    found = (path / ipc.MARK_NAME).stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (2010, 0o660)
