# SPDX-License-Identifier: Apache-2.0
"""Are stored notifications lost, or seen twice? Processes die at random.

Notifiers notify at a steady rate. They, the members of three listener pools,
and Redis, if it is used, are killed and restarted. In the end each pool must
have handled everything that was accepted, once::

    python -W ignore -m tests.fault.notifications --minutes 10
"""

import argparse
import dataclasses
import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile

from tests.fault import deliveries
from tests.fault import ordeal as ordeal_

#: Lines about defects of one kind.
MOST_PROBLEMS = 8


def report(args, ordeal, verdict):
    """Return the lines that tell what was found."""
    redis = ''
    if 'redis' in (args.store, args.url_kind):
        redis = f', Redis with appendfsync {args.appendfsync}'
    site = (
        f'store {args.store}, URL {args.url_kind}{redis}; '
        f'{ordeal_.NOTIFIERS} notifiers, listener pools {ordeal_.POOLS}'
    )
    times = (
        f'{verdict.accepted} accepted in {ordeal.seconds:.0f} s, drained '
        f'{ordeal.drained:.1f} s later; notify() took {verdict.slowest:.2f} s '
        'at most'
    )
    faults = [f'{n} {c}' for n, c in sorted(ordeal.faults.items())]
    lines = [site, times, f'faults: {", ".join(faults)}']
    counts = dataclasses.asdict(verdict)
    del counts['problems'], counts['slowest']
    found = {n: c for n, c in counts.items() if n not in deliveries.DEFECTS}
    lines.append(', '.join(f'{n} {c}' for n, c in found.items()))
    for defect in deliveries.DEFECTS:
        texts = [t for t in verdict.problems if t.startswith(f'{defect}:')]
        lines += texts[:MOST_PROBLEMS]
        if len(texts) > MOST_PROBLEMS:
            lines.append(f'... and {len(texts) - MOST_PROBLEMS} more')
    defects = ', '.join(f'{n} {counts[n]}' for n in deliveries.DEFECTS)
    lines.append(f'verdict {"good" if verdict.good else "BAD"}: {defects}')
    return lines


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=10.0)
    parser.add_argument('--messages', type=int, default=100_000)
    parser.add_argument('--seed', type=int)
    parser.add_argument(
        '--store', choices=['sqlite', 'redis'], default='sqlite'
    )
    parser.add_argument(
        '--url-kind', choices=['local', 'redis'], default='local'
    )
    parser.add_argument(
        '--appendfsync', choices=['always', 'everysec'], default='always'
    )
    parser.add_argument('--query', default='', help='more options: a=b&c=d')
    parser.add_argument(
        '--drain', type=float, default=120.0, help='seconds at the end'
    )
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE')
    parser.add_argument(
        '--keep',
        type=pathlib.Path,
        help='directory for journals and debug logs',
    )
    return parser.parse_args()


def main():
    args = parse()
    if args.seed is None:
        args.seed = random.randrange(1 << 31)
    print(f'seed {args.seed}', flush=True)
    # However it is ended, no process is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A short path: the names of ipc sockets have at most 107 bytes.
    directory = pathlib.Path(tempfile.mkdtemp(prefix='zo'))
    ordeal = ordeal_.Ordeal(args, random.Random(args.seed), directory)
    try:
        ordeal.start()
        ordeal.run(args.minutes * 60, args.messages)
        ordeal.drain(args.drain)
        verdict = ordeal.judge()
    finally:
        ordeal.close()
        if args.keep:
            args.keep.mkdir(exist_ok=True)
            for pattern in ('journal-*', 'log-*'):
                for path in directory.glob(pattern):
                    shutil.copy(path, args.keep)
        shutil.rmtree(directory, ignore_errors=True)
    print('\n'.join(report(args, ordeal, verdict)))
    if args.json:
        args.json.write_text(json.dumps(dataclasses.asdict(verdict)))
    return 0 if verdict.good else 1


if __name__ == '__main__':
    sys.exit(main())
