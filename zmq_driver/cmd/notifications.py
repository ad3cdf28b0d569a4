# SPDX-License-Identifier: Apache-2.0
"""``zmq-driver notifications``: what waits, for whom, and dead letters."""

import argparse
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import time
from typing import Any

from zmq_driver.cmd import deployment
from zmq_driver.cmd import targets
from zmq_driver.store import base

_NAMES = ('Exchange', 'Topic', 'Pool')

#: How much is asked for, or changed, at once: services go on meanwhile.
STEP = 500


def _queues(store: base.NotificationStore) -> Iterator[base.Queue]:
    after = 0
    while some := store.queues(STEP, after):
        yield from some
        after = some[-1].number


def _names(queue: base.Queue) -> tuple[str, str, str | None]:
    return queue.where.exchange, queue.where.topic, queue.pool


class _Notifications(deployment.TableCommand):
    """A table of those listener pools that the operator chooses.

    Thread: owner only (the main thread).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser of the command's arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--exchange', metavar='NAME', help='only this exchange'
        )
        parser.add_argument(
            '--topic',
            metavar='NAME',
            help='only this topic, with the priority: notifications.info',
        )
        pools = parser.add_mutually_exclusive_group()
        pools.add_argument(
            '--pool',
            metavar='NAME',
            help='only this listener pool; "" is that of listeners which '
            'name none',
        )
        pools.add_argument(
            '--no-pool',
            action='store_true',
            help='only what waits for whoever comes first, because no '
            'listener pool was known',
        )
        return parser

    @contextlib.contextmanager
    def _store(
        self, arguments: argparse.Namespace
    ) -> Iterator[base.NotificationStore]:
        """Give the store, and close it in the end."""
        with deployment.Deployment(arguments) as found:
            store = found.store()
            if not store.stores:
                raise RuntimeError(
                    'nothing is stored: notification_store is '
                    f'{found.settings.notification_store!r}'
                )
            with contextlib.closing(store):
                yield store

    def _matching(
        self, store: base.NotificationStore, arguments: argparse.Namespace
    ) -> list[base.Queue]:
        """Return the queues that are meant, those of dead letters too."""
        return [
            queue
            for queue in _queues(store)
            if arguments.exchange in (None, queue.where.exchange)
            and arguments.topic in (None, queue.where.topic)
            and arguments.pool in (None, queue.pool)
            and not (arguments.no_pool and queue.pool is not None)
        ]


class List(_Notifications):
    """List the listener pools that notifications are stored for.

    *Waiting*: how many wait for a listener; *Oldest*: for how many seconds
    the first of them has. *Dead*: how many are dead letters, which nobody is
    sent any more. *Seen*: for how many seconds no listener of the pool was
    known to be there, in steps of ten minutes. A pool that is null is whoever
    comes first.

    Thread: owner only (the main thread).
    """

    def take_action(self, parsed_args: argparse.Namespace) -> targets.Table:
        """Return the table."""
        with self._store(parsed_args) as store:
            found = self._matching(store, parsed_args)
        columns = (*_NAMES, 'Waiting', 'Oldest', 'Dead', 'Seen')
        return columns, list(_rows(found))


def _rows(queues: Iterable[base.Queue]) -> Iterator[tuple[Any, ...]]:
    """Yield one row for each pool, with its dead letters."""
    pools: dict[tuple[str, str, str | None], list[base.Queue]] = {}
    for queue in queues:
        pools.setdefault(_names(queue), []).append(queue)
    for names in sorted(pools, key=lambda names: (*names[:2], names[2] or '')):
        alive = [queue for queue in pools[names] if not queue.dead]
        yield (
            *names,
            sum(queue.copies for queue in alive),
            _ago(alive[0].oldest if alive else None),
            sum(queue.copies for queue in pools[names] if queue.dead),
            _ago(alive[0].seen if alive else None),
        )


def _ago(moment: float | None) -> float | int | None:
    """Return the seconds since then."""
    return targets.rounded(None if moment is None else time.time() - moment)


class Purge(_Notifications):
    """Drop what is stored for the listener pools that are named.

    The listener pools are still stored for, unless they are forgotten.
    The exit status is 1 if there is no such pool.

    Thread: owner only (the main thread).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser of the command's arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--all', action='store_true', help='of all listener pools'
        )
        parser.add_argument(
            '--dead', action='store_true', help='only dead letters'
        )
        parser.add_argument(
            '--forget',
            action='store_true',
            help='store nothing more for these listener pools until one of '
            'their listeners is seen again',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> targets.Table:
        """Return the table."""
        if parsed_args.dead and parsed_args.forget:
            raise RuntimeError('--dead and --forget exclude each other')
        names = (parsed_args.exchange, parsed_args.topic, parsed_args.pool)
        if not (
            any(name is not None for name in names)
            or parsed_args.no_pool
            or parsed_args.all
        ):
            raise RuntimeError('say of which listener pools, or --all')
        rows = []
        with self._store(parsed_args) as store:
            found = self._matching(store, parsed_args)
            if not found:
                raise RuntimeError(
                    'there is no such listener pool; "zmq-driver '
                    'notifications list" shows them'
                )
            for queue in found:
                if parsed_args.dead and not queue.dead:
                    continue
                count = _in_steps(store.purge, queue)
                forgotten = parsed_args.forget and store.remove(queue.number)
                state = 'dead' if queue.dead else 'waiting'
                rows.append((*_names(queue), state, count, bool(forgotten)))
        return (*_NAMES, 'State', 'Dropped', 'Forgotten'), rows


class Replay(_Notifications):
    """Send dead letters to the listeners of their pools again.

    Some service does it that uses the same store: one of this host, or with
    Redis any.

    Thread: owner only (the main thread).
    """

    def take_action(self, parsed_args: argparse.Namespace) -> targets.Table:
        """Return the table."""
        with self._store(parsed_args) as store:
            rows = [
                (*_names(queue), _in_steps(store.replay, queue))
                for queue in self._matching(store, parsed_args)
                if queue.dead and queue.copies
            ]
        return (*_NAMES, 'Replayed'), rows


def _in_steps(change: Callable[[int, int], int], queue: base.Queue) -> int:
    """Change what a queue holds now, and return how many copies that were.

    What is added meanwhile is left alone.
    """
    left = queue.copies
    while left > 0:
        count = change(queue.number, min(left, STEP))
        if not count:
            break
        left -= count
    return queue.copies - left
