# SPDX-License-Identifier: Apache-2.0
"""What the measured messages carry."""

import random
import string

#: What ``--payload`` takes besides a number.
SIMULATOR = 'simulator'

#: How many of 4077 messages of a Nova and Neutron control plane had a length
#: in the bucket of 500 characters that begins here: counted from
#: ``tools/messages_length.yaml`` of oslo.messaging, which its simulator draws
#: from. The mean is 3,218 there, and 3,280 when drawn evenly from the buckets.
BUCKETS = {
    500: 56,
    1000: 105,
    1500: 801,
    2000: 1166,
    2500: 616,
    3000: 150,
    3500: 100,
    4000: 37,
    4500: 177,
    5000: 250,
    5500: 99,
    6000: 154,
    6500: 211,
    7000: 52,
    7500: 53,
    11000: 50,
}
BUCKET_SIZE = 500

#: How many payloads are made; they are sent in turn.
COUNT = 1000
#: Characters that the payloads are cut from.
_BLOCK = 1 << 16


def make(size: int | None, seed: int) -> list[str]:
    """Return the payloads of a run.

    :param size: characters of each; None: as oslo.messaging's simulator
    :param seed: the same seed gives the same payloads
    """
    chance = random.Random(seed)
    if size is not None:
        return [_text(chance, size)]
    block = _text(chance, _BLOCK)
    found = []
    for length in lengths(chance, COUNT):
        start = chance.randrange(_BLOCK - length)
        found.append(block[start : start + length])
    return found


def lengths(chance: random.Random, count: int) -> list[int]:
    """Return lengths as oslo.messaging's simulator draws them."""
    starts = chance.choices(list(BUCKETS), list(BUCKETS.values()), k=count)
    return [start + 1 + chance.randrange(BUCKET_SIZE) for start in starts]


def _text(chance: random.Random, size: int) -> str:
    return ''.join(chance.choices(string.ascii_lowercase, k=size))
