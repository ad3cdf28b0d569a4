# SPDX-License-Identifier: Apache-2.0
import errno
import fcntl
import os
import pathlib

import pytest

from tests.unit.matchmaker import samples
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import membership


@pytest.fixture
def member(directory):
    member = membership.Membership(directory, samples.member())
    yield member
    member.withdraw()


def files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob('*'))


def lock_of(member):
    return member._lock_path()


@pytest.mark.spec('MM-20')
def test_the_lock_file_is_locked_before_it_has_its_name(member, monkeypatch):
    seen = []
    really = pathlib.Path.hardlink_to

    def look(self, target):
        seen.append(membership.is_locked(target))
        really(self, target)
        seen.append(membership.is_locked(self))

    monkeypatch.setattr(pathlib.Path, 'hardlink_to', look)
    member.join()
    assert seen == [True, True]
    assert member.held()


@pytest.mark.spec('MM-20')
def test_the_lock_is_released_when_the_process_is_gone(member):
    member.join()
    lock = lock_of(member)
    assert membership.is_locked(lock)
    member.forget()
    assert not membership.is_locked(lock)
    assert not member.held()
    lock.unlink()
    assert not membership.is_locked(lock)


@pytest.mark.spec('MM-25')
def test_those_who_ask_do_not_take_each_other_for_the_owner(member):
    member.join()
    lock = lock_of(member)
    member.forget()
    with lock.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not membership.is_locked(lock)
    lock.unlink()


@pytest.mark.spec('MM-27')
@pytest.mark.parametrize('step', ['flock', 'link'])
def test_a_sweep_in_the_way_of_a_start_only_delays_it(
    path, member, monkeypatch, step
):
    """Others look at a file that is not locked yet, or remove it."""
    rivals = []

    def interfere(temporary):
        if len(rivals) < 3:
            rivals.append(temporary)
            if step == 'link':
                pathlib.Path(temporary).unlink()
            else:
                fd = os.open(temporary, os.O_RDONLY)
                really_flock(fd, fcntl.LOCK_SH)
                rivals[-1] = fd

    really_flock = fcntl.flock

    def flock(fd, operation):
        if operation & fcntl.LOCK_EX:
            interfere(os.readlink(f'/proc/self/fd/{fd}'))
        really_flock(fd, operation)

    monkeypatch.setattr(fcntl, 'flock', flock)
    member.join()
    assert len(rivals) == 3
    assert member.held()
    assert files(path) == [lock_of(member).name]
    if step == 'flock':
        for fd in rivals:
            os.close(fd)


def test_a_start_that_is_always_disturbed_ends(path, member, monkeypatch):
    def flock(fd, operation):
        raise BlockingIOError(errno.EWOULDBLOCK, 'would block')

    monkeypatch.setattr(fcntl, 'flock', flock)
    with pytest.raises(OSError, match='again and again'):
        member.join()
    assert not member.descriptors
    assert files(path) == []


@pytest.mark.spec('MM-24')
@pytest.mark.parametrize('call', ['open', 'write', 'short', 'rename'])
def test_a_full_disk_leaves_no_half_record(path, make, monkeypatch, call):
    matchmaker = make()
    kept = samples.registration(samples.where('kept'))
    matchmaker.register(kept, samples.deadline())
    before = files(path)
    really = os.open, os.write

    def full(target, *args, **kwargs):
        if call == 'open' and not str(target).endswith('.tmp'):
            return really[0](target, *args, **kwargs)
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        if call == 'short':
            patch.setattr(os, 'write', lambda fd, b: really[1](fd, b[:9]))
        elif call == 'rename':
            patch.setattr(pathlib.Path, 'rename', full)
        else:
            patch.setattr(os, call, full)
        with pytest.raises(
            base.MatchmakerUnavailable, match='No space left on device'
        ) as caught:
            matchmaker.register(samples.registration(), samples.deadline())
    # An operator can act on it.
    assert str(path) in str(caught.value)
    assert 'free space' in str(caught.value)
    assert 'rpc_zmq_ipc_dir' in str(caught.value)
    assert files(path) == before
    matchmaker.register(samples.registration(), samples.deadline())


@pytest.mark.spec('MM-24')
@pytest.mark.parametrize('step', ['open', 'link', 'directory'])
def test_an_error_while_the_lock_file_is_made(path, make, monkeypatch, step):
    matchmaker = make()
    really = os.open

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    def full(target, flags, *args, **kwargs):
        if bool(flags & os.O_DIRECTORY) is (step == 'directory'):
            fail()
        return really(target, flags, *args, **kwargs)

    before = len(os.listdir('/proc/self/fd'))
    with monkeypatch.context() as patch:
        if step == 'link':
            patch.setattr(pathlib.Path, 'hardlink_to', fail)
        else:
            patch.setattr(os, 'open', full)
        with pytest.raises(base.MatchmakerUnavailable, match='No space left'):
            matchmaker.register(samples.registration(), samples.deadline())
    if step != 'directory':
        assert files(path) == []
        assert len(os.listdir('/proc/self/fd')) == before
    matchmaker.register(samples.registration(), samples.deadline())
    found = matchmaker.lookup(samples.where(), samples.deadline())
    assert len(found) == 1


@pytest.mark.spec('MM-24')
def test_a_record_is_never_seen_half(path, member, monkeypatch):
    member.join()
    record = path / ('0' * 32) / 'record'
    seen = []
    really = os.write

    def write(fd, content):
        for part in (content[:5], content[5:]):
            really(fd, part)
            seen.append(record.exists())
        return len(content)

    monkeypatch.setattr(os, 'write', write)
    member.publish(record, b'1234567890')
    assert seen == [False, False]
    assert record.read_bytes() == b'1234567890'


@pytest.mark.spec('MM-33')
@pytest.mark.parametrize('times', [1, 20])
def test_a_directory_that_is_removed_is_made_again(
    path, member, monkeypatch, times
):
    member.join()
    record = path / ('0' * 32) / 'record'
    really = membership.Membership._make_place
    made = []

    def make_place(self, place):
        really(self, place)
        made.append(place)
        if len(made) <= times:
            place.rmdir()

    monkeypatch.setattr(membership.Membership, '_make_place', make_place)
    member.publish(record, b'{}')
    assert record.exists()
    assert len(made) == times + 1


@pytest.mark.spec('MM-33')
def test_a_directory_that_is_always_removed_is_an_error(
    path, member, monkeypatch
):
    monkeypatch.setattr(
        membership.Membership, '_make_place', lambda self, place: None
    )
    with pytest.raises(OSError, match='again and again'):
        member.publish(path / ('0' * 32) / 'record', b'{}')


@pytest.mark.spec('MM-33')
def test_two_make_the_same_directory(path, member, monkeypatch):
    """The other was faster, and has a record in it already."""
    member.join()
    place = path / ('0' * 32)
    really = pathlib.Path.rename

    def rename(self, target):
        if target == place and not place.exists():
            place.mkdir()
            (place / 'theirs').touch()
        return really(self, target)

    monkeypatch.setattr(pathlib.Path, 'rename', rename)
    member.publish(place / 'ours', b'{}')
    assert files(place) == ['ours', 'theirs']
    assert not [f for f in files(path) if f.endswith('.tmp')]


def test_an_error_while_a_directory_is_made(path, member, monkeypatch):
    member.join()

    def broken(self, target):
        raise OSError(errno.EIO, 'Input/output error')

    monkeypatch.setattr(pathlib.Path, 'rename', broken)
    with pytest.raises(OSError, match='Input/output'):
        member.publish(path / ('0' * 32) / 'record', b'{}')
    assert files(path) == [lock_of(member).name]


@pytest.mark.spec('MM-35')
def test_a_living_member_keeps_the_directory_locked(path, directory):
    first, second = (
        membership.Membership(directory, samples.member()) for _ in range(2)
    )
    first.join()
    second.join()
    assert not lockable(path)
    first.withdraw()
    assert not lockable(path)
    second.forget()
    assert lockable(path)


@pytest.mark.spec('MM-35')
def test_a_cleaner_at_work_does_not_hinder_a_start(path, member):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        member.join()
    finally:
        os.close(fd)
    assert member.held()


def lockable(path):
    """Return whether systemd-tmpfiles would clean a directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


@pytest.mark.spec('MM-22')
def test_a_descriptor_opened_during_the_fork_is_closed(member, monkeypatch):
    """One thread had opened the file when another thread forked."""
    really = os.open
    leaked = []

    def interrupted(*args, **kwargs):
        leaked.append(really(*args, **kwargs))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, 'open', interrupted)
        with pytest.raises(KeyboardInterrupt):
            member.join()
    member._opening = True
    member.forget()
    with pytest.raises(OSError, match='Bad file descriptor'):
        os.fstat(leaked[0])
    for left in lock_of(member).parent.iterdir():
        left.unlink()


def test_a_child_withdraws_nothing(path, member, monkeypatch):
    member.join()
    before = files(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'getpid', lambda: 1)
        member.withdraw()
    assert files(path) == before
    assert member.held()
