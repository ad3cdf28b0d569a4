# SPDX-License-Identifier: Apache-2.0
"""Entry point of the ``zmq-driver`` command."""

from collections.abc import Sequence
import sys
import warnings

from cliff import app
from cliff import commandmanager

import zmq_driver

#: The stevedore namespace of the commands.
COMMANDS = 'zmq_driver.commands'


class ZmqDriverApp(app.App):
    """The application behind ``zmq-driver``.

    Thread: owner only (the main thread).
    """

    def __init__(self) -> None:
        """Describe the application."""
        super().__init__(
            description='Tools for the ZeroMQ driver of oslo.messaging.',
            version=zmq_driver.__version__,
            command_manager=commandmanager.CommandManager(COMMANDS),
            deferred_help=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    :param argv: arguments without the program's name; None: the process's
    :returns: the exit status
    """
    # oslo's own modules warn when they are imported; whoever runs a command
    # can do nothing about it.
    warnings.simplefilter('ignore', DeprecationWarning)
    warnings.filterwarnings('ignore', message=r'\s*Eventlet is deprecated')
    arguments = sys.argv[1:] if argv is None else list(argv)
    # Without a command cliff would start an interactive shell.
    return int(ZmqDriverApp().run(arguments or ['help']))


if __name__ == '__main__':
    sys.exit(main())
