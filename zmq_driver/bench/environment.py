# SPDX-License-Identifier: Apache-2.0
"""What the figures depend on, besides what is measured."""

from collections.abc import Iterator
import contextlib
import datetime
from importlib import metadata
import os
import pathlib
import platform

import zmq

import zmq_driver

#: Distributions whose version matters, where they are installed.
DISTRIBUTIONS = (
    'oslo.messaging',
    'oslo.serialization',
    'futurist',
    'pyzmq',
    'kombu',
    'amqp',
    'confluent-kafka',
    'grpcio',
    'redis',
)

_CPUINFO = pathlib.Path('/proc/cpuinfo')
_MEMINFO = pathlib.Path('/proc/meminfo')


def describe() -> dict[str, str]:
    """Return names and values, in the order in which to show them."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        'time': now.isoformat(' ', 'seconds'),
        'CPU': f'{_field(_CPUINFO, "model name")}, {os.cpu_count()} cores',
        'memory': _field(_MEMINFO, 'MemTotal'),
        'load average': ' '.join(f'{one:.2f}' for one in os.getloadavg()),
        'system': f'{platform.system()} {platform.release()} '
        f'{platform.machine()}',
        'Python': f'{platform.python_implementation()} '
        f'{platform.python_version()}',
        'zmq_driver': zmq_driver.__version__,
        'libzmq': zmq.zmq_version(),
        **dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def _field(path: pathlib.Path, name: str) -> str:
    """Return a value that the kernel tells; 'unknown' if it does not."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(':')
            if key.strip() == name:
                return value.strip()
    return 'unknown'
