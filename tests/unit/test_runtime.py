# SPDX-License-Identifier: Apache-2.0
"""What a driver has in one process, without another one."""

import errno
import gc
import logging
import os
import socket as posix
import threading

from oslo_config import cfg
import oslo_messaging
import pytest

from tests.fixtures import ports
from tests.fixtures import waiting
from tests.unit.server import fakes
from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import inherited
from zmq_driver import ipc
from zmq_driver import options
from zmq_driver import pool
from zmq_driver import runtime
from zmq_driver import socket_options
from zmq_driver import statistics
from zmq_driver.client import drain
from zmq_driver.matchmaker import local
from zmq_driver.matchmaker import sweep
from zmq_driver.store import sqlite
from zmq_driver.store.redis import lease
from zmq_driver.store.redis import store as redis_store

WHERE = address.Address(address.Scope.RPC, 'exchange', 'topic')
EVENTS = address.Address(address.Scope.NOTIFICATION, 'exchange', 'topic.info')


@pytest.fixture
def make(directory):
    """Give a factory of runtimes, closed after the test."""
    made = []

    def make(query='linger=0', path=directory):
        conf = cfg.ConfigOpts()
        conf([], project='zmq-driver-tests')
        url = oslo_messaging.TransportURL.parse(
            conf, f'zmq:///?rpc_zmq_ipc_dir={path}&{query}'
        )
        made.append(runtime.Runtime(options.load(conf, url), 'local', '', []))
        return made[-1]

    yield make
    for one in made:
        one.close(clock.Deadline(5))


@pytest.mark.spec('LC-05')
def test_router_comes_with_the_first_listener_and_goes_at_the_end(
    make, directory
):
    one = make()
    assert not list(directory.iterdir())
    one.listen(WHERE, 'one')
    one.listen(WHERE, 'two')
    routers = [
        thread
        for thread in threading.enumerate()
        if thread.name == f'zmq-router-{one.member}'
    ]
    assert len(routers) == 1
    assert (directory / f'{one.member}.ipc').exists()
    one.close(clock.Deadline(5))
    assert not routers[0].is_alive()
    assert not list(directory.iterdir())


@pytest.mark.spec('LI-01')
def test_only_a_matchmaker_that_spans_hosts_makes_it_listen_on_tcp(
    make, monkeypatch
):
    port = ports.free()
    query = f'linger=0&rpc_zmq_bind_address=127.0.0.1&rpc_zmq_port={port}'
    one = make(query)
    one.listen(WHERE, 'one')
    assert one.reception.router.tcp_endpoint == ''
    with posix.socket() as probe:
        assert probe.connect_ex(('127.0.0.1', port)) == errno.ECONNREFUSED
    monkeypatch.setattr(local.LocalMatchmaker, 'spans_hosts', True)
    other = make(query)
    other.listen(WHERE, 'two')
    assert other.reception.router.tcp_endpoint == f'tcp://127.0.0.1:{port}'
    for endpoint in (
        other.reception.router.endpoint,
        other.reception.router.tcp_endpoint,
    ):
        lease = other.pool.checkout(endpoint, clock.Deadline(5))
        assert lease.socket.wait_connected(5)
        lease.release()


@pytest.mark.spec('LI-07')
@pytest.mark.spec('LC-05')
def test_listening_that_fails_leaves_nothing(make, monkeypatch, directory):
    monkeypatch.setattr(local.LocalMatchmaker, 'spans_hosts', True)
    one = make('linger=0&rpc_zmq_bind_address=nonsense0')
    for _ in range(2):
        with pytest.raises(errors.ListenFailure, match='nonsense0'):
            one.listen(WHERE, 'one')
    assert one.reception.router is None
    one.close(clock.Deadline(5))
    assert not list(directory.iterdir())


@pytest.mark.spec('LI-16')
def test_endpoints_of_killed_processes_are_removed(
    make, monkeypatch, directory
):
    monkeypatch.setattr(local.LocalMatchmaker, 'spans_hosts', True)
    monkeypatch.setattr(sweep, 'ORPHAN_AGE', -1.0)
    query = f'linger=0&rpc_zmq_bind_address=lo&rpc_zmq_port={ports.free(3)}'
    make(query).listen(WHERE, 'alive')
    dead = directory / f'{"0" * 16}.ipc'
    with posix.socket(posix.AF_UNIX) as one:
        one.bind(str(dead))
        one.listen(1)
        # Not while somebody listens there.
        make(query).listen(WHERE, 'other')
        assert dead.exists()
    make(query).listen(WHERE, 'third')
    assert not dead.exists()
    assert len(list(directory.glob('*.ipc'))) == 3


@pytest.mark.spec('LC-07')
def test_closed_runtime_takes_no_listener(make):
    one = make()
    one.close(clock.Deadline(5))
    with pytest.raises(errors.DriverClosed):
        one.listen(WHERE, 'one')
    with pytest.raises(errors.DriverClosed):
        one.listen_for_notifications([EVENTS], '')
    with pytest.raises(errors.DriverClosed):
        one._sleep(30)


@pytest.mark.spec('NS-56')
def test_close_waits_for_whoever_takes_over(make):
    one = make()
    one.listen_for_notifications([EVENTS], 'pool')
    one._store.takeover = 30.0
    unheard = one.reception.router.unheard
    unheard.lost(envelope.encode_ack(bytes(16)))
    closing = threading.Thread(target=one.close, args=[clock.Deadline(20)])
    closing.start()
    closing.join(0.3)
    assert closing.is_alive()
    unheard.asked(bytes(16))
    closing.join(10)
    assert not closing.is_alive()


@pytest.mark.spec('NS-56')
def test_redis_store_is_taken_over_when_a_lease_has_ended():
    assert redis_store.RedisStore.takeover > lease.TTL + drain.LOOK_INTERVAL
    assert sqlite.SqliteStore.takeover > 2.0


@pytest.mark.spec('PL-39')
def test_pool_is_as_configured_and_has_a_reaper_until_the_end(make):
    one = make(
        'linger=0&pool_max_size=9&pool_max_per_peer=5&pool_max_waiters=7'
        '&pool_idle_ttl=1.5&pool_max_age=60&pool_min_idle=2&pool_leak_after=3'
    )
    assert one.pool.options == pool.PoolOptions(
        max_size=9,
        max_per_peer=5,
        max_waiters=7,
        idle_ttl=1.5,
        max_age=60.0,
        min_idle=2,
        leak_after=3.0,
    )
    one.listen(WHERE, 'one')
    name = f'zmq-reaper-{one.member}'
    assert name not in {thread.name for thread in threading.enumerate()}
    one.pool.checkout(
        one.reception.router.endpoint, clock.Deadline(5)
    ).release()
    assert name in {thread.name for thread in threading.enumerate()}
    one.close(clock.Deadline(5))
    assert name not in {thread.name for thread in threading.enumerate()}


def test_sockets_are_as_configured(make):
    one = make(
        'linger=0&tcp_keepalive=on&tcp_keepalive_idle=9'
        '&tcp_keepalive_count=3&tcp_keepalive_interval=2'
    )
    assert one._socket_options.keepalive == socket_options.Keepalive(
        on=True, idle=9, count=3, interval=2
    )


@pytest.mark.spec('LC-05')
def test_lease_that_does_not_come_back_is_named(make, caplog):
    one = make()
    one.listen(WHERE, 'one')
    endpoint = one.reception.router.endpoint
    lease = one.pool.checkout(endpoint, clock.Deadline(5))
    one.close(clock.Deadline(0.01))
    assert f'{endpoint}' in caplog.text
    assert 'cleanup does not wait any longer' in caplog.text
    lease.release()


@pytest.mark.spec('LC-05')
def test_router_that_does_not_end_is_named(make, caplog, monkeypatch):
    one = make()
    one.listen(WHERE, 'one')
    join = one.reception.router.join

    def slow(deadline):
        join(clock.Deadline(5))
        return False

    monkeypatch.setattr(one.reception.router, 'join', slow)
    one.close(clock.Deadline(5))
    assert 'did not end in time' in caplog.text


@pytest.mark.spec('LC-20')
def test_fork_while_the_first_listener_starts(make, monkeypatch):
    one = make()
    share = ipc.IpcDirectory.share
    closed = []

    def fork(directory, path):
        # As a fork by another thread at this moment.
        pid = os.fork()
        if not pid:
            one.reception.forget()
            listening = inherited.close_sockets(f'ipc://{path}', '')
            os._exit(listening)
        closed.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0)
        share(directory, path)

    monkeypatch.setattr(ipc.IpcDirectory, 'share', fork)
    one.listen(WHERE, 'one')
    assert closed == [True]


@pytest.mark.spec('LC-05')
@pytest.mark.parametrize(
    'error', [ipc.IpcDirectoryError, errors.ListenFailure, MemoryError]
)
def test_router_that_does_not_start_can_be_started_later(
    make, monkeypatch, error
):
    one = make()

    def fail(*args):
        raise error('no room')

    with monkeypatch.context() as patch:
        patch.setattr(ipc.IpcDirectory, 'share', fail)
        with pytest.raises((errors.ListenFailure, MemoryError)):
            one.listen(WHERE, 'one')
    assert one.reception.router is None
    name = f'zmq-router-{one.member}'
    waiting.until(
        lambda: name not in {t.name for t in threading.enumerate()}, 'end'
    )
    assert one.listen(WHERE, 'one')


@pytest.mark.spec('LC-07')
@pytest.mark.spec('LC-13')
def test_listener_that_is_started_while_its_process_exits(make):
    one = make()
    listener = one.listen(WHERE, 'one')
    one.leave(clock.Deadline(5))
    with pytest.raises(errors.DriverClosed):
        listener.start(lambda incoming: None)
    assert not one.matchmaker.lookup(WHERE, clock.Deadline(5))


@pytest.mark.spec('LC-13')
def test_listener_that_cannot_leave_does_not_keep_the_others(
    make, caplog, monkeypatch
):
    one = make()
    listeners = [one.listen(WHERE, str(n)) for n in range(3)]
    for listener in listeners:
        listener.start(lambda incoming: None)
    calls = []

    def fail(*args):
        calls.append(args)
        raise KeyError('what nobody expects')

    monkeypatch.setattr(one.matchmaker, 'unregister', fail)
    one.leave(clock.Deadline(5))
    assert len(calls) == 3
    assert not one.reception.router._sinks
    assert caplog.text.count('could not be withdrawn') == 3


@pytest.mark.spec('DL-76')
def test_exit_does_not_wait_for_what_was_dropped(make):
    one = make()
    listener = one.listen_for_notifications([EVENTS], 'pool')
    assert listener.deliver(fakes.delivery()) is None
    [message] = listener.poll(30)
    # As an executor leaves it: its future has the error, and that the future.
    message.cycle = message
    gc.disable()
    try:
        del message
        assert one.reception.unfinished.count == 1
        assert one.finish(clock.Deadline(30))
    finally:
        gc.enable()


@pytest.mark.spec('ST-03')
def test_figures_are_seen_until_the_end(make):
    one, two = make(), make()
    members = [stats.member for stats in statistics.snapshots()]
    assert members[-2:] == [one.member, two.member]
    one.close(clock.Deadline(5))
    members = [stats.member for stats in statistics.snapshots()]
    assert one.member not in members
    assert two.member in members


@pytest.mark.spec('ST-04')
def test_figures_are_logged_if_the_log_tells_so_much(make, caplog):
    def threads(one):
        name = f'zmq-statistics-{one.member}'
        return [t for t in threading.enumerate() if t.name == name]

    assert not threads(make('statistics_interval=0.001'))
    caplog.set_level(logging.DEBUG, 'zmq_driver.statistics')
    assert not threads(make('statistics_interval=0'))
    one = make('statistics_interval=0.001')
    [thread] = threads(one)
    waiting.until(lambda: caplog.records, 'a line')
    assert one.member in caplog.messages[0]
    one.close(clock.Deadline(5))
    thread.join(10)
    assert not thread.is_alive()


def test_directory_that_cannot_be_used_opens_nothing(make, directory):
    with pytest.raises(ipc.IpcDirectoryError):
        make(path=directory / 'missing' / 'zmq')
    assert not list(directory.iterdir())
