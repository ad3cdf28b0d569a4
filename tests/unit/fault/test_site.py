# SPDX-License-Identifier: Apache-2.0
"""A site that ends leaves nothing behind, whatever goes wrong."""

import pytest

from tests.fault import machines
from tests.fault import network
from tests.fault import site


class Unwilling:
    running = True

    def close(self):
        raise BrokenPipeError


def test_the_rest_is_ended_when_one_program_cannot_be():
    ended = []
    one = site.Site('local', 1)
    one._undo.callback(ended.append, 'all')
    one.keep(Unwilling())
    one.keep(Unwilling())
    with pytest.raises(BrokenPipeError):
        one._close()
    assert ended == ['all']


def test_a_program_that_ended_by_itself_says_why():
    host = network.Host('here', '127.0.0.1')
    program = machines.Machine('laboratory_server', host)
    program.start(wait=False)
    program._process.wait(machines.PATIENCE)
    with pytest.raises(AssertionError, match='--url'):
        program.write('stop')
    program.close()
