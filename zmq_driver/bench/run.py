# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan."""

from collections.abc import Iterator
import contextlib
import tempfile

from zmq_driver.bench import masking
from zmq_driver.bench import plan as plan_
from zmq_driver.bench import progress as progress_
from zmq_driver.bench import results
from zmq_driver.bench import site


def carry_out(
    plan: plan_.Plan, progress: progress_.Progress
) -> results.Results:
    """Start all peers, measure, and end them.

    :raises BenchError: a peer does not do what it should
    """
    found = results.Results(plan)
    masker = masking.Masker(peer.url for peer in plan.peers)
    with contextlib.ExitStack() as stack:
        # Removed when the processes have ended.
        directories = stack.enter_context(contextlib.ExitStack())
        sites: dict[str, site.Site] = {}
        stack.callback(_end, sites)
        for peer in plan.peers:
            progress.show(f'starting {peer.name}')
            place = directories.enter_context(_directory(peer))
            sites[peer.name] = site.Site(plan, peer, place, masker)
            sites[peer.name].wait_ready()
        for step in plan.steps():
            progress.show(
                f'round {step.round + 1}: {step.peer.name}, '
                f'{step.cell.pattern}, {step.cell.threads} thread(s)'
            )
            found.add(step, sites[step.peer.name].measure(step))
            progress.step()
    return found


@contextlib.contextmanager
def _directory(peer: plan_.Peer) -> Iterator[str]:
    """Make a directory for what our driver keeps on disk; no other does."""
    if not peer.url.startswith('zmq'):
        yield ''
        return
    with tempfile.TemporaryDirectory(
        prefix='zmq-driver-bench-', ignore_cleanup_errors=True
    ) as made:
        yield made


def _end(sites: dict[str, site.Site]) -> None:
    """End all processes, at the same time."""
    for one in sites.values():
        one.end()
    with contextlib.ExitStack() as stack:
        # Also when the end of one is interrupted.
        for one in sites.values():
            stack.callback(one.reap)
