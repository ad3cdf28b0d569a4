# SPDX-License-Identifier: Apache-2.0
"""A process that casts and notifies from several threads, and just ends.

It never cleans up. Its last cast is large.
"""

import argparse
import json
import os
import signal
import sys
import threading

from oslo_config import cfg
import oslo_messaging

#: Seconds after which it ends, because it hangs.
PATIENCE = 60


def tell(**what):
    print(json.dumps(what), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--threads', type=int, default=4)
    parser.add_argument('--casts', type=int, default=50)
    parser.add_argument('end', choices=['return', 'exit', '_exit', 'kill'])
    args = parser.parse_args()
    signal.alarm(PATIENCE)
    cfg.CONF([], project='zmq-driver-tests')
    client = oslo_messaging.get_rpc_client(
        oslo_messaging.get_rpc_transport(cfg.CONF, args.url),
        oslo_messaging.Target(topic=args.topic),
    )
    everybody = client.prepare(fanout=True)

    def cast(thread):
        for n in range(args.casts):
            client.cast({}, 'record', id=f'cast-{thread}-{n}')
        everybody.cast({}, 'record', id=f'fanout-{thread}')

    threads = [
        threading.Thread(target=cast, args=(n,)) for n in range(args.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    tell(ready=True)
    # More than the kernel takes at once, so that it would be lost if it were
    # still on its way.
    client.cast({'padding': 'x' * 8_000_000}, 'record', id='last')
    if args.end == 'exit':
        sys.exit(0)
    if args.end == '_exit':
        os._exit(0)
    if args.end == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
    main()
