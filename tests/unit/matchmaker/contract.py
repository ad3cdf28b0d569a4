# SPDX-License-Identifier: Apache-2.0
"""What every matchmaker must do, as a suite to inherit from."""

import os
import socket
import threading

import pytest

from tests.unit.matchmaker import samples
from zmq_driver import address
from zmq_driver.matchmaker import base

NAMES = [
    '',
    ' ',
    'a b',
    '/',
    '../../etc/passwd',
    '.',
    'topic.info',
    'ä€😀',
    'line\nbreak',
    'nul\0',
    '%s{}',
    '"quoted"',
    'null',
    '*',
    '[1]',
    'long' * 500,
]


class MatchmakerContract:
    """Subclasses give the fixtures ``make`` and ``outage``.

    ``make(virtual_host='')`` gives a new member of one deployment, and closes
    it after the test. ``outage`` is a context manager in which the backend
    cannot be asked; ``str(outage)`` is in the errors then.
    """

    @pytest.fixture
    def make(self):
        raise NotImplementedError

    @pytest.fixture
    def outage(self):
        raise NotImplementedError

    def find(self, matchmaker, where=None):
        return matchmaker.lookup(
            where or samples.where(), samples.deadline()
        ).routes

    def register(self, matchmaker, at=None, **kwargs):
        registration = samples.registration(at, **kwargs)
        matchmaker.register(registration, samples.deadline())
        return registration

    @pytest.mark.spec('MM-01')
    def test_nobody_is_there_at_first(self, make):
        assert self.find(make()) == ()

    @pytest.mark.spec('MM-01')
    def test_what_is_registered_is_found_by_all(self, make):
        listening, other = make(), make()
        made = self.register(listening, server='s', endpoint='ipc:///e')
        for matchmaker in (listening, other, make()):
            assert self.find(matchmaker) == (made.route,)

    @pytest.mark.spec('MM-02')
    def test_registering_twice_is_registering_once(self, make):
        matchmaker = make()
        made = self.register(matchmaker)
        matchmaker.register(made, samples.deadline())
        assert self.find(matchmaker) == (made.route,)
        matchmaker.unregister(made, samples.deadline())
        assert self.find(matchmaker) == ()

    @pytest.mark.spec('MM-03')
    def test_unregister_removes_what_it_is_given(self, make):
        matchmaker, other = make(), make()
        made = [self.register(matchmaker) for _ in range(3)]
        matchmaker.unregister(made[1], samples.deadline())
        left = {made[0].route, made[2].route}
        assert set(self.find(other)) == left

    @pytest.mark.spec('MM-03')
    def test_unregister_of_the_unknown_is_no_error(self, make):
        matchmaker, other = make(), make()
        matchmaker.unregister(samples.registration(), samples.deadline())
        made = self.register(matchmaker)
        other.unregister(made, samples.deadline())
        assert self.find(other) == (made.route,)
        for _ in range(2):
            matchmaker.unregister(made, samples.deadline())
        assert self.find(other) == ()

    @pytest.mark.spec('MM-03')
    def test_one_can_come_back(self, make):
        matchmaker = make()
        made = self.register(matchmaker)
        for _ in range(3):
            matchmaker.unregister(made, samples.deadline())
            matchmaker.register(made, samples.deadline())
        assert self.find(make()) == (made.route,)

    @pytest.mark.spec('MM-04')
    def test_virtual_hosts_are_apart(self, make):
        made = {name: self.register(make(name)) for name in ('', 'a', 'A')}
        for name, registration in made.items():
            assert self.find(make(name)) == (registration.route,)
        assert self.find(make('b')) == ()

    @pytest.mark.spec('MM-04')
    def test_scopes_are_apart(self, make):
        matchmaker = make()
        for scope in address.Scope:
            where = samples.where(scope=scope)
            assert self.find(matchmaker, where) == ()
            made = self.register(matchmaker, where)
            assert self.find(matchmaker, where) == (made.route,)

    @pytest.mark.spec('MM-04')
    def test_exchanges_and_topics_are_apart(self, make):
        matchmaker = make()
        pairs = [('a', 'bc'), ('ab', 'c'), ('abc', ''), ('', 'abc')]
        pairs += [('a', 'b'), ('a', 'b.info'), ('b', 'a'), ('A', 'b')]
        made = {
            pair: self.register(matchmaker, samples.where(pair[1], pair[0]))
            for pair in pairs
        }
        for (exchange, topic), registration in made.items():
            found = self.find(matchmaker, samples.where(topic, exchange))
            assert found == (registration.route,)

    @pytest.mark.spec('MM-04')
    @pytest.mark.parametrize('name', NAMES)
    def test_names_are_of_any_characters(self, make, name):
        matchmaker, other = make(name), make(name)
        where = samples.where(name, name)
        made = self.register(matchmaker, where, server=name)
        assert self.find(other, where) == (made.route,)
        assert self.find(make(), where) == ((made.route,) if not name else ())
        matchmaker.unregister(made, samples.deadline())
        assert self.find(other, where) == ()

    @pytest.mark.spec('MM-05')
    def test_all_listeners_of_one_process_are_found(self, make):
        matchmaker = make()
        made = [self.register(matchmaker, server=name) for name in 'aabbc']
        found = make().lookup(samples.where(), samples.deadline())
        assert set(found.routes) == {r.route for r in made}
        assert len(found) == 5
        assert set(found.servers()) == {'a', 'b', 'c'}
        assert set(found.of_server('a')) == {made[0].route, made[1].route}

    @pytest.mark.spec('MM-05')
    def test_all_processes_are_found_in_the_same_order(self, make):
        members = [make() for _ in range(10)]
        made = {self.register(m).route for m in members}
        answers = {self.find(m) for m in members}
        assert len(answers) == 1
        assert set(answers.pop()) == made

    @pytest.mark.spec('MM-06')
    def test_one_listener_is_at_many_addresses(self, make):
        matchmaker = make()
        route = samples.route()
        places = [samples.where(topic) for topic in 'abc']
        for where in places:
            matchmaker.register(
                address.Registration(where, route), samples.deadline()
            )
        left = address.Registration(places[1], route)
        matchmaker.unregister(left, samples.deadline())
        found = [self.find(make(), where) for where in places]
        assert found == [(route,), (), (route,)]

    @pytest.mark.spec('MM-07')
    def test_an_outage_is_not_nobody(self, make, outage):
        matchmaker = make()
        made = self.register(matchmaker)
        for call in (
            lambda: matchmaker.lookup(samples.where(), samples.deadline()),
            lambda: matchmaker.records(samples.deadline()),
            lambda: matchmaker.unregister(made, samples.deadline()),
        ):
            with (
                outage,
                pytest.raises(base.MatchmakerUnavailable) as caught,
            ):
                call()
            assert str(outage) in str(caught.value)
        assert self.find(matchmaker) == (made.route,)
        new = self.register(matchmaker)
        assert set(self.find(matchmaker)) == {made.route, new.route}

    @pytest.mark.spec('MM-19')
    def test_records_are_all_of_the_virtual_host(self, make):
        matchmaker, other = make('v'), make('v')
        made = [
            self.register(matchmaker, samples.where(), server='a'),
            self.register(matchmaker, samples.where('t: %/é')),
            self.register(
                other,
                samples.where('t.info', scope=address.Scope.NOTIFICATION),
            ),
        ]
        self.register(make('w'))
        found = make('v').records(samples.deadline())
        assert {
            (r.registration.address, r.registration.route) for r in found
        } == {(r.address, r.route) for r in made}
        assert found == sorted(found)
        for record in found:
            assert record.pid == os.getpid()
            assert record.host == socket.gethostname()
            assert record.started.startswith('20')
            assert record.expires_in is None or 0 < record.expires_in <= 60
        matchmaker.close(samples.deadline())
        other.unregister(made[2], samples.deadline())
        assert make('v').records(samples.deadline()) == []

    @pytest.mark.spec('MM-08')
    def test_close_withdraws_what_is_left(self, make):
        matchmaker, other = make(), make()
        kept = self.register(other)
        for topic in ('topic', 'a', 'b'):
            self.register(matchmaker, samples.where(topic))
        for _ in range(2):
            matchmaker.close(samples.deadline())
            assert self.find(other) == (kept.route,)
            assert self.find(other, samples.where('a')) == ()
        with pytest.raises(base.MatchmakerUnavailable, match='closed'):
            self.register(matchmaker)
        assert self.find(other) == (kept.route,)

    @pytest.mark.spec('MM-08')
    def test_close_of_one_who_never_registered(self, make):
        kept = self.register(make())
        matchmaker = make()
        matchmaker.close(samples.deadline(0))
        assert self.find(make()) == (kept.route,)

    @pytest.mark.spec('MM-09')
    def test_forget_in_a_child_does_not_touch_the_parent(self, make):
        matchmaker = make()
        made = self.register(matchmaker)
        pid = os.fork()
        if not pid:
            matchmaker.forget()
            matchmaker.close(samples.deadline())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert self.find(make()) == (made.route,)
        matchmaker.unregister(made, samples.deadline())
        assert self.find(make()) == ()

    @pytest.mark.spec('MM-10')
    def test_threads_come_and_go_at_once(self, make):
        """Whoever stays is always found, whatever the others do."""
        matchmaker, other = make(), make()
        stays = self.register(matchmaker)
        failed = []
        done = threading.Event()

        def come_and_go(member):
            try:
                for _ in range(30):
                    made = self.register(member)
                    assert made.route in self.find(member)
                    member.unregister(made, samples.deadline())
                    assert made.route not in self.find(member)
            except BaseException as exc:
                failed.append(exc)

        def look():
            try:
                while not done.is_set():
                    assert stays.route in self.find(other)
            except BaseException as exc:
                failed.append(exc)

        lookers = [threading.Thread(target=look) for _ in range(2)]
        workers = [
            threading.Thread(target=come_and_go, args=(member,))
            for member in (matchmaker, other)
            for _ in range(2)
        ]
        for thread in lookers + workers:
            thread.start()
        for thread in workers:
            thread.join(60)
        done.set()
        for thread in lookers:
            thread.join(60)
        assert not failed
        assert self.find(other) == (stays.route,)

    @pytest.mark.spec('MM-02', 'MM-10')
    def test_threads_register_the_same_at_once(self, make):
        matchmaker = make()
        made = samples.registration()
        failed = []
        start = threading.Barrier(4)

        def register():
            try:
                start.wait(30)
                matchmaker.register(made, samples.deadline())
            except BaseException as exc:
                failed.append(exc)

        threads = [threading.Thread(target=register) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failed
        assert self.find(make()) == (made.route,)
