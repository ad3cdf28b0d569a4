# SPDX-License-Identifier: Apache-2.0
"""How Redis is connected to, and what happens when it cannot be."""

import gc
import logging
import re
import ssl
import subprocess
import time

from oslo_config import cfg
import oslo_messaging
import pytest
import redis

from tests.fixtures import hung as hung_
from tests.fixtures import process
from tests.fixtures import redis_server
from tests.unit.matchmaker import redis_samples
from tests.unit.matchmaker import samples
from zmq_driver import driver
from zmq_driver import options
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker.redis import link as link_

SECRET = 'sekr1t'

SPEC = process.ROOT / 'doc' / 'specs' / 'matchmaker-redis.rst'
#: The rights that it lists.
RIGHTS = (
    re.search(r'user zmq on .*?(-@all.*?)\n\n', SPEC.read_text(), re.DOTALL)[1]
).split()


@pytest.fixture
def hung():
    server = hung_.HungServer()
    yield server
    server.close()


@pytest.fixture
def connect(directory):
    """Give a factory of matchmakers for a URL, closed after the test."""
    made = []

    def connect(url, conf=None):
        settings = redis_samples.settings(url, directory, conf=conf)
        made.append(redis_samples.kind_of(url)(settings))
        return made[-1]

    yield connect
    for one in made:
        one.close(samples.deadline(0.1))


def find(matchmaker, timeout=30.0):
    return matchmaker.lookup(samples.where(), samples.deadline(timeout)).routes


def register(matchmaker, timeout=30.0):
    made = samples.registration()
    matchmaker.register(made, samples.deadline(timeout))
    return made


@pytest.fixture
def configuration(tmp_path):
    """Give a configuration object from the text of a file."""

    def configuration(text):
        path = tmp_path / 'service.conf'
        path.write_text(text)
        conf = cfg.ConfigOpts()
        conf(['--config-file', str(path)], project='zmq-driver-tests')
        return conf

    return configuration


@pytest.mark.spec('MM-68')
@pytest.mark.parametrize('user', ['', 'user:pw@'])
def test_a_frozen_redis_costs_its_time_out(connect, hung, user, caplog):
    url = f'zmq+redis://{user}{hung.address}/?redis_timeout=0.1'
    begin = time.monotonic()
    with pytest.raises(base.MatchmakerUnavailable) as caught:
        find(connect(url))
    register(connect(url))
    for text in (str(caught.value), caplog.text):
        assert 'did not answer within 0.100 s' in text
        assert hung.address in text
    assert time.monotonic() - begin < 10


@pytest.mark.spec('MM-68')
@pytest.mark.parametrize('timeout', [0.0, 0.05])
def test_the_deadline_of_the_caller_is_the_limit(connect, hung, timeout):
    url = f'zmq+redis://{hung.address}/?redis_timeout=60'
    matchmaker = connect(url + '&redis_connect_timeout=60')
    begin = time.monotonic()
    with pytest.raises(base.MatchmakerUnavailable):
        find(matchmaker, timeout)
    assert time.monotonic() - begin < 5


@pytest.mark.spec('MM-68')
def test_the_deadline_is_the_limit_on_a_kept_connection(own_redis, make_own):
    matchmaker = make_own(query='&redis_timeout=60')
    find(matchmaker)
    own_redis.freeze()
    begin = time.monotonic()
    with pytest.raises(base.MatchmakerUnavailable, match='did not answer'):
        find(matchmaker, 0.05)
    assert time.monotonic() - begin < 5
    own_redis.thaw()
    assert find(matchmaker) == ()


@pytest.mark.spec('MM-70')
def test_a_restart_is_not_noticed(own_redis, make_own):
    """Neither that connections were closed, nor that scripts are gone."""
    matchmaker = make_own()
    made = register(matchmaker)
    own_redis.stop(keep=True)
    own_redis.start()
    assert find(matchmaker) == (made.route,)
    own_redis.command('SCRIPT', 'FLUSH')
    matchmaker.unregister(made, samples.deadline())
    assert find(matchmaker) == ()


@pytest.mark.spec('MM-70')
def test_a_connection_that_breaks_in_use_is_replaced(own_redis, make_own):
    matchmaker = make_own()
    made = register(matchmaker)
    (kept,) = [link for _, link in matchmaker._connections._idle]
    kept.is_idle = lambda: True  # It looks well until it is used.
    own_redis.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    assert find(matchmaker) == (made.route,)


def test_few_connections_are_kept(make_shared):
    matchmaker = make_shared()
    links = [
        matchmaker._connections.connect(samples.deadline()) for _ in range(9)
    ]
    for link in links:
        matchmaker._connections._put_back(0.0, link)
    assert len(matchmaker._connections._idle) == 4
    assert sum(link.is_open() for link in links) == 4
    matchmaker.close(samples.deadline())
    assert not any(link.is_open() for link in links)


def test_a_closed_link_does_not_connect_again(make_shared):
    link = make_shared()._connections.connect(samples.deadline())
    link.close()
    for call in (
        lambda: link.ask(samples.deadline(), 'PING'),
        lambda: link.wait(0),
        link.receive,
    ):
        with pytest.raises(redis.ConnectionError, match='was disconnected'):
            call()
    assert not link.is_idle()


@pytest.mark.spec('MM-68')
@pytest.mark.parametrize(
    ('host', 'problem'),
    [
        ('127.0.0.1:1', 'refused'),
        ('[::1]:1', 'refused'),
        ('no-such-host.invalid', 'no-such-host.invalid'),
        ('x' * 100, 'x' * 100),
    ],
)
def test_who_cannot_be_connected_to_is_named(connect, host, problem):
    with pytest.raises(base.MatchmakerUnavailable) as caught:
        find(connect(f'zmq+redis://{host}/'))
    assert problem in str(caught.value)
    assert host in str(caught.value)


@pytest.mark.spec('MM-72')
def test_ipv6(shared_redis, connect):
    matchmaker = connect(f'zmq+redis://[::1]:{shared_redis.port}/v6')
    assert register(matchmaker).route in find(matchmaker)


@pytest.fixture
def locked():
    """Give a Redis that wants a password of everybody."""
    server = redis_server.RedisServer(f'requirepass {SECRET}', password=SECRET)
    yield server.start()
    server.close()


@pytest.mark.spec('MM-69')
def test_a_wrong_password_is_told_without_it(locked, connect, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = 'wr0ngpw'
    for user in (f':{wrong}@', f'default:{wrong}@', f'other:{wrong}@', ''):
        matchmaker = connect(f'zmq+redis://{user}{locked.address}/')
        for call in (find, register):
            with pytest.raises(base.MatchmakerUnavailable) as caught:
                call(matchmaker)
            error = caught.value
            assert 'check user name and password' in str(error)
            while error is not None:
                assert wrong not in repr(error)
                error = error.__cause__
    assert wrong not in caplog.text


@pytest.mark.spec('MM-69', 'MM-72')
def test_a_password_is_in_no_repr(locked, connect, caplog):
    caplog.set_level(logging.DEBUG)
    matchmaker = connect(
        f'zmq+redis://:{SECRET}@{locked.address}/'
        f'?sentinel_password={SECRET}&redis_password={SECRET}'
    )
    made = register(matchmaker)
    assert find(matchmaker) == (made.route,)
    ours = [
        thing
        for thing in gc.get_objects()
        if str(type(thing).__module__).startswith('zmq_driver.')
    ]
    assert matchmaker in ours
    assert any(isinstance(thing, link_.Login) for thing in ours)
    for thing in ours:
        assert SECRET not in repr(thing)
    assert SECRET not in caplog.text


@pytest.mark.spec('MM-72')
def test_what_the_url_does_not_say_is_in_the_options(
    locked, connect, configuration
):
    conf = configuration(
        '[oslo_messaging_zmq]\n'
        f'redis_host = 127.0.0.1\nredis_port = {locked.port}\n'
        f'redis_username = default\nredis_password = {SECRET}\n'
        'redis_db = 3\n'
    )
    matchmaker = connect('zmq+redis://', conf)
    made = register(matchmaker)
    assert find(matchmaker) == (made.route,)
    assert locked.command('DBSIZE') == 0
    assert locked.command('DBSIZE', db=3) == 3
    other = connect(f'zmq+redis://:{SECRET}@{locked.address}/?redis_db=4')
    assert find(other) == ()


@pytest.mark.spec('MM-72')
@pytest.mark.parametrize('password', ['None', ''])
def test_the_file_of_2015_works(own_redis, connect, configuration, password):
    conf = configuration(
        '[DEFAULT]\n'
        'rpc_zmq_matchmaker = redis\n'
        'matchmaker_heartbeat_freq = 300\nmatchmaker_heartbeat_ttl = 600\n'
        '[matchmaker_redis]\n'
        f'host = 127.0.0.1\nport = {own_redis.port}\npassword = {password}\n'
    )
    one = driver.ZmqDriver(
        conf, oslo_messaging.TransportURL.parse(conf, 'zmq://')
    )
    assert one._matchmaker == 'redis'
    settings = options.load(
        conf, oslo_messaging.TransportURL.parse(conf, 'zmq://')
    )
    assert settings.matchmaker_heartbeat_freq == 300
    matchmaker = connect('zmq://', conf)
    assert find(matchmaker) == ()
    register(matchmaker)
    assert own_redis.command('DBSIZE') == 3
    ttl = own_redis.command('PTTL', 'oslo:zmq:at::rpc:exchange:topic')
    assert 500_000 < ttl <= 600_000


@pytest.mark.spec('MM-72')
@pytest.mark.parametrize(
    ('url', 'problem'),
    [
        ('zmq+redis://a,b/', 'zmq+sentinel'),
        ('zmq+sentinel://', 'name the Sentinels'),
        ('zmq+sentinel://:26379/', 'name the Sentinels'),
        ('zmq+sentinel://u:p@a,u:q@b/', 'sentinel_password'),
        ('zmq+redis://a/?redis_db=-1', 'redis_db'),
        ('zmq+redis://a/?redis_port=0', 'redis_port'),
        ('zmq+redis://a/?redis_timeout=0', 'redis_timeout'),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url, problem):
    conf = cfg.ConfigOpts()
    conf([], project='zmq-driver-tests')
    with pytest.raises(oslo_messaging.InvalidTransportURL) as caught:
        driver.ZmqDriver(conf, oslo_messaging.TransportURL.parse(conf, url))
    assert problem in str(caught.value)


@pytest.mark.spec('MM-71')
def test_the_guide_lists_the_same_rights():
    guide = process.ROOT / 'doc' / 'source' / 'admin' / 'redis.rst'
    assert ' '.join(RIGHTS) in ' '.join(guide.read_text().split())


@pytest.mark.spec('MM-71')
def test_the_minimal_user_suffices(own_redis, connect):
    own_redis.command(
        'ACL', 'SETUSER', 'zmq', 'on', f'>{SECRET}', '~oslo:zmq:*',
        '&oslo:zmq:*', *RIGHTS,
    )  # fmt: skip
    matchmaker = connect(f'zmq+redis://zmq:{SECRET}@{own_redis.address}/')
    heard = []
    matchmaker.watch(heard.append)
    made = register(matchmaker)
    assert find(matchmaker) == (made.route,)
    redis_samples.wait_until_watched(matchmaker, heard)
    register(matchmaker)
    redis_samples.wait_until_heard(heard)
    matchmaker._renew()
    assert len(matchmaker.records(samples.deadline())) == 2
    matchmaker.unregister(made, samples.deadline())
    elsewhere = connect(
        f'zmq+redis://zmq:{SECRET}@{own_redis.address}/'
        '?redis_key_prefix=other:'
    )
    for call in (find, register):
        with pytest.raises(base.MatchmakerUnavailable, match='rights'):
            call(elsewhere)
    log = own_redis.command('ACL', 'LOG')
    assert all(b'other:' in str(line).encode() for line in log)


@pytest.fixture(scope='module')
def certificates(tmp_path_factory):
    """Give a directory with an authority and a certificate of 127.0.0.1."""
    path = tmp_path_factory.mktemp('tls')

    def openssl(*arguments):
        subprocess.run(
            ['openssl', *arguments], cwd=path, check=True, capture_output=True
        )

    for name in ('ca', 'other'):
        openssl(
            'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
            '-subj', f'/CN={name}', '-keyout', f'{name}.key',
            '-out', f'{name}.pem',
        )  # fmt: skip
    openssl(
        'req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=redis',
        '-keyout', 'redis.key', '-out', 'redis.csr',
    )  # fmt: skip
    (path / 'names').write_text('subjectAltName=IP:127.0.0.1\n')
    openssl(
        'x509', '-req', '-in', 'redis.csr', '-CA', 'ca.pem', '-CAkey',
        'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names',
        '-out', 'redis.pem',
    )  # fmt: skip
    return path


@pytest.fixture
def tls_redis(certificates):
    server = redis_server.RedisServer(
        f'tls-cert-file {certificates}/redis.pem',
        f'tls-key-file {certificates}/redis.key',
        f'tls-ca-cert-file {certificates}/ca.pem',
        'tls-auth-clients yes',
        tls={
            'ssl': True,
            'ssl_ca_certs': f'{certificates}/ca.pem',
            'ssl_certfile': f'{certificates}/redis.pem',
            'ssl_keyfile': f'{certificates}/redis.key',
        },
    )
    yield server.start()
    server.close()


@pytest.mark.spec('MM-73')
def test_tls(tls_redis, certificates, connect):
    query = (
        f'redis_ssl=true&redis_ssl_cert_file={certificates}/redis.pem'
        f'&redis_ssl_key_file={certificates}/redis.key&redis_ssl_ca_file='
    )
    here, ca = tls_redis.address, f'{certificates}/ca.pem'
    matchmaker = connect(f'zmq+redis://{here}/?{query}{ca}')
    heard = []
    matchmaker.watch(heard.append)
    made = register(matchmaker)
    assert find(matchmaker) == (made.route,)
    redis_samples.wait_until_watched(matchmaker, heard)
    for wrong in (
        f'zmq+redis://{here}/?{query}{certificates}/other.pem',
        f'zmq+redis://{here}/?{query}/does/not/exist',
        f'zmq+redis://{here}/?{query}',
        f'zmq+redis://{here}/?redis_ssl=true&redis_ssl_ca_file={ca}',
        f'zmq+redis://localhost:{tls_redis.port}/?{query}{ca}',
        f'zmq+redis://{here}/',
    ):
        with pytest.raises(base.MatchmakerUnavailable):
            find(connect(wrong))
    url = f'zmq+redis://localhost:{tls_redis.port}/?{query}{ca}'
    unchecked = connect(url + '&redis_ssl_check_hostname=false')
    assert find(unchecked) == (made.route,)
    assert ssl.HAS_TLSv1_2
