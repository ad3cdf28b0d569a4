# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: nothing leaks, and versions are known."""

from importlib import metadata
import os
import pathlib
import platform
import threading
import time

import hypothesis
import pytest
import zmq

#: Seconds that threads and descriptors get to go away after a test: libzmq
#: closes sockets on a thread of its own.
SETTLE = 3.0

# A failure that only some runs show is useless to the one who has to fix it,
# so CI derives its examples from the test. `HYPOTHESIS_PROFILE=search tox -e
# unit` looks for new ones.
hypothesis.settings.register_profile(
    'ci', derandomize=True, deadline=None, print_blob=True
)
hypothesis.settings.register_profile(
    'search', max_examples=2000, deadline=None, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'ci'))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--matchmaker',
        choices=['local', 'redis', 'sentinel'],
        default='local',
        help='how the processes of functional tests find each other, where '
        'a test does not need a certain one',
    )
    parser.addoption(
        '--share',
        default='1/1',
        help='n/m: run each m-th test, beginning with the n-th',
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    number, count = map(int, config.getoption('--share').split('/'))
    mine = items[number - 1 :: count]
    del items[number - 1 :: count]
    if items:
        config.hook.pytest_deselected(items=list(items))
    items[:] = mine


def pytest_report_header() -> str:
    return (
        f'oslo.messaging {metadata.version("oslo.messaging")}, '
        f'pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}, '
        f'Python {platform.python_version()}, '
        f'hypothesis profile {hypothesis.settings.get_current_profile_name()}'
    )


def _driver_threads() -> set[threading.Thread]:
    return {
        thread
        for thread in threading.enumerate()
        if thread.name.startswith('zmq-')
    }


def _descriptors() -> set[tuple[str, str]]:
    """Return number and target of every open descriptor."""
    found = set()
    for entry in pathlib.Path('/proc/self/fd').iterdir():
        try:
            found.add((entry.name, str(entry.readlink())))
        except FileNotFoundError:
            # Closed meanwhile, or the one that the directory was read by.
            continue
    return found


def _leak_reason(request: pytest.FixtureRequest) -> str | None:
    marker = request.node.get_closest_marker('leaks')
    if marker is None:
        return None
    reason = marker.kwargs.get('reason') or ' '.join(marker.args)
    if not reason:
        pytest.fail('the marker leaks needs a reason')
    return reason


@pytest.fixture(autouse=True)
def no_leaks(request):
    """Fail the test when it leaves a zmq-* thread or a descriptor behind.

    A test that has to, says why: ``@pytest.mark.leaks(reason='...')``.
    """
    excused = _leak_reason(request)
    threads = _driver_threads()
    descriptors = _descriptors()
    yield
    if excused:
        return
    until = time.monotonic() + SETTLE
    while True:
        left = [
            *(f'thread {t.name}' for t in _driver_threads() - threads),
            *(
                f'descriptor {n} -> {target}'
                for n, target in sorted(_descriptors() - descriptors)
            ),
        ]
        if not left:
            return
        if time.monotonic() > until:
            pytest.fail(f'left behind {SETTLE} s after the test: {left}')
        time.sleep(0.005)
