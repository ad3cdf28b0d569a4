# SPDX-License-Identifier: Apache-2.0
"""A router thread that does not run."""

import pytest
import zmq

from tests.fixtures import clock as fake_clock
from tests.unit.server import test_router
from zmq_driver import clock as clocks
from zmq_driver import counters
from zmq_driver import envelope
from zmq_driver.server import channel
from zmq_driver.server import router as routers
from zmq_driver.server import stall as stalls

STALLED = envelope.NackReason.STALLED


@pytest.fixture
def clock():
    return fake_clock.FakeClock()


@pytest.fixture
def counts():
    return counters.Counters()


@pytest.fixture
def stall(clock, counts):
    stall = stalls.Stall(counts, clock)
    stall.look(False)
    return stall


def request(number=0, flags=envelope.WANT_ACK):
    return envelope.Header(
        envelope.Kind.REQUEST, number.to_bytes(16, 'big'), flags=flags
    )


def test_rest_is_shorter_than_a_stall():
    assert channel.POLL_INTERVAL <= stalls.STALL / 2


@pytest.mark.spec('DL-53')
def test_first_look_is_no_stall(clock, counts):
    stall = stalls.Stall(counts, clock)
    clock.tick(100)
    stall.look(True)
    assert not stall.refuses(request())


@pytest.mark.spec('DL-53')
def test_hard_work_is_no_stall(stall, clock):
    for number in range(1000):
        clock.tick(stalls.STALL)
        stall.look(True)
        assert not stall.refuses(request(number))


@pytest.mark.spec('DL-53')
@pytest.mark.parametrize('found', [True, False])
def test_what_is_found_after_a_stall_is_asked_for_again(
    stall, clock, counts, caplog, found
):
    clock.tick(stalls.STALL + 0.1)
    stall.look(found)
    for number in range(3):
        assert stall.refuses(request(number))
        stall.look(True)
    # What the kernel held has not been read yet.
    stall.look(False)
    clock.tick(stalls.SETTLE - 0.01)
    stall.look(True)
    assert stall.refuses(request(3))
    clock.tick(0.01)
    stall.look(True)
    assert stall.refuses(request(4))
    assert not caplog.text
    stall.look(False)
    assert not stall.refuses(request(5))
    assert counts.snapshot()['messages_stalled'] == 5
    assert 'did not run for 1.1 s' in caplog.text
    assert '5 requests' in caplog.text


@pytest.mark.spec('DL-53')
def test_stall_without_requests_is_not_told(stall, clock, caplog):
    for _ in range(10):
        clock.tick(5)
        stall.look(False)
    clock.tick(stalls.SETTLE)
    stall.look(False)
    assert not caplog.text
    # Nor does it hide the next one.
    clock.tick(5)
    stall.look(True)
    assert stall.refuses(request())


@pytest.mark.spec('DL-53')
def test_request_that_comes_once_more_is_taken(stall, clock):
    clock.tick(2)
    stall.look(True)
    resent = request(1, envelope.WANT_ACK | envelope.RESENT)
    assert stall.refuses(request(1))
    # This one may have been waiting too.
    assert stall.refuses(resent)
    assert not stall.refuses(request(1))
    assert not stall.refuses(resent)
    assert stall.refuses(request(2))


@pytest.mark.spec('DL-53')
def test_next_stall_asks_again(stall, clock):
    for _ in range(2):
        clock.tick(2)
        stall.look(True)
        assert stall.refuses(request(1))
        assert not stall.refuses(request(1))


@pytest.mark.spec('DL-53')
def test_socket_that_is_never_empty(stall, clock, monkeypatch):
    monkeypatch.setattr(stalls, 'MAX_ASKED', 10)
    clock.tick(2)
    refused = 0
    for number in range(20):
        stall.look(True)
        refused += stall.refuses(request(number))
    assert refused == 10


@pytest.mark.spec('DL-53')
def test_process_that_runs_only_now_and_then_gets_on(stall, clock):
    refused = []
    for _ in range(8):
        clock.tick(2)
        stall.look(True)
        refused.append(stall.refuses(request(1)))
    assert refused == 2 * ([True] * stalls.MAX_IN_A_ROW + [False])


@pytest.mark.spec('DL-53')
def test_router_that_did_not_run(clock, counts):
    context = test_router.contexts.DriverContext('unit', 1, 10)
    router = routers.Router(
        'unit', context, test_router.ENDPOINT, test_router.OPTIONS, counts
    )
    router._stall._clock = clock
    router.start(clocks.Deadline(30))
    client = context.socket(zmq.DEALER)
    client.set(zmq.LINGER, 0)
    try:
        client.connect(test_router.ENDPOINT)
        sink = test_router.Sink()
        router.attach(sink)

        def ask(message_id, **kwargs):
            return test_router.ask(client, message_id=message_id, **kwargs)

        known, stopped, late = (bytes([n]) * 16 for n in range(1, 4))
        assert ask(known).kind is envelope.Kind.ACK
        clock.tick(2)
        assert ask(stopped).reason == STALLED
        assert ask(known).kind is envelope.Kind.ACK
        probe = ask(late, codec=envelope.CODEC_NONE, body=b'')
        assert probe.kind is envelope.Kind.ACK
        assert len(sink.got) == 1
        assert ask(stopped).kind is envelope.Kind.ACK
        assert ask(late).reason == STALLED
        assert len(sink.got) == 2
        assert counts.snapshot()['messages_stalled'] == 2
    finally:
        client.close()
        assert router.stop(clocks.Deadline(30))
        assert context.close(clocks.Deadline(30))
