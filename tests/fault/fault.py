# SPDX-License-Identifier: Apache-2.0
"""What all faults have."""


class Fault:
    """Something that is done to a site, and undone.

    Its `name` is that of a row in ``doc/specs/fault-outcomes.csv``.

    Thread: owner only.
    """

    name = ''
    #: The kinds of site on which it can be done. On which of them it is done
    #: by the tests, the table says.
    kinds = ('local', 'tcp', 'sentinel')
    #: Seconds between inject() and heal().
    hold = 1.0
    #: Seconds after heal() in which it is still felt.
    recovery = 3.0
    #: Seconds after heal() until which clients may not know servers that
    #: began meanwhile; None: they can ask.
    blinds = None
    #: Seconds for which the clients do not run.
    frozen = 0.0

    def __init__(self, site):
        self.site = site
        #: What it finds wrong by itself.
        self.problems = []

    def inject(self):
        raise NotImplementedError

    def heal(self):
        pass

    def server(self, name):
        return self.site.servers[name]
