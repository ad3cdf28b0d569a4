# SPDX-License-Identifier: Apache-2.0
"""Keeps passwords out of whatever is shown."""

from collections.abc import Iterable
import re
import urllib.parse

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
    """Return a transport URL without its login and query."""
    return _LOGIN.sub('', url.partition('?')[0])


def _secrets(url: str) -> Iterable[str]:
    rest = url.partition('://')[2]
    front, _, query = rest.partition('?')
    for login in re.findall(r'([^,/]*)@', front):
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
