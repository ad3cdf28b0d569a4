# SPDX-License-Identifier: Apache-2.0
"""What is done to processes: killed, stopped, frozen, overloaded."""

import time

from tests.fault import fault


class ServerKilled(fault.Fault):
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


class RollingRestart(fault.Fault):
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


class ServerPaused(fault.Fault):
    name = 'server-paused'
    hold = 1.0

    def inject(self):
        self.server('b').program.freeze()

    def heal(self):
        self.server('b').program.thaw()


class ServerFrozen(ServerPaused):
    name = 'server-frozen'
    hold = 6.0


class ClientPaused(fault.Fault):
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


class ServerSlow(fault.Fault):
    """More work than the executor takes: the backlog fills."""

    name = 'server-saturated'
    #: Seconds that a method takes, and in which the backlog has to be full.
    slow = 1.5
    patience = 10.0

    def inject(self):
        before = self._refusals()
        self.server('a').program.write(f'slow {self.slow}')
        end = time.monotonic() + self.patience
        while self._refusals() == before:
            if time.monotonic() > end:
                self.problems.append('the backlog was never full')
                return
            time.sleep(0.2)

    def heal(self):
        self.server('a').program.write('slow 0')

    def _refusals(self):
        return self.server('a').program.ask('status')['messages_refused']


class ClockJump(fault.Fault):
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
