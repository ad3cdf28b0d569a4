# SPDX-License-Identifier: Apache-2.0
"""Redis matchmakers for tests."""

import contextlib
import secrets
import urllib.parse

from oslo_config import cfg
import oslo_messaging

from tests.fixtures import waiting
from tests.unit.matchmaker import samples
from zmq_driver import options
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker.redis import matchmaker as redis_matchmaker
from zmq_driver.matchmaker.redis import scripts


def settings(url, directory, member=None, conf=None):
    """Return what a driver with this URL tells its matchmaker."""
    if conf is None:
        conf = cfg.ConfigOpts()
        conf([], project='zmq-driver-tests')
    parsed = oslo_messaging.TransportURL.parse(conf, url)
    kind = kind_of(url)
    assert kind.check_url(parsed) is None
    return base.MatchmakerSettings(
        directory,
        kind.virtual_host(parsed),
        member or samples.member(),
        url=parsed,
        options=options.load(conf, parsed),
    )


def kind_of(url):
    if url.startswith('zmq+sentinel'):
        return redis_matchmaker.SentinelMatchmaker
    return redis_matchmaker.RedisMatchmaker


@contextlib.contextmanager
def factory(directory, url):
    """Give a factory of members that nobody else's find; closes them.

    *url* ends where a virtual host can be appended.
    """
    made = []

    def make(virtual_host='', query='', prefix='', directory=directory):
        prefix = prefix or make.prefix
        where = settings(
            f'{url}{urllib.parse.quote(virtual_host, safe="")}'
            f'?redis_key_prefix={prefix}{query}',
            directory,
        )
        made.append(kind_of(url)(where))
        made[-1].prefix = prefix
        return made[-1]

    make.prefix = f'test:{secrets.token_hex(4)}:'
    try:
        yield make
    finally:
        for one in made:
            one.close(samples.deadline(5))


def wait_until_watched(matchmaker, heard):
    """Wait until a lookup has led to a subscription, then forget that."""
    waiting.until(lambda: heard, 'begin of a subscription')
    heard.clear()


def wait_until_heard(heard):
    """Wait for a message; return the address."""
    return waiting.until(lambda: heard, 'message')[0]


#: A script that answers.
ECHO = scripts.script('return 1')
