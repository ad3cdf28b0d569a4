# SPDX-License-Identifier: Apache-2.0
"""Every fault by name."""

from tests.fault import fault
from tests.fault import network_faults
from tests.fault import process_faults
from tests.fault import redis_faults
from tests.fault import resource_faults

#: Their classes register themselves as subclasses.
MODULES = (network_faults, process_faults, redis_faults, resource_faults)


def _all(base):
    for one in base.__subclasses__():
        yield from _all(one)
        if one.name:
            yield one


FAULTS = {one.name: one for one in _all(fault.Fault)}
