# SPDX-License-Identifier: Apache-2.0
"""What measures the points of the page on scaling, in small."""

import pytest
from scaling import inputs
from scaling import measure_fanout
from scaling import measure_redis
from scaling import measure_sockets
from scaling import points


def by_name(rows):
    found = {}
    for name, size, value, _ in rows:
        found.setdefault(name, {})[size] = value
    return found


def test_what_connections_cost_is_measured(monkeypatch):
    monkeypatch.setattr(measure_sockets, 'IDLE', 0.1)
    found = by_name(measure_sockets.measure([5, 20]))
    assert found['server descriptors'] == {5: 5, 20: 20}
    assert found['client descriptors'] == {5: 10, 20: 40}
    assert found['server memory'].keys() == {5, 20}


def test_what_fanouts_cost_is_measured():
    found = by_name(measure_fanout.measure([4], [8, 2]))
    assert found['redis connections of servers'] == {4: 4}
    assert found['redis connections of a client'] == {4: 2}
    assert found['redis connections of a busy client'][4] >= 2
    assert found['fanout hit ratio, pool of 8'] == {4: 1.0}
    assert found['cast hit ratio, pool of 8'] == {4: 1.0}
    assert found['cast hit ratio, pool of 2'][4] < 1.0
    assert found['fanout sockets, pool of 2'] == {4: 2}
    assert found['fanout processor, pool of 8'][4] > 0


def test_what_redis_bears_is_measured(monkeypatch):
    monkeypatch.setattr(measure_redis, 'WATCH', 1.0)
    monkeypatch.setattr(measure_redis, 'ROUNDS', 80)
    monkeypatch.setattr(measure_redis, 'SETTLE', 0.1)
    found = by_name(measure_redis.measure([10, 100], [5, 10]))
    assert found['redis memory'][100] > 0
    assert found['redis look-up answer'][100] > 5
    assert found['redis renewals'][100] > 0
    assert found['redis client memory'][10] > 0
    assert f'redis renewal of {inputs.TOPICS_PER_AGENT}' in found
    assert by_name(measure_redis.publish([2, 4])).keys() == {'redis publish'}


@pytest.mark.leaks(reason='matplotlib keeps the fonts open')
def test_plots_are_drawn_anew(tmp_path, monkeypatch):
    pytest.importorskip('matplotlib')
    from scaling import plots

    monkeypatch.setattr(plots, 'IMAGES', tmp_path)
    names = list(plots.draw())
    committed = {
        path.name for path in (points.ADMIN / 'images').glob('scaling-*')
    }
    assert set(names) == committed
    for name in names:
        assert (tmp_path / name).read_text().startswith('<?xml')
