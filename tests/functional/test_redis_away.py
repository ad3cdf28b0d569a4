# SPDX-License-Identifier: Apache-2.0
"""Services that start before Redis does."""

import contextlib
import time

import oslo_messaging
import pytest

from tests.fixtures import ports
from tests.fixtures import process
from tests.fixtures import redis_server
from tests.fixtures import waiting
from zmq_driver import errors

#: Seconds after which something hangs, on a machine that is busy.
HANG = 30


@pytest.fixture
def later():
    """Give a Redis that is not started yet."""
    with contextlib.closing(redis_server.RedisServer()) as server:
        yield server


@pytest.fixture
def url(later, ipc_dir):
    first = ports.free(10)
    return (
        f'zmq+redis://{later.address}/?rpc_zmq_ipc_dir={ipc_dir}'
        f'&rpc_zmq_bind_address=127.0.0.1&rpc_zmq_port={first}'
        f'&rpc_zmq_port_count=10'
    )


def records(redis):
    return [
        member
        for key in redis.command('KEYS', '*:at:*')
        for member in redis.command('ZRANGE', key, 0, -1)
    ]


@pytest.mark.spec('MM-98')
def test_service_that_starts_before_redis_is_found_afterwards(
    later, server, client
):
    start = time.monotonic()
    program = server('early')
    listener = server('', '--notifications')
    # A bound on hangs: nobody waits for Redis.
    assert time.monotonic() - start < HANG
    time.sleep(1.0)
    later.start()
    one = client(timeout=HANG)
    assert one.call({}, 'who')['pid'] == program.pid
    waiting.until(lambda: len(records(later)) == 3, 'notifications', HANG)
    for early in (program, listener):
        text = early.errors()
        assert text.count('registered as soon as Redis is back') == 1
        assert 'Traceback' not in text
    program.stop()
    listener.stop()
    assert records(later) == []


@pytest.mark.spec('MM-98')
def test_service_that_stops_before_redis_starts_is_not_registered(
    later, server, client
):
    server('early').stop()
    staying = server('staying')
    later.start()
    assert client(timeout=HANG).call({}, 'who')['pid'] == staying.pid
    assert len(records(later)) == 1


@pytest.mark.spec('MM-98')
def test_service_that_starts_while_redis_is_frozen(later, server, client):
    later.start()
    later.freeze()
    program = server('early')
    later.thaw()
    assert client(timeout=HANG).call({}, 'who')['pid'] == program.pid


@pytest.mark.spec('MM-98')
def test_call_that_waits_while_redis_is_away_finds_the_service(
    later, server, client
):
    program = server('early')
    one = client(timeout=0.3)
    with pytest.raises(oslo_messaging.MessagingTimeout) as caught:
        one.call({}, 'who')
    assert caught.value.may_have_run is False
    later.start()
    assert client(timeout=HANG).call({}, 'who')['pid'] == program.pid


@pytest.mark.spec('MM-99')
@pytest.mark.parametrize(
    ('settings', 'change', 'hint'),
    [
        (['requirepass secret'], '', 'check user name and password'),
        (
            ['requirepass secret'],
            ':wrong@',
            'check user name and password',
        ),
        ([], '/?redis_db=99&', 'DB index'),
    ],
)
def test_mistake_in_the_configuration_is_told_at_the_start(
    transport, topic, ipc_dir, settings, change, hint
):
    with contextlib.closing(
        redis_server.RedisServer(*settings, password='secret')
        if settings
        else redis_server.RedisServer()
    ) as redis:
        redis.start()
        login = change if change.startswith(':') else ''
        query = change if change.startswith('/') else '/?'
        one = oslo_messaging.get_rpc_transport(
            transport().conf,
            f'zmq+redis://{login}{redis.address}{query}'
            f'rpc_zmq_ipc_dir={ipc_dir}&rpc_zmq_bind_address=127.0.0.1'
            f'&rpc_zmq_port={ports.free()}',
        )
        server = oslo_messaging.get_rpc_server(
            one,
            oslo_messaging.Target(topic=topic, server='wrong'),
            [object()],
            executor='threading',
        )
        try:
            with pytest.raises(errors.ListenFailure, match=hint) as caught:
                server.start()
            assert 'wrong@' not in str(caught.value)
        finally:
            one.cleanup()


@pytest.mark.spec('MM-98')
@pytest.mark.spec('LC-13')
def test_process_that_was_never_registered_exits(later, url, topic):
    program = process.Program(
        'exiting', '--url', url, '--topic', topic, '--server', 'early'
    )
    with contextlib.closing(program.start()):
        program.write('end')
        assert program.wait(HANG) == 0
