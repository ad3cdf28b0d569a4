# SPDX-License-Identifier: Apache-2.0
"""``zmq-driver doctor``: what is wrong with this host, and what to do."""

import argparse
from collections.abc import Iterator
import ipaddress
import os
import resource
import socket
from typing import NamedTuple

from oslo_config import cfg
import oslo_messaging
import zmq

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import errors
from zmq_driver import hosts
from zmq_driver import interfaces
from zmq_driver import listening
from zmq_driver import options
from zmq_driver.client import probe
from zmq_driver.cmd import deployment
from zmq_driver.cmd import targets
from zmq_driver.matchmaker import base

#: What the trial registration is called; no service has such an exchange.
TRIAL = address.Address(
    address.Scope.RPC, 'zmq-driver', f'doctor.{os.urandom(4).hex()}'
)
#: Descriptors of a process without the sockets of its pool.
OWN_DESCRIPTORS = 64
#: Seconds that closing a socket may take.
CLOSE_TIMEOUT = 5.0
#: Seconds that clocks may differ.
MOST_OFFSET = 2.0
#: The oldest libzmq whose heartbeats can be relied on.
LEAST_LIBZMQ = (4, 3, 4)


class Level(NamedTuple):
    """How bad a finding is."""

    name: str
    failed: bool


OK = Level('ok', False)
WARNING = Level('warning', False)
ERROR = Level('error', True)


class Finding(NamedTuple):
    """What one check says."""

    check: str
    level: Level
    text: str
    #: What to do about it; '' if nothing.
    advice: str = ''


class Doctor(deployment.TableCommand):
    """Check configuration, names, ports, the matchmaker and limits.

    The exit status is 1 if there is an error.

    Thread: owner only (the main thread).
    """

    def take_action(self, parsed_args: argparse.Namespace) -> targets.Table:
        """Return the table."""
        findings = list(examine(parsed_args))
        self.passed = not any(f.level.failed for f in findings)
        columns = ('Check', 'Result', 'Finding', 'What to do')
        return columns, [
            (f.check, f.level.name, f.text, f.advice) for f in findings
        ]


def examine(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Yield what every check finds, the basic ones first.

    :param arguments: of :func:`deployment.add_arguments`
    """
    yield _versions()
    try:
        found = deployment.Deployment(arguments)
    except (cfg.Error, oslo_messaging.MessagingException, OSError) as error:
        yield Finding(
            'configuration',
            ERROR,
            str(error),
            'correct what is named; nothing else can be checked until then',
        )
        return
    with found:
        yield Finding(
            'configuration', OK, f'{options.masked(found.url)} can be used'
        )
        yield _heartbeats(found.settings)
        yield _descriptors(found.settings)
        if found.spans_hosts:
            yield from _listening(found.settings)
        yield from _matchmaker(found)


def _versions() -> Finding:
    text = f'libzmq {zmq.zmq_version()}, pyzmq {zmq.__version__}'
    if zmq.zmq_version_info() < LEAST_LIBZMQ:
        least = '.'.join(map(str, LEAST_LIBZMQ))
        return Finding(
            'libraries',
            WARNING,
            text,
            f'install a pyzmq that brings libzmq {least} or newer',
        )
    return Finding('libraries', OK, text)


def _heartbeats(settings: options.Settings) -> Finding:
    total = settings.heartbeat_interval + settings.heartbeat_timeout
    text = f'a frozen peer is noticed after {total:g} s'
    if settings.heartbeat_timeout < settings.heartbeat_interval:
        return Finding(
            'heartbeats',
            WARNING,
            f'heartbeat_timeout={settings.heartbeat_timeout:g} is less than '
            f'heartbeat_interval={settings.heartbeat_interval:g}',
            'raise heartbeat_timeout to at least heartbeat_interval: shorter '
            'pauses of a host than that are taken for its death',
        )
    return Finding('heartbeats', OK, text)


def _descriptors(settings: options.Settings) -> Finding:
    """Compare the limit of this shell with what the pool may open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = 2 * settings.pool_max_size + OWN_DESCRIPTORS
    text = (
        f'{limit} descriptors may be open here, and the sockets of one '
        f'driver may need {needed}'
    )
    if limit != resource.RLIM_INFINITY and limit < needed:
        return Finding(
            'descriptors',
            WARNING,
            text,
            'raise LimitNOFILE of the unit, plus one for each client of a '
            'server, or lower pool_max_size',
        )
    return Finding('descriptors', OK, text)


def _listening(settings: options.Settings) -> Iterator[Finding]:
    """See whether a server could listen, and what others are told."""
    place = listening.TcpListening(
        settings.rpc_zmq_bind_address,
        settings.rpc_zmq_host,
        settings.rpc_zmq_port,
        settings.rpc_zmq_port_count,
    )
    context = context_.DriverContext('doctor', 1, 1)
    try:
        with context.socket(zmq.ROUTER) as one:
            one.set(zmq.IPV6, 1)
            endpoint = place.bind(one)
    except errors.ListenFailure as error:
        yield Finding(
            'ports', ERROR, str(error), 'no server can start on this host'
        )
        return
    finally:
        context.close(clock.Deadline(CLOSE_TIMEOUT))
    yield Finding(
        'ports', OK, f'other hosts would be told to connect to {endpoint}'
    )
    yield _overlap(settings)
    yield _name(endpoint.removeprefix('tcp://').rpartition(':')[0])


def _overlap(settings: options.Settings) -> Finding:
    first = settings.rpc_zmq_port
    ports = range(first, first + settings.rpc_zmq_port_count)
    kernel = listening.ephemeral_ports()
    text = (
        f'ports {ports.start}-{ports.stop - 1} are for servers, '
        f'{kernel.start}-{kernel.stop - 1} for outgoing connections'
    )
    if ports.start < kernel.stop and kernel.start < ports.stop:
        return Finding(
            'ports',
            WARNING,
            text,
            'choose rpc_zmq_port and rpc_zmq_port_count so that they do not '
            'overlap, or a port may be in use when a service starts',
        )
    return Finding('ports', OK, text)


def _name(host: str) -> Finding:
    """See whether the name that others are told leads to this host."""
    bare = hosts.unbracketed(host)
    try:
        found = {
            str(answer[4][0]).partition('%')[0]
            for answer in socket.getaddrinfo(bare, None)
        }
    except (OSError, UnicodeError) as error:
        return Finding(
            'host name',
            ERROR,
            f'{bare} has no address here: {error}',
            'set rpc_zmq_host to a name or address that every host knows',
        )
    own = {
        address_
        for name in interfaces.names()
        for address_ in interfaces.addresses(name)
    }
    text = f'{bare} is {", ".join(sorted(found))}'
    if all(ipaddress.ip_address(one).is_loopback for one in found):
        return Finding(
            'host name',
            WARNING,
            f'{text}, which is each host itself',
            'set rpc_zmq_host, or correct /etc/hosts, unless all services '
            'are on this host',
        )
    if not found & own:
        return Finding(
            'host name',
            WARNING,
            f'{text}, and this host has {", ".join(sorted(own))}',
            'set rpc_zmq_host to what other hosts reach this one by',
        )
    return Finding('host name', OK, text)


def _clock(found: deployment.Deployment) -> Iterator[Finding]:
    offset = found.clock_offset()
    if offset is None:
        return
    text = f'the clock of the matchmaker is {offset:+.1f} s from this one'
    if abs(offset) > MOST_OFFSET:
        yield Finding(
            'clock',
            WARNING,
            text,
            'synchronise the clocks; registrations expire by that of the '
            'matchmaker, so only ages are shown wrongly',
        )
    else:
        yield Finding('clock', OK, text)


def _matchmaker(found: deployment.Deployment) -> Iterator[Finding]:
    """Ask the matchmaker, and register something for a moment."""
    name = f'matchmaker {found.matchmaker}'
    try:
        records = found.records()
        yield Finding(name, OK, f'{len(records)} listeners are registered')
        found.try_registering(TRIAL)
        yield Finding(name, OK, 'listeners can be registered and found')
        yield from _clock(found)
    except (
        base.MatchmakerUnavailable,
        oslo_messaging.MessagingException,
    ) as error:
        yield Finding(
            name,
            ERROR,
            str(error),
            'services cannot find each other anew until that is mended; '
            'those that know each other go on',
        )
        return
    yield from _listeners(found, records)


def _listeners(
    found: deployment.Deployment, records: list[base.Record]
) -> Iterator[Finding]:
    """Probe the listeners of this host."""
    here = [r for r in records if r.host == socket.gethostname()]
    lost = [
        record
        for record in here
        if found.ask(found.reachable(record.registration)).condition
        is not probe.Condition.ALIVE
    ]
    if lost:
        yield Finding(
            'listeners here',
            WARNING,
            f'{len(lost)} of {len(here)} do not answer',
            '"zmq-driver targets check" names them; restart those that hang',
        )
    else:
        yield Finding('listeners here', OK, f'all {len(here)} answer')
