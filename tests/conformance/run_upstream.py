# SPDX-License-Identifier: Apache-2.0
"""Run oslo.messaging's own functional tests over any transport URL.

The tests are the ones inside the installed oslo.messaging package, and the
package is not changed. Three things around it are, in this process only:

* Its test package calls ``eventlet.monkey_patch()`` on import and its
  fixtures ask for the ``eventlet`` executor. Here nothing gets patched and
  that executor is a pool of native threads.
* Two tests skip themselves unless the URL is RabbitMQ's, though every driver
  owes the behaviour. They run.
* The metrics test starts ``python3 -m oslo_metrics`` on a fixed port. It gets
  this interpreter, and its server is ended when the test is over.

``--start redis`` (or ``sentinel``) starts servers for the run on free ports,
and puts them into the URL where it says ``HOST``.

The exit status is 1 when a test fails or skips itself, when fewer tests ran
than expected, and when the deadline passes (with the stacks of all threads
on standard error). The last line is always
``N passed, N failed, N skipped``.
"""

import argparse
import collections.abc
import contextlib
import dataclasses
import faulthandler
import fcntl
import functools
import importlib
import importlib.metadata
import logging
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import typing
import unittest
import unittest.mock
import warnings

#: Where the tests are, and how many they are: 21 functional, 10 logger. The
#: same in all releases from 14.0 to 18.3.
MODULES = (
    'oslo_messaging.tests.functional.test_functional',
    'oslo_messaging.tests.functional.notify.test_logger',
)
EXPECTED = 31

#: The tests that skip themselves unless the URL starts with ``rabbit://``.
RABBIT_ONLY = frozenset(('test_mandatory_call', 'test_monitor_long_call'))

#: The test that starts a metrics server, and what that server occupies: two
#: runs on one host must take turns.
METRICS_CLASS = 'MetricsTestCase'
METRICS_PORT = 3000
METRICS_LOCK = pathlib.Path('/var/tmp/oslo_messaging_metrics_test.lock')

#: Seconds.
DEADLINE_S = 900.0
TEST_TIMEOUT_S = 120
METRICS_TURN_S = 60.0
CHILD_EXIT_S = 5.0
THREAD_EXIT_S = 15.0
LAST_RESORT_S = 30.0

ExcInfo: typing.TypeAlias = (
    tuple[type[BaseException], BaseException, types.TracebackType]
    | tuple[None, None, None]
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line.

    :param url: the transport URL for RPC and for notifications
    :param expect: how many tests must have run
    :param allow_skip: parts of names of tests that may skip themselves
    :param deadline_s: seconds for the whole run
    :param start: which servers to start for the run
    :param names: parts of names of the tests to run; empty for all
    """

    url: str
    expect: int
    allow_skip: tuple[str, ...]
    deadline_s: float
    start: str | None
    names: tuple[str, ...]


def parse_arguments(argv: collections.abc.Sequence[str]) -> Arguments:
    """Read the command line.

    :param argv: the arguments after the program's name
    """
    parser = argparse.ArgumentParser(
        description="Run oslo.messaging's own functional tests, unmodified, "
        "on native threads, over a transport URL."
    )
    parser.add_argument('url', help='the transport URL')
    parser.add_argument(
        'names',
        nargs='*',
        metavar='name',
        help='run only tests with this in their name',
    )
    parser.add_argument(
        '--expect',
        type=int,
        metavar='N',
        help='fail when fewer tests ran '
        f'(default: {EXPECTED}; 1 when names are given)',
    )
    parser.add_argument(
        '--allow-skip',
        action='append',
        default=[],
        metavar='NAME',
        help='tests with this in their name may skip themselves; repeatable',
    )
    parser.add_argument(
        '--deadline',
        type=float,
        default=DEADLINE_S,
        metavar='SECONDS',
        help='dump all threads and fail after this (default: %(default)g)',
    )
    parser.add_argument(
        '--start',
        choices=('redis', 'sentinel'),
        help='start these servers, and put them into the URL for HOST',
    )
    given = parser.parse_intermixed_args(argv)
    expect = given.expect
    if expect is None:
        expect = 1 if given.names else EXPECTED
    return Arguments(
        url=given.url,
        expect=expect,
        allow_skip=tuple(given.allow_skip),
        deadline_s=given.deadline,
        start=given.start,
        names=tuple(given.names),
    )


# Native threads


def _patch_nothing(*_args: object, **_kwargs: object) -> None:
    """Stand in for ``eventlet.monkey_patch``."""


def keep_threads_native() -> None:
    """Take the effect out of all that upstream's tests do with eventlet.

    Must run before anything of ``oslo_messaging.tests`` is imported. Without
    eventlet an empty module serves the ``import eventlet`` of the tests; it
    is put in place after everything that looks for the real one has looked.
    """
    importlib.import_module('oslo_messaging')
    futurist = importlib.import_module('futurist')
    try:
        eventlet = importlib.import_module('eventlet')
    except ImportError:
        eventlet = types.ModuleType('eventlet')
        sys.modules['eventlet'] = eventlet
    setattr(eventlet, 'monkey_patch', _patch_nothing)  # noqa: B010
    # The entry point of the ``eventlet`` executor names this attribute.
    setattr(  # noqa: B010
        futurist, 'GreenThreadPoolExecutor', futurist.ThreadPoolExecutor
    )


def check_threads_native() -> None:
    """Check that threads and oslo.messaging's executors are native.

    Must run after ``oslo_messaging.tests`` was imported.

    :raises RuntimeError: if they are not: the results would prove nothing
    """
    eventletutils = importlib.import_module('oslo_utils.eventletutils')
    futurist = importlib.import_module('futurist')
    if eventletutils.is_monkey_patched('thread'):
        raise RuntimeError('threads are monkey-patched')
    for entry in importlib.metadata.entry_points(
        group='oslo.messaging.executors'
    ):
        if entry.load() is not futurist.ThreadPoolExecutor:
            raise RuntimeError(
                f'executor {entry.name} is not on native threads'
            )


# Tests that think they are only for RabbitMQ


class AnyUrl(str):
    """A URL that passes for RabbitMQ's."""

    __slots__ = ()

    def startswith(self, *args: typing.Any) -> bool:
        """Tell whether it starts so, and say yes to ``rabbit://``."""
        return args[0] == 'rabbit://' or super().startswith(*args)


def run_rabbit_only_tests() -> None:
    """Make the tests in ``RABBIT_ONLY`` run with every URL."""
    utils = importlib.import_module('oslo_messaging.tests.functional.utils')
    base = utils.SkipIfNoTransportURL
    original = base.setUp

    @functools.wraps(original)
    def set_up(
        self: typing.Any, *args: typing.Any, **kwargs: typing.Any
    ) -> None:
        original(self, *args, **kwargs)
        # The method's own name: id() has the scenario appended.
        if self._testMethodName in RABBIT_ONLY:
            self.rpc_url = AnyUrl(self.rpc_url)

    base.setUp = set_up


# The metrics server


class RecordedPopen(subprocess.Popen[typing.Any]):
    """A child process that is ended when its test is over."""

    started: typing.ClassVar[list['RecordedPopen']] = []

    def __init__(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        super().__init__(*args, **kwargs)
        self.started.append(self)


def end_children() -> None:
    """End what the tests started and reap it, politely first."""
    while RecordedPopen.started:
        child = RecordedPopen.started.pop()
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(CHILD_EXIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def put_interpreter_first() -> None:
    """Make the ``python3`` on the path the interpreter that runs this."""
    directory = str(pathlib.Path(sys.executable).parent)
    os.environ['PATH'] = os.pathsep.join(
        (directory, os.environ.get('PATH', os.defpath))
    )
    found = shutil.which('python3')
    if found is None or str(pathlib.Path(found).parent) != directory:
        print(f'note: no python3 next to {sys.executable}; using {found}')


def _metrics_port_is_free() -> bool:
    """Tell whether the metrics server could bind its port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('', METRICS_PORT))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def metrics_turn() -> collections.abc.Iterator[None]:
    """Wait for the metrics server's port, and keep other runs off it.

    Best effort, with a note when it was in vain: the test then tells more
    than a refusal to run it would.
    """
    until = time.monotonic() + METRICS_TURN_S
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(METRICS_LOCK.open('a'))
        except OSError:
            locked = True  # another user's file: the port has to do
        else:
            locked = False
        while time.monotonic() < until:
            if not locked:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked = True
            if locked and _metrics_port_is_free():
                break
            time.sleep(0.1)
        else:
            print(f'note: port {METRICS_PORT} stayed in use; metrics may fail')
        yield


# Running and reporting


class Report(unittest.TestResult):
    """Counts outcomes, and prints each test with its time as it ends.

    The counters are read by the deadline's thread; a torn read there costs
    at most one test in a summary that reports a failure anyway.

    :param stream: where to print; kept because tests replace ``sys.stdout``
    :param allow_skip: parts of names of tests that may skip themselves
    """

    def __init__(
        self, stream: typing.TextIO, allow_skip: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self._stream = stream
        self._allow_skip = allow_skip
        self._turn = contextlib.ExitStack()
        self._started_at = time.monotonic()
        self._current_at = self._started_at
        self._details: list[str] = []
        self.current: str | None = None
        self.outcome = ''
        self.passed = 0
        self.failed: list[str] = []
        self.skips: list[str] = []
        self.unexpected_skips: list[str] = []

    def say(self, *lines: str) -> None:
        """Print, at once."""
        print(*lines, sep='\n', file=self._stream, flush=True)

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        if METRICS_CLASS in test.id():
            self._turn.enter_context(metrics_turn())
        self.current = test.id()
        self.outcome = ''
        self._details = []
        self._current_at = time.monotonic()

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        elapsed = time.monotonic() - self._current_at
        end_children()
        self._turn.close()
        self.current = None
        self._count(test.id())
        self.say(
            f'{self.outcome:5} {elapsed:8.3f} s  {test.id()}', *self._details
        )

    def _count(self, name: str) -> None:
        """Book the outcome of the test that just ended."""
        if self.outcome == 'FAIL':
            self.failed.append(name)
        elif self.outcome == 'skip':
            self.skips.append(name)
            if not any(part in name for part in self._allow_skip):
                self.unexpected_skips.append(name)
        else:
            # Nothing was reported: it was expected to fail, and did.
            self.outcome = 'ok'
            self.passed += 1

    def _failed(self, test: unittest.TestCase, detail: str) -> None:
        """Note a failure, of a test or of what surrounds it."""
        self.outcome = 'FAIL'
        self._details.append(detail)
        if self.current is None:  # a class or module fixture, an import
            self.failed.append(test.id())
            self.say(f'FAIL             {test.id()}', detail)

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.outcome = self.outcome or 'ok'

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        super().addFailure(test, err)
        self._failed(test, self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:
        super().addError(test, err)
        self._failed(test, self.errors[-1][1])

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._failed(test, 'passed, but was expected to fail')

    def addSubTest(
        self,
        test: unittest.TestCase,
        subtest: unittest.TestCase,
        err: ExcInfo | None,
    ) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failed(test, f'{subtest.id()}: {err[1]}')

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._details.append(f'      skipped: {reason}')
        self.outcome = self.outcome or 'skip'
        if self.current is None:  # a whole class
            self.skips.append(test.id())
            self.unexpected_skips.append(test.id())

    def count_current_as_failed(self) -> None:
        """Book the test that is still running as failed."""
        if self.current is not None:
            self.failed.append(self.current)
            self.current = None

    def finish(self, expect: int) -> int:
        """Print what is wrong and the summary; return the exit status.

        :param expect: how many tests must have run
        """
        ran = self.passed + len(self.failed)
        wrong = [f'failed: {name}' for name in self.failed]
        wrong += [f'skipped: {name}' for name in self.unexpected_skips]
        if ran < expect:
            wrong.append(f'only {ran} tests ran, {expect} were expected')
        elapsed = time.monotonic() - self._started_at
        self.say('', *wrong, f'{ran} tests ran in {elapsed:.1f} s')
        self.say(
            f'{self.passed} passed, {len(self.failed)} failed, '
            f'{len(self.skips)} skipped'
        )
        return 1 if wrong else 0


# What is removed when the process ends, in whatever way.
_scratch = contextlib.ExitStack()


def leave(status: int) -> typing.NoReturn:
    """End the process at once, and leave nothing of it behind.

    What the tests' transports do at exit (the logger tests clean up none of
    theirs) must not print after the last line, nor change the status.

    :param status: the exit status
    """
    try:
        end_children()
        # What still runs must not say that its servers have gone.
        logging.disable()
        _scratch.close()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _on_sigterm(signum: int, _frame: types.FrameType | None) -> None:
    leave(128 + signum)


class Deadline:
    """Ends a process that takes too long, and shows where it was.

    Thread: the expiry runs on a thread of its own. Should that one not get
    to run, ``faulthandler``'s, which needs no interpreter, ends the process.

    :param seconds: how long the process may take
    :param report: what to complete before the end
    :param expect: how many tests must have run
    """

    def __init__(self, seconds: float, report: Report, expect: int) -> None:
        self._seconds = seconds
        self._report = report
        self._expect = expect
        self._met = threading.Event()
        self._stderr = sys.stderr
        self._thread = threading.Thread(
            target=self._watch, name='conformance-deadline', daemon=True
        )

    def __enter__(self) -> 'Deadline':
        faulthandler.dump_traceback_later(
            self._seconds + LAST_RESORT_S, exit=True, file=self._stderr
        )
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._met.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        """Wait for the end or for the deadline, whichever is first."""
        if self._met.wait(self._seconds):
            return
        report = self._report
        try:
            report.say(
                f'the deadline of {self._seconds:g} s passed in '
                f'{report.current or "no test"}; all threads:'
            )
            faulthandler.dump_traceback(self._stderr, all_threads=True)
            report.count_current_as_failed()
            end_children()
            report.finish(self._expect)
        finally:
            leave(1)


def flatten(
    suite: unittest.TestSuite,
) -> collections.abc.Iterator[unittest.TestCase]:
    """Yield the tests of a suite and of the suites in it."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def load(names: tuple[str, ...]) -> unittest.TestSuite:
    """Load the tests.

    :param names: parts of names of the tests wanted; empty for all
    """
    loaded = unittest.defaultTestLoader.loadTestsFromNames(MODULES)
    return unittest.TestSuite(
        test
        for test in flatten(loaded)
        if not names or any(part in test.id() for part in names)
    )


def prepare(names: tuple[str, ...]) -> unittest.TestSuite:
    """Load the tests into a process whose threads stay native.

    :param names: parts of names of the tests wanted; empty for all
    """
    keep_threads_native()
    run_rabbit_only_tests()
    suite = load(names)
    check_threads_native()
    return suite


def wait_for_threads() -> list[str]:
    """Wait a while for the threads a process exit would have to wait for.

    :returns: the names of those that are still there
    """
    until = time.monotonic() + THREAD_EXIT_S
    kept = []
    for thread in threading.enumerate():
        if thread.daemon or thread is threading.main_thread():
            continue
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            kept.append(thread.name)
    return kept


def run(arguments: Arguments) -> int:
    """Run the tests and return the exit status.

    :param arguments: the command line
    """
    report = Report(sys.stdout, arguments.allow_skip)
    with (
        Deadline(arguments.deadline_s, report, arguments.expect),
        unittest.mock.patch.object(subprocess, 'Popen', RecordedPopen),
    ):
        try:
            suite = prepare(arguments.names)
            version = importlib.metadata.version('oslo.messaging')
            report.say(
                f'oslo.messaging {version}, Python '
                f'{platform.python_version()}, {suite.countTestCases()} tests'
            )
            suite.run(report)
        except Exception:
            report.say(traceback.format_exc())
            report.failed.append('the run itself')
        finally:
            end_children()
        for name in wait_for_threads():
            report.say(f'note: thread {name} would keep the process alive')
        return report.finish(arguments.expect)


def start_servers(kind: str) -> str:
    """Start what a URL needs, until the process ends.

    :param kind: ``redis`` or ``sentinel``
    :returns: what to put into the URL for its hosts
    """
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    servers = importlib.import_module('tests.fixtures.redis_server')
    if kind == 'redis':
        redis = servers.RedisServer()
        _scratch.callback(redis.close)
        return str(redis.start().address)
    deployment = servers.SentinelDeployment()
    _scratch.callback(deployment.close)
    return str(deployment.start().hosts)


def main(argv: collections.abc.Sequence[str]) -> int:
    """Prepare the process, run the tests, return the exit status.

    :param argv: the arguments after the program's name
    """
    arguments = parse_arguments(argv)
    if not sys.warnoptions:
        # Deprecations of eventlet, by the hundred; -W brings them back.
        warnings.simplefilter('ignore')
    url = arguments.url
    if arguments.start is not None:
        url = url.replace('HOST', start_servers(arguments.start))
    os.environ['RPC_TRANSPORT_URL'] = url
    os.environ['NOTIFY_TRANSPORT_URL'] = url
    # A failed test then shows what was logged meanwhile, and only that one.
    os.environ.setdefault('OS_LOG_CAPTURE', '1')
    # A server that cannot start leaves its test waiting for ever.
    os.environ.setdefault('OS_TEST_TIMEOUT', str(TEST_TIMEOUT_S))
    put_interpreter_first()
    signal.signal(signal.SIGTERM, _on_sigterm)
    # Two runs on one host, which use the same topics, must not hear each
    # other where processes find each other through the host.
    os.environ['XDG_RUNTIME_DIR'] = _scratch.enter_context(
        tempfile.TemporaryDirectory(
            prefix='conformance-', ignore_cleanup_errors=True
        )
    )
    return run(arguments)


if __name__ == '__main__':
    leave(main(sys.argv[1:]))
