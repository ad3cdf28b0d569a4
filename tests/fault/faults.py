# SPDX-License-Identifier: Apache-2.0
"""What is done to a site: to its processes, its network, its matchmaker.

Each fault has a `name`, which the table in ``doc/specs/fault-laboratory.rst``
has too, the seconds that it lasts (`hold`), and inject() and heal(). What it
finds wrong by itself it adds to `problems`.
"""

import resource
import time

from tests.fault import proxy
from tests.fault import site as site_


class Fault:
    """The base of all.

    Thread: owner only.
    """

    name = ''
    #: Seconds between inject() and heal().
    hold = 1.0
    #: Seconds after heal() in which it is still felt.
    recovery = 3.0
    #: Seconds for which the clients do not run.
    frozen = 0.0

    def __init__(self, site):
        self.site = site
        self.problems = []

    def inject(self):
        raise NotImplementedError

    def heal(self):
        pass

    def server(self, name):
        return self.site.servers[name]


class ServerKilled(Fault):
    """SIGKILL, and a new process on another port."""

    name = 'server-killed'
    victim = 'a'
    same_port = False

    def inject(self):
        self.server(self.victim).kill()

    def heal(self):
        self.server(self.victim).launch(self.same_port).wait()


class ServerKilledSamePort(ServerKilled):
    name = 'server-killed-same-port'
    victim = 'b'
    same_port = True


class RollingRestart(Fault):
    """An orderly stop and a new process, one server after the other."""

    name = 'rolling-restart'
    hold = 0.3

    def inject(self):
        self._restart('a')

    def heal(self):
        self._restart('b')

    def _restart(self, name):
        self.server(name).stop()
        self.server(name).launch().wait()


class ServerPaused(Fault):
    name = 'server-paused'
    hold = 1.0

    def inject(self):
        self.server('b').program.freeze()

    def heal(self):
        self.server('b').program.thaw()


class ServerFrozen(ServerPaused):
    name = 'server-frozen'
    hold = 6.0


class ClientPaused(Fault):
    name = 'client-paused'
    hold = 1.0

    def inject(self):
        self.frozen = self.hold + 1.0
        self.site.clients['x'].freeze()

    def heal(self):
        self.site.clients['x'].thaw()


class ClientFrozen(ClientPaused):
    name = 'client-frozen'
    hold = 6.0


class ServerSlow(Fault):
    """More work than the executor takes: the backlog fills."""

    name = 'server-saturated'
    hold = 2.0

    def inject(self):
        self._refused = self._refusals()
        self.server('a').program.write('slow 0.7')

    def heal(self):
        self.server('a').program.write('slow 0')
        if self._refusals() == self._refused:
            self.problems.append('the backlog was never full')

    def _refusals(self):
        return self.server('a').program.ask('status')['messages_refused']


class ClockJump(Fault):
    """The wall clocks of a server and a client jump."""

    seconds = 3600

    def inject(self):
        self._jump(self.seconds)

    def heal(self):
        self._jump(0)

    def _jump(self, seconds):
        self.server('a').program.write(f'clock {seconds}')
        self.site.clients['x'].write(f'clock {seconds}')


class ClockForward(ClockJump):
    name = 'clock-forward'


class ClockBack(ClockJump):
    name = 'clock-back'
    seconds = -3600


class Proxied(Fault):
    """Something in the network before the server *a*."""

    @property
    def proxy(self):
        return self.server('a').proxy


class CutConnections(Proxied):
    """Each connection is cut at a message, again and again."""

    hold = 1.5
    where = proxy.Cut.MID_FRAME
    direction = proxy.Direction.REQUEST
    times = 3

    def inject(self):
        before = self.proxy.cuts
        for _ in range(self.times):
            self.proxy.cut(self.where, self.direction)
            time.sleep(self.hold / self.times)
        if self.proxy.cuts == before:
            self.problems.append('no connection was cut')

    def heal(self):
        self.proxy.set_mode(proxy.Mode.PASS)


class CutRequestMidFrame(CutConnections):
    name = 'request-cut-mid-frame'


class CutReplyMidFrame(CutConnections):
    name = 'reply-cut-mid-frame'
    direction = proxy.Direction.REPLY


class CutRequestBetweenFrames(CutConnections):
    name = 'request-cut-between-frames'
    where = proxy.Cut.BETWEEN_FRAMES


class CutReplyBetweenFrames(CutConnections):
    name = 'reply-cut-between-frames'
    where = proxy.Cut.BETWEEN_FRAMES
    direction = proxy.Direction.REPLY


class Delay(Proxied):
    name = 'delay-200-ms'
    hold = 2.0

    def inject(self):
        self.proxy.set_delay(0.2)

    def heal(self):
        self.proxy.set_delay(0.0)


class SilentAccept(Proxied):
    name = 'silent-accept'
    hold = 3.0

    def inject(self):
        self.proxy.set_mode(proxy.Mode.SILENT)

    def heal(self):
        self.proxy.set_mode(proxy.Mode.PASS)


class ConnectionRefused(Proxied):
    name = 'connection-refused'
    hold = 2.0

    def inject(self):
        self.proxy.set_mode(proxy.Mode.REFUSE)

    def heal(self):
        self.proxy.set_mode(proxy.Mode.PASS)


class BlackHole(Proxied):
    """Nothing passes the proxy, and all of it later."""

    name = 'black-hole'
    hold = 6.0

    def inject(self):
        self.proxy.set_mode(proxy.Mode.STOP)

    def heal(self):
        self.proxy.set_mode(proxy.Mode.PASS)


class PartitionShort(Fault):
    """The cable of the server *b* is pulled out, and put in again."""

    name = 'partition-short'
    hold = 0.7

    def inject(self):
        server = self.server('b')
        if server.host.can_be_unplugged:
            server.host.unplug()
        else:
            server.proxy.set_mode(proxy.Mode.STOP)

    def heal(self):
        server = self.server('b')
        if server.host.can_be_unplugged:
            server.host.plug_in()
        else:
            server.proxy.set_mode(proxy.Mode.PASS)


class PartitionLong(PartitionShort):
    name = 'partition-long'
    hold = 6.0


class RedisKilled(Fault):
    """SIGKILL, and a new process that knows nothing."""

    name = 'redis-killed'
    hold = 1.5
    recovery = 6.0

    def inject(self):
        self.site.registry.kill()

    def heal(self):
        self.site.registry.start()


class RedisFrozen(Fault):
    name = 'redis-frozen'
    hold = 3.0

    def inject(self):
        self.site.registry.freeze()

    def heal(self):
        self.site.registry.thaw()


class RedisRefusing(Fault):
    """Redis ends all connections and wants a password for new ones."""

    name = 'redis-refusing'
    hold = 2.0
    _password = 'laboratory'

    def inject(self):
        redis = self.site.registry
        redis.command('CONFIG', 'SET', 'requirepass', self._password)
        for kind in ('normal', 'pubsub'):
            redis.command(
                'CLIENT', 'KILL', 'TYPE', kind, password=self._password
            )

    def heal(self):
        self.site.registry.command(
            'CONFIG', 'SET', 'requirepass', '', password=self._password
        )


class StoppedWithoutRedis(Fault):
    """A server stops while Redis is gone, so nobody hears that it left."""

    name = 'server-stopped-without-redis'
    hold = 1.0
    recovery = 6.0

    def inject(self):
        self.site.registry.kill()
        self.server('a').stop()

    def heal(self):
        self.site.registry.start()
        self.server('a').launch().wait()


class RedisFailover(Fault):
    """Sentinel makes another server the master."""

    name = 'redis-failover'
    hold = 1.0
    recovery = 6.0

    def inject(self):
        self.site.registry.fail_over()


class RedisMasterKilled(Fault):
    """The master is killed, and Sentinel has to notice."""

    name = 'redis-master-killed'
    hold = 1.0
    recovery = 6.0

    def inject(self):
        deployment = self.site.registry
        port = deployment.sentinels[0].master_port()
        self._killed = next(
            server
            for server in (deployment.master, deployment.replica)
            if server.port == port
        )
        self._killed.kill()
        deployment.wait_for_master_other_than(port)

    def heal(self):
        self._killed.start()


class DiskFull(Fault):
    """The file system of the ipc directory is full; a server starts.

    It has to fail with an error that says so, while the others go on.
    """

    name = 'ipc-disk-full'
    hold = 1.0

    def inject(self):
        self._ballast = self.site.shared_dir / 'ballast'
        before = self.server('a')
        before.stop()
        if self.site.can_be_full:
            with self._ballast.open('wb', buffering=0) as file:
                size = site_.FULL_AT
                while size:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        size //= 2
        before.launch()
        if not self.site.can_be_full:
            resource.prlimit(before.program.pid, resource.RLIMIT_FSIZE, (0, 0))
        self._expect_failure(before.program)

    def _expect_failure(self, program):
        try:
            program.wait_for('ready', 30)
        except AssertionError as error:
            text = str(error)
            if 'rpc_zmq_ipc_dir' not in text or not (
                'space' in text or 'too large' in text
            ):
                self.problems.append(f'the error is not clear: {text[-900:]}')
        else:
            self.problems.append('a server started although the disk is full')
            program.kill()

    def heal(self):
        self._ballast.unlink(missing_ok=True)
        self.server('a').launch().wait()


class ClientDescriptors(Fault):
    """A client can open nothing more, and a server is replaced."""

    name = 'client-descriptors-exhausted'
    hold = 1.0

    def inject(self):
        self._client = self.site.clients['x']
        self._client.exhaust_descriptors()
        server = self.server('a')
        server.stop()
        server.launch().wait()

    def heal(self):
        self._client.grant_descriptors()


class ServerDescriptors(Fault):
    """A server can accept nothing more, and its connections are cut."""

    name = 'server-descriptors-exhausted'
    hold = 2.0

    def inject(self):
        server = self.server('a')
        server.program.exhaust_descriptors()
        server.proxy.cut_now()

    def heal(self):
        self.server('a').program.grant_descriptors()


def _all(base):
    for one in base.__subclasses__():
        yield from _all(one)
        if one.name:
            yield one


#: Every fault by name.
FAULTS = {fault.name: fault for fault in _all(Fault)}
