# SPDX-License-Identifier: Apache-2.0
"""The report and its plots."""

import base64
from html import parser
import re
from xml.etree import ElementTree

import pytest

from tests.unit.bench import measured
from zmq_driver.bench import plan as plan_
from zmq_driver.bench import plots
from zmq_driver.bench import report
from zmq_driver.bench import results

pytestmark = pytest.mark.leaks(
    reason='matplotlib keeps the files of its fonts open'
)

AROUND = {'CPU': 'Some <CPU>', 'Python': '3.11'}
COMMAND = ['zmq-driver', 'bench', '--url', 'a b']


class Page(parser.HTMLParser):
    """Checks that tags are closed, and keeps what a browser would load."""

    VOID = {'meta', 'img', 'br'}

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [v for k, v in attrs if k in {'src', 'href', 'data'}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(text):
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open
    return page


@pytest.mark.spec('BN-13', 'BN-15')
def test_the_report_needs_no_other_file():
    text = report.render(measured.full(), AROUND, COMMAND)
    page = read(text)
    # Rates, a distribution for each pattern, CPU.
    assert len(page.loads) == 6
    for url in page.loads:
        kind, _, data = url.partition(',')
        assert kind == 'data:image/svg+xml;base64'
        picture = base64.b64decode(data).decode()
        ElementTree.fromstring(picture)
        outside = re.findall(r'(?:href|src)="(?!#)([^"]*)"', picture)
        assert not outside
        assert 's3cret' not in picture
    assert not re.search(r'@import|url\(|<script|<link|<iframe', text)
    assert 's3cret' not in text


@pytest.mark.spec('BN-13')
def test_the_report_has_all_that_it_should():
    shown = ' '.join(
        read(report.render(measured.full(), AROUND, COMMAND)).texts
    )
    for wanted in (
        'Some <CPU>',
        "zmq-driver bench --url 'a b'",
        '<rabbit> (rabbit://host/)',
        'raw pyzmq',
        '1.00 (1.00-1.00)',
        'How to read this',
        'lengths as in oslo.messaging\'s simulator',
    ):
        assert wanted in shown, wanted
    assert 'Problems' not in shown
    shown = report.render(measured.full(payload=77), AROUND, COMMAND)
    assert '77 characters' in shown


@pytest.mark.spec('BN-14')
def test_the_report_tells_what_is_wrong():
    found = measured.full()
    step = plan_.Step(0, measured.CALL, measured.ZMQ)
    found.add(step, measured.measurement(errors={'<Bad>': 2}, lost=3))
    shown = ' '.join(read(report.render(found, AROUND, COMMAND)).texts)
    assert 'zmq, call, 1 thread(s): 3 lost' in shown
    assert '2 x <Bad>' in shown


def test_a_report_of_nothing():
    found = results.Results(measured.plan())
    assert not read(report.render(found, AROUND, COMMAND)).loads
    step = plan_.Step(0, measured.CALL, measured.ZMQ)
    found.add(step, measured.measurement(0, 0.0, latencies=[], messages=0))
    assert len(read(report.render(found, AROUND, COMMAND)).loads) == 3


def test_a_peer_has_one_colour():
    plan = measured.plan()
    colours = [plots.colour(plan, peer) for peer in plan.peers]
    assert len(set(colours)) == len(colours)
