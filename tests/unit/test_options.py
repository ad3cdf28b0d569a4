# SPDX-License-Identifier: Apache-2.0
"""The options, their old names and the query of the URL."""

import dataclasses

from oslo_config import cfg
import oslo_messaging
import pytest

from zmq_driver import options


@pytest.fixture
def conf():
    conf = cfg.ConfigOpts()
    conf([], project='zmq-driver-tests')
    return conf


def load(conf, query=''):
    url = oslo_messaging.TransportURL.parse(conf, f'zmq:///?{query}')
    return options.load(conf, url)


def test_every_option_is_a_setting():
    ((group, found),) = options.list_opts()
    assert group == 'oslo_messaging_zmq'
    names = {field.name for field in dataclasses.fields(options.Settings)}
    assert {option.name for option in found} == names


def test_listed_options_can_be_changed_without_harm():
    options.list_opts()[0][1][0].default = 'changed'
    assert options.list_opts()[0][1][0].default == 'local'


@pytest.mark.spec('LC-10')
def test_options_are_registered_once_for_many_drivers(conf):
    assert load(conf) == load(conf)


@pytest.mark.spec('LC-10')
def test_query_overrides_one_driver_only(conf):
    found = load(conf, 'rpc_cast_timeout=1.5&pool_max_size=7&linger=0')
    assert (found.rpc_cast_timeout, found.pool_max_size) == (1.5, 7)
    assert found.linger == 0.0
    assert load(conf).rpc_cast_timeout == 30.0
    assert conf.oslo_messaging_zmq.rpc_cast_timeout == 30.0


@pytest.mark.spec('LC-10')
@pytest.mark.parametrize(
    ('name', 'text', 'value'),
    [
        ('rpc_zmq_matchmaker', 'local', 'local'),
        ('rpc_zmq_ipc_dir', '/run/openstack', '/run/openstack'),
        ('rpc_zmq_contexts', '2', 2),
        ('rpc_zmq_topic_backlog', '99', 99),
        ('rpc_cast_timeout', '17', 17.0),
        ('rpc_zmq_bind_address', '*', '*'),
        ('rpc_zmq_bind_address', 'eth0', 'eth0'),
        ('rpc_zmq_host', 'controller-1', 'controller-1'),
        ('rpc_zmq_port', '9501', 9501),
    ],
)
def test_old_names_work_in_the_default_group(tmp_path, name, text, value):
    path = tmp_path / 'service.conf'
    path.write_text(f'[DEFAULT]\n{name} = {text}\n')
    conf = cfg.ConfigOpts()
    conf(['--config-file', str(path)], project='zmq-driver-tests')
    assert getattr(load(conf), name) == value


@pytest.mark.spec('LC-10')
@pytest.mark.parametrize(
    ('name', 'old', 'text', 'value'),
    [
        ('tcp_keepalive', 'zmq_tcp_keepalive', '-1', False),
        ('tcp_keepalive', 'zmq_tcp_keepalive', '0', False),
        ('tcp_keepalive', 'zmq_tcp_keepalive', '1', True),
        ('tcp_keepalive_idle', 'zmq_tcp_keepalive_idle', '-1', -1),
        ('tcp_keepalive_count', 'zmq_tcp_keepalive_cnt', '5', 5),
        ('tcp_keepalive_interval', 'zmq_tcp_keepalive_intvl', '7', 7),
    ],
)
def test_keepalive_has_its_old_names(tmp_path, name, old, text, value):
    path = tmp_path / 'service.conf'
    path.write_text(f'[oslo_messaging_zmq]\n{old} = {text}\n')
    conf = cfg.ConfigOpts()
    conf(['--config-file', str(path)], project='zmq-driver-tests')
    assert getattr(load(conf), name) == value


def test_sockets_to_one_peer_are_not_more_than_all(conf):
    assert load(conf, 'pool_max_size=3').pool_max_per_peer == 3
    assert load(conf, 'pool_max_size=100').pool_max_per_peer == 64


def test_idle_sockets_are_not_more_than_those_to_one_peer(conf):
    assert load(conf, 'pool_max_size=3&pool_min_idle=9').pool_min_idle == 3
    assert load(conf, 'pool_min_idle=9').pool_min_idle == 9


@pytest.mark.spec('LC-11')
def test_unknown_option_is_named_with_those_that_exist(conf):
    with pytest.raises(oslo_messaging.InvalidTransportURL) as caught:
        load(conf, 'nonsense=1')
    assert "unknown option 'nonsense'" in str(caught.value)
    assert 'rpc_cast_timeout' in str(caught.value)


@pytest.mark.spec('LC-11')
@pytest.mark.parametrize(
    'query',
    [
        'linger=-1',
        'linger=x',
        'pool_max_size=0',
        'pool_max_size=many',
        'max_message_size=4294967296',
        'heartbeat_interval=0',
        'pool_idle_ttl=-1',
        'pool_min_idle=-1',
        'rpc_zmq_port=0',
        'rpc_zmq_port=65536',
        'rpc_zmq_port_count=0',
        'tcp_keepalive=2',
        'tcp_keepalive_idle=32768',
        'tcp_keepalive_count=128',
        'tcp_keepalive_interval=-2',
    ],
)
def test_impossible_value_is_named(conf, query):
    name, _, value = query.partition('=')
    with pytest.raises(oslo_messaging.InvalidTransportURL) as caught:
        load(conf, query)
    assert f'value {value!r} of option {name!r}' in str(caught.value)


@pytest.mark.spec('LC-11')
def test_passwords_are_left_out_of_errors(conf):
    url = oslo_messaging.TransportURL.parse(
        conf, 'zmq+x://u:sekrit@a:1,u:sekrit@b/v?linger=0'
    )
    error = options.invalid_url(url, 'problem')
    assert error.url == 'zmq+x://a:1,b/v'
    assert str(error) == 'Invalid transport URL zmq+x://a:1,b/v: problem'
