# SPDX-License-Identifier: Apache-2.0
"""What is done to connections and cables."""

import time

from tests.fault import fault
from tests.fault import proxy


class Proxied(fault.Fault):
    """Something in the network before the server *a*."""

    kinds = ('tcp', 'sentinel')

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


class PartitionShort(fault.Fault):
    """The cable of the server *b* is pulled out, and put in again."""

    name = 'partition-short'
    kinds = ('tcp', 'sentinel')
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
