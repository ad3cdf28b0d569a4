# SPDX-License-Identifier: Apache-2.0
import contextlib
import errno
import gc
import json
import os
import pathlib
import threading
import time

import pytest

from tests.unit.matchmaker import contract
from tests.unit.matchmaker import samples
from zmq_driver import ipc
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import local
from zmq_driver.matchmaker import membership


def find(matchmaker, where=None):
    return matchmaker.lookup(
        where or samples.where(), samples.deadline()
    ).routes


def register(matchmaker, at=None, **kwargs):
    registration = samples.registration(at, **kwargs)
    matchmaker.register(registration, samples.deadline())
    return registration


def files(path):
    """Return the names of everything below a directory."""
    return sorted(str(p.relative_to(path)) for p in path.rglob('*'))


def place_of(path):
    """Return the only directory of an address."""
    (place,) = (p for p in path.iterdir() if p.is_dir())
    return place


def descriptors():
    return len(os.listdir('/proc/self/fd'))


class Outage(contextlib.AbstractContextManager):
    """While it lasts, something else is in the place of the directory."""

    def __init__(self, path):
        self._path = path
        self._aside = path.with_name(path.name + '.aside')

    def __enter__(self):
        self._path.rename(self._aside)
        self._path.touch()
        return self

    def __exit__(self, *exc_info):
        self._path.unlink()
        self._aside.rename(self._path)

    def __str__(self):
        return str(self._path)


class TestLocalMatchmaker(contract.MatchmakerContract):
    @pytest.fixture
    def make(self, directory):
        made = []

        def make(virtual_host=''):
            settings = base.MatchmakerSettings(
                directory, virtual_host, samples.member()
            )
            made.append(local.LocalMatchmaker(settings))
            return made[-1]

        yield make
        for one in made:
            one.close(samples.deadline())

    @pytest.fixture
    def outage(self, path):
        return Outage(path)


def test_making_one_touches_nothing(path, make):
    matchmaker = make()
    assert find(matchmaker) == ()
    matchmaker.unregister(samples.registration(), samples.deadline())
    matchmaker.close(samples.deadline())
    assert files(path) == []


@pytest.mark.parametrize('member', ['', 'x', 'A' * 16, '../' + 'a' * 13])
def test_a_member_is_called_by_hex_digits(directory, member):
    settings = base.MatchmakerSettings(directory, '', member)
    with pytest.raises(ValueError, match='cannot name a member'):
        local.LocalMatchmaker(settings)


def test_a_record_is_as_specified(path, make):
    spec = pathlib.Path(__file__).parents[3] / 'doc/specs/matchmaker.rst'
    text = spec.read_text().partition('.. code-block:: json')[2]
    example = json.loads(text[: text.index('}') + 1])
    matchmaker = make()
    made = register(matchmaker)
    member = matchmaker.settings.member
    name = f'{member}-{made.route.incarnation.hex()}'
    assert [p.name for p in place_of(path).iterdir()] == [name]
    record = json.loads((place_of(path) / name).read_text())
    assert list(record) == list(example)
    assert [type(v) for v in record.values()] == [
        type(v) for v in example.values()
    ]
    assert record['pid'] == os.getpid()
    assert record['endpoint'] == made.route.endpoint


def test_the_name_of_an_address_never_changes(path, make):
    register(make('vhost'), samples.where('t', 'e'))
    # Processes of different releases meet there.
    assert place_of(path).name == 'd9e178cc405de718449bba41cbb293b5'


@pytest.mark.spec('MM-20')
def test_a_name_is_not_taken_from_another_member(path, make):
    member = samples.member()
    first = make(member=member)
    made = register(first)
    second = make(member=member)
    with pytest.raises(base.MatchmakerUnavailable, match='same name'):
        register(second)
    second.close(samples.deadline())
    assert find(make()) == (made.route,)
    assert first._membership.held()
    # Nor that of a dead one, whose files others may be removing.
    samples.die(first)
    with pytest.raises(base.MatchmakerUnavailable, match='same name'):
        register(make(member=member))
    assert not [f for f in files(path) if f.endswith('.tmp')]


@pytest.mark.spec('MM-21', 'MM-26')
def test_the_dead_are_gone_and_their_files_too(path, make):
    dead, living = make(), make()
    for topic in ('topic', 'topic', 'other'):
        register(dead, samples.where(topic))
    made = register(living)
    endpoint = path / f'{dead.settings.member}.ipc'
    endpoint.touch()
    samples.die(dead)
    assert find(living) == (made.route,)
    assert not endpoint.exists()
    assert not (path / f'{dead.settings.member}.lock').exists()
    assert len(list((path / place_name(living)).iterdir())) == 1
    # The other address is looked up when there is no lock file any more.
    assert find(living, samples.where('other')) == ()
    living.close(samples.deadline())
    assert files(path) == []


def place_name(matchmaker, where=None):
    return matchmaker._place(where or samples.where()).name


@pytest.mark.spec('MM-26')
def test_the_lock_file_goes_last(path, make, monkeypatch):
    dead = make()
    register(dead)
    (path / f'{dead.settings.member}.ipc').touch()
    samples.die(dead)
    removed = []
    unlink = pathlib.Path.unlink

    def record(self, *args, **kwargs):
        removed.append(self.name.partition('.')[2] or 'record')
        unlink(self, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, 'unlink', record)
    assert find(make()) == ()
    assert removed == ['record', 'ipc', 'lock']


@pytest.mark.spec('MM-26')
def test_the_dead_do_not_count_if_they_cannot_be_removed(
    path, make, monkeypatch
):
    dead = make()
    register(dead)
    samples.die(dead)

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EPERM, 'not permitted', str(self))

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, 'unlink', refuse)
        patch.setattr(pathlib.Path, 'rmdir', refuse)
        for _ in range(2):
            assert find(make()) == ()
    assert len(files(path)) == 3


@pytest.mark.spec('MM-25')
def test_each_member_is_asked_once(path, make, monkeypatch):
    members = [make() for _ in range(3)]
    for matchmaker in members:
        for _ in range(5):
            register(matchmaker)
    asked = []

    def is_locked(path):
        asked.append(path.name)
        return True

    monkeypatch.setattr(membership, 'is_locked', is_locked)
    assert len(find(members[0])) == 15
    assert sorted(asked) == sorted(
        f'{m.settings.member}.lock' for m in members
    )


@pytest.mark.spec('MM-27')
def test_a_member_whose_lock_cannot_be_opened_is_left_alone(
    path, make, monkeypatch, caplog
):
    living = make()
    made = register(living)

    def refuse(path):
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    other = make()
    with monkeypatch.context() as patch:
        patch.setattr(membership, 'is_locked', refuse)
        for _ in range(2):
            assert find(other) == (made.route,)
    assert len(caplog.records) == 1
    assert 'Permission denied' in caplog.text
    assert find(other) == (made.route,)


GARBAGE = {
    'empty': b'',
    'text': b'hello',
    'cut': b'{"virtual_host": ""',
    'binary': b'\xff\xfe\x00',
    'null': b'null',
    'list': b'[]',
    'number': b'1',
    'nothing in it': b'{}',
    'deep': b'[' * 60_000,
    'long': b' ' * 70_000,
}


@pytest.mark.spec('MM-28')
@pytest.mark.parametrize('kind', GARBAGE)
def test_garbage_is_ignored(path, make, caplog, kind):
    living = make()
    made = register(living)
    name = f'{living.settings.member}-{"0" * 32}'
    (place_of(path) / name).write_bytes(GARBAGE[kind])
    other = make()
    for _ in range(3):
        assert find(other) == (made.route,)
    assert len(caplog.records) == 1
    assert name in caplog.text
    assert caplog.records[0].exc_info is None


@pytest.mark.spec('MM-28')
@pytest.mark.parametrize(
    'change',
    [
        {'topic': 'other'},
        {'virtual_host': 'other'},
        {'scope': 'NOTIFICATION'},
        {'scope': 0},
        {'exchange': None},
        {'endpoint': None},
        {'endpoint': 1},
        {'server': ['x']},
        {'incarnation': '1' * 32},
        {'incarnation': None},
    ],
)
def test_a_record_of_something_else_is_ignored(path, make, caplog, change):
    living = make()
    made = register(living)
    (record,) = place_of(path).iterdir()
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | change))
    other = make()
    assert find(other) == ()
    assert len(caplog.records) == 1
    record.write_text(json.dumps(content | {'unknown': 'to us'}))
    assert find(other) == (made.route,)


@pytest.mark.spec('MM-28')
def test_foreign_names_are_ignored(path, make, caplog):
    living = make()
    made = register(living)
    place = place_of(path)
    names = ['README', 'a-b', f'{"x" * 16}-{"0" * 32}', '.hidden.tmp']
    for name in names:
        (place / name).touch()
    (place / f'{living.settings.member}-{"0" * 31}').mkdir()
    for _ in range(2):
        assert find(living) == (made.route,)
    assert len(caplog.records) == 4
    assert all((place / name).exists() for name in names)


@pytest.mark.spec('MM-28')
@pytest.mark.parametrize('kind', ['fifo', 'directory', 'link', 'loop'])
def test_whatever_is_in_the_place_of_a_record_does_no_harm(path, make, kind):
    living = make()
    made = register(living)
    fake = place_of(path) / f'{living.settings.member}-{"0" * 32}'
    if kind == 'fifo':
        os.mkfifo(fake)
    elif kind == 'directory':
        fake.mkdir()
    elif kind == 'link':
        fake.symlink_to('/dev/zero')
    else:
        fake.symlink_to(fake)
    assert find(living) == (made.route,)


@pytest.mark.spec('MM-28')
def test_a_fifo_in_the_place_of_a_lock_does_not_block(path, make):
    living = make()
    register(living)
    member = samples.member()
    os.mkfifo(path / f'{member}.lock')
    (place_of(path) / f'{member}-{"0" * 32}').write_bytes(b'{}')
    assert len(find(living)) == 1


def test_complaints_are_bounded(path, make, caplog, monkeypatch):
    monkeypatch.setattr(local, '_MAX_COMPLAINTS', 3)
    living = make()
    register(living)
    for i in range(10):
        (place_of(path) / f'foreign{i}').touch()
    find(living)
    assert len(caplog.records) == 3


@pytest.mark.spec('MM-29')
def test_a_directory_that_is_not_there_yet_is_nobody(path, make):
    path.rmdir()
    other = make()
    assert find(other) == ()
    assert other.revision(samples.where()) is not None
    assert not path.exists()
    made = register(make())
    assert find(other) == (made.route,)


@pytest.mark.spec('MM-29')
def test_a_directory_that_vanished_is_an_outage(path, make):
    matchmaker = make()
    register(matchmaker)
    aside = path.rename(path.with_name(path.name + '.aside'))
    try:
        with pytest.raises(base.MatchmakerUnavailable, match='vanished'):
            find(matchmaker)
        assert find(make()) == ()
    finally:
        aside.rename(path)


@pytest.mark.spec('MM-07')
@pytest.mark.parametrize('code', [errno.EACCES, errno.EIO, errno.EMFILE])
def test_errors_of_the_directory_are_outages(make, monkeypatch, code):
    matchmaker = make()
    register(matchmaker)
    real = os.listdir

    def broken(where):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, 'listdir', broken)
        with pytest.raises(
            base.MatchmakerUnavailable, match=os.strerror(code)
        ):
            find(matchmaker)
    assert os.listdir is real


@pytest.mark.spec('MM-07')
def test_no_descriptor_left_is_an_outage(make, monkeypatch):
    """Neither a dead member nor a bad record is the conclusion."""
    matchmaker = make()
    made = register(matchmaker)
    really = os.open

    def scarce(path, *args, **kwargs):
        if str(path).endswith(scarce.suffix):
            raise OSError(errno.EMFILE, 'Too many open files', str(path))
        return really(path, *args, **kwargs)

    for suffix in ('.lock', made.route.incarnation.hex()):
        scarce.suffix = suffix
        with monkeypatch.context() as patch:
            patch.setattr(os, 'open', scarce)
            with pytest.raises(
                base.MatchmakerUnavailable, match='Too many open files'
            ):
                find(matchmaker)
    assert find(matchmaker) == (made.route,)


@pytest.mark.spec('MM-07')
def test_a_file_in_the_place_of_an_address_is_an_outage(path, make):
    matchmaker = make()
    (path / place_name(matchmaker)).touch()
    with pytest.raises(base.MatchmakerUnavailable, match='Not a directory'):
        find(matchmaker)
    with pytest.raises(base.MatchmakerUnavailable):
        register(matchmaker)


@pytest.mark.spec('MM-07')
def test_a_directory_open_to_all_is_an_outage(path, make):
    made = register(make())
    path.chmod(0o777)
    with pytest.raises(base.MatchmakerUnavailable, match='writable by every'):
        find(make())
    path.chmod(0o700)
    assert find(make()) == (made.route,)


@pytest.mark.spec('MM-30')
def test_the_revision_changes_with_joins_and_leaves(make):
    matchmaker, other = make(), make()
    where = samples.where()
    seen = [other.revision(where)]

    def settled():
        while (mark := other.revision(where)) is None:
            time.sleep(0.001)
        assert mark == other.revision(where)
        assert mark not in seen
        seen.append(mark)

    first = register(matchmaker)
    settled()
    second = register(matchmaker)
    settled()
    register(matchmaker, samples.where('other'))
    assert other.revision(where) == seen[-1]
    matchmaker.register(first, samples.deadline())
    assert other.revision(where) == seen[-1]
    matchmaker.unregister(second, samples.deadline())
    settled()
    matchmaker.unregister(first, samples.deadline())
    assert other.revision(where) == seen[0]


@pytest.mark.spec('MM-30')
def test_a_recent_change_has_no_revision(path, make, monkeypatch):
    matchmaker = make()
    register(matchmaker)
    changed = 1_700_000_000_000_000_000
    os.utime(place_of(path), ns=(changed, changed))
    for age, vouched in [
        (0, False),
        (local.RACY_NS - 1, False),
        (local.RACY_NS, True),
        (-local.RACY_NS + 1, False),
        # The clock was set back; what changes now gets another stamp.
        (-local.RACY_NS, True),
    ]:
        monkeypatch.setattr(time, 'time_ns', lambda age=age: changed + age)
        mark = matchmaker.revision(samples.where())
        assert (mark is not None) is vouched


def test_a_revision_that_cannot_be_read_is_none(path, make):
    matchmaker = make()
    with Outage(path):
        assert matchmaker.revision(samples.where()) is None


@pytest.mark.spec('MM-31')
def test_close_leaves_nothing(path, make):
    matchmaker = make()
    for topic in 'abc':
        register(matchmaker, samples.where(topic))
    (path / f'{matchmaker.settings.member}.ipc').touch()
    before = descriptors()
    for _ in range(2):
        matchmaker.close(samples.deadline())
        assert files(path) == []
    assert descriptors() == before - 2


@pytest.mark.spec('MM-31')
def test_a_forgotten_matchmaker_leaves_nothing(path, make, directory):
    settings = base.MatchmakerSettings(directory, '', samples.member())
    matchmaker = local.LocalMatchmaker(settings)
    register(matchmaker)
    assert files(path)
    del matchmaker
    gc.collect()
    assert files(path) == []


def test_close_says_what_it_cannot_remove(path, make, monkeypatch, caplog):
    matchmaker = make()
    register(matchmaker)
    really = pathlib.Path.unlink

    def refuse(self, *args, **kwargs):
        if '-' in self.name:
            raise PermissionError(errno.EPERM, 'not permitted', str(self))
        really(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, 'unlink', refuse)
        matchmaker.close(samples.deadline())
    assert 'not permitted' in caplog.text
    assert find(make()) == ()


def test_close_does_not_wait_beyond_its_deadline(make):
    matchmaker = make()
    register(matchmaker)
    with matchmaker._starting:
        matchmaker.close(samples.deadline(0))
    assert find(make()) == ()


def test_register_does_not_wait_beyond_its_deadline(make):
    matchmaker = make()
    with (
        matchmaker._starting,
        pytest.raises(base.MatchmakerUnavailable, match='no time left'),
    ):
        matchmaker.register(samples.registration(), samples.deadline(0))


def test_close_while_a_record_is_written(path, make, monkeypatch):
    """The record is there after close has looked, and still goes."""
    matchmaker = make()
    register(matchmaker, samples.where('other'))
    really = membership.Membership.publish

    def slow(self, record, content):
        matchmaker.close(samples.deadline())
        really(self, record, content)

    monkeypatch.setattr(membership.Membership, 'publish', slow)
    with pytest.raises(base.MatchmakerUnavailable, match='closed'):
        register(matchmaker)
    assert files(path) == []


def test_close_while_the_lock_file_is_made(path, make, monkeypatch):
    matchmaker = make()
    really = membership.Membership.join
    joining, closing = threading.Event(), threading.Event()

    def slow(self):
        joining.set()
        assert closing.wait(30)
        really(self)

    monkeypatch.setattr(membership.Membership, 'join', slow)
    failed = []

    def start():
        try:
            register(matchmaker)
        except base.MatchmakerUnavailable as exc:
            failed.append(str(exc))

    def close():
        closing.set()
        matchmaker.close(samples.deadline())

    threads = [threading.Thread(target=start), threading.Thread(target=close)]
    threads[0].start()
    assert joining.wait(30)
    threads[1].start()
    for thread in threads:
        thread.join(30)
    matchmaker.close(samples.deadline())
    assert files(path) == []
    # Whether it came first or second, it was told so in the second case.
    assert failed in ([], ['the matchmaker is closed'])


def test_an_inherited_matchmaker_says_so(make):
    matchmaker = make()
    matchmaker.forget()
    with pytest.raises(base.MatchmakerUnavailable, match='inherited'):
        register(matchmaker)
    assert find(matchmaker) == ()


def test_a_listener_whose_route_changes_is_written_anew(make):
    matchmaker = make()
    made = register(matchmaker)
    moved = made._replace(route=made.route._replace(server='moved'))
    matchmaker.register(moved, samples.deadline())
    assert find(make()) == (moved.route,)


def test_names_that_nobody_could_read_are_refused(path, make):
    matchmaker = make()
    with pytest.raises(base.MatchmakerUnavailable, match='too long'):
        register(matchmaker, samples.where('x' * 70_000))
    matchmaker.close(samples.deadline())
    assert files(path) == []


def test_a_lock_file_that_was_removed_is_made_again(path, make):
    matchmaker = make()
    made = [register(matchmaker)]
    (path / f'{matchmaker.settings.member}.lock').unlink()
    made.append(register(matchmaker))
    assert set(find(make())) == {r.route for r in made}
    matchmaker.close(samples.deadline())
    assert files(path) == []


@pytest.mark.spec('MM-34')
def test_a_thousand_lookups_leave_no_descriptor(path, make):
    living, dead, other = make(), make(), make()
    register(living)
    (place_of(path) / 'garbage').touch()
    (place_of(path) / f'{living.settings.member}-{"0" * 32}').touch()
    register(dead)
    samples.die(dead)
    before = descriptors()
    for i in range(1000):
        find(other)
        find(other, samples.where(f'nobody{i}'))
        other.revision(samples.where())
    assert descriptors() == before


@pytest.mark.spec('MM-34')
def test_a_member_holds_two_descriptors(make):
    before = descriptors()
    matchmaker = make()
    for i in range(50):
        register(matchmaker, samples.where(f't{i}'))
    assert descriptors() == before + 2
    matchmaker.close(samples.deadline())
    assert descriptors() == before


def test_places_are_bounded(make, monkeypatch):
    monkeypatch.setattr(local, '_MAX_PLACES', 5)
    matchmaker = make()
    made = register(matchmaker)
    for i in range(20):
        find(matchmaker, samples.where(f't{i}'))
        assert len(matchmaker._places) <= 5
    assert find(matchmaker) == (made.route,)


def test_one_host_can_have_two_directories(path, make):
    register(make())
    other = path / 'other'
    settings = base.MatchmakerSettings(
        ipc.IpcDirectory(str(other)), '', samples.member()
    )
    apart = local.LocalMatchmaker(settings)
    assert find(apart) == ()
    apart.close(samples.deadline())
