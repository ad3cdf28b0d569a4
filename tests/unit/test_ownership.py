# SPDX-License-Identifier: Apache-2.0
"""What belongs to one thread at a time."""

import threading

import pytest

from zmq_driver import ownership


def check_elsewhere(one):
    """Check from another thread; return the error, or None."""
    found = []

    def check():
        try:
            one.check_owner()
        except ownership.OwnershipError as error:
            found.append(error)

    thread = threading.Thread(target=check, name='elsewhere')
    thread.start()
    thread.join(30)
    return found[0] if found else None


def test_maker_is_the_owner():
    one = ownership.Owned()
    one.check_owner()
    error = check_elsewhere(one)
    assert 'belongs to MainThread, used by elsewhere' in str(error)


def test_ownership_is_handed_over():
    one = ownership.Owned()
    other = threading.Thread(name='other')
    one.hand_over(other)
    with pytest.raises(ownership.OwnershipError, match='belongs to other'):
        one.check_owner()
    one.hand_over(threading.current_thread())
    one.check_owner()


def test_nobody_may_use_what_belongs_to_nobody():
    one = ownership.Owned()
    one.hand_over(None)
    with pytest.raises(ownership.OwnershipError, match='belongs to nobody'):
        one.check_owner()
    assert check_elsewhere(one) is not None
