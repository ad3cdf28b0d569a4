# SPDX-License-Identifier: Apache-2.0
"""``zmq-driver bench``: oslo.messaging drivers measured side by side."""

import argparse
import json
import pathlib
import signal
import sys
from typing import Any

from cliff import lister

from zmq_driver.bench import arguments
from zmq_driver.bench import environment
from zmq_driver.bench import masking
from zmq_driver.bench import progress
from zmq_driver.bench import results
from zmq_driver.bench import run
from zmq_driver.bench import table

#: Of what ``--json`` writes.
FORMAT = 1


class Bench(lister.Lister):
    """Measure drivers of oslo.messaging side by side.

    Starts servers and clients of every peer as processes, and measures all
    peers in turn, round by round. Ratios are made within a round, so they
    hold on a busy machine too; rates and latencies need a quiet one. Pairs
    (CPU per message, memory, descriptors, threads) are client + server.
    RabbitMQ and other servers have to be running already.

    Thread: owner only (the main thread).
    """

    #: Set to False to have the exit status 1.
    passed = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser of the command's arguments."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        arguments.add(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Show the table; return the exit status."""
        status = int(super().run(parsed_args) or 0)
        return status or int(not self.passed)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        """Measure; return the table."""
        plan = arguments.make_plan(parsed_args)
        around = environment.describe()
        # Whoever ends this process wants the others to end too.
        signal.signal(
            signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
        )
        steps = len(list(plan.steps()))
        with progress.Progress(steps, sys.stderr) as shown:
            found = run.carry_out(plan, shown)
        self.passed = found.passed()
        urls = [url for _, url in arguments.urls(parsed_args)]
        command = ['zmq-driver', *masking.Masker(urls).command(sys.argv[1:])]
        document = {
            'format': FORMAT,
            'environment': around,
            'command': command,
            'plan': plan.as_json(),
            'problems': found.problems(),
            'results': found.as_json(),
        }
        if parsed_args.json:
            pathlib.Path(parsed_args.json).write_text(json.dumps(document))
        if parsed_args.report:
            _write_report(parsed_args.report, found, around, command)
        for problem in found.problems():
            self.app.stderr.write(f'{problem}\n')
        rows = list(table.rows(found))
        if parsed_args.formatter == 'table':
            rows = table.aligned(rows)
        return table.COLUMNS, rows


def _write_report(
    target: str,
    found: results.Results,
    around: dict[str, str],
    command: list[str],
) -> None:
    # It needs matplotlib, which is an extra.
    from zmq_driver.bench import report

    pathlib.Path(target).write_text(report.render(found, around, command))
