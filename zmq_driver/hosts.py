# SPDX-License-Identifier: Apache-2.0
"""How hosts and ports are spelt, in options, files and endpoints."""

import re
from typing import Final

#: The highest TCP port.
LAST_PORT: Final = 65535

_NAME: Final = re.compile(r'[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?')


def is_name(text: str) -> bool:
    """Return whether *text* can name a host; IPv4 addresses can too."""
    return _NAME.fullmatch(text) is not None


def unbracketed(host: str) -> str:
    """Return a host without the brackets that an endpoint puts round IPv6."""
    return host.removeprefix('[').removesuffix(']')
