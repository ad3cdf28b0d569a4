# SPDX-License-Identifier: Apache-2.0
"""The figures of this process in the form that Prometheus reads.

A program that has a Prometheus endpoint registers :class:`Collector` once::

    prometheus_client.REGISTRY.register(zmq_driver.prometheus.Collector())

One that has none can serve or write :func:`exposition` itself.
"""

from collections.abc import Iterator

import prometheus_client
from prometheus_client import core
from prometheus_client import registry

from zmq_driver import statistics

#: Every name begins so.
PREFIX = 'zmq_driver_'


class Collector(registry.Collector):
    """Collects the figures of every driver of this process when asked.

    The label ``driver`` counts the drivers of the process, because names that
    are never used again would fill the database.

    Thread: any.
    """

    def collect(self) -> Iterator[core.Metric]:
        """Yield one metric family for each figure."""
        families: dict[str, core.Metric] = {}
        for stats in statistics.snapshots():
            for figure in stats.figures():
                family = families.get(figure.name)
                if family is None:
                    family = families[figure.name] = _family(figure)
                labels = {'driver': str(stats.number), **figure.labels}
                name = PREFIX + figure.name
                family.add_sample(name, labels, figure.value)
        yield from families.values()

    def describe(self) -> list[core.Metric]:
        """Return nothing: which figures there are is known when asked."""
        return []


def _family(figure: statistics.Figure) -> core.Metric:
    kind = 'counter' if figure.grows else 'gauge'
    name = PREFIX + figure.name.removesuffix('_total')
    return core.Metric(name, figure.help, kind)


def exposition() -> str:
    """Return the figures of every driver, in Prometheus' text format."""
    collectors = prometheus_client.CollectorRegistry()
    collectors.register(Collector())
    return prometheus_client.generate_latest(collectors).decode()
