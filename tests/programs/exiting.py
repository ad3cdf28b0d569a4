# SPDX-License-Identifier: Apache-2.0
"""A process that serves or sends, and exits without ``cleanup()``.

It prints JSON lines like the other programs. On the line ``fork`` it forks a
child, which ends in the way that it was told and is waited for. On ``go on``
it lets methods reply that wait for that, and on ``call`` it calls one. On
``cleanup`` it exits with a cleanup after all, on any other line without.
"""

import argparse
import os
import signal
import sys
import threading

from oslo_config import cfg
import oslo_messaging

from tests.programs import server as programs

#: Seconds after which something hangs, on a machine that is busy.
PATIENCE = 60


class Endpoint(programs.Endpoint):
    go_on = threading.Event()

    def large_later(self, ctxt, size):
        programs.tell(large=size)
        self.go_on.wait(PATIENCE)
        return 'x' * size


class NotificationEndpoint:
    """Asks for each notification again, and again."""

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        programs.tell(asked_again=payload)
        return oslo_messaging.NotificationResult.REQUEUE


def serve(args, threads):
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, args.url)
    server = oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(topic=args.topic, server=args.server),
        [Endpoint(args.server)],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    server.start(override_pool_size=threads)
    return server


def listen(args):
    listener = oslo_messaging.get_notification_listener(
        oslo_messaging.get_notification_transport(cfg.CONF, args.url),
        [oslo_messaging.Target(topic=args.topic)],
        [NotificationEndpoint()],
        executor='threading',
        allow_requeue=True,
    )
    listener.start()
    return listener


def send(args):
    """Cast and notify; what has returned counts."""
    client = oslo_messaging.get_rpc_client(
        oslo_messaging.get_rpc_transport(cfg.CONF, args.url),
        oslo_messaging.Target(topic=args.topic),
    )
    for number in range(args.casts):
        client.cast({}, 'record', id=number)
        if number % 10 == 0:
            client.prepare(fanout=True).cast({}, 'record', id=f'all-{number}')
    return client


def call_on(args, daemon):
    """Let a thread call for as long as it can."""
    client = oslo_messaging.get_rpc_client(
        oslo_messaging.get_rpc_transport(cfg.CONF, args.url),
        oslo_messaging.Target(topic=args.topic),
        timeout=20,
    )

    def call():
        try:
            programs.tell(answer=client.call({}, 'echo', value=1, delay=1.0))
        except Exception as error:
            programs.tell(failed=repr(error))

    threading.Thread(target=call, daemon=daemon).start()
    return client


def call_large(args):
    client = oslo_messaging.get_rpc_client(
        oslo_messaging.get_rpc_transport(cfg.CONF, args.url),
        oslo_messaging.Target(topic=args.topic),
        timeout=PATIENCE,
    )
    try:
        answer = client.call({}, 'large_later', size=args.size)
        programs.tell(answer=len(answer))
    except Exception as error:
        programs.tell(failed=repr(error))


def clean_up(server):
    server.stop()
    server.wait()
    server.transport.cleanup()


def fork(how):
    pid = os.fork()
    if pid == 0:
        if how == 'os-exit':
            os._exit(0)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    programs.tell(child_ended=status)


def end(how):
    if how == 'exit':
        sys.exit(0)
    if how == 'error':
        raise RuntimeError('the program has a defect')
    if how == 'interrupt':
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(20)
    if how == 'terminate':
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(20)


def obey(args, used):
    """Do what the lines say, until one says to end."""
    for line in sys.stdin:
        match line.strip():
            case 'fork':
                fork(args.child)
            case 'go on':
                Endpoint.go_on.set()
            case 'call':
                call_large(args)
            case 'cleanup':
                clean_up(used[0])
                return
            case _:
                return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--server', default='')
    parser.add_argument('--executor-threads', type=int, default=1)
    parser.add_argument('--notifications', action='store_true')
    parser.add_argument('--casts', type=int, default=0)
    parser.add_argument('--call', choices=['daemon', 'thread'])
    parser.add_argument('--size', type=int, default=0)
    parser.add_argument('--how', default='return')
    parser.add_argument('--child', default='exit')
    args = parser.parse_args()
    cfg.CONF([], project='zmq-driver-tests')
    used = []
    if args.server:
        used.append(serve(args, args.executor_threads))
    if args.notifications:
        used.append(listen(args))
    if args.casts:
        used.append(send(args))
    if args.call:
        used.append(call_on(args, args.call == 'daemon'))
    programs.tell(ready=True, used=len(used), pid=os.getpid())
    obey(args, used)
    end(args.how)


if __name__ == '__main__':
    main()
