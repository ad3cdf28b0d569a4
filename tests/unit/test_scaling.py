# SPDX-License-Identifier: Apache-2.0
"""The model of large sites, and the page that shows what it says."""

import re

import pytest
from scaling import checks
from scaling import costs
from scaling import inputs
from scaling import laws
from scaling import model
from scaling import points
from scaling import simulate
from scaling import tables

from zmq_driver import options
from zmq_driver.client import copies
from zmq_driver.matchmaker import refreshed
from zmq_driver.matchmaker.redis import matchmaker as redis_matchmaker
from zmq_driver.matchmaker.redis import renewal

PAGE = points.ADMIN / 'scaling.rst'
MOST_BYTES = 100_000

#: What can only grow with a site.
GROWING = (
    'processes',
    'all_conductor_calls',
    'fanouts',
    'fanout_copies',
    'conductor_descriptors',
    'scheduler_descriptors',
    'neutron_descriptors',
    'compute_descriptors',
    'fanout_seconds',
    'fanout_cores',
    'controller_memory',
    'redis_connections',
    'redis_memory',
    'redis_renewals',
    'redis_look_ups',
    'redis_traffic',
    'redis_cores',
    'change_seconds',
    'restart_cores',
)


@pytest.fixture(scope='module')
def measured():
    return points.load()


@pytest.fixture(scope='module')
def prices(measured):
    return costs.Costs(measured)


def default(name):
    (found,) = [o for o in options._OPTIONS if o.name == name]
    return found.default


# -- the inputs


@pytest.mark.parametrize(
    ('assumed', 'name'),
    [
        (inputs.POOL_MAX_SIZE, 'pool_max_size'),
        (inputs.POOL_MAX_PER_PEER, 'pool_max_per_peer'),
        (inputs.POOL_IDLE_TTL, 'pool_idle_ttl'),
        (inputs.POOL_MAX_AGE, 'pool_max_age'),
        (inputs.POOL_REAP_INTERVAL, 'pool_reap_interval'),
        (inputs.HEARTBEAT_INTERVAL, 'heartbeat_interval'),
        (inputs.HEARTBEAT_FREQ, 'matchmaker_heartbeat_freq'),
    ],
)
def test_the_defaults_are_those_of_the_driver(assumed, name):
    assert assumed == default(name)


def test_the_constants_are_those_of_the_driver():
    assert inputs.FANOUT_WINDOW == copies.FANOUT_WINDOW
    assert inputs.RENEWAL_JITTER == renewal.JITTER
    assert sum(refreshed.REFRESH_AT) / 2 == inputs.REFRESH_AT
    assert inputs.CHANGE_INTERVAL == refreshed.CHANGE_INTERVAL
    assert inputs.CHANGE_INTERVAL_EACH == refreshed.CHANGE_INTERVAL_EACH
    found = redis_matchmaker.RedisMatchmaker.lookup_ttl
    assert found == inputs.LOOKUP_TTL


def test_every_input_has_a_source_or_is_called_assumed():
    for each in inputs.INPUTS:
        assert re.search(r'/\S+\.py|assumed|redis\.conf|systemd', each.source)


# -- the model


@pytest.mark.parametrize('name', GROWING)
def test_a_larger_site_bears_no_less(name, prices):
    found = [
        round(getattr(model.Site(nodes, prices, model.Settings()), name), 9)
        for nodes in inputs.SIZES
    ]
    assert found == sorted(found)
    assert found[0] < found[-1]


@pytest.mark.parametrize(
    ('name', 'less', 'more'),
    [
        ('scheduler_connections', {'pool_idle_ttl': 10.0}, {}),
        ('conductor_connections', {'pool_idle_ttl': 10.0}, {}),
        ('scheduler_connections', {'track_instance_changes': False}, {}),
        ('redis_look_ups', {'lookup_ttl': 300.0}, {}),
        ('restart_cores', {}, {'lookup_ttl': 300.0}),
        ('controller_heartbeats', {'heartbeat_interval': 2.0}, {}),
        ('neutron_descriptors', {}, {'pool_max_size': 16_384}),
        ('fanout_cores', {'pool_max_size': 16_384}, {}),
        ('fanout_cores', {}, {'changes': 2.0}),
        ('redis_cores', {}, {'changes': 2.0}),
    ],
)
def test_a_setting_moves_what_it_should(name, less, more, prices):
    def figure(changed):
        site = model.Site(13_000, prices, model.Settings(**changed))
        return getattr(site, name)

    assert figure(less) < figure(more)


def test_a_pool_of_all_agents_and_no_less_finds_sockets(prices):
    agents = inputs.processes(5000).agents
    short, long = (
        model.Site(5000, prices, model.Settings(pool_max_size=size))
        for size in (agents - 1, agents)
    )
    assert short.fanout_hit_ratio == 0.0
    assert long.fanout_hit_ratio > 0.5


def test_the_size_at_which_a_limit_is_reached():
    assert laws.reached_at(lambda nodes: nodes * 2, 1000) == 500
    assert laws.reached_at(lambda nodes: 1.0, 2.0) is None


def test_at_each_limit_the_figure_is_there_and_before_it_is_not(prices):
    for limit in tables.LIMITS:
        at = tables.reached(limit, prices, model.Settings())
        if at is None:
            continue
        before, there = (
            getattr(model.Site(nodes, prices, model.Settings()), limit.name)
            for nodes in (at - 1, at)
        )
        assert before < limit.threshold <= there


# -- the simulation


def test_a_socket_is_found_again_within_its_idle_ttl_only():
    soon = simulate.periodic_caller(3, ((10.0, 1),), idle_ttl=60.0, hours=2)
    late = simulate.periodic_caller(3, ((40.0, 1),), idle_ttl=60.0, hours=2)
    assert soon.hit_ratio == pytest.approx(
        laws.in_turn_hit_ratio(3, 0.1, 60.0), abs=0.02
    )
    assert soon.open_most == 3
    assert late.hit_ratio == 0.0


def test_fanouts_find_all_sockets_or_none():
    enough = simulate.fanouts(100, 100, 10.0, count=3)
    short = simulate.fanouts(100, 99, 10.0, count=3)
    assert (enough.hit_ratio, enough.displaced) == (1.0, 0.0)
    assert (short.hit_ratio, short.displaced) == (0.0, 1.0)
    assert enough.leases == short.leases == 300
    assert short.open_most == 99


def test_a_pool_that_is_smaller_than_the_window_makes_copies_wait():
    found = simulate.fanouts(50, 8, 10.0, count=2)
    assert found.waited > 0
    assert found.leases == 100
    assert found.open_most == 8


# -- the points


def test_a_line_is_found_again():
    line = costs.fit({10: 25.0, 100: 205.0, 1000: 2005.0})
    assert line(5000) == pytest.approx(10_005.0)


def test_the_largest_size_is_foretold_and_not_known():
    line = costs.foretold({10: 20.0, 100: 200.0, 1000: 1.0})
    assert line(1000) == pytest.approx(2000.0)


def test_a_curve_goes_through_its_points_and_on():
    curve = costs.Curve({10: 1.0, 20: 2.0, 40: 8.0})
    assert [curve(at) for at in (10, 15, 20, 30, 40)] == [1, 1.5, 2, 5, 8]
    assert curve(50) == 11.0
    assert curve(1) == 1.0


def test_errors_are_computed():
    def error(of_model, of_measured, unit):
        check = checks.Check('x', 1, '', of_model, of_measured, unit)
        return check.error

    assert error(110.0, 100.0, 'KiB') == pytest.approx(0.1)
    assert error(60.0, 120.0, '') == pytest.approx(-0.5)
    # Ratios: 0 and a little more are near, however many times more.
    assert error(0.0, 0.03, '') == pytest.approx(-0.03)


def test_every_measured_quantity_is_compared_or_said_to_be_an_input(measured):
    compared = {check.quantity for check in checks.checks(measured)}
    compared |= {f'redis renewal of {n}' for n in (1, 10)}
    # Wall time on a machine with two cores for 200 servers says nothing.
    compared |= {f'fanout, pool of {n}' for n in (256, 32)}
    compared |= {'reconnect server processor'}
    assert set(measured) == compared


# -- the page


@pytest.mark.parametrize('name', sorted(tables.QUICK))
def test_a_table_is_what_the_model_says(name, measured):
    _, fill = tables.QUICK[name]
    assert points.read(points.ADMIN / name) == fill(measured)


def test_the_table_of_turns_is_what_the_simulation_says():
    rows = points.read(points.ADMIN / 'scaling-turns.csv')
    assert len(rows) == len(tables.WORKERS) * len(tables.TTLS)
    wanted = [row for row in rows if row[:2] in (['24', '15'], ['24', '150'])]
    assert tables.turns([24], [15.0, 150.0]) == wanted


def test_the_table_of_pools_is_what_the_simulation_says():
    rows = points.read(points.ADMIN / 'scaling-pools.csv')
    assert len(rows) == len(inputs.SIZES) * len(tables.POOLS)
    wanted = [r for r in rows if int(r[0]) <= 1000 and int(r[1]) <= 1024]
    assert tables.pools([10, 100, 1000], [256, 1024]) == wanted


def test_the_page_shows_all_that_is_made_for_it():
    text = PAGE.read_text()
    shown = re.findall(r':file: (\S+)|image:: (\S+)', text)
    named = {table or image for table, image in shown}
    there = {path.name for path in points.ADMIN.glob('scaling-*.csv')}
    there |= {
        f'images/{path.name}'
        for path in (points.ADMIN / 'images').glob('scaling-*.svg')
    }
    assert named == there


def test_no_image_is_large():
    for path in (points.ADMIN / 'images').glob('scaling-*.svg'):
        assert path.stat().st_size < MOST_BYTES


def test_the_options_that_the_page_names_exist():
    text = PAGE.read_text()
    known = {option.name for option in options._OPTIONS}
    found = set(
        re.findall(r'``((?:pool|lookup|heartbeat|rpc|redis)_\w+)', text)
    )
    assert found
    assert found <= known
