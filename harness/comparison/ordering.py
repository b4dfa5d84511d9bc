"""In which order items are asked where a comparison may stop before all of them are; pure.

Each task weighs the same in the mean over tasks that is compared, and within a task each item: an item's
*share* of the mean is 1 / (tasks · items of its task). The next item is always drawn, out of those that are
left, with a chance proportional to its share. Of one task that is a random order in the plain sense; of
several it asks as many items of each for as long as there are any, and small tasks come to their end first.
It is what `sequential` rests on: whatever was seen, the mean of the next difference is what is left of the
whole, over what is left of the shares.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from hashlib import blake2b

import numpy as np

from harness.comparison.paired import Floats, Integers

_BITS = 64
"""Of the hash that a time is made from."""


def shares(tasks: Sequence[Hashable]) -> Floats:
    """What each item counts for in the mean over tasks, given its task; shape (items,), sum 1."""
    counts = Counter(tasks)
    return np.array([1 / (len(counts) * counts[task]) for task in tasks], np.float64)


def waiting_time(seed: int, task: str, subject: str, index: int) -> float:
    """What the order of an item is made from: exponentially distributed with rate 1, the same for one seed.

    It comes from a hash of seed and place, so that it does not depend on what else is asked.
    """
    name = f"{seed}/{task}/{subject}/{index}"
    drawn = int.from_bytes(blake2b(name.encode(), digest_size=_BITS // 8).digest(), "big")
    return -math.log((drawn + 1) / 2**_BITS)


def random_order(times: Floats, weights: Floats) -> Integers:
    """The positions of the items in the order in which they are asked, shape (items,).

    Divided by its share each item's time has the share as its rate, and the shortest comes first: that draws
    without replacement with chances proportional to the shares (Efraimidis and Spirakis 2006).

    Args:
        times: of each item, as `waiting_time` gives them.
        weights: their shares.
    """
    return np.argsort(times / weights, kind="stable")
