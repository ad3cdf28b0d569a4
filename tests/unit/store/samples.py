# SPDX-License-Identifier: Apache-2.0
"""Stores and messages for tests, also for processes that tests start."""

import os
import subprocess
import sys

from oslo_config import cfg
import oslo_messaging

from tests.fixtures import process
from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters
from zmq_driver import ipc
from zmq_driver import options
from zmq_driver.store import base
from zmq_driver.store import loading

WHERE = address.Address(address.Scope.NOTIFICATION, 'openstack', 'n.info')
HOLDER = base.Holder('ipc:///run/a.ipc', b'a' * 16)
ANYBODY = (base.Copy(None),)

#: Seconds after which something hangs, on a machine that is busy.
HANG = 60.0


def make(place, site='local /', **values):
    """Make a store in a directory, or in the Redis of a transport URL."""
    in_redis = place is not None and '://' in place
    conf = cfg.ConfigOpts()
    conf([], project='zmq-driver-tests')
    url = oslo_messaging.TransportURL.parse(
        conf, place if in_redis else 'zmq:///'
    )
    conf.register_opts(options._OPTIONS, group=options.GROUP)
    for name, value in values.items():
        conf.set_override(name, value, group=options.GROUP)
    settings = base.StoreSettings(
        ipc.IpcDirectory('/nowhere' if in_redis else place),
        site,
        options.load(conf, url),
        counters.Counters(),
        url.transport.partition('+')[2] or 'local',
        url=url,
    )
    return loading.make_store(settings)


def add(store, number, pools=(None,), where=WHERE, timeout=HANG, size=0):
    """Store message *number*, for nobody in particular or for pools."""
    store.add(
        where,
        number.to_bytes(16, 'big'),
        b'%d,' % number + b'x' * size,
        [base.Copy(pool) for pool in pools],
        clock.Deadline(timeout),
    )


def number(stored):
    return int.from_bytes(stored.message_id, 'big')


def everything(store, pool=None, where=WHERE, dead=False):
    """Return all copies of a pool, read in pieces."""
    found = []
    for queue in store.pending(100, dead=dead):
        if (queue.where, queue.pool) == (where, pool):
            after = 0
            while some := store.take(queue.number, 10, after):
                found += some
                after = some[-1].key.number
    return found


def numbers(store, pool=None, **kwargs):
    return [number(stored) for stored in everything(store, pool, **kwargs)]


def start(code, *arguments):
    """Start a process that runs *code* after ``store`` was made."""
    code = (
        'import sys, os\n'
        'from tests.unit.store import samples\n'
        f'store = samples.make(sys.argv[1])\n{code}'
    )
    return subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', code, *map(str, arguments)],
        cwd=process.ROOT,
        env={**os.environ, 'PYTHONPATH': str(process.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
