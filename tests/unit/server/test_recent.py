# SPDX-License-Identifier: Apache-2.0
"""The memory of requests."""

import collections
import threading

from hypothesis import stateful
from hypothesis import strategies
import pytest

from tests.fixtures import clock as fake_clock
from zmq_driver import duplicate_options
from zmq_driver import envelope
from zmq_driver.server import recent as recents

TTL = 30.0
ANSWER = (b'h' * 54, b'body')
SIZE = 58
FORGOTTEN = recents.Repeat(known=False, forgotten=True)


def make(clock, count=100, size=10000, **kwargs):
    settings = duplicate_options.DuplicateSettings(
        duplicate_ttl=TTL, duplicate_max=count, duplicate_max_bytes=size
    )
    return recents.Recent(settings, clock, **kwargs)


def request(number=1, flags=envelope.WANT_REPLY, maker=b'maker---', **fields):
    fields = {'incarnation': b'incarnation-----', **fields}
    return envelope.Header(
        envelope.Kind.REQUEST,
        maker + number.to_bytes(8, 'big'),
        'exchange',
        'topic',
        flags=flags,
        codec=envelope.CODEC_JSON,
        **fields,
    )


def resent(number=1, **fields):
    return request(number, envelope.WANT_REPLY | envelope.RESENT, **fields)


@pytest.fixture
def clock():
    return fake_clock.FakeClock()


@pytest.fixture
def recent(clock):
    return make(clock)


def run(recent, header, answer=ANSWER):
    record = recent.take(header, b'old')
    assert isinstance(record, recents.Record)
    recent.finish(record, answer)
    return record


@pytest.mark.spec('DL-50')
def test_call_under_way_is_answered_where_it_was_asked_last(recent):
    record = recent.take(request(), b'old')
    assert recent.take(resent(), b'new') == recents.Repeat(known=True)
    assert record.routing_id == b'new'
    assert recent.finish(record, ANSWER) == b'new'


@pytest.mark.parametrize('repeat', [request(), resent()])
@pytest.mark.spec('DL-50')
def test_answer_is_given_again(recent, repeat):
    run(recent, request())
    for _ in range(2):
        assert recent.take(repeat, b'new') == recents.Repeat(
            known=True, answer=ANSWER
        )


@pytest.mark.parametrize('flags', [0, envelope.WANT_ACK, envelope.FANOUT])
@pytest.mark.spec('DL-50')
def test_what_has_no_reply_is_only_known(recent, flags):
    header = request(flags=flags)
    record = recent.take(header, b'old')
    assert recent.take(header, b'new') == recents.Repeat(known=True)
    recent.finish(record)
    assert recent.take(header, b'new') == recents.Repeat(known=True)


@pytest.mark.spec('NS-31')
def test_notification_is_under_way_until_it_is_handled(recent):
    flags = envelope.NOTIFICATION | envelope.WANT_ACK
    record = recent.take(request(flags=flags), b'old')
    for routing_id in (b'new', b'newer'):
        again = request(flags=flags | envelope.RESENT)
        assert recent.take(again, routing_id) == recents.Repeat(known=True)
        assert record.routing_id == routing_id
    assert recent.finish(record) == b'newer'
    repeat = recent.take(request(flags=flags), b'newest')
    ack = envelope.decode(repeat.answer).header
    assert ack.kind is envelope.Kind.ACK
    assert ack.message_id == request().message_id


@pytest.mark.spec('NS-34')
def test_notification_that_was_given_back_can_be_taken_again(recent):
    header = request(flags=envelope.NOTIFICATION)
    assert recent.refuse(recent.take(header, b'old')) == b'old'
    record = recent.take(header, b'new')
    recent.finish(record)
    assert recent.refuse(record) == b'new'
    assert recent.take(header, b'newer').known


@pytest.mark.spec('DL-50')
def test_one_id_for_several_listeners(recent):
    for fields in (
        {},
        {'incarnation': b'another---------'},
        {'incarnation': envelope.ANY_INCARNATION, 'server': 'one'},
        {'incarnation': envelope.ANY_INCARNATION, 'server': 'two'},
    ):
        run(recent, request(**fields))
        assert recent.take(request(**fields), b'new').known


@pytest.mark.spec('DL-50')
def test_refused_request_is_not_remembered(recent):
    recent.refuse(recent.take(request(), b'old'))
    assert recent.counts() == (0, 0, 0)
    assert isinstance(recent.take(resent(), b'new'), recents.Record)


@pytest.mark.spec('DL-58')
def test_copy_of_what_was_refused_is_refused_too(recent, clock):
    recent.refuse(recent.take(resent(), b'new'))
    refused = recents.Repeat(known=True, refused=True)
    assert recent.take(request(), b'old') == refused
    again = recent.take(resent(), b'newer')
    assert isinstance(again, recents.Record)
    recent.finish(again, ANSWER)
    assert recent.take(request(), b'old').answer == ANSWER
    clock.tick(TTL)
    recent.expire()
    assert recent.counts()[0] == 0


def test_answered_request_is_not_refused_afterwards(recent):
    # The callback of a server raised after its worker had answered.
    record = run(recent, request())
    recent.refuse(record)
    assert recent.take(request(), b'new').answer == ANSWER


def test_refused_request_that_is_answered_later(recent, clock):
    lost = recent.take(request(), b'old')
    recent.refuse(lost)
    again = recent.take(request(), b'new')
    recent.finish(lost, ANSWER)
    clock.tick(TTL)
    recent.expire()
    assert recent.take(request(), b'newer').known
    assert again.routing_id == b'newer'


@pytest.mark.spec('DL-51')
def test_never_taken_is_certain_above_what_was_dropped(recent, clock):
    assert isinstance(recent.take(resent(1), b'new'), recents.Record)
    run(recent, request(7))
    run(recent, request(5))
    clock.tick(TTL)
    recent.expire()
    assert recent.take(resent(7), b'new') == FORGOTTEN
    assert recent.take(resent(6), b'new') == FORGOTTEN
    assert isinstance(recent.take(resent(8), b'new'), recents.Record)
    other = resent(1, maker=b'another-')
    assert isinstance(recent.take(other, b'new'), recents.Record)
    # Who does not say that it was sent before has not sent it before.
    assert isinstance(recent.take(request(6), b'new'), recents.Record)


@pytest.mark.spec('DL-51')
def test_counts_are_compared_as_numbers(clock):
    recent = make(clock, count=0)
    run(recent, request(255))
    assert isinstance(recent.take(resent(256), b'new'), recents.Record)
    assert recent.take(resent(2), b'new') == FORGOTTEN


@pytest.mark.spec('DL-51')
def test_nothing_is_certain_without_an_incarnation(recent):
    header = resent(incarnation=envelope.ANY_INCARNATION)
    assert recent.take(header, b'new') == FORGOTTEN
    run(recent, request(incarnation=envelope.ANY_INCARNATION))
    assert recent.take(header, b'new').answer == ANSWER


@pytest.mark.spec('DL-51')
def test_nothing_is_certain_of_unknown_makers_once_one_was_dropped(clock):
    recent = make(clock, count=0, max_makers=2)
    for maker in (b'maker--1', b'maker--2', b'maker--1', b'maker--3'):
        run(recent, request(int(clock()), maker=maker))
        clock.tick(1)
    assert recent.counts() == (0, 0, 2)
    for maker in (b'maker--2', b'maker--9'):
        header = resent(9, maker=maker)
        assert recent.take(header, b'new') == FORGOTTEN
    later = resent(9 + int(clock()), maker=b'maker--1')
    assert isinstance(recent.take(later, b'new'), recents.Record)


@pytest.mark.spec('DL-52')
def test_finished_requests_are_remembered_for_a_while(recent, clock):
    record = recent.take(request(1), b'old')
    clock.tick(TTL * 10)
    run(recent, request(2))
    recent.finish(record, ANSWER)
    clock.tick(TTL - 1)
    recent.expire()
    assert recent.counts() == (2, 2 * SIZE, 0)
    assert recent.take(resent(1), b'new').answer == ANSWER
    clock.tick(1)
    recent.expire()
    assert recent.counts() == (0, 0, 1)


@pytest.mark.spec('DL-52')
def test_oldest_are_dropped_when_there_are_too_many(clock):
    recent = make(clock, count=3)
    waiting = recent.take(request(99), b'old')
    for number in range(1, 6):
        run(recent, request(number))
    assert recent.counts() == (4, 3 * SIZE, 1)
    assert recent.take(resent(2), b'new').forgotten
    assert recent.take(resent(3), b'new').answer == ANSWER
    assert recent.finish(waiting, ANSWER) == b'old'


@pytest.mark.spec('DL-52')
def test_oldest_replies_are_dropped_and_their_ids_stay(clock):
    recent = make(clock, size=2 * SIZE)
    run(recent, request(1), answer=None)
    for number in range(2, 6):
        run(recent, request(number))
    assert recent.counts() == (5, 2 * SIZE, 0)
    assert recent.take(resent(3), b'new') == recents.Repeat(
        known=True, forgotten=True
    )
    assert recent.take(resent(4), b'new').answer == ANSWER
    clock.tick(TTL)
    recent.expire()
    assert recent.counts() == (0, 0, 1)


@pytest.mark.spec('DL-52')
def test_reply_larger_than_the_memory_is_not_kept(clock):
    recent = make(clock, size=2 * SIZE)
    run(recent, request(1))
    run(recent, request(2), (b'h', b'x' * 2 * SIZE))
    assert recent.take(resent(2), b'new').forgotten
    assert recent.counts() == (2, 0, 0)


@pytest.mark.spec('DL-50')
def test_reply_meets_a_repeat(hasty, clock):
    # Whichever comes first, the new connection gets it, exactly once.
    recent = make(clock, count=10000, size=10**9)
    for number in range(500):
        record = recent.take(request(number), b'old')
        barrier = threading.Barrier(2)
        sent = []

        def work(record=record, barrier=barrier, sent=sent):
            barrier.wait(30)
            sent.append(recent.finish(record, ANSWER))

        worker = threading.Thread(target=work)
        worker.start()
        barrier.wait(30)
        repeat = recent.take(resent(number), b'new')
        worker.join(30)
        if repeat.answer is not None:
            sent.append(b'new')
        assert collections.Counter(sent)[b'new'] == 1


class Memory(stateful.RuleBasedStateMachine):
    """Nothing that was taken is ever taken again, if it is marked."""

    def __init__(self):
        super().__init__()
        self.clock = fake_clock.FakeClock()
        self.recent = make(self.clock, count=4, size=3 * SIZE, max_makers=2)
        self.under_way = {}
        self.taken = set()
        self.refused = set()

    ids = strategies.tuples(
        strategies.sampled_from([b'maker--1', b'maker--2', b'maker--3']),
        strategies.integers(min_value=0, max_value=9),
    )

    @stateful.rule(which=ids)
    def first(self, which):
        # A sender does not make an id twice.
        if which not in self.taken | self.refused:
            header = request(which[1], maker=which[0])
            record = self.recent.take(header, b'old')
            assert isinstance(record, recents.Record)
            self.under_way[which] = record
            self.taken.add(which)

    @stateful.rule(which=ids)
    def repeat(self, which):
        found = self.recent.take(resent(which[1], maker=which[0]), b'new')
        if which in self.taken:
            assert isinstance(found, recents.Repeat)
        elif isinstance(found, recents.Record):
            self.under_way[which] = found
            self.taken.add(which)
            self.refused.discard(which)
        if which in self.under_way:
            assert self.under_way[which].routing_id in (b'old', b'new')

    @stateful.rule(which=ids)
    def refuse(self, which):
        record = self.under_way.pop(which, None)
        if record is not None:
            self.recent.refuse(record)
            self.taken.discard(which)
            if record.resent:
                self.refused.add(which)

    @stateful.rule(which=ids, answered=strategies.booleans())
    def finish(self, which, answered):
        record = self.under_way.pop(which, None)
        if record is not None:
            self.recent.finish(record, ANSWER if answered else None)

    @stateful.rule(seconds=strategies.sampled_from([1.0, 20.0, TTL]))
    def wait(self, seconds):
        self.clock.tick(seconds)
        self.recent.expire()

    @stateful.invariant()
    def bounded(self):
        records, size, makers = self.recent.counts()
        assert records - len(self.under_way) <= 4
        assert size <= 3 * SIZE
        assert makers <= 2


test_memory = pytest.mark.spec('DL-51')(
    pytest.mark.spec('DL-52')(Memory.TestCase)
)
