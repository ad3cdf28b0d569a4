# SPDX-License-Identifier: Apache-2.0
"""Prints how fast notifications are: directly, into the store, out of it.

One thread notifies, one process listens, on one host; bodies of 3,200 bytes.
Run it on a quiet machine: ``python tools/measure_notifications.py [COUNT]``.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time

from oslo_config import cfg
import oslo_messaging

BODY = 'x' * 3200


class Endpoint:
    """Counts."""

    def __init__(self):
        self.count = 0

    def info(self, *args):
        self.count += 1


def listen(url):
    """Listen until the input ends; print how many there were, and when."""
    transport = oslo_messaging.get_notification_transport(cfg.CONF, url)
    endpoint = Endpoint()
    listener = oslo_messaging.get_notification_listener(
        transport,
        [oslo_messaging.Target(topic='rate')],
        [endpoint],
        executor='threading',
    )
    listener.start()
    print('ready', flush=True)
    for line in sys.stdin:
        wanted = int(line)
        while endpoint.count < wanted:
            time.sleep(0.001)
        print(json.dumps({'count': endpoint.count}), flush=True)
    listener.stop()
    listener.wait()
    transport.cleanup()


def start(url):
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', __file__, '--listen', url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    return process


def wait(process, count):
    process.stdin.write(f'{count}\n')
    process.stdin.flush()
    process.stdout.readline()


def end(process):
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


def measure(url, count):
    transport = oslo_messaging.get_notification_transport(cfg.CONF, url)
    one = oslo_messaging.Notifier(
        transport, publisher_id='p', driver='messagingv2', topics=['rate']
    )

    def notify():
        begin = time.monotonic()
        for _ in range(count):
            one.info({}, 'event', BODY)
        return count / (time.monotonic() - begin)

    stored = notify()
    begin = time.monotonic()
    process = start(url)
    begin_there = time.monotonic()
    wait(process, count)
    drained = count / (time.monotonic() - begin_there)
    late = time.monotonic() - begin
    direct = notify()
    wait(process, 2 * count)
    counters = transport._driver.runtime().counters.snapshot()
    end(process)
    transport.cleanup()
    print(
        f'{count} of {len(BODY)} bytes, per second: stored {stored:.0f}, '
        f'drained {drained:.0f} (all {late:.1f} s after the start of the '
        f'listener), direct {direct:.0f} '
        f'({counters["notifications_stored"] - count} of them stored)',
        flush=True,
    )


def main():
    cfg.CONF([], project='measure')
    if sys.argv[1:2] == ['--listen']:
        listen(sys.argv[2])
        return
    count = int((sys.argv[1:] or ['5000'])[0])
    directory = tempfile.mkdtemp(prefix='zm')
    try:
        for _ in range(3):
            measure(f'zmq:///?rpc_zmq_ipc_dir={directory}', count)
            shutil.rmtree(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == '__main__':
    main()
