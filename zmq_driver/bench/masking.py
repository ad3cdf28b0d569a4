# SPDX-License-Identifier: Apache-2.0
"""Keeps passwords out of whatever is shown."""

from collections.abc import Iterable
import re
import urllib.parse

from oslo_config import cfg
import oslo_messaging

from zmq_driver import options

#: User and password in front of hosts.
_LOGIN = re.compile(r'(?<=://)[^/\s]*@')
_HIDDEN = '***'
#: A URL in a command line.
_URL = re.compile(r'[\w+.-]+://\S*')


class Masker:
    """Knows the transport URLs, and so what must not be shown.

    Thread: any.
    """

    def __init__(self, urls: Iterable[str]) -> None:
        """Read what is secret from transport URLs, valid or not."""
        secrets: set[str] = set()
        for url in urls:
            secrets.update(_secrets(url))
        # The longest first: one may be a part of another.
        self._secrets = sorted(secrets, key=len, reverse=True)

    def apply(self, text: str) -> str:
        """Return a text without passwords."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _LOGIN.sub(f'{_HIDDEN}@', text)

    def command(self, arguments: Iterable[str]) -> list[str]:
        """Return a command line without logins and queries of its URLs."""
        return [
            _URL.sub(lambda found: shown(found[0]), one) for one in arguments
        ]


def shown(url: str) -> str:
    """Return a transport URL without logins and query."""
    try:
        parsed = oslo_messaging.TransportURL.parse(cfg.ConfigOpts(), url)
        found = options.masked(parsed)
        if parsed.hosts and '@' not in found:
            return found
    except (oslo_messaging.InvalidTransportURL, ValueError):
        # What is wrong with it, somebody else tells.
        pass
    # A password that is not quoted may have anything in it.
    scheme, mark, rest = url.partition('?')[0].partition('://')
    return scheme + mark + rest.rpartition('@')[2]


def _secrets(url: str) -> Iterable[str]:
    rest = url.partition('://')[2]
    front, _, query = rest.partition('?')
    # The last one is for a password that should have been quoted.
    for login in (*re.findall(r'([^,/]*)@', front), front.rpartition('@')[0]):
        password = login.partition(':')[2]
        yield from _spellings(password)
    for name, value in urllib.parse.parse_qsl(query):
        if 'password' in name or 'secret' in name:
            yield from _spellings(value)


def _spellings(secret: str) -> Iterable[str]:
    """Yield how a secret can be written in a URL or shown from it."""
    if secret:
        yield secret
        yield urllib.parse.quote(secret, safe='')
        yield urllib.parse.unquote(secret)
