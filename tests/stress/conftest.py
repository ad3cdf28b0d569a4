# SPDX-License-Identifier: Apache-2.0
"""The fixtures of the functional tests, for longer runs."""

from tests.functional.conftest import client
from tests.functional.conftest import conf
from tests.functional.conftest import deployment
from tests.functional.conftest import ipc_dir
from tests.functional.conftest import server
from tests.functional.conftest import topic
from tests.functional.conftest import transport
from tests.functional.conftest import url

__all__ = [
    'client',
    'conf',
    'deployment',
    'ipc_dir',
    'server',
    'topic',
    'transport',
    'url',
]
