# SPDX-License-Identifier: Apache-2.0
"""Write the tables and plots anew; measure first, if asked to.

usage: python -m scaling [--measure [PART ...]]

Parts are sockets, reconnect, fanout, publish and redis; all of them take ten
minutes, and 12,000 descriptors. Without --measure, the points that were
measured last are used.
"""

import argparse

from scaling import plots
from scaling import points
from scaling import tables

_PARTS = ('sockets', 'reconnect', 'fanout', 'publish', 'redis')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--measure', nargs='*', choices=_PARTS, default=None)
    args = parser.parse_args()
    if args.measure is not None:
        points.measure(args.measure)
    for name in tables.write():
        print(name, flush=True)
    for name in plots.draw():
        print(name, flush=True)


if __name__ == '__main__':
    main()
