# SPDX-License-Identifier: Apache-2.0
"""A service with a Guru Meditation Report, which calls itself once.

It prints JSON lines: ``{"ready": pid}``, and after the line ``metrics`` what
Prometheus would read. It ends on the line ``stop``.
"""

import json
import sys

from oslo_config import cfg
import oslo_messaging
from oslo_reports import guru_meditation_report
from oslo_reports import opts

from zmq_driver import prometheus


def tell(**what):
    print(json.dumps(what), flush=True)


class Endpoint:
    def echo(self, ctxt, value):
        return value


def main():
    url, topic = sys.argv[1:]
    conf = cfg.CONF
    opts.set_defaults(conf)
    conf([], project='reporting')
    guru_meditation_report.TextGuruMeditation.setup_autorun(
        version='1', conf=conf
    )
    transport = oslo_messaging.get_rpc_transport(conf, url)
    server = oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(topic=topic, server='reporting'),
        [Endpoint()],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    server.start()
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic), timeout=20
    )
    client.call({}, 'echo', value=1)
    tell(ready=True)
    for line in sys.stdin:
        if line.strip() == 'stop':
            break
        tell(metrics=prometheus.exposition())
    server.stop()
    server.wait()
    transport.cleanup()


main()
