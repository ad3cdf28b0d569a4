# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``zmq-driver bench``, and what may be wrong with them."""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import importlib.util
import math
import os
import pathlib
import re

from oslo_config import cfg
import oslo_messaging

from zmq_driver.bench import masking
from zmq_driver.bench import payload
from zmq_driver.bench import plan as plan_

#: A label in front of a URL.
_LABELLED = re.compile(r'(?:([^=/?:]+)=)?(.+)', re.DOTALL)
#: A thread of a client has a number below this one in the ids of messages.
MOST_THREADS = 1024
MOST_PROCESSES = 256
MOST_SECONDS = 86400.0
#: Characters; libzmq and brokers are not what a larger one measures.
MOST_PAYLOAD = 64 * 1024 * 1024
#: A driver that never leaves its process.
_INTERNAL = 'fake'


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    _add_load(parser)
    _add_times(parser)
    peers = parser.add_argument_group('peers')
    peers.add_argument(
        '--grpc',
        action='store_true',
        help='measure unary calls of gRPC too; needs grpcio',
    )
    peers.add_argument(
        '--no-raw',
        action='store_true',
        help='leave out the raw pyzmq ping-pong, which is measured with calls',
    )
    peers.add_argument(
        '--baseline',
        metavar='NAME',
        help='the peer that ratios are made to (default: the first --url)',
    )
    peers.add_argument(
        '--config-file',
        action='append',
        default=[],
        metavar='FILE',
        help='a configuration file for all processes, such as one that sets '
        'options of a driver; may be repeated',
    )
    output = parser.add_argument_group('results')
    output.add_argument(
        '--json', metavar='FILE', help='write everything measured there'
    )
    output.add_argument(
        '--report',
        metavar='FILE',
        help='write one HTML file with tables and plots there; needs the '
        'extra [bench]',
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group('load')
    load.add_argument(
        '--url',
        action='append',
        dest='urls',
        metavar='[NAME=]URL',
        help='a transport URL, and what to call it; may be repeated '
        '(default: zmq://)',
    )
    load.add_argument(
        '--pattern',
        action='append',
        dest='patterns',
        type=_patterns,
        metavar='PATTERN',
        help=f'{", ".join(plan_.Pattern)}; may be repeated, or a list with '
        'commas (default: call)',
    )
    load.add_argument(
        '--threads',
        type=_counts,
        default=[1, 8, 32],
        metavar='N,N',
        help='threads of each client process (default: 1,8,32)',
    )
    for name, what in (('processes', 'client'), ('servers', 'server')):
        load.add_argument(
            f'--{name}',
            type=_within(1, MOST_PROCESSES),
            default=1,
            metavar='N',
            help=f'{what} processes of each peer (default: %(default)s)',
        )
    load.add_argument(
        '--payload',
        type=_payload,
        default=None,
        metavar='N|simulator',
        help='characters of each message, or lengths as in '
        "oslo.messaging's simulator (default: simulator)",
    )


def _add_times(parser: argparse.ArgumentParser) -> None:
    times = parser.add_argument_group('time')
    times.add_argument(
        '--rounds',
        type=_within(1, 1000),
        default=5,
        metavar='N',
        help='how often everything is measured (default: %(default)s)',
    )
    times.add_argument(
        '--seed',
        type=_within(0, 1 << 31),
        default=1,
        metavar='N',
        help='makes payloads and the order of peers (default: %(default)s)',
    )
    for name, default, what in (
        ('duration', 2.0, 'length of one measurement'),
        ('warmup', 0.5, 'load before each one that is not counted'),
        ('think', 0.0, 'what a thread sleeps after each message'),
        ('timeout', 10.0, 'for the answer to a call'),
        ('drain', 10.0, 'for servers to run what was sent'),
        ('start-timeout', 30.0, 'for all processes of a peer to be ready'),
    ):
        times.add_argument(
            f'--{name}',
            type=_seconds if name not in {'think', 'warmup'} else _pause,
            default=default,
            metavar='SECONDS',
            help=f'{what} (default: %(default)s)',
        )


def make_plan(found: argparse.Namespace) -> plan_.Plan:
    """Return the plan that the arguments ask for.

    :raises BenchError: they ask for what cannot be done
    """
    patterns = list(
        dict.fromkeys(
            one
            for several in found.patterns or [[plan_.Pattern.CALL]]
            for one in several
        )
    )
    peers = _peers(found, patterns)
    names = [peer.name for peer in peers]
    baseline = found.baseline or names[0]
    if baseline not in names:
        raise plan_.BenchError(
            f'--baseline: there is no peer {baseline!r}; there are: '
            f'{", ".join(names)}'
        )
    _check_libraries(found)
    for name in ('json', 'report'):
        _check_writable(name, getattr(found, name))
    return plan_.Plan(
        peers=peers,
        patterns=patterns,
        threads=found.threads,
        baseline=baseline,
        processes=found.processes,
        servers=found.servers,
        payload=found.payload,
        duration=found.duration,
        warmup=found.warmup,
        rounds=found.rounds,
        think=found.think,
        timeout=found.timeout,
        drain=found.drain,
        start_timeout=found.start_timeout,
        config_files=found.config_file,
        seed=found.seed,
    )


def urls(found: argparse.Namespace) -> list[tuple[str | None, str]]:
    """Return the label, or None, and the URL of each ``--url``."""
    answer: list[tuple[str | None, str]] = []
    for text in found.urls or ['zmq://']:
        match = _LABELLED.fullmatch(text)
        answer.append((match[1], match[2]) if match else (None, text))
    return answer


def _peers(
    found: argparse.Namespace, patterns: Sequence[plan_.Pattern]
) -> list[plan_.Peer]:
    peers: list[plan_.Peer] = []
    for label, url in urls(found):
        _check_url(url, found.config_file)
        name = label or _unused(
            url.partition('://')[0], [peer.name for peer in peers]
        )
        peers.append(plan_.Peer(name, url=url))
    if plan_.Pattern.CALL in patterns:
        if found.grpc:
            peers.append(plan_.Peer(plan_.GRPC_NAME, plan_.Kind.GRPC))
        if not found.no_raw:
            peers.append(plan_.Peer(plan_.RAW_NAME, plan_.Kind.RAW))
    names = [peer.name for peer in peers]
    for name in names:
        if names.count(name) > 1:
            raise plan_.BenchError(f'--url: two peers are called {name!r}')
    for pattern in patterns:
        if not any(peer.carries(pattern) for peer in peers if peer.url):
            raise plan_.BenchError(
                f'--pattern: no URL given carries {pattern}; a driver of '
                f'{", ".join(plan_.NOTIFICATIONS_ONLY)} has notify only'
            )
    return peers


def _unused(name: str, taken: Sequence[str]) -> str:
    """Return the name, numbered if it is taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f'{name}-{number}'
    return found


def _check_url(url: str, config_files: Sequence[str]) -> None:
    """Load the driver of a URL; nothing is connected.

    :raises BenchError: there is none, or it refuses the URL
    """
    shown = masking.shown(url)
    driver = url.partition('://')[0]
    if '://' not in url:
        raise plan_.BenchError(f'--url: {shown!r} is no transport URL')
    if driver.partition('+')[0] == _INTERNAL:
        raise plan_.BenchError(
            f'--url: {shown} does not leave its process; the servers of the '
            f'benchmark are processes of their own'
        )
    conf = cfg.ConfigOpts()
    try:
        conf(
            [f'--config-file={name}' for name in config_files],
            project='zmq-driver-bench',
            default_config_files=[],
        )
        if driver.partition('+')[0] in plan_.NOTIFICATIONS_ONLY:
            made = oslo_messaging.get_notification_transport(conf, url)
        else:
            made = oslo_messaging.get_rpc_transport(conf, url)
    except cfg.Error as error:
        raise plan_.BenchError(f'--config-file: {error}') from None
    except ValueError:
        # Its text may have a part of a password that is not quoted.
        raise plan_.BenchError(f'--url: {shown} is no transport URL') from None
    except Exception as error:
        text = masking.Masker([url]).apply(str(error))
        if isinstance(error, oslo_messaging.DriverLoadFailure | ImportError):
            text = (
                f'no driver {driver!r} of oslo.messaging can be loaded; '
                f'install it and the library that it needs ({text})'
            )
        raise plan_.BenchError(f'--url: {shown}: {text}') from None
    made.cleanup()


def _check_libraries(found: argparse.Namespace) -> None:
    if found.report and importlib.util.find_spec('matplotlib') is None:
        raise plan_.BenchError(
            '--report: matplotlib is missing; install '
            '"oslo-messaging-zmq-driver[bench]"'
        )
    if found.grpc and importlib.util.find_spec('grpc') is None:
        raise plan_.BenchError('--grpc: grpcio is missing; install it')


def _check_writable(name: str, target: str | None) -> None:
    if target is None:
        return
    path = pathlib.Path(target)
    if path.is_dir() or not os.access(
        path if path.exists() else path.absolute().parent, os.W_OK
    ):
        raise plan_.BenchError(f'--{name}: {target} cannot be written')


def _patterns(text: str) -> list[plan_.Pattern]:
    try:
        return [plan_.Pattern(one) for one in text.split(',')]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f'{error}; the patterns are: {", ".join(plan_.Pattern)}'
        ) from None


def _counts(text: str) -> list[int]:
    convert = _within(1, MOST_THREADS)
    return list(dict.fromkeys(convert(one) for one in text.split(',')))


def _within(least: int, most: int) -> Callable[[str], int]:
    """Return what converts a number that has limits."""

    def convert(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number from {least} to {most}'
        )

    return convert


def _payload(text: str) -> int | None:
    if text == payload.SIMULATOR:
        return None
    return _within(0, MOST_PAYLOAD)(text)


def _pause(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f'{text!r} is no number of seconds')
    return value


def _seconds(text: str) -> float:
    value = _pause(text)
    if not value:
        raise argparse.ArgumentTypeError(f'{text!r} is not above 0')
    return value
