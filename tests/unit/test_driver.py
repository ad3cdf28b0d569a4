# SPDX-License-Identifier: Apache-2.0
"""The driver before its first use."""

import sys
import types

from oslo_config import cfg
import oslo_messaging
import pytest

from zmq_driver import driver
from zmq_driver import errors
from zmq_driver import plugins


@pytest.fixture
def make():
    """Give a factory of drivers."""
    made = []

    def make(url='zmq://'):
        conf = cfg.ConfigOpts()
        conf([], project='zmq-driver-tests')
        parsed = oslo_messaging.TransportURL.parse(conf, url)
        made.append(driver.ZmqDriver(conf, parsed, 'exchange', []))
        return made[-1]

    yield make
    for one in made:
        one.cleanup()


def test_features_are_accepted(make):
    one = make()
    one.require_features()
    one.require_features(requeue=True)


@pytest.mark.spec('LC-05')
@pytest.mark.spec('LC-07')
def test_cleanup_before_use(make):
    one = make()
    one.cleanup()
    one.cleanup()
    target = oslo_messaging.Target(topic='t', server='s')
    for operation in (
        lambda: one.send(target, {}, {}),
        lambda: one.send_notification(target, {}, {}, 2.0),
        lambda: one.listen(target, 1, None),
        lambda: one.listen_for_notifications([(target, 'info')], None, 1, 1),
    ):
        with pytest.raises(errors.DriverClosed):
            operation()


@pytest.mark.spec('LC-11')
def test_unknown_matchmaker(make):
    with pytest.raises(
        oslo_messaging.InvalidTransportURL, match="'x'; use one of: local"
    ):
        make('zmq+x://')
    with pytest.raises(oslo_messaging.InvalidTransportURL, match="'y'"):
        make('zmq:///?rpc_zmq_matchmaker=y')


@pytest.mark.spec('NS-60')
def test_store_that_there_is_not(make):
    refused = oslo_messaging.InvalidTransportURL
    with pytest.raises(refused, match="'x'; use one of: auto, none"):
        make('zmq:///?notification_store=x')
    with pytest.raises(refused, match='is for zmq\\+redis'):
        make('zmq:///?notification_store=redis')
    make('zmq+redis://localhost/?notification_store=redis')
    make('zmq:///?notification_store=none')


@pytest.mark.spec('LC-11')
def test_matchmaker_may_object_to_the_url(make, monkeypatch):
    class Choosy:
        @classmethod
        def check_url(cls, url):
            return 'name a host'

    monkeypatch.setattr(
        driver.runtime_.MATCHMAKERS, 'load', lambda name: Choosy
    )
    with pytest.raises(
        oslo_messaging.InvalidTransportURL, match='name a host'
    ):
        make()


def test_drivers_load_each_once(make, monkeypatch, tmp_path):
    loaded = []

    def load(namespace, name):
        loaded.append((namespace, name))
        return real(namespace, name)

    real = plugins.stevedore_driver.DriverManager
    monkeypatch.setattr(plugins.stevedore_driver, 'DriverManager', load)
    for namespace in (driver.runtime_.MATCHMAKERS, driver.loading.STORES):
        monkeypatch.setattr(namespace, '_loaded', {})
    for _ in range(2):
        make(f'zmq:///?rpc_zmq_ipc_dir={tmp_path}/zmq').runtime()
    assert sorted(loaded) == [
        ('zmq_driver.matchmakers', 'local'),
        ('zmq_driver.notification_stores', 'sqlite'),
    ]


@pytest.mark.spec('LC-03')
def test_forgotten_driver_begins_anew(make, tmp_path):
    one = make(f'zmq:///?rpc_zmq_ipc_dir={tmp_path}/zmq')
    first = one.runtime()
    assert one.runtime() is first
    one.forget_inherited()
    second = one.runtime()
    assert second is not first
    assert first in driver._inherited
    driver._inherited.remove(first)
    # In a child nobody would; here the first one is still ours.
    first.close(driver.clock.Deadline(5))


def fake_module(monkeypatch, name, **functions):
    module = types.ModuleType(name)
    for key, function in functions.items():
        setattr(module, key, function)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.spec('LC-08')
@pytest.mark.parametrize('patched', [True, False])
@pytest.mark.parametrize(
    ('name', 'function'),
    [
        ('eventlet.patcher', 'is_monkey_patched'),
        ('gevent.monkey', 'is_module_patched'),
    ],
)
def test_green_threads_are_refused(make, monkeypatch, name, function, patched):
    monkeypatch.delitem(sys.modules, 'eventlet.patcher', raising=False)
    fake_module(monkeypatch, name, **{function: lambda module: patched})
    if not patched:
        make()
        return
    with pytest.raises(driver.MonkeyPatchedError) as caught:
        make()
    assert name.partition('.')[0] in str(caught.value)
    assert 'without monkey patching' in str(caught.value)
