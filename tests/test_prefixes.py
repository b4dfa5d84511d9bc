"""What is kept of contexts: a tree of pages, exact to the token, bounded, least recently used gone first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.serving.models.seam import Ids
from harness.serving.prefixes import PrefixCache
from tests.decoded import Said, Table

BLOCK = Table.block
MODEL = Table(lambda ids: [0.0])
ROW = np.zeros(2, np.float32)

contexts = st.lists(st.integers(0, 2), min_size=1, max_size=14)


def array(ids: Sequence[int]) -> Ids:
    """Ids as the cache takes them."""
    return np.asarray(ids, np.int32)


def add(cache: PrefixCache[Said], ids: Sequence[int], name: str = "") -> None:
    """Keep a context."""
    cache.add(name, array(ids), MODEL, Said(list(ids)), ROW)


def known(cache: PrefixCache[Said], ids: Sequence[int], name: str = "") -> int:
    """How many leading tokens are kept."""
    return cache.find(name, array(ids), BLOCK).known


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids two contexts share, counted one by one."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@settings(deadline=None)
@given(st.lists(contexts, max_size=12), contexts)
def test_what_is_shared_is_known_to_the_token(added: list[list[int]], asked: list[int]) -> None:
    """Unbounded, a context is known as far as it goes along with any that was kept; its pages say its ids."""
    cache = PrefixCache[Said]()
    for ids in added:
        add(cache, ids)
    found = cache.find("", array(asked), BLOCK)
    longest = max((common(ids, asked) for ids in added), default=0)
    assert found.known == longest
    said = [each for page in found.pages for each in page.ids]
    if asked in added:
        assert (said, found.row is not None) == (asked, True)
    else:
        assert (said, found.row) == (asked[: longest - longest % BLOCK], None)


@settings(deadline=None)
@given(
    st.lists(contexts, max_size=20),
    st.sampled_from([0, 10, 40, 10**6]),
    st.sampled_from([0, 400, 10**6]),
)
def test_bounds_are_kept(added: list[list[int]], max_tokens: int, max_bytes: int) -> None:
    """Tokens and bytes never exceed their bounds, and come back to nothing with the last page."""
    cache = PrefixCache[Said](max_tokens=max_tokens, max_bytes=max_bytes)
    for ids in added:
        add(cache, ids)
        assert 0 <= cache.tokens <= max_tokens
        assert 0 <= cache.nbytes <= max_bytes
        assert (cache.tokens == 0) == (len(cache) == 0)
        room = cache.nbytes + 1000 < max_bytes and len(ids) <= max_tokens
        assert not room or known(cache, ids) == len(ids)


def test_the_least_recently_used_leaf_goes_first() -> None:
    """A use keeps a context and all it stands on; the one longest unused makes room, from its end."""
    cache = PrefixCache[Said](max_tokens=13)
    trunk = [1, 1, 1, 1]
    add(cache, [*trunk, 2, 2])
    add(cache, [*trunk, 3, 3])
    add(cache, [5, 5, 5, 5])
    assert known(cache, [*trunk, 2, 2]) == 6
    add(cache, [6])
    assert (known(cache, [*trunk, 3, 3]), known(cache, [*trunk, 2, 2])) == (6, 6)
    add(cache, [7, 7, 7])
    assert known(cache, [5, 5, 5, 5]) == 0
    assert known(cache, [*trunk, 2, 2]) == 6


def test_a_context_too_long_keeps_its_beginning() -> None:
    """Of a context that fits in no way the leading pages are kept that do."""
    cache = PrefixCache[Said](max_tokens=9)
    add(cache, list(range(12)))
    assert known(cache, list(range(12))) == 8


def test_models_do_not_share_what_they_read() -> None:
    """A context of one model is unknown to another."""
    cache = PrefixCache[Said]()
    add(cache, [1, 2, 3], "geography")
    assert known(cache, [1, 2, 3], "geography") == 3
    assert known(cache, [1, 2, 3], "science") == 0


@pytest.mark.parametrize("length", [1, 4, 5])
def test_keeping_a_context_again_adds_nothing(length: int) -> None:
    """The same context twice takes the room of one."""
    cache = PrefixCache[Said]()
    add(cache, list(range(length)))
    before = (cache.tokens, cache.nbytes, len(cache))
    add(cache, list(range(length)))
    assert (cache.tokens, cache.nbytes, len(cache)) == before
