# SPDX-License-Identifier: Apache-2.0
"""The local matchmaker among processes that live, fork and are killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from tests.fixtures import process
from tests.fixtures import waiting
from zmq_driver import address
from zmq_driver import clock
from zmq_driver import ipc
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import cache
from zmq_driver.matchmaker import local

WHERE = address.Address(address.Scope.RPC, 'exchange', 'topic')


def deadline(timeout=30.0):
    return clock.Deadline(timeout)


def make(path):
    settings = base.MatchmakerSettings(
        ipc.IpcDirectory(str(path)), '', os.urandom(8).hex()
    )
    return local.LocalMatchmaker(settings)


def register(matchmaker, where=WHERE, server='server'):
    route = address.Route('ipc:///tmp/x.ipc', os.urandom(16), server)
    registration = address.Registration(where, route)
    matchmaker.register(registration, deadline())
    return registration


def servers(matchmaker, where=WHERE):
    return sorted(
        r.server for r in matchmaker.lookup(where, deadline()).routes
    )


def files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob('*'))


class Child:
    """A forked process that runs a function, then waits to be ended.

    It tells the parent what the function returned, or raised.
    """

    def __init__(self, function, *args):
        read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(read)
            self._run(write, function, args)
        os.close(write)
        self._pipe = os.fdopen(read)

    def _run(self, write, function, args):
        try:
            answer = function(*args)
        except BaseException as exc:
            answer = repr(exc)
        os.write(write, json.dumps(answer).encode() + b'\n')
        while True:
            signal.pause()

    def answer(self):
        return json.loads(self._pipe.readline())

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._pipe.close()


@pytest.fixture
def spawn():
    """Give a factory of children, killed after the test."""
    children = []

    def spawn(function, *args):
        children.append(Child(function, *args))
        return children[-1]

    yield spawn
    for child in children:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            child.kill()


@pytest.fixture
def matchmaker(ipc_dir):
    matchmaker = make(ipc_dir)
    yield matchmaker
    matchmaker.close(deadline())


def serve(path, server, topics=('topic',)):
    """Register in this process; the matchmaker lives as long as it does."""
    serve.matchmaker = make(path)
    for topic in topics:
        register(serve.matchmaker, WHERE._replace(topic=topic), server)
    endpoint = path / f'{serve.matchmaker.settings.member}.ipc'
    endpoint.touch()
    return serve.matchmaker.settings.member


@pytest.mark.spec('MM-01')
def test_processes_find_each_other(ipc_dir, matchmaker, spawn):
    children = [spawn(serve, ipc_dir, name) for name in 'abc']
    for child in children:
        child.answer()
    register(matchmaker, server='d')
    assert servers(matchmaker) == list('abcd')
    other = spawn(lambda: servers(make(ipc_dir)))
    assert other.answer() == list('abcd')


@pytest.mark.spec('MM-21', 'MM-26')
def test_a_killed_process_is_gone_at_the_next_lookup(
    ipc_dir, matchmaker, spawn
):
    killed, lives = spawn(serve, ipc_dir, 'a'), spawn(serve, ipc_dir, 'b')
    member = killed.answer()
    lives.answer()
    assert servers(matchmaker) == ['a', 'b']
    killed.kill()
    assert servers(matchmaker) == ['b']
    assert not [f for f in files(ipc_dir) if member in f]


@pytest.mark.spec('MM-21')
def test_a_frozen_process_is_not_a_dead_one(ipc_dir, matchmaker, spawn):
    child = spawn(serve, ipc_dir, 'a')
    child.answer()
    os.kill(child.pid, signal.SIGSTOP)
    assert servers(matchmaker) == ['a']
    child.kill()
    assert servers(matchmaker) == []


@pytest.mark.spec('MM-22')
@pytest.mark.parametrize('how', ['silently', 'forgets'])
def test_a_child_does_not_keep_its_killed_parent_alive(
    ipc_dir, matchmaker, spawn, how
):
    def parent():
        serve(ipc_dir, 'a')
        read, write = os.pipe()
        child = os.fork()
        if not child:
            if how == 'forgets':
                serve.matchmaker.forget()
            os.write(write, b'it runs')
            while True:
                signal.pause()
        os.read(read, 10)
        return child

    outer = spawn(parent)
    orphan = outer.answer()
    assert servers(matchmaker) == ['a']
    outer.kill()
    try:
        assert servers(matchmaker) == []
    finally:
        os.kill(orphan, signal.SIGKILL)


@pytest.mark.spec('MM-22')
def test_a_child_forked_while_the_lock_file_is_made(
    ipc_dir, matchmaker, spawn
):
    """Whenever the fork happens, the child keeps nothing."""

    def parent():
        forked = []
        stop = threading.Event()

        def fork():
            while not stop.is_set() and len(forked) < 200:
                child = os.fork()
                if not child:
                    while True:
                        signal.pause()
                forked.append(child)

        forking = threading.Thread(target=fork)
        forking.start()
        kept = [make(ipc_dir) for _ in range(50)]
        for one in kept:
            register(one)
        stop.set()
        forking.join(30)
        serve.kept = kept
        return forked

    outer = spawn(parent)
    orphans = outer.answer()
    try:
        assert orphans
        assert len(servers(matchmaker)) == 50
        outer.kill()
        # The last one may not have run yet.
        waiting.until(lambda: not servers(matchmaker), 'empty answer')
    finally:
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.spec('MM-09')
def test_a_child_that_exits_takes_nothing_with_it(ipc_dir, matchmaker):
    """Also if it runs the exit handlers that it inherited."""
    register(matchmaker)
    before = files(ipc_dir)
    code = textwrap.dedent(
        """
        import os, sys
        from tests.functional import test_local_matchmaker as t
        matchmaker = t.make(sys.argv[1])
        t.register(matchmaker, server='parent')
        pid = os.fork()
        if not pid:
            sys.exit(0)
        os.waitpid(pid, 0)
        print(t.servers(t.make(sys.argv[1])))
        """
    )
    assert run(code, ipc_dir) == "['parent', 'server']\n"
    assert files(ipc_dir) == before


@pytest.mark.spec('MM-31')
@pytest.mark.parametrize('ending', ['', 'sys.exit(3)', 'raise KeyError'])
def test_an_orderly_exit_leaves_nothing(ipc_dir, ending):
    code = textwrap.dedent(
        f"""
        import os, sys
        from tests.functional import test_local_matchmaker as t
        matchmaker = t.make(sys.argv[1])
        t.register(matchmaker)
        assert t.servers(matchmaker)
        {ending}
        """
    )
    run(code, ipc_dir)
    assert files(ipc_dir) == []


def run(code, path):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, str(path)],
        cwd=process.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    ).stdout


@pytest.mark.spec('MM-23')
def test_an_executed_program_does_not_keep_its_killed_parent_alive(
    ipc_dir, matchmaker, spawn
):
    def parent():
        serve(ipc_dir, 'a')
        program = subprocess.Popen(['sleep', '60'], close_fds=False)
        return program.pid

    outer = spawn(parent)
    program = outer.answer()
    outer.kill()
    try:
        assert servers(matchmaker) == []
    finally:
        os.kill(program, signal.SIGKILL)


@pytest.mark.spec('MM-27')
def test_many_clean_up_at_once_while_others_start(ipc_dir, matchmaker, spawn):
    """Only the dead disappear, and all of them do."""
    dead = [spawn(serve, ipc_dir, f'dead{i}', 'abcd') for i in range(8)]
    members = [child.answer() for child in dead]
    for child in dead:
        child.kill()
    go = ipc_dir.with_name(ipc_dir.name + '.go')

    def clean(name):
        waiting.until(go.exists, 'start')
        serve(ipc_dir, name, 'ab')
        wrong = []
        for _ in range(20):
            for topic in 'abcd':
                found = servers(serve.matchmaker, WHERE._replace(topic=topic))
                wrong += [s for s in found if s.startswith('dead')]
                if topic in 'ab' and name not in found:
                    wrong.append(f'{name} is not at {topic}')
        return wrong

    cleaners = [spawn(clean, f'living{i}') for i in range(6)]
    go.touch()
    try:
        assert [child.answer() for child in cleaners] == [[]] * 6
    finally:
        go.unlink()
    for topic in 'ab':
        assert servers(matchmaker, WHERE._replace(topic=topic)) == [
            f'living{i}' for i in range(6)
        ]
    left = files(ipc_dir)
    assert not [f for f in left if any(member in f for member in members)]
    assert not [f for f in left if f.endswith('.tmp')]


@pytest.mark.spec('MM-27', 'MM-33')
def test_the_last_leaves_while_the_first_comes(ipc_dir, matchmaker, spawn):
    """Its directory is made and removed by several at once."""

    def come_and_go(name):
        matchmaker = make(ipc_dir)
        for _ in range(100):
            made = register(matchmaker, server=name)
            if name not in servers(matchmaker):
                return f'{name} is not there'
            matchmaker.unregister(made, deadline())
        matchmaker.close(deadline())
        return ''

    children = [spawn(come_and_go, name) for name in 'abcd']
    assert [child.answer() for child in children] == [''] * 4
    assert servers(matchmaker) == []
    assert files(ipc_dir) == []


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be others')
@pytest.mark.spec('MM-15', 'MM-26')
@pytest.mark.parametrize(
    ('mode', 'cleans'), [(0o770, True), (0o2770, True), (0o1770, False)]
)
def test_users_of_a_group_share_a_directory(
    ipc_dir, matchmaker, spawn, mode, cleans
):
    """The services of a host run as users of the group oslo."""
    nova, cinder, oslo = 2001, 2002, 2010
    os.chown(ipc_dir, 0, oslo)
    ipc_dir.chmod(mode)

    def become(user, function, *args):
        os.umask(0o077)
        os.setgroups([oslo])
        os.setgid(user)
        os.setuid(user)
        return function(*args)

    def look(*topics):
        other = make(ipc_dir)
        register(other, server='cinder')
        for _ in range(2):
            found = [
                servers(other, WHERE._replace(topic=topic)) for topic in topics
            ]
        other.close(deadline())
        return found

    child = spawn(become, nova, serve, ipc_dir, 'nova', ['topic', 'own'])
    member = child.answer()
    looking = spawn(become, cinder, look, 'topic', 'own')
    assert looking.answer() == [['cinder', 'nova'], ['nova']]
    register(matchmaker, server='root')
    assert servers(matchmaker) == ['nova', 'root']
    child.kill()
    looking = spawn(become, cinder, look, 'topic', 'own')
    assert looking.answer() == [['cinder', 'root'], []]
    left = [f for f in files(ipc_dir) if member in f]
    assert bool(left) is not cleans
    assert servers(matchmaker) == ['root']


@pytest.mark.spec('MM-52')
def test_who_polls_the_cache_sees_joins_and_leaves_soon(ipc_dir, spawn):
    """The median of several; a single one may wait for the processor."""
    cached = cache.CachedMatchmaker(make(ipc_dir), ttl=600, negative_ttl=600)
    other = make(ipc_dir)
    delays = []

    def wait_for(number):
        begin = time.monotonic()
        waiting.until(
            lambda: len(cached.lookup(WHERE, deadline())) == number,
            f'answer with {number} listeners',
        )
        delays.append(time.monotonic() - begin)

    wait_for(0)
    delays.clear()
    for _ in range(5):
        made = [register(other)]
        wait_for(1)
        made.append(register(other))
        wait_for(2)
        for i, one in enumerate(made):
            other.unregister(one, deadline())
            wait_for(1 - i)
    assert sorted(delays)[len(delays) // 2] < 0.1
    other.close(deadline())


@pytest.mark.spec('MM-52')
def test_a_cached_dead_process_is_gone_when_the_sender_says_so(ipc_dir, spawn):
    cached = cache.CachedMatchmaker(make(ipc_dir), ttl=600)
    child = spawn(serve, ipc_dir, 'a')
    child.answer()
    waiting.until(lambda: cached.lookup(WHERE, deadline()), 'listener')
    child.kill()
    cached.invalidate(WHERE)
    assert not cached.lookup(WHERE, deadline())


@pytest.mark.spec('MM-32')
def test_leftovers_at_addresses_nobody_looks_up_disappear(
    ipc_dir, matchmaker, spawn
):
    child = spawn(serve, ipc_dir, 'a', [f'topic{i}' for i in range(20)])
    member = child.answer()
    child.kill()
    assert len([f for f in files(ipc_dir) if member in f]) == 22
    register(matchmaker)
    assert not [f for f in files(ipc_dir) if member in f]
    assert len(files(ipc_dir)) == 3
