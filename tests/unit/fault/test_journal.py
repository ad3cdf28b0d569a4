# SPDX-License-Identifier: Apache-2.0
"""What was written down is read, whatever became of its writer."""

import subprocess
import sys

import pytest

from tests.fault import journal

WRITER = """
import os, signal, sys
from tests.fault import journal
one = journal.Journal(sys.argv[1])
for n in range(100):
    one.write(id=n)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.spec('FL-08')
def test_sigkill_loses_no_record(tmp_path):
    path = tmp_path / 'journal'
    subprocess.run([sys.executable, '-c', WRITER, path], timeout=30)
    assert journal.Reader(path).read() == [{'id': n} for n in range(100)]


def test_only_whole_and_new_lines_are_read(tmp_path):
    path = tmp_path / 'journal'
    reader = journal.Reader(path)
    assert reader.read() == []
    path.write_text('{"id":1}\n{"id"')
    assert reader.read() == [{'id': 1}]
    assert reader.read() == []
    path.write_text('{"id":1}\n{"id":2}\n')
    assert reader.read() == [{'id': 2}]


@pytest.fixture
def written(tmp_path):
    path = tmp_path / 'told'
    one = journal.Journal(path)
    yield path, one
    one.close()


def test_beginning_and_end_are_put_together(written):
    path, one = written
    reader = journal.ToldReader([path])
    one.write(id='1', pattern='call', begin=1.0, deadline=10.0)
    one.write(id='2', pattern='cast', begin=1.5, deadline=10.0)
    assert reader.read() == []
    one.write(id='1', end=2.0, outcome='ok', may_have_run=None, text='')
    assert reader.read() == [
        journal.Told('1', 'call', 1.0, 10.0, 2.0, 'ok', None, '')
    ]
    assert reader.hanging() == [journal.Told('2', 'cast', 1.5, 10.0)]
    assert reader.hanging() == []
