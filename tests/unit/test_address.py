# SPDX-License-Identifier: Apache-2.0
"""Addresses as keys and as text."""

import pytest

from zmq_driver import address


@pytest.mark.spec('DL-09')
def test_scope_exchange_and_topic_make_different_addresses():
    scopes = (address.Scope.RPC, address.Scope.NOTIFICATION)
    found = {
        address.Address(scope, exchange, topic)
        for scope in scopes
        for exchange in ('', 'a', 'a/b')
        for topic in ('a', 'b/a')
    }
    assert len(found) == 12


def test_address_as_text():
    one = address.Address(address.Scope.NOTIFICATION, 'nova', 'topic.info')
    assert str(one) == 'notification nova/topic.info'
