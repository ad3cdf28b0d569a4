# SPDX-License-Identifier: Apache-2.0
"""Where a driver listens for other hosts, at real ports of this one."""

import contextlib
import errno
import itertools
import pathlib
import socket as posix

import pytest
import zmq

from tests.fixtures import ports
from tests.fixtures import socket_samples
from tests.fixtures import waiting
from zmq_driver import errors
from zmq_driver import interfaces
from zmq_driver import listening
from zmq_driver import sockets

HANG = 30

NUMBERS = itertools.count()

OPTIONS = socket_samples.OPTIONS

needs_ipv6 = pytest.mark.skipif(
    not ports.has_ipv6(), reason='this host has no address ::1'
)


class Recorder:
    """Takes every endpoint but those of some ports."""

    def __init__(self, busy=(), code=errno.EADDRINUSE):
        self.asked = []
        self._busy = busy
        self._code = code

    def bind(self, endpoint):
        self.asked.append(endpoint)
        if int(endpoint.rpartition(':')[2]) in self._busy:
            raise zmq.ZMQError(self._code)


def plan(address='*', host=None, port=9501, count=10):
    return listening.TcpListening(address, host, port, count)


def bound(*args, **kwargs):
    """Return where was bound, and what others are told."""
    recorder = Recorder()
    told = plan(*args, **kwargs).bind(recorder)
    return recorder.asked, told


@pytest.fixture
def router(context):
    """Give a factory of ROUTERs that are not bound to TCP yet."""
    with contextlib.ExitStack() as opened:

        def make():
            one = sockets.RouterSocket(
                context, f'inproc://{next(NUMBERS)}', OPTIONS
            )
            opened.callback(one.close)
            return one

        yield make


@pytest.fixture
def reachable(context):
    """Give a function that tells whether a ROUTER answers at an endpoint."""

    def ask(router, endpoint):
        one = sockets.PeerSocket(context, endpoint, OPTIONS)
        try:
            if not one.wait_connected(HANG):
                return False
            one.send([b'header', b'body'])
            waiting.until(router.receive, 'message', HANG)
            return True
        finally:
            one.close()

    return ask


@pytest.mark.spec('LI-04')
@pytest.mark.parametrize(
    ('address', 'spelt', 'told'),
    [
        ('127.0.0.1', '127.0.0.1', '127.0.0.1'),
        (' 127.0.0.1 ', '127.0.0.1', '127.0.0.1'),
        ('fd00::7', '[fd00::7]', '[fd00::7]'),
        ('[fd00::7]', '[fd00::7]', '[fd00::7]'),
        ('*', '*', None),
        ('0.0.0.0', '0.0.0.0', None),
        ('::', '[::]', None),
    ],
)
def test_what_is_bound_and_what_others_are_told(address, spelt, told):
    asked, endpoint = bound(address, port=9777)
    assert asked == [f'tcp://{spelt}:9777']
    assert endpoint == f'tcp://{told or posix.gethostname()}:9777'


@pytest.mark.spec('LI-04')
@pytest.mark.parametrize(
    ('host', 'told'),
    [
        ('compute-7.example.org', 'compute-7.example.org'),
        ('compute_7', 'compute_7'),
        ('198.51.100.7', '198.51.100.7'),
        ('2001:db8::7', '[2001:db8::7]'),
        ('[2001:db8::7]', '[2001:db8::7]'),
        (' name ', 'name'),
        ('', '127.0.0.1'),
        (None, '127.0.0.1'),
    ],
)
def test_others_are_told_what_is_configured(host, told):
    assert bound('127.0.0.1', host)[1] == f'tcp://{told}:9501'


@pytest.mark.spec('LI-07')
@pytest.mark.parametrize(
    'host', ['*', '0.0.0.0', '::', 'name:9501', 'tcp://name', 'a b', '-', 'ä']
)
def test_what_is_no_host_is_refused(host):
    with pytest.raises(errors.ListenFailure) as caught:
        bound('127.0.0.1', host)
    assert f'rpc_zmq_host = {host!r}' in str(caught.value)
    assert 'without a port' in str(caught.value)


@pytest.mark.spec('LI-03')
def test_interface_stands_for_its_address():
    assert bound('lo') == (['tcp://127.0.0.1:9501'], 'tcp://127.0.0.1:9501')


@pytest.mark.spec('LI-07')
@pytest.mark.parametrize(
    'address',
    ['nonsense0', '', 'x' * 40, 'host.example', '127.0.0.1:1', '\ud800'],
)
def test_unknown_interface_is_named_with_those_that_exist(address):
    with pytest.raises(errors.ListenFailure) as caught:
        bound(address)
    assert f'rpc_zmq_bind_address = {address.strip()!r}' in str(caught.value)
    assert 'the interfaces of this host are lo' in str(caught.value)


@pytest.mark.spec('LI-07')
def test_interface_without_an_address_is_named(monkeypatch):
    monkeypatch.setattr(interfaces, 'names', lambda: ['lo', 'eth7'])
    with pytest.raises(errors.ListenFailure, match='without an address'):
        bound('eth7')


@pytest.mark.spec('LI-05')
def test_first_free_port_is_taken():
    recorder = Recorder(busy={9501, 9502})
    assert plan('127.0.0.1').bind(recorder) == 'tcp://127.0.0.1:9503'
    assert len(recorder.asked) == 3


@pytest.mark.spec('LI-05')
def test_range_ends_at_the_last_port():
    recorder = Recorder(busy=range(65536))
    with pytest.raises(errors.ListenFailure, match='65530-65535'):
        plan('127.0.0.1', port=65530, count=100).bind(recorder)
    assert recorder.asked[-1] == 'tcp://127.0.0.1:65535'


@pytest.mark.spec('LI-07')
@pytest.mark.parametrize(
    ('count', 'problem'),
    [(1, 'port 9501 is in use'), (3, 'ports 9501-9503 are all in use')],
)
def test_exhausted_range_is_told_with_the_options(count, problem):
    recorder = Recorder(busy=range(65536))
    with pytest.raises(errors.ListenFailure) as caught:
        plan('127.0.0.1', count=count).bind(recorder)
    text = str(caught.value)
    assert problem in text
    assert "rpc_zmq_bind_address = '127.0.0.1'" in text
    assert 'rpc_zmq_port = 9501' in text
    assert f'rpc_zmq_port_count = {count}' in text
    assert 'raise rpc_zmq_port_count' in text
    assert len(recorder.asked) == count


@pytest.mark.spec('LI-07')
@pytest.mark.parametrize(
    ('code', 'fix'),
    [
        (errno.EACCES, 'use ports from 1024 on'),
        (errno.EINVAL, 'Invalid argument'),
    ],
)
def test_other_errors_end_the_search(code, fix):
    recorder = Recorder(busy=range(65536), code=code)
    with pytest.raises(errors.ListenFailure) as caught:
        plan('127.0.0.1', port=80).bind(recorder)
    assert fix in str(caught.value)
    assert 'port 80 of 80-89' in str(caught.value)
    assert len(recorder.asked) == 1


@pytest.mark.spec('LI-07')
def test_address_of_another_host_is_told(router):
    with pytest.raises(errors.ListenFailure) as caught:
        plan('192.0.2.254', port=ports.free()).bind(router())
    assert "rpc_zmq_bind_address = '192.0.2.254'" in str(caught.value)
    assert 'has no such address; set one of 127.0.0.1' in str(caught.value)


@pytest.mark.spec('LI-08')
@pytest.mark.parametrize(
    ('first', 'last', 'warns'),
    [
        (9400, 9500, False),
        (9400, 9501, True),
        (9505, 9506, True),
        (9000, 60999, True),
        (9510, 60999, True),
        (9511, 60999, False),
    ],
)
def test_ports_of_outgoing_connections_are_warned_of(
    tmp_path, monkeypatch, caplog, first, last, warns
):
    path = tmp_path / 'range'
    path.write_text(f'{first}\t{last}\n')
    monkeypatch.setattr(listening, '_LOCAL_PORT_RANGE', path)
    bound('127.0.0.1')
    assert ('9501-9510' in caplog.text) is warns
    assert (f'{first}-{last}' in caplog.text) is warns
    assert ('ip_local_port_range' in caplog.text) is warns


@pytest.mark.parametrize('text', [None, 'nonsense', ''])
def test_unknown_range_of_outgoing_connections(
    tmp_path, monkeypatch, caplog, text
):
    path = tmp_path / 'range'
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(listening, '_LOCAL_PORT_RANGE', path)
    assert not listening.ephemeral_ports()
    bound('127.0.0.1')
    assert not caplog.text


@pytest.mark.spec('LI-08')
def test_default_ports_are_not_those_of_outgoing_connections():
    ephemeral = listening.ephemeral_ports()
    if not ephemeral:
        pytest.skip('the range of the kernel is not known here')
    assert not set(range(9501, 10501)).intersection(ephemeral)


@pytest.mark.spec('LI-08')
@pytest.mark.parametrize(
    ('address', 'host', 'warns'),
    [
        ('*', 'localhost', True),
        ('*', 'localhost.localdomain', True),
        ('*', '127.0.0.1', True),
        ('*', '[::1]', True),
        ('192.0.2.7', 'localhost', True),
        ('127.0.0.1', None, False),
        ('lo', 'localhost', False),
        ('*', 'name', False),
    ],
)
def test_telling_others_to_connect_to_themselves_is_warned_of(
    caplog, address, host, warns
):
    bound(address, host)
    assert ('set rpc_zmq_host' in caplog.text) is warns


@pytest.mark.spec('LI-06')
@pytest.mark.parametrize(
    ('first', 'second'),
    [
        ('*', '*'),
        ('*', '127.0.0.1'),
        ('127.0.0.1', '*'),
        ('0.0.0.0', '*'),
        ('127.0.0.1', '0.0.0.0'),
        ('127.0.0.1', '127.0.0.1'),
        pytest.param('*', '::1', marks=needs_ipv6),
        pytest.param('::1', '*', marks=needs_ipv6),
        pytest.param('0.0.0.0', '::', marks=needs_ipv6),
    ],
)
def test_two_never_have_one_port(router, first, second):
    port = ports.free(2)
    told = plan(first, 'name', port, 2).bind(router())
    assert told == f'tcp://name:{port}'
    told = plan(second, 'name', port, 2).bind(router())
    assert told == f'tcp://name:{port + 1}'
    with pytest.raises(errors.ListenFailure):
        plan(second, 'name', port, 2).bind(router())


@pytest.mark.spec('LI-06')
@pytest.mark.parametrize('reuse', [0, 1])
def test_port_of_another_program_is_passed_over(router, reuse):
    port = ports.free(2)
    with posix.socket() as other:
        other.setsockopt(posix.SOL_SOCKET, posix.SO_REUSEADDR, reuse)
        other.setsockopt(posix.SOL_SOCKET, posix.SO_REUSEPORT, reuse)
        other.bind(('127.0.0.1', port))
        other.listen(1)
        told = plan('*', 'name', port, 2).bind(router())
    assert told == f'tcp://name:{port + 1}'


@pytest.mark.spec('LI-06')
def test_port_is_free_again_at_once(context, reachable):
    port = ports.free()
    for _ in range(3):
        one = sockets.RouterSocket(
            context, f'inproc://{next(NUMBERS)}', OPTIONS
        )
        waiting.until(lambda one=one: _bind(one, port), 'port', HANG)
        assert reachable(one, f'tcp://127.0.0.1:{port}')
        one.close()


def _bind(router, port):
    """Try until libzmq has closed what it was told to close."""
    try:
        return plan('127.0.0.1', None, port, 1).bind(router)
    except errors.ListenFailure:
        return None


@pytest.mark.spec('LI-02')
@pytest.mark.parametrize(
    'address', ['127.0.0.1', pytest.param('[::1]', marks=needs_ipv6)]
)
@pytest.mark.parametrize('everywhere', ['*', '::'])
def test_ipv4_and_ipv6_clients_both_reach(
    router, reachable, address, everywhere
):
    if everywhere == '::' and not ports.has_ipv6():
        pytest.skip('this host has no address ::1')
    one = router()
    port = ports.free()
    plan(everywhere, 'name', port, 1).bind(one)
    assert reachable(one, f'tcp://{address}:{port}')


@pytest.mark.spec('LI-03')
@needs_ipv6
def test_ipv6_address_is_advertised_in_brackets(router, reachable):
    one = router()
    port = ports.free()
    endpoint = plan('::1', None, port, 1).bind(one)
    assert endpoint == f'tcp://[::1]:{port}'
    assert reachable(one, endpoint)


def test_addresses_of_interfaces():
    assert 'lo' in interfaces.names()
    found = interfaces.addresses('lo')
    assert found[0] == '127.0.0.1'
    assert ('::1' in found) is ports.has_ipv6()
    assert interfaces.addresses('nonsense0') == []


def test_addresses_that_others_cannot_use_are_left_out(tmp_path, monkeypatch):
    lines = [
        ('fe800000000000000000000000000001', '20', '80', 'eth7'),
        ('20010db8000000000000000000000001', '00', '40', 'eth7'),
        ('20010db8000000000000000000000002', '00', '08', 'eth7'),
        ('20010db8000000000000000000000003', '00', '80', 'eth8'),
        ('20010db8000000000000000000000004', '00', '80', 'eth7'),
    ]
    path = tmp_path / 'if_inet6'
    path.write_text(
        ''.join(
            f'{digits} 02 40 {scope} {flags}     {name}\n'
            for digits, scope, flags, name in lines
        )
    )
    monkeypatch.setattr(interfaces, '_IF_INET6', path)
    assert interfaces.addresses('eth7') == ['2001:db8::4']
    monkeypatch.setattr(interfaces, '_IF_INET6', pathlib.Path('/nonsense'))
    assert interfaces.addresses('eth7') == []
