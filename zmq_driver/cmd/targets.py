# SPDX-License-Identifier: Apache-2.0
"""``zmq-driver targets``: who is registered, and who of them is there."""

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
import datetime
from typing import Any

from zmq_driver import address
from zmq_driver.client import probe
from zmq_driver.cmd import deployment
from zmq_driver.matchmaker import base

_NAMES = ('Scope', 'Exchange', 'Topic', 'Server')

Table = tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose among the registrations."""
    parser.add_argument(
        '--exchange', metavar='NAME', help='only this exchange'
    )
    parser.add_argument('--topic', metavar='NAME', help='only this topic')
    parser.add_argument('--server', metavar='NAME', help='only this server')


def matching(
    records: Iterable[base.Record], arguments: argparse.Namespace
) -> Iterator[base.Record]:
    """Yield the records that :func:`add_filters` let through."""
    for record in records:
        where, route = record.registration[:2]
        wanted = (
            (arguments.exchange, where.exchange),
            (arguments.topic, where.topic),
            (arguments.server, route.server),
        )
        if all(want in (None, name) for want, name in wanted):
            yield record


def names(registration: address.Registration) -> tuple[str, ...]:
    """Return scope, exchange, topic and server of a registration."""
    where, route = registration[:2]
    scope = where.scope.name.lower()
    return scope, where.exchange, where.topic, route.server


def age(started: str) -> float | None:
    """Return the seconds since *started*, an ISO 8601 time; None if it is
    none.
    """
    try:
        since = datetime.datetime.fromisoformat(started)
        return (datetime.datetime.now(datetime.UTC) - since).total_seconds()
    except (ValueError, TypeError):
        return None


def rounded(value: float | None, digits: int = 0) -> float | int | None:
    """Return a number as a table shows it."""
    if value is None:
        return None
    return round(value, digits) if digits else round(value)


class _Targets(deployment.TableCommand):
    """A table of those registrations that the operator chooses.

    Thread: owner only (the main thread).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser of the command's arguments."""
        parser = super().get_parser(prog_name)
        add_filters(parser)
        return parser


class List(_Targets):
    """List every listener that is registered.

    Whether it is really there is what ``targets check`` finds out.

    Thread: owner only (the main thread).
    """

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Return the table."""
        with deployment.Deployment(parsed_args) as found:
            records = list(matching(found.records(), parsed_args))
        columns = (*_NAMES, 'Endpoints', 'Host', 'PID', 'Age', 'Expires in')
        return columns, [_describe(record) for record in records]


def _describe(record: base.Record) -> tuple[Any, ...]:
    registration = record.registration
    endpoints = [registration.route.endpoint, registration.tcp_endpoint]
    return (
        *names(registration),
        ' '.join(filter(None, endpoints)),
        record.host,
        record.pid,
        rounded(age(record.started)),
        rounded(record.expires_in),
    )


class Check(_Targets):
    """Contact every listener that is registered.

    *alive*: it is there. *dead*: no connection. *mute*: connected, but
    nothing answers in time. *wrong*: something else answers; the record is
    about a process that is gone. The exit status is 1 unless all are alive.

    Thread: owner only (the main thread).
    """

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Return the table."""
        columns = (*_NAMES, 'Endpoint', 'Host', 'PID', 'State', 'ms', 'Detail')
        rows = []
        with deployment.Deployment(parsed_args) as found:
            for record in matching(found.records(), parsed_args):
                rows.append(self._check(found, record))
        return columns, rows

    def _check(
        self, found: deployment.Deployment, record: base.Record
    ) -> tuple[Any, ...]:
        registration = found.reachable(record.registration)
        finding = found.ask(registration)
        if finding.condition is not probe.Condition.ALIVE:
            self.passed = False
        return (
            *names(registration),
            registration.route.endpoint,
            record.host,
            record.pid,
            finding.condition.value,
            milliseconds(finding.seconds),
            finding.detail,
        )


def milliseconds(value: float | None) -> float | int | None:
    """Return seconds as a table shows milliseconds."""
    return None if value is None else rounded(value * 1000, 3)
