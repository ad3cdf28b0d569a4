# SPDX-License-Identifier: Apache-2.0
import fcntl
import os
import socket
import time

import pytest

from tests.unit.matchmaker import samples
from zmq_driver.matchmaker import membership
from zmq_driver.matchmaker import sweep


def files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob('*'))


def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def later(monkeypatch, seconds):
    now = time.time() + seconds
    monkeypatch.setattr(time, 'time', lambda: now)


@pytest.fixture
def dead(path, make):
    """Leave the files of a member that was killed."""
    dead = make()
    for topic in 'abc':
        dead.register(
            samples.registration(samples.where(topic)), samples.deadline()
        )
    listen(path / f'{dead.settings.member}.ipc').close()
    samples.die(dead)
    return dead


@pytest.mark.spec('MM-32')
def test_the_first_registration_cleans_up(path, make, dead):
    assert len(files(path)) == 8
    matchmaker = make()
    made = samples.registration()
    matchmaker.register(made, samples.deadline())
    assert not [f for f in files(path) if dead.settings.member in f]
    assert len(files(path)) == 3
    found = make().lookup(made.address, samples.deadline())
    assert found.routes == (made.route,)


@pytest.mark.spec('MM-32')
def test_only_the_first_registration_cleans_up(make, monkeypatch):
    swept = []
    monkeypatch.setattr(sweep.Sweep, 'run', lambda self: swept.append(self))
    matchmaker = make()
    for _ in range(3):
        matchmaker.register(samples.registration(), samples.deadline())
    assert len(swept) == 1


@pytest.mark.spec('MM-27')
def test_the_living_are_left_alone(path, make):
    members = [make() for _ in range(3)]
    for matchmaker in members:
        for topic in 'ab':
            matchmaker.register(
                samples.registration(samples.where(topic)),
                samples.deadline(),
            )
        (path / f'{matchmaker.settings.member}.ipc').touch()
    before = files(path)
    sweep.Sweep(str(path)).run()
    assert files(path) == before


@pytest.mark.spec('MM-27')
def test_what_is_not_ours_is_left_alone(path):
    names = [
        'nova-lock.lock',
        'reply.ipc',
        '.x.tmp',
        f'{"a" * 15}.lock',
        f'{"A" * 16}.lock',
        f'{"a" * 17}.ipc',
        f'.{"a" * 16}.{"0" * 7}.tmp',
        f'{"a" * 16}.lock.d',
        f'{"a" * 16}.ipc',
        'f' * 31,
    ]
    for name in names:
        (path / name).touch()
    foreign = path / ('f' * 32)
    foreign.mkdir()
    (foreign / 'README').touch()
    (foreign / f'{"a" * 16}-{"0" * 32}.swp').touch()
    (path / 'empty').mkdir()
    before = files(path)
    sweep.Sweep(str(path)).run()
    assert files(path) == before


@pytest.mark.spec('MM-27')
def test_a_start_is_not_disturbed(path):
    """A lock file in the making has no owner by name, but is locked."""
    temporary = path / f'.{samples.member()}.{"0" * 8}.tmp'
    with temporary.open('w') as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        sweep.Sweep(str(path)).run()
        assert temporary.exists()
    sweep.Sweep(str(path)).run()
    assert not temporary.exists()


@pytest.mark.spec('MM-27')
def test_a_directory_in_the_making_is_left_alone(path, directory):
    member = membership.Membership(directory, samples.member())
    member.join()
    making = member._temporary()
    making.mkdir()
    sweep.Sweep(str(path)).run()
    assert making.exists()
    member.forget()
    sweep.Sweep(str(path)).run()
    assert files(path) == []


@pytest.mark.spec('MM-27')
def test_a_record_in_the_making_is_left_alone(path, directory):
    member = membership.Membership(directory, samples.member())
    member.join()
    place = path / ('0' * 32)
    place.mkdir()
    name = f'{member._name}-{"1" * 32}'
    for file in (name, f'.{name}.{"2" * 8}.tmp'):
        (place / file).touch()
    sweep.Sweep(str(path)).run()
    assert len(files(place)) == 2
    member.forget()
    sweep.Sweep(str(path)).run()
    assert files(path) == []


@pytest.mark.spec('MM-27')
def test_an_endpoint_without_lock_stays_while_it_is_young(path, monkeypatch):
    """Its process has bound it, and registers next."""
    endpoint = path / f'{samples.member()}.ipc'
    listen(endpoint).close()
    sweep.Sweep(str(path)).run()
    assert endpoint.exists()
    later(monkeypatch, sweep.ORPHAN_AGE + 1)
    sweep.Sweep(str(path)).run()
    assert not endpoint.exists()


@pytest.mark.spec('MM-27')
def test_an_endpoint_somebody_listens_at_stays(path, monkeypatch):
    endpoint = path / f'{samples.member()}.ipc'
    later(monkeypatch, sweep.ORPHAN_AGE + 1)
    with listen(endpoint):
        sweep.Sweep(str(path)).run()
        assert endpoint.exists()
    sweep.Sweep(str(path)).run()
    assert not endpoint.exists()


@pytest.mark.spec('MM-27')
def test_an_endpoint_of_a_living_member_stays(path, directory, monkeypatch):
    member = membership.Membership(directory, samples.member())
    member.join()
    endpoint = path / f'{member._name}.ipc'
    listen(endpoint).close()
    later(monkeypatch, sweep.ORPHAN_AGE + 1)
    sweep.Sweep(str(path)).run()
    assert endpoint.exists()
    member.withdraw()
    assert files(path) == []


@pytest.mark.spec('MM-32')
def test_a_sweep_is_bounded(path, monkeypatch):
    monkeypatch.setattr(sweep, 'LIMIT', 10)
    place = path / ('0' * 32)
    place.mkdir()
    for i in range(50):
        (place / f'{i:016x}-{"0" * 32}').touch()
    sweep.Sweep(str(path)).run()
    # One of the ten was the directory.
    assert len(files(place)) == 41


@pytest.mark.spec('MM-32')
def test_what_cannot_be_removed_does_not_stop_it(path, make, dead):
    """A directory is in the place of a lock file."""
    (path / f'{"0" * 16}.lock').mkdir()
    (path / f'{"1" * 16}.lock').symlink_to('loop')
    (path / f'{"1" * 16}.ipc').touch()
    (path / ('2' * 32)).symlink_to('nowhere')
    sweep.Sweep(str(path)).run()
    assert not [f for f in files(path) if dead.settings.member in f]


def test_a_directory_that_is_gone_is_clean(path):
    path.rmdir()
    sweep.Sweep(str(path)).run()
    path.mkdir()


@pytest.mark.spec('MM-34')
def test_a_sweep_leaves_no_descriptor(path, dead):
    before = len(os.listdir('/proc/self/fd'))
    sweep.Sweep(str(path)).run()
    assert len(os.listdir('/proc/self/fd')) == before
