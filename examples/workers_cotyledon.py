# SPDX-License-Identifier: Apache-2.0
"""An RPC server with two workers that cotyledon forks and supervises.

It runs until SIGTERM. SIGHUP replaces the workers.
"""

import cotyledon
from oslo_config import cfg

from examples import calculator


class CalculatorService(cotyledon.Service):
    """A worker.

    Thread: any.
    """

    def __init__(self, worker_id: int, one: calculator.Calculator) -> None:
        """Take what the parent has made.

        :param worker_id: the number of the worker
        :param one: not started yet
        """
        super().__init__(worker_id)
        self._calculator = one

    def run(self) -> None:
        """Serve."""
        self._calculator.start()

    def terminate(self) -> None:
        """End in an orderly way."""
        self._calculator.stop()


def main() -> None:
    """Run the parent."""
    cfg.CONF([], project='calculator')
    manager = cotyledon.ServiceManager()
    manager.add(CalculatorService, workers=2, args=(calculator.Calculator(),))
    manager.run()


if __name__ == '__main__':
    main()
