# SPDX-License-Identifier: Apache-2.0
"""Prints the table of faults and patterns: ``python -m tests.fault``."""

import argparse
import pathlib
import random
import sys

from tests.fault import expectations
from tests.fault import experiment
from tests.fault import faults
from tests.fault import report
from tests.fault import site as site_


def sites(row, args):
    """Return where to do a fault: all that can be, of sites that are named."""
    return faults.FAULTS[row.fault].kinds if args.site else row.sites


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('faults', nargs='*', help='all, if none is named')
    parser.add_argument('--site', choices=site_.KINDS, action='append')
    parser.add_argument('--seed', type=int)
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE')
    args = parser.parse_args()
    seed = random.randrange(1 << 31) if args.seed is None else args.seed
    random.seed(seed)
    print(f'seed {seed}', flush=True)
    results = []
    for kind in args.site or site_.KINDS:
        names = [
            row.fault
            for row in expectations.rows().values()
            if kind in sites(row, args)
            and (not args.faults or row.fault in args.faults)
        ]
        if not names:
            continue
        with site_.Site(kind, seed) as site:
            print(f'{kind}: {site.machines}', flush=True)
            experiments = experiment.Experiments(site)
            for name in names:
                results.append(experiments.run(name))
                print(
                    f'  {name}: {"good" if results[-1].good else "BAD"}, '
                    f'{results[-1].seconds:.1f} s',
                    flush=True,
                )
    print('\n'.join(report.table(results)))
    if args.json:
        args.json.write_text(report.as_json(results, seed=seed))
    return 0 if all(result.good for result in results) else 1


if __name__ == '__main__':
    sys.exit(main())
