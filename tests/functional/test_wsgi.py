# SPDX-License-Identifier: Apache-2.0
"""The WSGI example under real web servers, most of which fork."""

from concurrent import futures
import contextlib
import itertools
import signal
import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import waiting
from tests.fixtures import web

#: What is idle for longer notices nothing of it.
HEARTBEATS = '&heartbeat_interval=0.3&heartbeat_timeout=2'
IDLE = 2.5
#: Where heartbeats do not matter, a busy machine does not matter either.
PATIENT = '&heartbeat_interval=5&heartbeat_timeout=30&connect_timeout=30'
#: Seconds that a web server may take, on a machine that is busy.
PATIENCE = 60

THREADED = ('--enable-threads', '--threads', '4')
GTHREAD = ('--worker-class', 'gthread', '--threads', '4')
#: Server, its options, its processes, and how long sockets are kept.
SITES = {
    'uwsgi': (web.uwsgi, ('--enable-threads',), 2, 0),
    'uwsgi with threads': (web.uwsgi, THREADED, 2, 0.5),
    # Between two requests no Python runs there.
    'uwsgi without Python threads': (web.uwsgi, (), 2, 0),
    'gunicorn': (web.gunicorn, (), 2, 0),
    'gunicorn with threads': (web.gunicorn, GTHREAD, 2, 0.5),
    'threads': (web.threaded, (), 1, 0.5),
}


class Backend:
    """What the example talks to: a calculator, and who wants to know."""

    def __init__(self):
        self.events = []
        self._lock = threading.Lock()

    def add(self, ctxt, a, b):
        return {'sum': a + b, 'pid': 0}

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        with self._lock:
            self.events.append((event_type, payload))

    def count(self, event_type='calculator.added'):
        return sum(kind == event_type for kind, _ in self.events)


@pytest.fixture
def backend(conf, url, transport):
    backend = Backend()
    server = oslo_messaging.get_rpc_server(
        transport(f'{PATIENT}&linger=0.1'),
        oslo_messaging.Target(topic='calculator', server='backend'),
        [backend],
        executor='threading',
    )
    notifications = oslo_messaging.get_notification_transport(
        conf, f'{url}{PATIENT}&linger=0.1'
    )
    listener = oslo_messaging.get_notification_listener(
        notifications,
        [oslo_messaging.Target(topic='calculator-events')],
        [backend],
        executor='threading',
    )
    server.start()
    listener.start()
    yield backend
    listener.stop()
    server.stop()
    listener.wait()
    server.wait()
    notifications.cleanup()


@pytest.fixture
def site(url, tmp_path, backend):
    """Give a factory of web servers, killed after the test."""
    started = []

    def start(
        kind,
        *options,
        query=PATIENT,
        application='examples.wsgi_app:application',
    ):
        log = tmp_path / f'{len(started)}.log'
        started.append(
            web.Site(
                kind,
                application,
                options,
                log,
                TRANSPORT_URL=url + query,
            )
        )
        return started[-1].start()

    yield start
    for one in started:
        one.close()


@contextlib.contextmanager
def loaded(site, threads=6):
    load = web.Load(site, threads)
    try:
        yield load
    finally:
        load.stop()
    assert not load.wrong
    assert 'Traceback' not in site.log.read_text()


def wait_for_workers(load, count, after=0):
    """Wait until so many have answered; return how many answers there are."""

    def look():
        answers = len(load.pids)
        return len(set(load.pids[after:])) >= count and answers

    return waiting.until(look, f'answers of {count} workers', PATIENCE)


@pytest.mark.slow
@pytest.mark.spec('LC-23', 'LC-24')
@pytest.mark.parametrize('name', SITES)
def test_every_worker_answers_before_and_after_a_pause(
    site, backend, name, ipc_dir
):
    kind, options, workers, idle_ttl = SITES[name]
    one = site(
        kind,
        *options,
        query=f'{HEARTBEATS}&pool_idle_ttl={idle_ttl}&pool_reap_interval=0.1',
    )
    with loaded(one) as load:
        wait_for_workers(load, workers)
        waiting.until(lambda: len(load.pids) >= 60, '60 answers', PATIENCE)
    time.sleep(IDLE)
    with futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(one.get, range(6), itertools.repeat(1)))
    assert [content.get('sum') for _, content in found] == list(range(1, 7))
    answers = len(load.pids) + len(found)
    # Each told its event once, before it answered.
    waiting.until(lambda: backend.count() >= answers, 'all events', PATIENCE)
    assert backend.count() == answers
    assert 'Traceback' not in one.log.read_text()
    # Clients leave no file; those that are here are ours.
    files = set(ipc_dir.iterdir())
    one.stop()
    assert set(ipc_dir.iterdir()) == files


@pytest.mark.slow
@pytest.mark.spec('LC-25')
@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        (web.uwsgi, ('--enable-threads', '--max-requests', '20')),
        (web.gunicorn, ('--max-requests', '20')),
        (web.gunicorn, (*GTHREAD, '--max-requests', '20')),
    ],
    ids=['uwsgi', 'gunicorn', 'gunicorn with threads'],
)
def test_workers_recycled_under_load(site, ipc_dir, kind, options):
    one = site(kind, *options)
    files = set(ipc_dir.iterdir())
    one.get(1, 1)
    waiting.until(lambda: len(one.children()) == 2, 'workers', PATIENCE)
    before = one.descriptors()
    with loaded(one, 4) as load:
        # Those that reached their limit were replaced.
        answers = wait_for_workers(load, 6)
        one.signal(signal.SIGHUP)
        wait_for_workers(load, 6, after=answers + 40)
    waiting.until(
        lambda: one.descriptors() <= before,
        'as few descriptors as before',
        PATIENCE,
    )
    one.stop()
    assert set(ipc_dir.iterdir()) == files


@pytest.mark.slow
@pytest.mark.spec('LC-23')
@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        (web.uwsgi, ('--enable-threads', '--py-call-uwsgi-fork-hooks')),
        (web.gunicorn, ()),
    ],
    ids=['uwsgi', 'gunicorn'],
)
def test_transports_used_before_the_fork(site, backend, kind, options):
    one = site(
        kind,
        *options,
        '--max-requests',
        '20',
        application='tests.programs.used_wsgi_app:application',
    )
    with loaded(one) as load:
        wait_for_workers(load, 4)
    assert backend.count('calculator.started') == 1
    one.stop()
