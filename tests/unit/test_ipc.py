# SPDX-License-Identifier: Apache-2.0
import errno
import os
import pathlib
import shutil
import stat
import tempfile
import traceback

import pytest
import zmq

from zmq_driver import ipc

ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture
def path():
    # A short path: the names of ipc sockets have at most 107 bytes.
    path = pathlib.Path(tempfile.mkdtemp(prefix='zd'))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def default(path, monkeypatch):
    """Give a temporary directory, and what the default becomes in it."""
    monkeypatch.delenv('XDG_RUNTIME_DIR', raising=False)
    monkeypatch.setattr(tempfile, 'tempdir', str(path))
    return path / f'zmq-driver-{os.geteuid()}'


@pytest.fixture
def umask():
    old = os.umask(0o022)
    yield os.umask
    os.umask(old)


@pytest.fixture
def open_socket():
    context = zmq.Context()
    sockets = []

    def open_socket(kind=zmq.ROUTER):
        sockets.append(context.socket(kind))
        return sockets[-1]

    yield open_socket
    for socket in sockets:
        socket.close(0)
    context.term()


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def as_user(uid, gid, groups, function):
    """Run a function as another user; return what it returned as text."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            answer = str(function())
        except BaseException:
            answer = traceback.format_exc()
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text


needs_root = pytest.mark.skipif(not ROOT, reason='only root can be others')


@pytest.mark.spec('MM-11')
def test_making_one_touches_nothing(path, default):
    made = ipc.IpcDirectory(None), ipc.IpcDirectory(str(path / 'a/b'))
    assert not any(directory.exists() for directory in made)
    assert list(path.iterdir()) == []


@pytest.mark.spec('MM-11')
@pytest.mark.parametrize('mask', [0, 0o022, 0o077])
def test_prepare_makes_it_private(path, umask, mask):
    umask(mask)
    directory = ipc.IpcDirectory(str(path / 'new'))
    for _ in range(2):
        directory.prepare()
        assert mode_of(path / 'new') == 0o700
        assert directory.exists()
    assert directory.path == str(path / 'new')


@pytest.mark.spec('MM-11', 'MM-16')
def test_parents_are_not_made(path):
    directory = ipc.IpcDirectory(str(path / 'a/b'))
    with pytest.raises(ipc.IpcDirectoryError) as caught:
        directory.prepare()
    text = str(caught.value)
    assert str(path / 'a/b') in text
    assert 'No such file or directory' in text
    assert 'create its parent' in text
    assert list(path.iterdir()) == []


def test_two_make_it_at_once(path, monkeypatch):
    directory = ipc.IpcDirectory(str(path / 'new'))
    really = pathlib.Path.mkdir

    def late(self, *args, **kwargs):
        really(self, 0o700)
        really(self, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, 'mkdir', late)
    directory.prepare()


def test_somebody_removes_it_at_once(path, monkeypatch):
    monkeypatch.setattr(pathlib.Path, 'mkdir', lambda *args, **kwargs: None)
    with pytest.raises(ipc.IpcDirectoryError, match='vanished'):
        ipc.IpcDirectory(str(path / 'new')).prepare()


@pytest.mark.spec('MM-12')
def test_the_default_is_in_the_runtime_directory(path, monkeypatch):
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(path))
    directory = ipc.IpcDirectory(None)
    assert directory.path == str(path / 'zmq-driver')
    directory.prepare()
    assert mode_of(path / 'zmq-driver') == 0o700


@pytest.mark.spec('MM-12')
@pytest.mark.parametrize('wrong', ['', 'relative', 'missing', 'file', 'nul'])
def test_or_in_the_temporary_directory(path, default, monkeypatch, wrong):
    values = {
        '': '',
        'relative': os.path.relpath(path),
        'missing': str(path / 'missing'),
        'file': str(path / 'file'),
        'nul': str(path),
    }
    (path / 'file').touch()
    if wrong == 'nul':
        monkeypatch.setattr(os, 'environ', {'XDG_RUNTIME_DIR': '/\0'})
    else:
        monkeypatch.setenv('XDG_RUNTIME_DIR', values[wrong])
    assert ipc.IpcDirectory(None).path == str(default)


@needs_root
@pytest.mark.spec('MM-12')
@pytest.mark.parametrize('problem', ['owner', 'not writable'])
def test_the_runtime_directory_of_another_user(
    path, default, monkeypatch, problem
):
    runtime = path / 'runtime'
    runtime.mkdir()
    path.chmod(0o755)
    if problem == 'owner':
        runtime.chmod(0o777)
    else:
        os.chown(runtime, NOBODY, NOBODY)
        runtime.chmod(0o500)
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(runtime))
    found = as_user(NOBODY, NOBODY, [], lambda: ipc.IpcDirectory(None).path)
    assert found == str(path / f'zmq-driver-{NOBODY}')


@needs_root
@pytest.mark.spec('MM-12')
def test_the_default_follows_the_user(default):
    """A daemon makes the object as root and uses it as somebody else."""
    directory = ipc.IpcDirectory(None)
    assert directory.path == str(default)
    found = as_user(NOBODY, NOBODY, [], lambda: directory.path)
    assert found == str(default.with_name(f'zmq-driver-{NOBODY}'))
    assert directory.path == str(default)


@pytest.mark.spec('MM-12', 'MM-16')
def test_no_temporary_directory(monkeypatch):
    def missing():
        raise FileNotFoundError(errno.ENOENT, 'No usable temporary directory')

    monkeypatch.delenv('XDG_RUNTIME_DIR', raising=False)
    monkeypatch.setattr(tempfile, 'gettempdir', missing)
    with pytest.raises(ipc.IpcDirectoryError, match='TMPDIR'):
        ipc.IpcDirectory(None).prepare()


@pytest.mark.spec('MM-13', 'MM-16')
@pytest.mark.parametrize(
    ('kind', 'problem', 'fix'),
    [
        ('link', 'is a symbolic link', 'rm '),
        ('dangling', 'is a symbolic link', 'rm '),
        ('file', 'is not a directory', 'rm '),
        ('readable', r'is open to others \(mode 0750\)', 'chmod 700 '),
        ('searchable', r'is open to others \(mode 0701\)', 'chmod 700 '),
        ('public', 'is writable by everybody', 'chmod o-w '),
    ],
)
def test_a_default_that_is_not_private_is_refused(
    path, default, kind, problem, fix
):
    modes = {'readable': 0o750, 'searchable': 0o701, 'public': 0o1777}
    if kind in modes:
        default.mkdir()
        default.chmod(modes[kind])
    elif kind == 'file':
        default.touch()
    else:
        (path / 'link').mkdir()
        default.symlink_to(path / kind)
    directory = ipc.IpcDirectory(None)
    for use in (directory.prepare, directory.exists):
        with pytest.raises(ipc.IpcDirectoryError, match=problem) as caught:
            use()
        assert str(default) in str(caught.value)
        assert f'({fix}{default})' in str(caught.value)
        assert 'rpc_zmq_ipc_dir' in str(caught.value)


@needs_root
@pytest.mark.spec('MM-13')
def test_a_default_of_another_user_is_refused(default):
    default.mkdir(mode=0o700)
    os.chown(default, NOBODY, NOBODY)
    with pytest.raises(
        ipc.IpcDirectoryError, match=f'belongs to uid {NOBODY}, not to uid 0'
    ):
        ipc.IpcDirectory(None).prepare()


@pytest.mark.spec('MM-14')
@pytest.mark.parametrize('mode', [0o777, 0o1777, 0o702])
def test_a_directory_for_everybody_is_refused(path, mode):
    path.chmod(mode)
    with pytest.raises(ipc.IpcDirectoryError, match='writable by everybody'):
        ipc.IpcDirectory(str(path)).prepare()


@needs_root
@pytest.mark.spec('MM-14', 'MM-16')
@pytest.mark.parametrize('mode', [0o300, 0o500, 0o600])
def test_a_directory_we_cannot_use_is_refused(path, mode):
    os.chown(path, NOBODY, NOBODY)
    path.chmod(mode)
    text = as_user(NOBODY, NOBODY, [], ipc.IpcDirectory(str(path)).prepare)
    assert 'IpcDirectoryError' in text
    assert f'{path} is not readable, writable and searchable' in text
    assert f'give uid {NOBODY}' in text


@pytest.mark.spec('MM-14', 'MM-16')
def test_a_read_only_file_system_is_named(path, monkeypatch):
    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, 'access', lambda *args, **kwargs: False)
    monkeypatch.setattr(os, 'statvfs', lambda path: ReadOnly)
    with pytest.raises(ipc.IpcDirectoryError, match='read-only file system'):
        ipc.IpcDirectory(str(path)).prepare()


@pytest.mark.spec('MM-14')
@pytest.mark.parametrize('mode', [0o700, 0o755, 0o750])
def test_a_configured_directory_may_be_seen_by_others(path, mode):
    path.chmod(mode)
    directory = ipc.IpcDirectory(str(path))
    directory.prepare()
    assert directory.file_mode == 0o600


@pytest.mark.spec('MM-14')
def test_a_configured_directory_may_be_a_link(path):
    (path / 'run').mkdir()
    (path / 'var-run').symlink_to('run')
    (path / 'run/openstack').mkdir()
    (path / 'link').symlink_to('run/openstack')
    for name in ('var-run/openstack', 'link'):
        ipc.IpcDirectory(str(path / name)).prepare()


@pytest.mark.spec('MM-15')
@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('mask', [0, 0o027, 0o077])
def test_the_mode_of_files(path, umask, open_socket, shared, mask):
    path.chmod(0o770 if shared else 0o700)
    directory = ipc.IpcDirectory(str(path))
    assert directory.file_mode == (0o660 if shared else 0o600)
    umask(mask)
    (path / 'd').mkdir()
    open_socket().bind(directory.endpoint('s'))
    directory.share(directory.socket_path('s'))
    directory.share(str(path / 'd'))
    assert mode_of(path / 's.ipc') == directory.file_mode
    assert mode_of(path / 'd') == (0o770 if shared else 0o700)


@pytest.mark.spec('MM-15')
def test_a_file_that_cannot_be_shared(path):
    directory = ipc.IpcDirectory(str(path))
    with pytest.raises(ipc.IpcDirectoryError, match='No such file'):
        directory.share(str(path / 'missing'))


@needs_root
@pytest.mark.spec('MM-15')
@pytest.mark.parametrize('mode', [0o770, 0o2770])
def test_users_share_a_directory_by_its_group(path, umask, mode):
    """The services of a host run as users of the group oslo."""
    umask(0o027)
    nova, cinder, oslo = 2001, 2002, 2010
    os.chown(path, 0, oslo)
    path.chmod(mode)
    directory = ipc.IpcDirectory(str(path))

    def make():
        directory.prepare()
        (path / 'file').write_text('by nova')
        (path / 'd').mkdir()
        directory.share(str(path / 'file'))
        directory.share(str(path / 'd'))
        return 'made'

    def use():
        directory.prepare()
        with (path / 'file').open('r+') as file:
            text = file.read()
        (path / 'd/file').touch()
        return text

    assert as_user(nova, nova, [oslo], make) == 'made'
    assert as_user(cinder, cinder, [oslo], use) == 'by nova'
    assert 'IpcDirectoryError' in as_user(cinder, cinder, [], use)


@needs_root
@pytest.mark.spec('MM-15')
def test_who_is_not_in_the_group_is_told_once(path):
    nova, oslo = 2001, 2010
    os.chown(path, nova, oslo)
    path.chmod(0o770)
    directory = ipc.IpcDirectory(str(path))
    told = []

    def make():
        ipc.LOG.warning = lambda text, *args: told.append(text % args)
        for name in 'ab':
            (path / name).touch()
            directory.share(str(path / name))
        return told

    text = as_user(nova, nova, [], make)
    assert text.count(f'add uid {nova} to that group') == 1
    assert mode_of(path / 'a') == 0o660


@pytest.mark.spec('MM-16')
@pytest.mark.parametrize(
    ('call', 'code'),
    [
        (call, code)
        for call in ('stat', 'mkdir')
        for code in sorted(ipc._FIXES)
        # That is how it says that nothing is there.
        if (call, code) != ('stat', errno.ENOENT)
    ],
)
def test_errors_of_the_system(path, monkeypatch, code, call):
    def fail(self, *args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pathlib.Path, call, fail)
    with pytest.raises(ipc.IpcDirectoryError) as caught:
        ipc.IpcDirectory(str(path / 'new')).prepare()
    text = str(caught.value)
    assert str(path / 'new') in text
    assert os.strerror(code) in text
    assert ipc._FIXES[code] in text


@pytest.mark.spec('MM-16')
def test_a_component_that_is_a_file(path):
    (path / 'file').touch()
    with pytest.raises(ipc.IpcDirectoryError, match='Not a directory'):
        ipc.IpcDirectory(str(path / 'file/new')).prepare()


@pytest.mark.spec('MM-16')
def test_unknown_errors_of_the_system(path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise OSError(errno.EIO, 'Input/output error')

    monkeypatch.setattr(pathlib.Path, 'mkdir', fail)
    with pytest.raises(ipc.IpcDirectoryError, match='Input/output error'):
        ipc.IpcDirectory(str(path / 'new')).prepare()


def name_of(directory, size, letter='x'):
    """Return a name that makes the path of an endpoint *size* bytes long."""
    left = size - len(f'{directory.path}/.ipc'.encode())
    return letter * (left // len(letter.encode()))


@pytest.mark.spec('MM-17')
@pytest.mark.parametrize('letter', ['x', 'ä', '😀'])
def test_the_longest_path_that_libzmq_takes(path, open_socket, letter):
    directory = ipc.IpcDirectory(str(path))
    name = name_of(directory, ipc.MAX_SOCKET_PATH, letter)
    endpoint = directory.endpoint(name)
    # libzmq counts bytes as we do: each side refuses what the other refuses.
    too_long = name + letter
    with pytest.raises(ipc.IpcDirectoryError) as caught:
        directory.endpoint(too_long)
    size = len(f'{path}/{too_long}.ipc'.encode())
    assert size > 107
    assert f'{size} bytes long' in str(caught.value)
    assert 'is 107' in str(caught.value)
    assert f'{path}/{too_long}.ipc' in str(caught.value)
    assert f'that is {size - 107} bytes shorter' in str(caught.value)
    socket = open_socket()
    socket.bind(endpoint)
    with pytest.raises(zmq.ZMQError):
        socket.bind(f'ipc://{path}/{too_long}.ipc')
    assert pathlib.Path(directory.socket_path(name)).is_socket()


@pytest.mark.spec('MM-17')
def test_a_directory_that_is_too_long_for_any_member(path):
    directory = ipc.IpcDirectory(str(path / ('d' * 80)))
    directory.prepare()
    with pytest.raises(ipc.IpcDirectoryError, match='rpc_zmq_ipc_dir'):
        directory.endpoint('0123456789abcdef')


@pytest.mark.spec('MM-17')
@pytest.mark.parametrize(
    'name', ['a b', 'ä😀', '%41', '@x', 'a:b', 'a;b?c#d', 'a\nb', '"', '*']
)
def test_a_message_passes_whatever_the_directory_is_called(
    path, open_socket, name
):
    directory = ipc.IpcDirectory(str(path / name))
    directory.prepare()
    endpoint = directory.endpoint('0123456789abcdef')
    server, client = open_socket(), open_socket(zmq.DEALER)
    server.bind(endpoint)
    assert pathlib.Path(directory.socket_path('0123456789abcdef')).is_socket()
    client.connect(endpoint)
    client.send(b'hello')
    assert server.poll(5000)


@pytest.mark.spec('MM-18')
@pytest.mark.parametrize('name', ['nul\0', '\udcff'])
def test_a_path_that_cannot_be_encoded_is_refused(path, name):
    with pytest.raises(ipc.IpcDirectoryError, match='cannot be in the name'):
        ipc.IpcDirectory(str(path) + '/' + name)
    with pytest.raises(ipc.IpcDirectoryError, match='cannot be in the name'):
        ipc.IpcDirectory(str(path)).endpoint(name)


@pytest.mark.spec('MM-18')
def test_a_system_that_is_not_utf8_gets_plain_letters(path, monkeypatch):
    monkeypatch.setattr(os, 'fsencode', lambda text: text.encode('latin-1'))
    with pytest.raises(ipc.IpcDirectoryError, match='plain letters'):
        ipc.IpcDirectory(str(path / 'ä'))
    assert ipc.IpcDirectory(str(path)).endpoint('a')


@pytest.mark.spec('MM-18')
@pytest.mark.parametrize('name', ['', 'a/b', '..', '.hidden'])
def test_a_name_that_is_no_name_is_refused(path, name):
    with pytest.raises(ipc.IpcDirectoryError, match='cannot name'):
        ipc.IpcDirectory(str(path)).endpoint(name)


def test_a_relative_path_is_made_absolute(path, monkeypatch):
    monkeypatch.chdir(path)
    directory = ipc.IpcDirectory('relative')
    monkeypatch.chdir('/')
    assert directory.path == str(path / 'relative')
    assert directory.endpoint('x') == f'ipc://{path}/relative/x.ipc'


def test_a_relative_path_in_a_directory_that_is_gone(path, monkeypatch):
    gone = path / 'gone'
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ipc.IpcDirectoryError, match='No such file'):
        ipc.IpcDirectory('relative')


def test_an_empty_path_is_refused():
    with pytest.raises(ipc.IpcDirectoryError, match='empty'):
        ipc.IpcDirectory('')
