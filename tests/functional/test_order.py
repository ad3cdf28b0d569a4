# SPDX-License-Identifier: Apache-2.0
"""In which order messages are received; one worker runs them as they come."""

import threading

import pytest

from tests.fixtures import waiting

#: Seconds after which something hangs, on a machine that is busy.
HANG = 60


def ran(program):
    return [line['ran'] for line in program.all('ran')]


@pytest.mark.spec('DL-80')
@pytest.mark.spec('DL-81')
def test_messages_of_a_thread_arrive_in_their_order(server, client):
    program = server('s0', '--executor-threads', 1)
    one = client(timeout=HANG).prepare(server='s0')

    def send(thread):
        for n in range(40):
            # In any order of the kinds.
            method = one.call if (n * 7 + thread) % 3 == 0 else one.cast
            method({}, 'record', id=[thread, n])

    threads = [threading.Thread(target=send, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    waiting.until(lambda: len(ran(program)) == 160, 'executions', HANG)
    for thread in range(4):
        assert [n for t, n in ran(program) if t == thread] == list(range(40))


@pytest.mark.spec('DL-80')
@pytest.mark.spec('DL-83')
def test_fanouts_of_a_thread_arrive_in_their_order(server, client):
    programs = [server(f's{n}', '--executor-threads', 1) for n in range(3)]
    one = client(timeout=HANG)
    everybody = one.prepare(fanout=True)
    for n in range(0, 40, 2):
        everybody.cast({}, 'record', id=n)
        for name in ('s0', 's1', 's2'):
            one.prepare(server=name).cast({}, 'record', id=n + 1)
    for program in programs:
        waiting.until(lambda p=program: len(ran(p)) == 40, 'executions', HANG)
        assert ran(program) == list(range(40))
