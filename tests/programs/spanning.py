# SPDX-License-Identifier: Apache-2.0
"""The program ``server``, where ``zmq+spanning://`` is a matchmaker."""

from tests.fixtures import spanning
from tests.programs import server

if __name__ == '__main__':
    spanning.install()
    server.main()
