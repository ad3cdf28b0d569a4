# SPDX-License-Identifier: Apache-2.0
"""What the model assumes of a site, and where each figure is from.

Nova and Neutron are those of commits 00a0304 (2026-08-21) and 2131d26
(2026-08-07); paths are in their repositories.
"""

import math
from typing import NamedTuple


class Input(NamedTuple):
    """One figure of the model."""

    name: str
    value: float
    unit: str
    #: A file of the project, or why it was assumed.
    source: str


_ASSUMED = 'assumed: no public figure was found; '

INPUTS = (
    Input('nova_report', 10, 's', 'nova/conf/service.py: report_interval'),
    Input(
        'nova_resources',
        60,
        's',
        'nova/conf/compute.py: update_resources_interval, whose 0 means the '
        '60 s of oslo.service',
    ),
    Input(
        'nova_resources_calls',
        4,
        'calls',
        'nova/compute/manager.py and resource_tracker.py: '
        'ComputeNodeList.get_all_by_host, InstanceList.get_by_host_and_node, '
        'MigrationList.get_in_progress_and_error, ComputeNode.save',
    ),
    Input(
        'nova_sync',
        120,
        's',
        'nova/conf/compute.py: scheduler_instance_sync_interval; a call, and '
        'a fanout to all schedulers',
    ),
    Input(
        'nova_delete',
        300,
        's',
        'nova/conf/compute.py: instance_delete_interval',
    ),
    Input(
        'nova_delete_calls',
        3,
        'calls',
        'nova/compute/manager.py: three tasks with this interval',
    ),
    Input(
        'nova_power',
        600,
        's',
        'nova/conf/compute.py: sync_power_state_interval; a call',
    ),
    Input(
        'neutron_report',
        30,
        's',
        'neutron/conf/agent/common.py: report_interval; a call of each agent',
    ),
    Input(
        'agent_topics',
        10,
        'topics',
        'neutron/plugins/ml2/drivers/openvswitch/agent/ovs_neutron_agent.py: '
        '3, and 1 with l2population; neutron/agent/rpc.py: RESOURCE_TYPES, 6',
    ),
    Input(
        'fanouts',
        6,
        'per instance',
        'neutron/plugins/ml2/ovo_rpc.py: a port is created, bound, active '
        'and deleted; l2pop/mech_driver.py: added and removed. All OVS agents '
        'listen',
    ),
    Input(
        'agent_calls',
        5,
        'per instance',
        'neutron/agent/rpc.py: device details, two device lists; '
        + _ASSUMED
        + 'two bulk pulls',
    ),
    Input(
        'conductor_calls',
        40,
        'per instance',
        _ASSUMED + 'calls of nova-compute in the life of an instance',
    ),
    Input(
        'compute_casts',
        3,
        'per instance',
        _ASSUMED + 'build, delete and one more, by conductor and API workers',
    ),
    Input(
        'changes',
        0.2,
        'per node and hour',
        _ASSUMED + 'instances that are created and deleted; 5 a day on each '
        'node',
    ),
    Input(
        'cores',
        16,
        'per controller',
        'assumed; Nova starts as many conductors and schedulers '
        '(nova/conf/conductor.py, scheduler.py), Neutron half as many RPC '
        'workers (neutron/service.py) and one for reports '
        '(neutron/conf/service.py)',
    ),
    Input(
        'nodes_per_controller',
        1000,
        'nodes',
        'assumed; at least 3 controllers',
    ),
    Input(
        'nodes_per_network_node',
        100,
        'nodes',
        'assumed; at least 2, with an L3, a DHCP, a metadata and an OVS agent '
        'each',
    ),
    Input(
        'maxclients',
        10_000,
        'connections',
        'redis.conf of Redis 7: maxclients',
    ),
    Input(
        'nofile',
        1024,
        'descriptors',
        'systemd.exec(5): the soft limit that a unit without LimitNOFILE has',
    ),
)

_VALUES = {each.name: each.value for each in INPUTS}


def value(name: str) -> float:
    """Return the value of an input."""
    return _VALUES[name]


TOPICS_PER_AGENT = int(value('agent_topics'))

#: The sizes that the documentation speaks of: compute nodes.
SIZES = (10, 100, 1000, 5000, 13_000)

#: What nova-compute calls conductors for: period in seconds, calls.
CONDUCTOR_SCHEDULE = (
    (value('nova_report'), 1),
    (value('nova_resources'), int(value('nova_resources_calls'))),
    (value('nova_sync'), 1),
    (value('nova_delete'), int(value('nova_delete_calls'))),
    (value('nova_power'), 1),
)

# -- the driver's own defaults; a test compares them with the code

POOL_MAX_SIZE = 256
POOL_MAX_PER_PEER = 64
POOL_IDLE_TTL = 60.0
POOL_MAX_AGE = 3600.0
POOL_REAP_INTERVAL = 5.0
HEARTBEAT_INTERVAL = 0.5
HEARTBEAT_FREQ = 15.0
#: A period of renewal is shortened by up to this part.
RENEWAL_JITTER = 0.2
LOOKUP_TTL = 30.0
#: An answer that is in use is asked for again at this part, on average.
REFRESH_AT = 0.75
#: Seconds between two look-ups because of joins, and more per listener.
CHANGE_INTERVAL = 0.1
CHANGE_INTERVAL_EACH = 0.0002
FANOUT_WINDOW = 32
#: Descriptors of a driver besides those of its sockets.
OWN_DESCRIPTORS = 15


class Processes(NamedTuple):
    """How many there are of each kind, in the whole site."""

    computes: int
    #: OVS agents, on computes and network nodes.
    agents: int
    #: L3, DHCP and metadata agents.
    network_agents: int
    conductors: int
    schedulers: int
    nova_apis: int
    neutron_rpc: int
    neutron_reports: int
    neutron_apis: int

    @property
    def neutron(self) -> int:
        """Those that send fanouts to agents."""
        return self.neutron_rpc + self.neutron_apis

    @property
    def all(self) -> int:
        """All together."""
        return sum(self)


def processes(nodes: int) -> Processes:
    """Return the processes of a site with so many compute nodes."""
    controllers = max(3, math.ceil(nodes / value('nodes_per_controller')))
    cores = int(value('cores')) * controllers
    network = max(2, math.ceil(nodes / value('nodes_per_network_node')))
    return Processes(
        computes=nodes,
        agents=nodes + network,
        network_agents=3 * network,
        conductors=cores,
        schedulers=cores,
        nova_apis=cores,
        neutron_rpc=cores // 2,
        neutron_reports=controllers,
        neutron_apis=cores // 2,
    )
