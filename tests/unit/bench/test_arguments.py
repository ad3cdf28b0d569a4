# SPDX-License-Identifier: Apache-2.0
"""The arguments of the benchmark."""

import argparse
import importlib.util

import pytest

from zmq_driver.bench import arguments
from zmq_driver.bench import plan as plan_


def parse(*texts):
    parser = argparse.ArgumentParser()
    arguments.add(parser)
    return parser.parse_args(texts)


def plan(*texts):
    return arguments.make_plan(parse(*texts))


def refusal(*texts):
    with pytest.raises(plan_.BenchError) as found:
        plan(*texts)
    text = str(found.value)
    assert len(text.splitlines()) == 1
    assert 's3cret' not in text
    return text


def names(found):
    return [peer.name for peer in found.peers]


def test_defaults():
    found = plan()
    assert names(found) == ['zmq', 'raw pyzmq']
    assert found.peers[0].url == 'zmq://'
    assert found.patterns == [plan_.Pattern.CALL]
    assert found.threads == [1, 8, 32]
    assert (found.payload, found.baseline) == (None, 'zmq')
    assert (found.processes, found.servers, found.rounds) == (1, 1, 5)


@pytest.mark.spec('BN-01')
def test_several_urls():
    found = plan(
        *('--url', 'zmq:///?linger=1', '--url', 'tuned=zmq:///?linger=2'),
        *('--url', 'zmq://', '--url', 'rabbit://u:s3cret@h1:1,u:x@h2:2/v'),
        *('--baseline', 'tuned', '--no-raw'),
    )
    assert names(found) == ['zmq', 'tuned', 'zmq-2', 'rabbit']
    assert found.peers[1].url == 'zmq:///?linger=2'
    assert found.baseline == 'tuned'
    assert found.peers[3].shown == 'rabbit (rabbit://h1:1,h2:2/v)'


def test_lists():
    found = plan(
        *(
            '--pattern',
            'cast,call',
            '--pattern',
            'call',
            '--pattern',
            'notify',
        ),
        *('--threads', '32,1,1', '--payload', '3200', '--think', '0.5'),
    )
    assert found.patterns == ['cast', 'call', 'notify']
    assert found.threads == [32, 1]
    assert (found.payload, found.think) == (3200, 0.5)
    assert plan('--payload', 'simulator').payload is None


@pytest.mark.spec('BN-10')
def test_the_raw_ping_pong_comes_with_calls():
    assert plan_.RAW_NAME in names(plan('--pattern', 'call,cast'))
    assert plan_.RAW_NAME not in names(plan('--pattern', 'cast'))
    assert plan_.RAW_NAME not in names(plan('--no-raw'))


@pytest.mark.spec('BN-10')
def test_grpc_is_a_peer_of_calls(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    assert names(plan('--grpc')) == ['zmq', 'gRPC', 'raw pyzmq']
    assert names(plan('--grpc', '--pattern', 'cast')) == ['zmq']


@pytest.mark.spec('BN-16')
@pytest.mark.parametrize(
    ('texts', 'wanted'),
    [
        (['--threads', 'x'], "'x' is not a number from 1 to 1024"),
        (['--threads', '1,,2'], "'' is not a number"),
        (['--threads', '0'], "'0' is not a number"),
        (['--threads', '1025'], 'from 1 to 1024'),
        (['--servers', '-1'], 'from 1 to 256'),
        (['--payload', 'big'], "'big' is not a number"),
        (['--pattern', 'call,shout'], 'the patterns are: call, cast'),
        (['--duration', '0'], "'0' is not above 0"),
        (['--duration', 'nan'], 'no number of seconds'),
        (['--duration', 'long'], 'no number of seconds'),
        (['--think', '-1'], 'no number of seconds'),
        (['--rounds', '1.5'], "'1.5' is not a number"),
    ],
)
def test_an_argument_that_is_wrong(capsys, texts, wanted):
    with pytest.raises(SystemExit):
        parse(*texts)
    assert wanted in capsys.readouterr().err


@pytest.mark.spec('BN-15', 'BN-16')
@pytest.mark.parametrize(
    ('url', 'wanted'),
    [
        ('nonsense', 'is no transport URL'),
        ('rabbit://u:s3cret@host:port/', 'is no transport URL'),
        ('foo://u:s3cret@host/', "no driver 'foo'"),
        ('zmq+foo://u:s3cret@host/', "there is no matchmaker 'foo'"),
        ('zmq:///?nix=1', "unknown option 'nix'"),
        ('fake://u:s3cret@host/', 'does not leave its process'),
    ],
)
def test_a_url_that_cannot_be_used(url, wanted):
    assert wanted in refusal('--url', url)


@pytest.mark.spec('BN-15', 'BN-16')
def test_a_driver_whose_library_is_missing(monkeypatch):
    def load(conf, url):
        raise ModuleNotFoundError("No module named 'confluent_kafka'")

    name = 'get_notification_transport'
    monkeypatch.setattr(arguments.oslo_messaging, name, load)
    found = refusal('--url', 'kafka://u:s3cret@h/', '--pattern', 'notify')
    assert 'install' in found
    assert 'confluent_kafka' in found


@pytest.mark.spec('BN-01', 'BN-16')
def test_a_pattern_that_nobody_carries(monkeypatch):
    class Transport:
        def cleanup(self):
            pass

    monkeypatch.setattr(
        arguments.oslo_messaging,
        'get_notification_transport',
        lambda conf, url: Transport(),
    )
    kafka = ('--url', 'kafka://h/')
    assert 'carries call' in refusal(*kafka)
    assert names(plan(*kafka, '--pattern', 'notify')) == ['kafka']


@pytest.mark.spec('BN-16')
def test_names_of_peers():
    assert "no peer 'nix'" in refusal('--baseline', 'nix')
    two = ('--url', 'a=zmq://', '--url', 'a=zmq://')
    assert "two peers are called 'a'" in refusal(*two)


@pytest.mark.spec('BN-16')
def test_a_file_that_cannot_be_written(tmp_path):
    missing = str(tmp_path / 'no' / 'x.json')
    assert 'cannot be written' in refusal('--json', missing)
    assert 'cannot be written' in refusal('--json', str(tmp_path))
    assert plan('--json', str(tmp_path / 'x.json'))


@pytest.mark.spec('BN-16')
def test_a_library_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    report = refusal('--report', str(tmp_path / 'x.html'))
    assert 'oslo-messaging-zmq-driver[bench]' in report
    assert 'grpcio is missing' in refusal('--grpc')


@pytest.mark.spec('BN-16')
def test_a_configuration_file_that_is_missing():
    assert '--config-file' in refusal('--config-file', '/nonexistent')
