# SPDX-License-Identifier: Apache-2.0
"""A process that forks, in one of several ways, around a transport.

It prints JSON lines like the other programs; each process of the family
prints its own. ``{"wrong": [...]}`` lists the calls that did not return what
they should.
"""

import argparse
import contextlib
import ctypes
import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import threading
import time

from oslo_config import cfg
import oslo_messaging

#: Seconds after which a process of the family ends with its stack traces: it
#: hangs, and nobody else would end it.
PATIENCE = 60


def tell(**what):
    print(json.dumps(what), flush=True)


class Endpoint:
    def __init__(self, role):
        self._role = role

    def who(self, ctxt):
        return [self._role, os.getpid()]

    def echo(self, ctxt, value):
        return value

    def block(self, ctxt):
        tell(blocked=True)
        threading.Event().wait(PATIENCE)


class NotificationEndpoint:
    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        tell(notified=payload)


class Family:
    """What the processes have in common: transports, made before a fork."""

    def __init__(self, url, topic):
        self.url = url
        self.topic = topic
        self.transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        self.notifications = oslo_messaging.get_notification_transport(
            cfg.CONF, url
        )

    def serve(self, role):
        server = oslo_messaging.get_rpc_server(
            self.transport,
            oslo_messaging.Target(topic=self.topic, server=role),
            [Endpoint(role)],
            executor='threading',
            access_policy=oslo_messaging.DefaultRPCAccessPolicy,
        )
        server.start()
        return server

    def listen(self):
        listener = oslo_messaging.get_notification_listener(
            self.notifications,
            [oslo_messaging.Target(topic=self.topic)],
            [NotificationEndpoint()],
            executor='threading',
        )
        listener.start()
        return listener

    def client(self, server=None, timeout=20):
        return oslo_messaging.get_rpc_client(
            self.transport,
            oslo_messaging.Target(topic=self.topic, server=server),
            timeout=timeout,
        )

    def talk(self, roles, calls=40):
        """Call each of *roles* in two threads; return what went wrong."""
        wrong = []

        def run(role, thread):
            client = self.client(role)
            for n in range(calls):
                value = f'{os.getpid()}-{role}-{thread}-{n}'
                try:
                    answer = client.call({}, 'echo', value=value)
                    found = client.call({}, 'who')[0]
                except Exception as error:
                    wrong.append(f'{value}: {error!r}')
                    return
                if (answer, found) != (value, role):
                    wrong.append(f'{value}: {answer} from {found}')

        threads = [
            threading.Thread(target=run, args=(role, thread))
            for role in roles
            for thread in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        return wrong


def limit_life():
    """End this process, with its stack traces, if it hangs."""
    # An alarm is not inherited, and the other timers do not survive a fork.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(PATIENCE)


def fork(work, *arguments):
    """Run *work* in a child; it ends by what *work* returns or raises."""
    pid = os.fork()
    if pid == 0:
        limit_life()
        sys.exit(work(*arguments))
    return pid


def wait(pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


class Rendezvous:
    """Keeps children alive until all of them have finished."""

    def __init__(self):
        self._finished = os.pipe()
        self._release = os.pipe()

    def finish(self):
        """Say that this child is done, and wait for the others."""
        os.write(self._finished[1], b'.')
        os.close(self._release[1])
        os.read(self._release[0], 1)

    def wait_finished(self, count):
        for _ in range(count):
            os.read(self._finished[0], 1)

    def release(self):
        os.close(self._release[1])


def siblings(family, used):
    """Two children and their parent, who all serve and call each other."""
    roles = ['parent', 'child-0', 'child-1']
    if used:
        family.serve('parent')
        tell(wrong=family.talk(['parent'], 5), by='parent before')
    rendezvous = Rendezvous()

    def child(role):
        family.serve(role)
        tell(wrong=family.talk(roles), by=role)
        rendezvous.finish()

    pids = [fork(child, role) for role in roles[1:]]
    if not used:
        family.serve('parent')
    tell(wrong=family.talk(roles), by='parent')
    rendezvous.wait_finished(2)
    rendezvous.release()
    tell(statuses=wait(pids))
    tell(wrong=family.talk(['parent'], 5), by='parent after')
    ready_until_stopped(family)


def generations(family):
    """A child that uses the transport, and then forks again."""
    roles = ['parent', 'child', 'grandchild']
    family.serve('parent')
    tell(wrong=family.talk(['parent'], 5), by='parent')
    rendezvous = Rendezvous()

    def grandchild():
        family.serve('grandchild')
        tell(wrong=family.talk(roles), by='grandchild')
        rendezvous.finish()

    def child():
        family.serve('child')
        tell(wrong=family.talk(roles[:2], 5), by='child')
        pid = fork(grandchild)
        tell(wrong=family.talk(roles), by='child again')
        rendezvous.finish()
        tell(statuses=wait([pid]))

    pid = fork(child)
    rendezvous.wait_finished(2)
    rendezvous.release()
    tell(statuses=wait([pid]))
    tell(wrong=family.talk(['parent'], 5), by='parent after')
    ready_until_stopped(family)


def storm(family, count):
    """Children forked while threads of the parent are in their calls."""
    family.serve('parent')
    ended = threading.Event()
    wrong = []
    made = []

    def load(thread):
        client = family.client('parent')
        n = 0
        while not ended.is_set():
            n += 1
            value = f'load-{thread}-{n}'
            try:
                answer = client.call({}, 'echo', value=value)
            except Exception as error:
                answer = repr(error)
            if answer != value:
                wrong.append(f'{value}: {answer}')
        made.append(n)

    def child(n):
        bad = family.talk(['parent'], 2)
        if n % 3 == 0:
            family.serve(f'child-{n}')
            bad += family.talk([f'child-{n}'], 2)
        if bad:
            tell(wrong=bad, by=f'child-{n}')
        if n % 2:
            os._exit(7 if bad else 0)
        sys.exit(7 if bad else 0)

    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    statuses = []
    pids = []
    for n in range(count):
        pids.append(fork(child, n))
        if len(pids) == 4:
            statuses += wait([pids.pop(0)])
    statuses += wait(pids)
    ended.set()
    for thread in threads:
        thread.join(PATIENCE)
    tell(wrong=wrong, by='load', made=sum(made))
    tell(statuses=statuses)
    ready_until_stopped(family)


def orphan(family, serve=True):
    """A child that does nothing and outlives its parent."""
    if serve:
        family.serve('parent')
        family.listen()
    pid = os.fork()
    if pid == 0:
        limit_life()
        threading.Event().wait(PATIENCE)
        os._exit(0)
    tell(ready=True, child=pid)
    sys.stdin.read()


def heir(family):
    """A child forked when it is told to, which outlives its parent."""
    family.serve('parent')
    tell(ready=True)
    sys.stdin.readline()
    orphan(family, serve=False)


def fork_unnoticed():
    """Fork without Python's knowledge.

    If another thread has asked for the lock of the interpreter, the child
    hands it over, and waits in vain for a thread to take it. So none asks.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    time.sleep(0.2)
    pid = ctypes.PyDLL(None).fork()
    sys.setswitchinterval(interval)
    return pid


def unknowing(family):
    """Children that Python does not know of, as uwsgi makes them."""
    family.serve('parent')
    tell(wrong=family.talk(['parent'], 5), by='parent')

    def cleaner():
        family.transport.cleanup()
        return []

    def user():
        family.serve('child')
        return family.talk(['parent', 'child'], 5)

    pids = []
    for work in (cleaner, user):
        pid = fork_unnoticed()
        if pid == 0:
            limit_life()
            wrong = work()
            tell(wrong=wrong, by=work.__name__)
            os._exit(7 if wrong else 0)
        pids.append(pid)
    tell(statuses=wait(pids))
    tell(wrong=family.talk(['parent'], 5), by='parent after')
    ready_until_stopped(family)


def vandal(family):
    """A child that ends everything it inherited."""
    server = family.serve('parent')
    listener = family.listen()
    tell(wrong=family.talk(['parent'], 5), by='parent')

    def child():
        server.stop()
        listener.stop()
        family.transport.cleanup()
        family.notifications.cleanup()
        try:
            family.client().call({}, 'who')
        except oslo_messaging.MessagingException as error:
            tell(after_cleanup=type(error).__name__)

    tell(statuses=wait([fork(child)]))
    tell(wrong=family.talk(['parent'], 5), by='parent after')
    ready_until_stopped(family)


def departure(family, how):
    """A child that serves and is gone without a word."""

    def child():
        family.serve('child')
        tell(wrong=family.talk(['child'], 2), by='child')
        if how == 'os._exit':
            os._exit(0)
        sys.exit(0)

    family.serve('parent')
    tell(statuses=wait([fork(child)]))
    ready_until_stopped(family)


def work_of_process(url, topic, role):
    """What a process of multiprocessing does; it inherits or makes anew."""
    limit_life()
    family = _inherited or make_family(url, topic)
    family.serve(role)
    wrong = family.talk(['parent', role], 10)
    tell(wrong=wrong, by=role)
    if _inherited is None:
        family.transport.cleanup()
    sys.exit(7 if wrong else 0)


_inherited = None


def processes(family, method):
    """Processes of multiprocessing."""
    global _inherited
    context = multiprocessing.get_context(method)
    family.serve('parent')
    tell(wrong=family.talk(['parent'], 5), by='parent')
    # Not seen by a process that is spawned.
    _inherited = family
    found = [
        context.Process(
            target=work_of_process,
            args=(family.url, family.topic, f'process-{n}'),
        )
        for n in range(2)
    ]
    for one in found:
        one.start()
    for one in found:
        one.join(PATIENCE)
    tell(statuses=[one.exitcode for one in found])
    tell(wrong=family.talk(['parent'], 5), by='parent after')
    ready_until_stopped(family)


def ready_until_stopped(family):
    tell(ready=True, pid=os.getpid())
    sys.stdin.readline()


def make_family(url, topic):
    with contextlib.suppress(cfg.ArgsAlreadyParsedError):
        cfg.CONF([], project='zmq-driver-tests')
    return Family(url, topic)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('scenario')
    parser.add_argument('arguments', nargs='*')
    args = parser.parse_args()
    limit_life()
    family = make_family(args.url, args.topic)
    first = args.arguments[0] if args.arguments else ''
    if args.scenario == 'siblings':
        siblings(family, first == 'used')
    elif args.scenario == 'storm':
        storm(family, int(first))
    elif args.scenario == 'departure':
        departure(family, first)
    elif args.scenario == 'processes':
        processes(family, first)
    else:
        {
            'generations': generations,
            'heir': heir,
            'orphan': orphan,
            'unknowing': unknowing,
            'vandal': vandal,
        }[args.scenario](family)


if __name__ == '__main__':
    main()
