# SPDX-License-Identifier: Apache-2.0
"""The store that keeps nothing, and how a store is found."""

from oslo_config import cfg
import oslo_messaging
import pytest

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters
from zmq_driver import ipc
from zmq_driver import options
from zmq_driver.store import base
from zmq_driver.store import loading

WHERE = address.Address(address.Scope.NOTIFICATION, 'openstack', 'n.info')
KEYS = [base.Key(1, 1)]


def parsed(url):
    return oslo_messaging.TransportURL.parse(cfg.ConfigOpts(), url)


@pytest.fixture
def store(tmp_path):
    conf = cfg.ConfigOpts()
    conf([], project='zmq-driver-tests')
    settings = options.load(conf, parsed('zmq:///?notification_store=none'))
    store = loading.make_store(
        base.StoreSettings(
            ipc.IpcDirectory(str(tmp_path / 'ipc')),
            'local /',
            settings,
            counters.Counters(),
        )
    )
    yield store
    store.close()
    assert not list(tmp_path.iterdir())


def test_it_refuses_and_says_which_option_says_so(store):
    assert not store.stores
    with pytest.raises(base.StoreUnavailable, match='notification_store'):
        store.add(WHERE, b'i' * 16, b'', [base.Copy(None)], clock.Deadline(1))


def test_it_is_always_empty(store):
    store.saw(WHERE, ['pool'])
    assert store.pools(WHERE) == frozenset()
    assert store.pending(10) == store.queues(10) == store.take(1, 10) == []
    assert store.replay(1, 10) == store.purge(1, 10) == 0
    assert store.remove(1)
    assert store.counts() == (0, 0, 0)
    assert not store.changed()
    assert not store.claim()
    store.hold(KEYS, base.Holder('ipc:///nowhere', b'i' * 16))
    store.release(KEYS)
    store.split(KEYS, ['pool'])
    store.bury(KEYS)
    store.done(KEYS)
    store.unclaim()
    store.forget()


def test_a_deployment_has_one_name_however_it_is_spelled():
    one = loading.site('redis', 'v', parsed('zmq+redis://u:pw@b:2,a:1/v'))
    two = loading.site('redis', 'v', parsed('zmq+redis://a:1,b:2/v?linger=0'))
    assert one == two == 'redis /v a:1 b:2'
    assert loading.site('redis', '', parsed('zmq+redis://a:1/')) != one
    assert loading.site('local', '') == 'local /'
    masters = {
        loading.site('sentinel', '', parsed(f'zmq+sentinel://a:1/{name}'))
        for name in 'mn'
    }
    assert len(masters) == 2
