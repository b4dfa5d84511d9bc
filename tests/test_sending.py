"""The order in which requests go out: leaders first, siblings after them, the pool kept full."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.exchange import ScoreRequest
from harness.sending import AHEAD, BLOCK, KEPT, Schedule, chain

SHOTS = list(range(1000, 1000 + 4 * BLOCK))


def request(key: int, context: Sequence[int]) -> ScoreRequest:
    """A request that can be told by its key."""
    return ScoreRequest(key.to_bytes(16, "big"), context, [1])


def question(n: int) -> list[int]:
    """Two blocks that no other question shares."""
    return [10_000 + n] * (2 * BLOCK)


def given_out(schedule: Schedule) -> list[int]:
    """The keys of all that may go now."""
    keys = []
    while (each := schedule.next()) is not None:
        keys.append(int.from_bytes(each.key, "big"))
    return keys


def test_chain_covers_whole_blocks_but_the_last_tokens() -> None:
    """The block in which the last token stands is computed for every request, so it is never shared."""
    assert len(chain(range(BLOCK))) == 0
    assert len(chain(range(BLOCK + 1))) == 1
    assert len(chain(range(3 * BLOCK))) == 2
    assert len(chain([])) == 0


@given(st.lists(st.integers(0, 2**32 - 1), max_size=80), st.lists(st.integers(0, 2**32 - 1), max_size=80))
def test_chains_agree_exactly_as_far_as_whole_blocks_do(one: list[int], other: list[int]) -> None:
    """Two contexts share as many beginnings as blocks are equal from the start."""
    blocks = min((len(one) - 1) // BLOCK, (len(other) - 1) // BLOCK)
    equal = 0
    while equal < blocks and one[: (equal + 1) * BLOCK] == other[: (equal + 1) * BLOCK]:
        equal += 1
    pairs = list(zip(chain(one), chain(other), strict=False))
    assert [a == b for a, b in pairs] == [k < equal for k in range(len(pairs))]


def test_choices_of_an_item_follow_the_first() -> None:
    """One of equal contexts goes ahead, the others go when it has returned; another item goes meanwhile."""
    schedule = Schedule()
    first, second = question(1), question(2)
    leader = request(0, first)
    schedule.add([leader, request(1, first), request(2, first), request(3, second), request(4, second)])
    assert given_out(schedule) == [0, 3]
    schedule.returned(leader)
    assert given_out(schedule) == [1, 2]


def test_shots_go_ahead_with_the_first_question() -> None:
    """Questions behind the same shots wait for the first of them, and for no other question."""
    schedule = Schedule()
    requests = [request(n, SHOTS + question(n)) for n in range(4)]
    schedule.add(requests)
    assert given_out(schedule) == [0]
    schedule.returned(requests[0])
    assert given_out(schedule) == [1, 2, 3]


def test_both_levels_at_once() -> None:
    """Behind the shots each question has its own leader."""
    schedule = Schedule()
    requests = [request(2 * n + k, SHOTS + question(n)) for n in range(3) for k in range(2)]
    schedule.add(requests)
    assert given_out(schedule) == [0]
    schedule.returned(requests[0])
    assert given_out(schedule) == [1, 2, 4]
    schedule.returned(requests[2])
    assert given_out(schedule) == [3]


def test_a_leader_that_failed_is_followed_by_another() -> None:
    """Where nothing was computed, one of those that waited leads, and the others go on waiting."""
    schedule = Schedule()
    requests = [request(n, question(7)) for n in range(3)]
    schedule.add(requests)
    assert given_out(schedule) == [0]
    schedule.returned(requests[0], computed=False)
    assert given_out(schedule) == [1]
    schedule.returned(requests[1])
    assert given_out(schedule) == [2]


def test_nobody_waits_for_a_leader_that_is_delayed() -> None:
    """Where the first has to be sent again, another leads meanwhile; its own return is taken in as ever."""
    schedule = Schedule()
    requests = [request(n, question(7)) for n in range(3)]
    schedule.add(requests)
    assert given_out(schedule) == [0]
    assert schedule.delayed(requests[0]) == 2
    assert given_out(schedule) == [1]
    schedule.returned(requests[0])
    schedule.returned(requests[1])
    assert given_out(schedule) == [2]


def test_short_contexts_do_not_wait() -> None:
    """What is shorter than a block is not worth a wait."""
    schedule = Schedule()
    schedule.add([request(n, [5] * BLOCK) for n in range(3)])
    assert given_out(schedule) == [0, 1, 2]


def test_what_the_server_may_have_forgotten_is_led_again() -> None:
    """After many other tokens a beginning counts as forgotten: one request goes ahead once more."""
    schedule = Schedule()
    first = request(0, SHOTS + question(0))
    schedule.add([first])
    assert given_out(schedule) == [0]
    schedule.returned(first)
    for n in range(1, 2 + 2 * KEPT // (1000 * BLOCK)):
        other = request(n, [n] * (1000 * BLOCK))
        schedule.add([other])
        assert given_out(schedule) == [n]
        schedule.returned(other)
    schedule.add([request(100 + n, SHOTS + question(100 + n)) for n in range(3)])
    assert given_out(schedule) == [100]


def test_a_request_of_the_same_context_may_go_first() -> None:
    """What has to follow at once stands before all others."""
    schedule = Schedule()
    leader = request(0, question(0))
    schedule.add([leader, *(request(n, question(n)) for n in range(1, 4))])
    assert schedule.next() == leader
    schedule.add_first([request(9, question(0))])
    schedule.returned(leader)
    assert given_out(schedule)[0] == 9


def test_looking_ahead_is_bounded() -> None:
    """However many wait for one leader, only so many are taken out of what comes."""
    schedule = Schedule()
    schedule.add([request(n, SHOTS + question(n)) for n in range(3 * AHEAD)])
    assert given_out(schedule) == [0]
    assert schedule.coming == 3 * AHEAD - 1 - AHEAD


@given(
    contexts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=40),
    at_once=st.integers(1, 6),
    order=st.randoms(use_true_random=False),
    failing=st.integers(0, 4),
)
def test_everything_goes_out_once_and_nothing_too_early(
    contexts: list[list[int]], at_once: int, order: object, failing: int
) -> None:
    """Whatever returns in whatever order: all requests go out, and none while one in flight computes more of
    its beginning than is kept."""
    schedule = Schedule()
    requests = [
        request(n, [block for each in blocks for block in [each] * BLOCK] + [9])
        for n, blocks in enumerate(contexts)
    ]
    schedule.add(requests)
    flying: dict[bytes, ScoreRequest] = {}
    kept: set[int] = set()
    out: list[bytes] = []
    while len(out) < len(requests) or flying:
        while len(flying) < at_once and (one := schedule.next()) is not None:
            own = chain(one.context_ids)
            depth = sum(each in kept for each in own)
            for other in flying.values():
                shared = len(set(own) & set(chain(other.context_ids)))
                assert shared <= depth
            flying[one.key] = one
            out.append(one.key)
        assert flying, "nothing in flight, and nothing may go"
        back = flying.pop(order.choice(sorted(flying)))  # type: ignore[attr-defined]
        computed = len(out) % 5 != failing
        schedule.returned(back, computed=computed)
        if computed:
            kept.update(chain(back.context_ids))
    assert sorted(out) == sorted(each.key for each in requests)
    assert len(schedule) == 0
    assert schedule.in_flight == 0


def test_order_is_kept_where_nothing_is_shared() -> None:
    """Requests that share nothing go out as they came in."""
    schedule = Schedule()
    requests = [request(n, question(n)) for n in range(20)]
    schedule.add(requests)
    waiting: deque[ScoreRequest] = deque()
    out = []
    while (one := schedule.next()) is not None:
        out.append(int.from_bytes(one.key, "big"))
        waiting.append(one)
        if len(waiting) == 4:
            schedule.returned(waiting.popleft())
    assert out == list(range(20))


def test_nothing_goes_out_after_clearing() -> None:
    """What waits can be forgotten; what is in flight still returns."""
    schedule = Schedule()
    requests = [request(n, question(n // 2)) for n in range(6)]
    schedule.add(requests)
    assert given_out(schedule) == [0, 2, 4]
    schedule.clear()
    schedule.returned(requests[0])
    assert given_out(schedule) == []
    assert len(schedule) == 0
    with pytest.raises(KeyError):
        schedule.returned(requests[1])
