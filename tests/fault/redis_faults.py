# SPDX-License-Identifier: Apache-2.0
"""What is done to Redis and Sentinel."""

from tests.fault import fault


class RedisKilled(fault.Fault):
    """SIGKILL, and a new process that knows nothing."""

    name = 'redis-killed'
    kinds = ('tcp',)
    hold = 1.5
    recovery = 6.0
    blinds = 6.0

    def inject(self):
        self.site.registry.kill()

    def heal(self):
        self.site.registry.start()


class RedisFrozen(fault.Fault):
    name = 'redis-frozen'
    kinds = ('tcp',)
    hold = 3.0
    blinds = 6.0

    def inject(self):
        self.site.registry.freeze()

    def heal(self):
        self.site.registry.thaw()


class RedisRefusing(fault.Fault):
    """Redis ends all connections and wants a password for new ones."""

    name = 'redis-refusing'
    kinds = ('tcp',)
    hold = 2.0
    blinds = 6.0
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


class StoppedWithoutRedis(fault.Fault):
    """A server stops while Redis is gone, so nobody hears that it left."""

    name = 'server-stopped-without-redis'
    kinds = ('tcp',)
    hold = 1.0
    recovery = 6.0
    blinds = 6.0

    def inject(self):
        self.site.registry.kill()
        self.server('a').stop()

    def heal(self):
        self.site.registry.start()
        self.server('a').launch().wait()


class RedisFailover(fault.Fault):
    """Sentinel makes another server the master."""

    name = 'redis-failover'
    kinds = ('sentinel',)
    hold = 1.0
    recovery = 6.0
    blinds = 6.0

    def inject(self):
        self.site.registry.fail_over()


class RedisMasterKilled(fault.Fault):
    """The master is killed, and Sentinel has to notice."""

    name = 'redis-master-killed'
    kinds = ('sentinel',)
    hold = 1.0
    recovery = 6.0
    blinds = 6.0

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
