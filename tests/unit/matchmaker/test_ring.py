# SPDX-License-Identifier: Apache-2.0
"""The ring matchmaker and its file."""

import json
import logging
import os
import time

from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg
import oslo_messaging
import pytest

from tests.unit.matchmaker import samples
from zmq_driver import address
from zmq_driver import envelope
from zmq_driver import ipc
from zmq_driver import options
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import cache
from zmq_driver.matchmaker import ring
from zmq_driver.matchmaker import ring_file

Entry = ring_file.Entry
RPC, NOTIFICATION = address.Scope.RPC, address.Scope.NOTIFICATION


def where(topic, scope=RPC):
    return address.Address(scope, 'exchange', topic)


# -- the file


@pytest.mark.spec('RG-01')
def test_what_a_file_may_hold():
    found = ring_file.parse(
        """{
        "scheduler": ["host1", "host2"],
        "conductor": ["host1:9502", "192.0.2.7:9502", "[2001:db8::7]:9502",
                      "2001:db8::8"],
        "compute": [{"host": "host3", "port": 9510, "server": "c3"},
                    {"host": "::1"}],
        "empty": []
        }""",
        9501,
    )
    assert found == {
        'scheduler': (Entry('host1', 9501, None), Entry('host2', 9501, None)),
        'conductor': (
            Entry('host1', 9502, None),
            Entry('192.0.2.7', 9502, None),
            Entry('[2001:db8::7]', 9502, None),
            Entry('[2001:db8::8]', 9501, None),
        ),
        'compute': (
            Entry('host3', 9510, 'c3'),
            Entry('[::1]', 9501, None),
        ),
        'empty': (),
    }
    assert found['conductor'][2].endpoint == 'tcp://[2001:db8::7]:9502'


@pytest.mark.spec('RG-06', 'RG-08')
@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('{\n  "a": ["b" "c"]\n}', 'line 2, column 13'),
        ('', 'line 1, column 1'),
        ('["a"]', 'it is a list; write an object'),
        ('null', 'it is null'),
        ('{"a": "host"}', "topic 'a' has text; write a list"),
        ('{"a": ["h", 7]}', "topic 'a', host 2 is a number; write \"host\""),
        ('{"a": [true]}', 'true or false'),
        ('{"a": [], "a": []}', "'a' is there twice"),
        ('{"a": [{"port": 1}]}', 'names no host'),
        ('{"a": [{"host": "h", "prot": 1}]}', "has 'prot'; only host, port"),
        ('{"a": [{"host": "h", "port": "1"}]}', "'1' is not a port"),
        ('{"a": [{"host": "h", "port": 0}]}', '0 is not a port'),
        ('{"a": [{"host": "h", "server": 1}]}', 'server is a number'),
        ('{"a": ["h:65536"]}', '65536 is not a port'),
        ('{"a": ["h:x"]}', "'x' is not a port"),
        ('{"a": ["a b"]}', "'a b' is neither the name"),
        ('{"a": [""]}', "'' is neither the name"),
        ('[' * 100_000, 'it is nested too deeply'),
    ],
)
def test_what_it_may_not_hold(text, problem):
    with pytest.raises(ring_file.RingFileError) as caught:
        ring_file.parse(text, 9501)
    assert problem in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(['host', 'port', 'server', 'topic']), inner
        )
    ),
    max_leaves=8,
)


@pytest.mark.spec('RG-08')
@given(JSON | st.dictionaries(st.text(), st.lists(JSON)))
def test_anything_is_a_ring_or_an_error(value):
    try:
        found = ring_file.parse(json.dumps(value), 9501)
    except ring_file.RingFileError:
        return
    for entries in found.values():
        for entry in entries:
            assert 1 <= entry.port <= 65535
            assert entry.host


# -- the matchmaker


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'ring.json'


def make(path, url=None, **settings):
    conf = cfg.ConfigOpts()
    conf([], project='zmq-driver-tests')
    parsed = oslo_messaging.TransportURL.parse(
        conf, f'zmq+ring://{path}' if url is None else url
    )
    loaded = options.load(conf, parsed)
    return ring.RingMatchmaker(
        base.MatchmakerSettings(
            directory=ipc.IpcDirectory(str(path.parent)),
            virtual_host='',
            member='0' * 16,
            url=parsed,
            options=loaded,
        )
    )


def write(path, found):
    """Write a ring, as a careful operator does."""
    new = path.with_suffix('.new')
    new.write_text(found if isinstance(found, str) else json.dumps(found))
    new.replace(path)


def servers(matchmaker, topic='t', scope=RPC):
    found = matchmaker.lookup(where(topic, scope), samples.deadline())
    return {route.endpoint: route.server for route in found.routes}


@pytest.mark.spec('RG-01')
def test_a_lookup_finds_what_is_in_the_file(path):
    write(path, {'t': ['h1', {'host': 'h2', 'port': 7, 'server': 's'}]})
    one = make(path)
    found = one.lookup(where('t'), samples.deadline())
    assert set(found.routes) == {
        address.Route('tcp://h1:9501', envelope.ANY_INCARNATION, 'h1'),
        address.Route('tcp://h2:7', envelope.ANY_INCARNATION, 's'),
    }
    assert not one.lookup(where('other'), samples.deadline())


@pytest.mark.spec('RG-01')
def test_notification_topics_have_priorities_and_pools(path):
    write(path, {'n': ['h1'], 'n.info': [{'host': 'h2', 'server': 'audit'}]})
    one = make(path)
    assert servers(one, 'n.error', NOTIFICATION) == {'tcp://h1:9501': ''}
    assert servers(one, 'n.info', NOTIFICATION) == {'tcp://h2:9501': 'audit'}
    assert servers(one, 'n.error', RPC) == {}


@pytest.mark.spec('RG-03')
def test_ports_of_a_server(path):
    write(path, {'t': ['h1:1', 'h1:2', 'h2:3'], 'u': ['h1:4', 'h1:1']})
    one = make(path)
    assert one.ports([where('t')], 'h1') == (1, 2)
    assert one.ports([where('t'), where('u')], 'h1') == (1, 2, 4)
    assert one.ports([where('t')], 'h3') == ()


@pytest.mark.spec('RG-04')
def test_listener_that_is_not_listed(path, caplog):
    write(path, {'t': ['h1:1']})
    one = make(path)
    one.ports([where('t')], 'h1')
    route = address.Route('ipc:///e', b'i' * 16, 'h1')
    listed = address.Registration(where('t'), route, 'tcp://h1:1')
    one.register(listed, samples.deadline())
    assert not caplog.records
    one.register(
        listed._replace(tcp_endpoint='tcp://h1:2'), samples.deadline()
    )
    assert 'port 2' in caplog.text
    one.register(listed._replace(address=where('u')), samples.deadline())
    assert 'exchange/u' in caplog.text
    assert str(path) in caplog.text
    one.unregister(listed, samples.deadline())
    assert servers(one)


@pytest.mark.spec('RG-05')
def test_a_change_is_seen_through_the_cache(path):
    write(path, {'t': ['h1']})
    one = cache.CachedMatchmaker(make(path), ttl=600)
    assert list(servers(one).values()) == ['h1']
    write(path, {'t': ['h2']})
    time.sleep(0.1)
    assert list(servers(one).values()) == ['h2']


@pytest.mark.spec('RG-05')
def test_a_file_that_has_just_changed_is_not_vouched_for(path):
    write(path, {'t': ['h1']})
    one = make(path)
    os.utime(path)
    assert one.revision(where('t')) is None
    os.utime(path, (1, 1))
    assert one.revision(where('t')) is not None
    path.unlink()
    assert one.revision(where('t')) is None


@pytest.mark.spec('RG-06')
def test_a_broken_file_keeps_what_was_known(path, caplog):
    caplog.set_level(logging.INFO)
    write(path, {'t': ['h1']})
    one = make(path)
    servers(one)
    write(path, '{\n"t": [}')
    for _ in range(3):
        assert list(servers(one).values()) == ['h1']
    [record] = caplog.records
    assert 'line 2, column 7' in record.message
    assert 'before counts on' in record.message
    write(path, b'\xff'.decode('latin-1'))
    path.write_bytes(b'\xff\xfe')
    servers(one)
    assert 'not UTF-8' in caplog.text
    path.unlink()
    assert list(servers(one).values()) == ['h1']
    assert 'No such file' in caplog.text
    caplog.clear()
    write(path, {'t': ['h2']})
    assert list(servers(one).values()) == ['h2']
    assert 'is good again' in caplog.text


@pytest.mark.spec('RG-07')
@pytest.mark.parametrize('text', [None, '{', '[]'])
def test_without_a_good_file_nothing_is_known(path, text):
    if text is not None:
        path.write_text(text)
    one = make(path)
    for ask in (
        lambda: servers(one),
        lambda: one.ports([where('t')], 's'),
        lambda: one.records(samples.deadline()),
    ):
        with pytest.raises(base.MatchmakerUnavailable, match=str(path)):
            ask()
    write(path, {'t': ['h1']})
    assert servers(one)


@pytest.mark.spec('RG-09')
def test_where_the_file_is(path):
    write(path, {'t': ['h1']})
    assert servers(make(path, f'zmq+ring:///?ringfile={path}'))
    assert servers(make(path, f'zmq:///?ringfile={path}&linger=0'))
    conf = cfg.ConfigOpts()
    old = path.with_suffix('.conf')
    old.write_text(f'[matchmaker_ring]\nringfile = {path}\n')
    conf([f'--config-file={old}'], project='zmq-driver-tests')
    url = oslo_messaging.TransportURL.parse(conf, 'zmq://')
    assert options.load(conf, url).ringfile == str(path)


@pytest.mark.spec('RG-09')
def test_a_ring_has_no_host():
    conf = cfg.ConfigOpts()
    conf([], project='zmq-driver-tests')
    url = oslo_messaging.TransportURL.parse(conf, 'zmq+ring://host/x')
    assert 'three slashes' in ring.RingMatchmaker.check_url(url)
    url = oslo_messaging.TransportURL.parse(conf, 'zmq+ring:///x')
    assert ring.RingMatchmaker.check_url(url) is None
    assert ring.RingMatchmaker.virtual_host(url) == ''


@pytest.mark.spec('RG-10')
def test_records_are_what_the_file_has(path):
    write(path, {'t': ['h1:1', {'host': 'h2', 'server': 's'}]})
    found = make(path).records(samples.deadline())
    assert [
        (
            record.registration.address.topic,
            record.registration.route.server,
            record.registration.tcp_endpoint,
            record.host,
            record.expires_in,
        )
        for record in found
    ] == [
        ('t', 'h1', 'tcp://h1:1', 'h1', None),
        ('t', 's', 'tcp://h2:9501', 'h2', None),
    ]


def test_a_closed_one_takes_no_listeners(path):
    write(path, {'t': ['h1']})
    for end in ('close', 'forget'):
        one = make(path)
        if end == 'close':
            one.close(samples.deadline())
        else:
            one.forget()
        with pytest.raises(base.MatchmakerUnavailable):
            one.register(samples.registration(), samples.deadline())


def test_the_options_are_needed(path):
    with pytest.raises(ValueError, match='options'):
        ring.RingMatchmaker(
            base.MatchmakerSettings(
                directory=ipc.IpcDirectory(str(path.parent)),
                virtual_host='',
                member='0' * 16,
            )
        )
