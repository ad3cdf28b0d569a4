# SPDX-License-Identifier: Apache-2.0
"""All that oslo.messaging has to make notifications, over this driver."""

import logging
import pathlib
import subprocess
import sys

import oslo_messaging
import pytest

from tests.fixtures import waiting

#: Seconds after which something hangs, on a machine that is busy.
HANG = 60


class Recorder:
    """Records what it is told with two priorities."""

    def __init__(self):
        self.seen = []

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        self.seen.append(('info', publisher_id, event_type, payload))

    def error(self, ctxt, publisher_id, event_type, payload, metadata):
        self.seen.append(('error', publisher_id, event_type, payload))


@pytest.fixture
def listen(conf, url, topic):
    """Give a function that starts a listener and returns its recorder."""
    started = []

    def start():
        recorder = Recorder()
        transport = oslo_messaging.get_notification_transport(conf, url)
        listener = oslo_messaging.get_notification_listener(
            transport,
            [oslo_messaging.Target(topic=topic)],
            [recorder],
            executor='threading',
        )
        listener.start()
        started.append((listener, transport))
        return recorder

    yield start
    for listener, transport in started:
        listener.stop()
        listener.wait()
        transport.cleanup()


def wait_for(recorder, count):
    waiting.until(lambda: len(recorder.seen) >= count, 'all events', HANG)
    return recorder.seen


@pytest.fixture
def handler(conf, url, topic):
    """Give a log handler that notifies, of a logger of its own."""
    kind = type(
        'Handler', (oslo_messaging.LoggingNotificationHandler,), {'CONF': conf}
    )
    made = kind(url, 'logger', 'messagingv2', topic)
    yield made
    made.notifier.transport.cleanup()


@pytest.fixture
def logger(handler):
    made = logging.getLogger('tests.notifying')
    made.addHandler(handler)
    made.setLevel(logging.INFO)
    yield made
    made.removeHandler(handler)


@pytest.mark.spec('NS-93')
@pytest.mark.parametrize('present', [True, False], ids=['here', 'away'])
def test_log_records_are_notifications(logger, listen, present):
    if present:
        recorder = listen()
    logger.info('one %s', 'two')
    try:
        raise ValueError('wrong')
    except ValueError:
        logger.exception('it failed')
    if not present:
        recorder = listen()
    seen = sorted(wait_for(recorder, 2))
    assert [(one[:3], one[3]['msg']) for one in seen] == [
        (('error', 'logger', 'logrecord'), 'it failed'),
        (('info', 'logger', 'logrecord'), 'one two'),
    ]


@pytest.mark.spec('NS-93')
def test_log_records_of_the_driver_itself_are_notifications(
    handler, listen, monkeypatch
):
    """With nobody there, each notification makes records itself."""
    driver = logging.getLogger('zmq_driver')
    monkeypatch.setattr(driver, 'level', logging.DEBUG)
    driver.addHandler(handler)
    try:
        logging.getLogger('zmq_driver.tests').info('one')
    finally:
        driver.removeHandler(handler)
    recorder = listen()
    assert ('info', 'one') in [
        (one[0], one[3]['msg']) for one in wait_for(recorder, 1)
    ]


@pytest.mark.spec('NS-93')
@pytest.mark.parametrize('present', [True, False], ids=['here', 'away'])
def test_command_of_oslo_messaging_sends(url, topic, listen, present):
    if present:
        recorder = listen()
    command = pathlib.Path(sys.executable).with_name(
        'oslo-messaging-send-notification'
    )
    ended = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', str(command)),
            *('--transport-url', url, '--publisher-id', 'hand'),
            *('--event-type', 'by.hand', '--priority', 'error'),
            # The payload comes first: topics are as many as there are.
            *('a payload', '--topic', topic),
        ],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert ended.returncode == 0
    # There may be a warning that nobody has ever listened.
    assert 'Traceback' not in ended.stderr
    if not present:
        recorder = listen()
    assert wait_for(recorder, 1) == [('error', 'hand', 'by.hand', 'a payload')]
