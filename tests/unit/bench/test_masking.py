# SPDX-License-Identifier: Apache-2.0
"""Passwords are not shown."""

import pytest

from zmq_driver.bench import masking
from zmq_driver.bench import plan

URLS = [
    'rabbit://user:s3cret@host:5672/vhost',
    'rabbit://u1:s3cret@h1:1,u2:s3cret2@h2:2/',
    'zmq+redis://:s3cret@host/?redis_password=0th%2Fer',
    'rabbit://user:s3cret%40x@host/',
    'rabbit://user:s3/cr@et@host/',
]


@pytest.mark.spec('BN-15')
@pytest.mark.parametrize('url', URLS)
def test_no_password_of_a_url(url):
    masker = masking.Masker([url])
    texts = [
        masker.apply(f'cannot use {url}: oh'),
        masker.apply('login s3cret, s3cret@x, s3cret%40x, 0th/er refused'),
        masking.shown(url),
        repr(plan.Peer('name', url=url)),
        plan.Peer('name', url=url).shown,
        *masker.command(['bench', '--url', f'one={url}', f'--url={url}']),
    ]
    for text in texts[:1] + texts[2:]:
        for secret in ('s3cret', '0th', 's3/cr'):
            assert secret not in text, text
        assert 'user' not in text


@pytest.mark.spec('BN-15')
def test_no_password_in_what_a_library_says():
    masker = masking.Masker(URLS)
    shown = masker.apply('refused: s3cret2, s3cret, s3cret@x and 0th/er')
    assert shown == 'refused: ***, ***, *** and ***'


def test_what_is_not_secret_is_shown():
    url = 'rabbit://user:s3cret@host:5672/vhost?ssl=1'
    masker = masking.Masker([url])
    assert masker.command(['bench', f'--url=a={url}', '--rounds', '3']) == [
        'bench',
        '--url=a=rabbit://host:5672/vhost',
        '--rounds',
        '3',
    ]
    assert masker.apply('nothing here') == 'nothing here'
    assert masking.shown('zmq://') == 'zmq://'


def test_the_plan_in_json_has_no_password():
    found = plan.Plan(
        peers=[plan.Peer('rabbit', url=URLS[0])],
        patterns=[plan.Pattern.CALL],
        threads=[1],
        baseline='rabbit',
    ).as_json()
    assert 's3cret' not in str(found)
    assert found['peers'] == [
        {'name': 'rabbit', 'kind': 'oslo', 'url': 'rabbit://host:5672/vhost'}
    ]
