# SPDX-License-Identifier: Apache-2.0
"""The client process of the demo: an ordinary oslo.messaging program."""

import argparse
import os
import sys
import threading
import time
from typing import Any

import oslo_messaging

from zmq_driver.cmd import demo

#: Characters in a measured call, as in a typical OpenStack message.
PAYLOAD_SIZE = 3200
THREADS = (1, 8)


def show(title: str, result: object) -> None:
    """Print one step of the demo."""
    print(f'{title:<34} -> {result}', flush=True)


def run_patterns(client: Any, notifier: Any) -> None:
    """Show each messaging pattern once.

    :raises RuntimeError: one of them did not do what it should
    """
    greeting = client.call({}, 'greet', name='world')
    show("call greet(name='world')", greeting)
    directed = client.prepare(server='server-2').call({}, 'greet', name='two')
    show("call to server='server-2'", directed)
    if directed['server'] != 'server-2' or directed['pid'] == os.getpid():
        raise RuntimeError(f'wrong server: {directed}')
    client.cast({}, 'log', text='a cast, to one of three')
    show('cast log(...)', 'acknowledged')
    client.prepare(fanout=True).cast({}, 'log', text='a fanout, to all three')
    show('fanout log(...)', 'acknowledged by every server')
    try:
        client.call({}, 'divide', a=1, b=0)
    except ZeroDivisionError as error:
        show(
            'call divide(a=1, b=0)',
            f'raised ZeroDivisionError: {str(error).splitlines()[0]}',
        )
    else:
        raise RuntimeError('the remote exception did not come back')
    notifier.info({}, 'demo.started', {'by': os.getpid()})
    show("notify info 'demo.started'", 'taken by a listener')


def measure(client: Any, threads: int, seconds: float) -> list[float]:
    """Call in *threads* threads for *seconds*; return the latencies."""
    payload = 'x' * PAYLOAD_SIZE
    latencies: list[list[float]] = [[] for _ in range(threads)]
    end = time.monotonic() + seconds

    def run(mine: list[float]) -> None:
        while (start := time.perf_counter()) and time.monotonic() < end:
            if client.call({}, 'echo', payload=payload) != payload:
                raise RuntimeError('the echo differs')
            mine.append(time.perf_counter() - start)

    workers = [
        threading.Thread(target=run, args=(mine,), daemon=True)
        for mine in latencies
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(seconds + 10)
    return sorted(latency for mine in latencies for latency in mine)


def main() -> int:
    """Run the demo's client; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--store', required=True)
    parser.add_argument('--seconds', type=float, required=True)
    arguments = parser.parse_args()
    conf = demo.configure(arguments.store)

    transport = oslo_messaging.get_rpc_transport(conf, arguments.url)
    # get_rpc_client came with oslo.messaging 14.1.
    make_client = getattr(
        oslo_messaging, 'get_rpc_client', oslo_messaging.RPCClient
    )
    client = make_client(
        transport, oslo_messaging.Target(topic=arguments.topic), timeout=10
    )
    notifications = oslo_messaging.get_notification_transport(
        conf, arguments.url
    )
    notifier = oslo_messaging.Notifier(
        notifications,
        publisher_id='demo-client',
        driver='messagingv2',
        topics=[arguments.topic],
    )
    print(
        f'client {os.getpid()} calls three server processes over '
        f'{arguments.url}',
        flush=True,
    )
    run_patterns(client, notifier)
    print(
        f'calls of {PAYLOAD_SIZE} characters, {arguments.seconds} s each:',
        flush=True,
    )
    for threads in THREADS:
        latencies = measure(client, threads, arguments.seconds)
        if not latencies:
            raise RuntimeError('no call succeeded')
        print(
            f'  {threads} thread(s): '
            f'{len(latencies) / arguments.seconds:6.0f} calls/s, '
            f'p50 {latencies[len(latencies) // 2] * 1e3:.2f} ms, '
            f'p99 {latencies[int(len(latencies) * 0.99)] * 1e3:.2f} ms',
            flush=True,
        )
    transport.cleanup()
    notifications.cleanup()
    return 0


if __name__ == '__main__':
    sys.exit(main())
