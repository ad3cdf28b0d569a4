# SPDX-License-Identifier: Apache-2.0
"""The threads of the driver."""

import threading

import pytest

from zmq_driver import clock
from zmq_driver import threads

HANG = 30


@pytest.mark.spec('LC-06')
def test_thread_is_a_daemon_with_a_name_that_tells():
    seen = []
    one = threads.ServiceThread(
        'router', 'd1', lambda: seen.append(threading.current_thread())
    )
    assert one.name == 'zmq-router-d1'
    assert not one.is_alive()
    one.start()
    assert one.join(HANG)
    assert seen[0].daemon
    assert seen[0].name == 'zmq-router-d1'
    assert not one.is_alive()


def test_join_tells_whether_it_ended():
    go = threading.Event()
    one = threads.ServiceThread('term', 'd1', lambda: go.wait(HANG))
    one.start()
    assert not one.join(0.0)
    assert one.is_alive()
    assert not one.is_current()
    go.set()
    assert one.join(HANG)


@pytest.mark.spec('LC-06')
def test_join_waits_for_the_start_too():
    go = threading.Event()
    one = threads.ServiceThread('term', 'd1', lambda: go.wait(HANG))
    assert not one.join(0.0)
    starter = threading.Timer(0.05, one.start)
    starter.start()
    go.set()
    assert one.join(HANG)
    starter.join(HANG)


def test_thread_that_cannot_be_started_has_ended(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', refuse)
    one = threads.ServiceThread('term', 'd1', lambda: None)
    with pytest.raises(RuntimeError):
        one.start()
    assert one.join(HANG)


def test_thread_does_not_wait_for_itself():
    found = []

    def run():
        found.append((one.is_current(), one.join(HANG)))

    one = threads.ServiceThread('term', 'd1', run)
    one.start()
    assert one.join(HANG)
    assert found == [(True, False)]


def test_error_of_the_loop_is_logged(caplog):
    one = threads.ServiceThread('term', 'd1', lambda: 1 / 0)
    one.start()
    assert one.join(HANG)
    assert 'zmq-term-d1 ended by an unexpected error' in caplog.text
    assert 'ZeroDivisionError' in caplog.text


def test_unknown_role():
    with pytest.raises(ValueError, match='nonsense'):
        threads.ServiceThread('nonsense', 'd1', lambda: None)


def test_lazy_thread_starts_once():
    go = threading.Event()
    runs = []

    def run():
        runs.append(threading.current_thread().name)
        go.wait(HANG)

    one = threads.LazyThread('watch', 'd1')
    assert not one.is_alive()
    starters = [
        threading.Thread(target=one.start, args=(run,)) for _ in range(8)
    ]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(HANG)
    one.start(run)
    assert one.is_alive()
    assert not one.end(clock.Deadline(0))
    go.set()
    assert one.end(clock.Deadline(HANG))
    assert not one.is_alive()
    assert runs == ['zmq-watch-d1']


def test_lazy_thread_that_has_to_end_does_not_start():
    one = threads.LazyThread('watch', 'd1')
    assert one.end(clock.Deadline(0))
    one.start(lambda: None)
    assert one._thread is None
    assert not one.is_alive()
