# SPDX-License-Identifier: Apache-2.0
"""What the operators' commands look at: a deployment, by its configuration."""

import argparse
import contextlib
import os
import types

from cliff import lister
from oslo_config import cfg
import oslo_messaging

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters
from zmq_driver import driver
from zmq_driver import envelope
from zmq_driver import ipc
from zmq_driver import option_types
from zmq_driver import options
from zmq_driver import runtime
from zmq_driver.client import probe
from zmq_driver.matchmaker import base
from zmq_driver.store import base as store_base
from zmq_driver.store import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which deployment is meant."""
    group = parser.add_argument_group('deployment')
    group.add_argument(
        '--url',
        metavar='URL',
        help='transport URL (default: transport_url of the configuration '
        'files, or zmq://)',
    )
    group.add_argument(
        '--config-file',
        action='append',
        default=[],
        metavar='FILE',
        help='a configuration file of the service; may be repeated',
    )
    group.add_argument(
        '--timeout',
        type=seconds,
        default=2.0,
        metavar='SECONDS',
        help='for each question to the matchmaker or to a listener '
        '(default: %(default)s)',
    )


def seconds(text: str) -> float:
    """Return a positive number of seconds.

    :raises argparse.ArgumentTypeError: it is none
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= option_types.MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number of seconds above 0'
        )
    return value


class TableCommand(lister.Lister):
    """A command that shows a deployment as a table, and may pass judgement.

    Thread: owner only (the main thread).
    """

    #: Set to False to have the exit status 1.
    passed = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser of the command's arguments."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_arguments(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Show the table; return the exit status."""
        status = int(super().run(parsed_args) or 0)
        return status or int(not self.passed)


class Deployment:
    """The deployment of a transport URL, seen from this process.

    It registers nothing and listens nowhere. Use it in a ``with`` block.

    Thread: owner only (the main thread).
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Read the configuration; nothing is opened yet.

        :param arguments: of :func:`add_arguments`
        :raises oslo_messaging.InvalidTransportURL: the URL cannot be used
        :raises oslo_config.cfg.Error: the configuration cannot be read
        """
        conf = cfg.ConfigOpts()
        files = [f'--config-file={name}' for name in arguments.config_file]
        conf(files, project='zmq-driver', default_config_files=[])
        #: The transport URL, from the arguments or the configuration.
        self.url = _parse(conf, arguments.url)
        #: Seconds for one question.
        self.timeout = float(arguments.timeout)
        #: The value of every option.
        self.settings = options.load(conf, self.url)
        self._driver = driver.ZmqDriver(conf, self.url)

    def __enter__(self) -> 'Deployment':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._driver.cleanup()

    def records(self) -> list[base.Record]:
        """Return every registration, by address, server and endpoint.

        :raises MatchmakerUnavailable: the matchmaker cannot be asked
        """
        matchmaker = self._driver.runtime().matchmaker
        found = matchmaker.records(clock.Deadline(self.timeout))
        return sorted(found, key=lambda record: record.registration)

    def store(self) -> store_base.NotificationStore:
        """Return the store of notifications, which the caller has to close.

        :raises RuntimeError: there is none of this name
        """
        kind = runtime.MATCHMAKERS.load(self.matchmaker)
        virtual_host = kind.virtual_host(self.url)
        return loading.make_store(
            store_base.StoreSettings(
                directory=ipc.IpcDirectory(self.settings.rpc_zmq_ipc_dir),
                site=loading.site(self.matchmaker, virtual_host, self.url),
                options=self.settings,
                counters=counters.Counters(),
                matchmaker=self.matchmaker,
                virtual_host=virtual_host,
                url=self.url,
            )
        )

    @property
    def matchmaker(self) -> str:
        """The name of the matchmaker."""
        suffix = self.url.transport.partition('+')[2]
        return suffix or self.settings.rpc_zmq_matchmaker

    @property
    def spans_hosts(self) -> bool:
        """Whether servers of other hosts can be reached."""
        return runtime.MATCHMAKERS.load(self.matchmaker).spans_hosts

    def clock_offset(self) -> float | None:
        """Return how far the clock of the matchmaker is ahead, in seconds.

        :returns: None if it has no clock of its own
        :raises MatchmakerUnavailable: the matchmaker cannot be asked
        """
        matchmaker = self._driver.runtime().matchmaker
        return matchmaker.clock_offset(clock.Deadline(self.timeout))

    def try_registering(self, where: address.Address) -> None:
        """Register something, look it up, and withdraw it.

        :raises MatchmakerUnavailable: that does not work
        """
        matchmaker = self._driver.runtime().matchmaker
        route = address.Route('ipc:///nowhere', os.urandom(16), 'doctor')
        registration = address.Registration(where, route)
        deadline = clock.Deadline(self.timeout)
        matchmaker.register(registration, deadline)
        try:
            if route not in matchmaker.lookup(where, deadline).routes:
                raise base.MatchmakerUnavailable(
                    'what was registered is not found again'
                )
        finally:
            matchmaker.unregister(registration, deadline)

    def reachable(
        self, registration: address.Registration
    ) -> address.Registration:
        """Return a registration with the endpoint that clients here use.

        :raises MatchmakerUnavailable: the matchmaker cannot be asked
        """
        routes = self._driver.runtime().matchmaker.lookup(
            registration.address, clock.Deadline(self.timeout)
        )
        for route in routes.of_server(registration.route.server):
            if (
                route.incarnation == registration.route.incarnation
                and route.incarnation != envelope.ANY_INCARNATION
            ):
                return registration._replace(route=route)
        return registration

    def ask(self, registration: address.Registration) -> probe.Finding:
        """Probe a listener once.

        :param registration: from :meth:`reachable`
        """
        with contextlib.closing(self.prober(registration)) as prober:
            return prober.probe(self.timeout)

    def prober(self, registration: address.Registration) -> probe.Prober:
        """Return what probes a listener."""
        return probe.Prober(self._driver.runtime().open_socket, registration)


def _parse(
    conf: cfg.ConfigOpts, url: str | None
) -> oslo_messaging.TransportURL:
    """Return the transport URL that is meant.

    :raises oslo_messaging.InvalidTransportURL: it is another driver's
    """
    # Registers transport_url with conf.
    oslo_messaging.TransportURL.parse(conf, 'zmq://')
    found = oslo_messaging.TransportURL.parse(
        conf, url or conf.transport_url or 'zmq://'
    )
    if found.transport.partition('+')[0] != 'zmq':
        raise options.invalid_url(
            found, 'it is another driver\'s; give one of zmq with --url'
        )
    return found
