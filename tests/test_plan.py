"""Keys and requests of an item: equal questions are one, and a key stays what it was for ever."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from harness.encoding import EncodedItem
from harness.pairs import EncodedPair
from harness.plan import EndpointIdentity, KeyMaker, plan_item
from tests.making import make_prompt

HERE = EndpointIdentity(dialect="friendli", base_url="https://h/v1", model="m", adapter="")
IDS = st.lists(st.integers(0, 200_000), max_size=6)


def encoded(*pairs: tuple[list[int], list[int]]) -> EncodedItem:
    """An encoded item with these ids."""
    prompt = make_prompt("c", [f" {n}" for n in range(len(pairs))])
    return EncodedItem(prompt, prompt.contexts(), tuple(EncodedPair(*pair) for pair in pairs))


@given(a=st.tuples(IDS, IDS, st.integers(0, 3)), b=st.tuples(IDS, IDS, st.integers(0, 3)))
def test_a_key_means_one_thing(
    a: tuple[list[int], list[int], int], b: tuple[list[int], list[int], int]
) -> None:
    """Two keys are equal exactly when context, continuation and alternatives asked for are."""
    maker = KeyMaker(HERE)
    key_a, key_b = (maker.keys(context, [forced], top=top)[0] for context, forced, top in (a, b))
    assert (key_a == key_b) == (a == b)


def test_a_key_belongs_to_one_endpoint() -> None:
    """Dialect, address, model, adapter, replicate and alternatives asked for each change the key."""
    others = [
        replace(HERE, dialect="openai"),
        replace(HERE, base_url="https://i/v1"),
        replace(HERE, model="n"),
        replace(HERE, adapter="a"),
        replace(HERE, replicate=1),
    ]
    keys = {KeyMaker(each).keys([1], [[2]])[0] for each in [HERE, *others]}
    keys |= {KeyMaker(HERE).keys([1], [[2]], top=top)[0] for top in (5, 20)}
    assert len(keys) == 8


def test_keys_are_stable() -> None:
    """A key written down once is the key for ever; a change here needs a new KEY_VERSION."""
    assert KeyMaker(HERE).keys([1, 2], [[3]])[0].hex() == "63adcc1f974171f9915b2c7dd82c1d58"
    assert HERE.digest() == "548dd038"


def test_choices_become_requests_in_order() -> None:
    """One request a choice, next to each other; the record names their keys and lengths."""
    item = plan_item(encoded(([1, 2], [3]), ([1, 2], [4, 5]), ([9], [3])), 7, KeyMaker(HERE))
    assert [(list(r.context_ids), list(r.forced_ids)) for r in item.requests] == [
        ([1, 2], [3]),
        ([1, 2], [4, 5]),
        ([9], [3]),
    ]
    assert item.record.keys == tuple(request.key for request in item.requests)
    assert item.record.n_tokens == (1, 2, 1)
    assert item.record.ordinal == 7
    assert len(set(item.record.keys)) == 3


def test_equal_choices_share_a_key() -> None:
    """The same context and continuation twice is one question."""
    item = plan_item(encoded(([1], [2]), ([1], [2])), 0, KeyMaker(HERE))
    assert item.record.keys[0] == item.record.keys[1]


def test_an_item_that_cannot_be_scored_asks_nothing() -> None:
    """A problem found while encoding leaves no requests and stands in the record."""
    item = plan_item(replace(encoded(([1], [2])), pairs=(), problem="too long"), 0, KeyMaker(HERE))
    assert item.requests == ()
    assert item.record.problem == "too long"
    assert len(item.record.prompt_hash) == 64
