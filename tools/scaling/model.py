# SPDX-License-Identifier: Apache-2.0
"""The model: from the number of nodes to what each process and Redis bear.

Everything is a mean over a quiet stretch of time; what happens at once, such
as the restart of all agents, has figures of its own.
"""

import dataclasses
import math

from scaling import costs as costs_
from scaling import inputs
from scaling import laws

#: Seconds within which all agents of a site are restarted.
RESTART = 600.0
#: Seconds for which an address is subscribed to after a look-up.
_SUBSCRIBED = 600.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an operator can set; the defaults are those of the driver."""

    pool_max_size: int = inputs.POOL_MAX_SIZE
    pool_idle_ttl: float = inputs.POOL_IDLE_TTL
    lookup_ttl: float = inputs.LOOKUP_TTL
    heartbeat_interval: float = inputs.HEARTBEAT_INTERVAL
    #: Whether nova-compute sends fanouts to schedulers: Nova's option.
    track_instance_changes: bool = True
    #: Instances that are created and deleted, per node and hour.
    changes: float = inputs.value('changes')


class Site:
    """One site in steady state; each figure is a property.

    Descriptors are those of one process; memory, in MiB, and processor time,
    in cores, are those of the driver only.

    Thread: any (immutable).
    """

    def __init__(
        self, nodes: float, costs: costs_.Costs, settings: Settings
    ) -> None:
        """Describe a site with *nodes* compute nodes."""
        self.nodes = nodes
        self._costs = costs
        self._settings = settings
        self._there = inputs.processes(math.ceil(nodes))
        #: For how long a socket stays open after a use.
        self._kept = settings.pool_idle_ttl + laws.REAP_DELAY
        #: Instances per second.
        self._changes = settings.changes * nodes / 3600.0

    # -- rates, per second

    @property
    def processes(self) -> float:
        """Processes that use the driver, in the whole site."""
        return self._there.all

    @property
    def conductor_calls(self) -> float:
        """Calls of one nova-compute to conductors."""
        periodic = sum(n / each for each, n in inputs.CONDUCTOR_SCHEDULE)
        of_instances = inputs.value('conductor_calls') * self._changes
        return periodic + of_instances / self.nodes

    @property
    def all_conductor_calls(self) -> float:
        """Calls of all of them."""
        return self.conductor_calls * self.nodes

    @property
    def fanouts(self) -> float:
        """Fanouts of Neutron to all OVS agents."""
        return inputs.value('fanouts') * self._changes

    @property
    def fanout_copies(self) -> float:
        """Messages that these are."""
        return self.fanouts * self._there.agents

    # -- servers

    @property
    def conductor_connections(self) -> float:
        """Connections to a conductor worker.

        Each node takes turns, so that it comes back to a worker after as
        many calls as there are workers.
        """
        calls = self.conductor_calls / self._there.conductors
        return self.nodes * min(1.0, calls * self._kept)

    @property
    def scheduler_connections(self) -> float:
        """Connections to a scheduler worker: all nodes send it fanouts."""
        return self.nodes * self._tracked

    @property
    def _tracked(self) -> float:
        """The share of time for which a node is connected to schedulers."""
        if not self._settings.track_instance_changes:
            return 0.0
        return min(1.0, self._kept / inputs.value('nova_sync'))

    @property
    def agent_connections(self) -> float:
        """Connections to an OVS agent, from all who send it fanouts."""
        return self._there.neutron * self.neutron_sockets / self._there.agents

    @property
    def controller_memory(self) -> float:
        """MiB of all connections of one controller, at its workers."""
        there = self._there
        at_servers = self._costs.server_memory.each * (
            there.conductors * self.conductor_connections
            + there.schedulers * self.scheduler_connections
        )
        at_clients = (
            self._costs.client_memory.each
            * there.neutron
            * self.neutron_sockets
        )
        return (at_servers + at_clients) / 1024 / there.neutron_reports

    @property
    def controller_heartbeats(self) -> float:
        """Cores of one controller for the heartbeats of connections."""
        there = self._there
        at_servers = self._costs.server_idle.each * (
            there.conductors * self.conductor_connections
            + there.schedulers * self.scheduler_connections
        )
        at_clients = (
            self._costs.client_idle.each * there.neutron * self.neutron_sockets
        )
        # They are sent as often as the interval says.
        often = inputs.HEARTBEAT_INTERVAL / self._settings.heartbeat_interval
        return often * (at_servers + at_clients) / 1000 / there.neutron_reports

    # -- clients

    @property
    def compute_sockets(self) -> float:
        """Open sockets of a nova-compute."""
        to_conductors = min(
            self._there.conductors, self.conductor_calls * self._kept
        )
        found = to_conductors + self._tracked * self._there.schedulers
        return min(self._settings.pool_max_size, found)

    @property
    def compute_hit_ratio(self) -> float:
        """Of its calls to conductors, the share that finds a socket."""
        return laws.in_turn_hit_ratio(
            self._there.conductors,
            self.conductor_calls,
            self._settings.pool_idle_ttl,
        )

    @property
    def _fanout_follows(self) -> float:
        """The chance that a worker sends a fanout while sockets are kept."""
        rate = self.fanouts / self._there.neutron
        return 1.0 - math.exp(-rate * self._kept)

    @property
    def neutron_sockets(self) -> float:
        """Open sockets of a Neutron worker, API or RPC, on average."""
        return self._fanout_follows * self.neutron_most_sockets

    @property
    def neutron_most_sockets(self) -> float:
        """The same after a fanout."""
        return min(self._settings.pool_max_size, self._there.agents)

    @property
    def fanout_hit_ratio(self) -> float:
        """Of the copies of fanouts, the share that finds a socket."""
        if self._there.agents > self._settings.pool_max_size:
            return 0.0
        return self._fanout_follows

    @property
    def fanout_seconds(self) -> float:
        """Processor time of one fanout at its sender."""
        hits = self.fanout_hit_ratio
        agents = self._there.agents
        return (
            hits * self._costs.fanout_open(agents)
            + (1.0 - hits) * self._costs.fanout_closed(agents)
        ) / 1000.0

    @property
    def fanout_cores(self) -> float:
        """Processor time of all fanouts, at all controllers together."""
        return self.fanouts * self.fanout_seconds

    @property
    def fanout_share(self) -> float:
        """The same as a part of all cores of the controllers."""
        cores = self._there.neutron_reports * inputs.value('cores')
        return self.fanout_cores / cores

    # -- descriptors

    @property
    def conductor_descriptors(self) -> float:
        """Of a conductor worker."""
        return inputs.OWN_DESCRIPTORS + self.conductor_connections

    @property
    def scheduler_descriptors(self) -> float:
        """Of a scheduler worker."""
        return inputs.OWN_DESCRIPTORS + self.scheduler_connections

    @property
    def neutron_descriptors(self) -> float:
        """Of a Neutron worker after a fanout."""
        return inputs.OWN_DESCRIPTORS + 2 * self.neutron_most_sockets

    @property
    def compute_descriptors(self) -> float:
        """Of a nova-compute."""
        return inputs.OWN_DESCRIPTORS + 2 * self.compute_sockets

    @property
    def agent_descriptors(self) -> float:
        """Of an OVS agent."""
        return inputs.OWN_DESCRIPTORS + self.agent_connections

    # -- Redis

    @property
    def redis_connections(self) -> float:
        """Two of each process: for questions, and for changes."""
        return 2.0 * self._there.all

    @property
    def redis_memory(self) -> float:
        """MiB of registrations and connections."""
        records = self._costs.redis_memory.each * self._there.agents
        records += (
            self._costs.redis_memory.each
            / inputs.TOPICS_PER_AGENT
            * (self._there.all - self._there.agents)
        )
        connections = self._costs.redis_client_memory(self.redis_connections)
        return (records + connections) / 1024

    @property
    def redis_renewals(self) -> float:
        """Renewals per second, each of all topics of a process."""
        return self._there.all / laws.mean_period()

    @property
    def redis_look_ups(self) -> float:
        """Look-ups per second."""
        return sum(rate for rate, _ in self._look_ups())

    @property
    def redis_cores(self) -> float:
        """Processor time of Redis; it has one core."""
        agents = self._there.agents
        renewals = (
            agents * self._costs.agent_renewal
            + (self._there.all - agents) * self._costs.renewal
        ) / laws.mean_period()
        look_ups = sum(
            rate * self._costs.look_up(size) for rate, size in self._look_ups()
        )
        return (renewals + look_ups) / 1e6

    @property
    def redis_traffic(self) -> float:
        """MB per second that Redis sends."""
        sent = sum(
            rate * self._costs.answer(size) for rate, size in self._look_ups()
        )
        return sent * 1024 / 1e6

    def _look_ups(self) -> list[tuple[float, int]]:
        """Return rates of look-ups, and how many listeners each finds."""
        there = self._there
        casts = inputs.value('compute_casts') * self._changes
        to_computes = there.conductors + there.nova_apis
        reports = there.neutron_rpc + there.neutron_reports
        reporters = there.agents + there.network_agents
        agent_calls = inputs.value('agent_calls') * self._changes
        return [
            (
                there.computes * self._asks(self.conductor_calls),
                there.conductors,
            ),
            (
                there.computes * self._asks(1.0 / inputs.value('nova_sync')),
                there.schedulers,
            ),
            (
                reporters * self._asks(1.0 / inputs.value('neutron_report')),
                reports,
            ),
            (
                there.agents * self._asks(agent_calls / there.agents),
                there.neutron_rpc,
            ),
            (to_computes * self._asks(casts / to_computes), there.computes),
            *(
                (there.neutron * self._asks(rate), there.agents)
                for rate in self._fanout_rates()
            ),
        ]

    def _asks(self, uses: float) -> float:
        """Return how often one process asks for an address that it uses.

        :param uses: per second
        """
        fresh = self._settings.lookup_ttl * inputs.REFRESH_AT
        return 1.0 / (fresh + 1.0 / uses)

    def _fanout_rates(self) -> tuple[float, float]:
        """Return the fanouts of one worker: of ports, and l2population."""
        rate = self.fanouts / self._there.neutron
        return rate * 4 / 6, rate * 2 / 6

    @property
    def change_seconds(self) -> float:
        """What Redis has to do when one conductor worker joins or leaves.

        All computes hear of it, and ask again at once.
        """
        computes, conductors = self._there.computes, self._there.conductors
        return (
            self._costs.publish(computes)
            + computes * self._costs.look_up(conductors)
        ) / 1e6

    @property
    def restart_cores(self) -> float:
        """Redis while all OVS agents restart within ten minutes.

        It would have to have so many cores. Each join is a message to those
        who looked the topic up lately; they ask again, less often the more
        listeners there are.
        """
        agents, neutron = self._there.agents, self._there.neutron
        joins = agents / RESTART
        pause = inputs.CHANGE_INTERVAL + agents * inputs.CHANGE_INTERVAL_EACH
        demand = joins * self._costs.agent_renewal
        for rate in self._fanout_rates():
            listening = neutron * (1.0 - math.exp(-rate * _SUBSCRIBED))
            # Only an answer that is fresh is asked for again.
            fresh = 1.0 - math.exp(-rate * self._settings.lookup_ttl)
            demand += joins * self._costs.publish(listening)
            demand += (
                neutron
                * fresh
                * min(joins, 1.0 / pause)
                * self._costs.look_up(agents)
            )
        return self.redis_cores + demand / 1e6
