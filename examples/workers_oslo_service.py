# SPDX-License-Identifier: Apache-2.0
"""An RPC server with two workers that oslo.service forks and supervises.

It runs until SIGTERM. SIGHUP replaces the workers.
"""

from oslo_config import cfg
from oslo_service import backend

# Before anything else of oslo.service: its default is eventlet.
backend.init_backend(backend.BackendType.THREADING)

from oslo_service import service  # noqa: E402

from examples import calculator  # noqa: E402


class CalculatorService(service.Service):
    """Made in the parent, started and stopped in each worker.

    Thread: any.
    """

    def __init__(self) -> None:
        """Make the transport."""
        super().__init__()
        self._calculator = calculator.Calculator()

    def start(self) -> None:
        """Serve."""
        self._calculator.start()

    def stop(self, graceful: bool = False) -> None:
        """End in an orderly way, whatever *graceful* says."""
        self._calculator.stop()
        super().stop(graceful)


def main() -> None:
    """Run the parent."""
    cfg.CONF([], project='calculator')
    launcher = service.launch(cfg.CONF, CalculatorService(), workers=2)
    launcher.wait()


if __name__ == '__main__':
    main()
