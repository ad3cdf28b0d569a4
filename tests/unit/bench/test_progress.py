# SPDX-License-Identifier: Apache-2.0
"""The progress bar."""

import importlib.util
import io

import pytest

from zmq_driver.bench import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream):
    with progress.Progress(2, stream) as bar:
        bar.show('zmq, call')
        bar.step()
        bar.show('rabbit, call')
        bar.step()
    return stream.getvalue()


@pytest.mark.spec('BN-20')
def test_nothing_is_shown_where_nobody_watches():
    assert shown(io.StringIO()) == ''


@pytest.mark.spec('BN-20')
def test_a_bar_on_a_terminal():
    text = shown(Terminal())
    assert '/2' in text
    assert 'rabbit, call' in text


@pytest.mark.spec('BN-20')
def test_a_counter_without_tqdm(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    text = shown(Terminal())
    assert '0/2 zmq, call' in text
    assert '1/2 rabbit, call' in text
    assert text.endswith('\r\x1b[K')
