# SPDX-License-Identifier: Apache-2.0
"""Notifies on request, in a process of its own.

On the line ``N`` it sends the notification with payload N, and prints
``{"accepted": N}`` when notify() has returned. With ``--die-after N`` it kills
itself at that moment instead, and says nothing any more.
"""

import argparse
import json
import os
import signal
import sys
import time

from oslo_config import cfg
import oslo_messaging


def tell(**what):
    print(json.dumps(what), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--die-after', type=int)
    args = parser.parse_args()
    cfg.CONF([], project='zmq-driver-tests')
    transport = oslo_messaging.get_notification_transport(cfg.CONF, args.url)
    tell(ready=True)
    for line in sys.stdin:
        number = int(line)
        start = time.monotonic()
        # The notifier of oslo.messaging would log an error, not raise it.
        transport._send_notification(
            oslo_messaging.Target(topic=f'{args.topic}.info'),
            {},
            {
                'event_type': 'event',
                'publisher_id': 'tests',
                'priority': 'INFO',
                'payload': number,
            },
            version=2.0,
        )
        if number == args.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        tell(accepted=number, seconds=time.monotonic() - start)
    transport.cleanup()
    tell(ended=True)


if __name__ == '__main__':
    main()
