# SPDX-License-Identifier: Apache-2.0
"""A random fault every ten seconds, for an hour: does anything grow or break?

The processes called x, y (clients) and c (a server) live throughout. What
they use is sampled while the load rests, after each fault.
"""

import argparse
import pathlib
import random
import sys
import time

from tests.fault import experiment
from tests.fault import faults
from tests.fault import growth as growth_
from tests.fault import report
from tests.fault import site as site_

#: Seconds from one fault to the next, at least.
PERIOD = 10.0

#: Faults that need a file system of their own are done by `tox -e fault`.
KIND = 'tcp'


def names_for(kind):
    """Return the names of all faults that can be done on such a site."""
    return sorted(
        name for name, one in faults.FAULTS.items() if kind in one.kinds
    )


def schedule(names, seed):
    """Yield the names of faults for ever, as *seed* has it."""
    rng = random.Random(seed)
    while True:
        yield rng.choice(names)


class Soak:
    """The faults, one after the other, and the sums of their verdicts.

    Thread: owner only.
    """

    def __init__(self, site, seed):
        self._experiments = experiment.Experiments(site)
        self._schedule = schedule(names_for(site.kind), seed)
        pids = {f'client {n}': c.pid for n, c in site.clients.items()}
        pids['server c'] = site.servers['c'].program.pid
        self.growth = growth_.Growth(pids)
        #: The sums by fault, and the bad ones one by one.
        self.results = {}
        self.bad = []
        self.rounds = 0

    def run(self, seconds):
        end = time.monotonic() + seconds
        while (start := time.monotonic()) < end:
            result = self._experiments.run(next(self._schedule), after=1.0)
            self.rounds += 1
            self._add(result)
            self.growth.take()
            self._tell(result)
            left = start + PERIOD - time.monotonic()
            if left > 0:
                time.sleep(left)

    def _add(self, result):
        if not result.good:
            self.bad.append(result)
        known = self.results.setdefault(result.fault, result)
        if known is not result:
            known.add(result)

    def _tell(self, result):
        print(
            f'{self.rounds} {result.fault}: '
            f'{"good" if result.good else "BAD"}, {result.seconds:.1f} s, '
            f'threads held up {result.held_up:.2f} s',
            flush=True,
        )
        if not result.good:
            print('\n'.join(report.problems([result])), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--seed', type=int)
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE')
    args = parser.parse_args()
    seed = random.randrange(1 << 31) if args.seed is None else args.seed
    random.seed(seed)
    print(f'seed {seed}', flush=True)
    started = time.monotonic()
    # Slower than where each fault is short: an hour's records fit on a disk.
    with site_.Site(KIND, seed, pause=0.05) as site:
        print(f'{KIND}: {site.machines}', flush=True)
        soak = Soak(site, seed)
        try:
            soak.run(args.minutes * 60)
        except KeyboardInterrupt:
            print('interrupted; this is what there is so far', flush=True)
        finally:
            results = list(soak.results.values())
            print('\n'.join(report.table(results)))
            print('\n'.join(soak.growth.lines()))
    minutes = (time.monotonic() - started) / 60
    print(f'{soak.rounds} faults in {minutes:.0f} minutes, seed {seed}')
    print(report.sums(results))
    if args.json:
        args.json.write_text(
            report.as_json(
                results, seed=seed, slopes=soak.growth.slopes(), bad=soak.bad
            )
        )
    return 0 if all(result.good for result in results) else 1


if __name__ == '__main__':
    sys.exit(main())
