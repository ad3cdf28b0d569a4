# SPDX-License-Identifier: Apache-2.0
"""``zmq-driver ping``: the round trip to the listeners of a topic."""

import argparse
from collections.abc import Sequence
import contextlib
import statistics
import time
from typing import Any

from zmq_driver import address
from zmq_driver.client import probe
from zmq_driver.cmd import deployment
from zmq_driver.cmd import targets

COLUMNS = (
    'Topic',
    'Server',
    'Endpoint',
    'Sent',
    'Received',
    'Loss %',
    'Min ms',
    'Median ms',
    'Max ms',
    'Last problem',
)


class Ping(deployment.TableCommand):
    """Measure the round trip to the listeners of a topic.

    The process answers without running anything. The exit status is 1 if
    nobody is registered, or if an answer is missing.

    Thread: owner only (the main thread).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser of the command's arguments."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('topic', help='the topic of the target')
        parser.add_argument(
            'server',
            nargs='?',
            help='the server of the target (default: all of the topic)',
        )
        parser.add_argument(
            '--exchange', metavar='NAME', help='only this exchange'
        )
        parser.add_argument(
            '--count',
            type=_count,
            default=5,
            metavar='N',
            help='probes of each listener (default: %(default)s)',
        )
        parser.add_argument(
            '--interval',
            type=deployment.seconds,
            default=0.2,
            metavar='SECONDS',
            help='between two rounds (default: %(default)s)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> targets.Table:
        """Return the table."""
        with deployment.Deployment(parsed_args) as found:
            records = list(targets.matching(found.records(), parsed_args))
            if not records:
                wanted = f'topic {parsed_args.topic!r}'
                if parsed_args.server is not None:
                    wanted += f' and server {parsed_args.server!r}'
                raise RuntimeError(
                    f'nobody is registered for {wanted}; "zmq-driver targets '
                    f'list" shows who is'
                )
            registrations = [
                found.reachable(record.registration) for record in records
            ]
            findings = _probe_all(found, registrations, parsed_args)
        rows = [
            _summary(registration, results)
            for registration, results in zip(
                registrations, findings, strict=True
            )
        ]
        self.passed = all(row[3] == row[4] for row in rows)
        return COLUMNS, rows


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number above 0')
    return int(text)


def _probe_all(
    found: deployment.Deployment,
    registrations: Sequence[address.Registration],
    arguments: argparse.Namespace,
) -> list[list[probe.Finding]]:
    """Probe all in turn, so that what disturbs one disturbs all."""
    findings: list[list[probe.Finding]] = [[] for _ in registrations]
    with contextlib.ExitStack() as stack:
        probers = [
            stack.enter_context(contextlib.closing(found.prober(registration)))
            for registration in registrations
        ]
        for number in range(arguments.count):
            if number:
                time.sleep(arguments.interval)
            for prober, results in zip(probers, findings, strict=True):
                results.append(prober.probe(found.timeout))
    return findings


def _summary(
    registration: address.Registration, results: Sequence[probe.Finding]
) -> tuple[Any, ...]:
    alive = probe.Condition.ALIVE
    times = [
        finding.seconds
        for finding in results
        if finding.condition is alive and finding.seconds is not None
    ]
    problems = [
        f'{finding.condition.value}: {finding.detail}'
        for finding in results
        if finding.condition is not alive
    ]
    shown: tuple[Any, ...] = (None, None, None)
    if times:
        shown = tuple(
            targets.milliseconds(value)
            for value in (min(times), statistics.median(times), max(times))
        )
    return (
        registration.address.topic,
        registration.route.server,
        registration.route.endpoint,
        len(results),
        len(times),
        round(100 * (1 - len(times) / len(results)), 1),
        *shown,
        problems[-1] if problems else '',
    )
