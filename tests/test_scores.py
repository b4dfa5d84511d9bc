"""Tests of item records and how answers become scores."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.exchange import Failure, Reply
from harness.scoring.scores import NOT_TRIED, Answer, Answered, AsideRecord, ItemRecord, score_item, summed


def record(keys: tuple[bytes, ...] = (b"a", b"b"), problem: str = "") -> ItemRecord:
    """An item of two choices."""
    return ItemRecord(
        ordinal=0,
        task="t",
        subject="",
        shots=0,
        index=0,
        id="",
        gold=(0,),
        cluster="",
        n_chars=(1, 2),
        n_bytes=(1, 2),
        keys=keys,
        n_tokens=(1, 1),
        problem=problem,
    )


def told(**totals: float) -> dict[bytes, Answer]:
    """Answers by the names of their keys."""
    return {key.encode(): Answered(total) for key, total in totals.items()}


def test_sums_stand_in_the_order_of_the_choices() -> None:
    """A scored item has one sum for each choice; answers to other requests do not matter."""
    score = score_item(record(), told(b=-2.0, a=-1.0, other=-9.0))
    assert score.sums == (-1.0, -2.0)
    assert score.unscored == ""


def test_choices_with_one_key_share_its_answer() -> None:
    """Equal choices are one request, and each gets its sum."""
    assert score_item(record((b"a", b"a")), told(a=-1.5)).sums == (-1.5, -1.5)


def test_a_sum_of_zero_is_a_score() -> None:
    """Log-probability 0 is certainty, not absence."""
    assert score_item(record(), told(a=0.0, b=-0.0)).sums == (0.0, -0.0)


@pytest.mark.parametrize("keys", [(), (b"a", b"b")], ids=["not planned", "one choice open"])
def test_an_item_without_all_outcomes_is_not_tried(keys: tuple[bytes, ...]) -> None:
    """Until each choice has an outcome there is no score, and no failure either."""
    score = score_item(record(keys), told(a=-1.0))
    assert (score.sums, score.unscored) == ((), NOT_TRIED)


def test_one_failure_leaves_the_item_unscored_with_its_reason() -> None:
    """A failed choice is never replaced by a value; its reason and a short detail are kept on one line."""
    answers: dict[bytes, Answer] = {b"b": Failure("400", "too long:\n 9,000 tokens", 400)}
    score = score_item(record(), answers)
    assert (score.sums, score.unscored) == ((), "400: too long: 9,000 tokens")


def test_a_failures_detail_is_cut() -> None:
    """A server's long error page does not end up in a table."""
    score = score_item(record(), {b"a": Failure("500", "x" * 5000)})
    assert len(score.unscored) < 250
    assert score.unscored.endswith("...")


def test_a_problem_weighs_more_than_answers() -> None:
    """An item that can never be scored is unscored whatever was answered."""
    score = score_item(record(problem="bad row: 3"), told(a=-1.0, b=-1.0))
    assert (score.sums, score.unscored) == ((), "bad row: 3")


def test_an_aside_fails_alone() -> None:
    """What was asked beside an item has sums or a reason of its own; the item's score stands."""
    asides = (
        AsideRecord("empty", (b"c", b"c")),
        AsideRecord("answer", (b"c", b"d")),
        AsideRecord("order_1", (b"c", b"e")),
        AsideRecord("order_2", (), "longer than --max-length (9 tokens)"),
    )
    answers: dict[bytes, Answer] = {**told(a=-1.0, b=-2.0, c=-3.0), b"d": Failure("500", "busy")}
    score = score_item(replace(record(), asides=asides), answers)
    assert (score.sums, score.unscored) == ((-1.0, -2.0), "")
    assert {name: (each.sums, each.unscored) for name, each in score.asides.items()} == {
        "empty": ((-3.0, -3.0), ""),
        "answer": ((), "500: busy"),
        "order_1": ((), NOT_TRIED),
        "order_2": ((), "longer than --max-length (9 tokens)"),
    }


def test_all_keys_of_an_item() -> None:
    """The item's own and those of its asides, each once."""
    asides = (AsideRecord("empty", (b"c", b"c")), AsideRecord("answer", (b"c", b"d")))
    assert replace(record(), asides=asides).all_keys() == [b"a", b"b", b"c", b"d"]


def test_greedy_is_kept_for_each_choice() -> None:
    """Whether a choice is the likeliest output comes with its sum, or is unknown."""
    answers: dict[bytes, Answer] = {b"a": Answered(-1.0, True), b"b": Answered(-2.0)}
    assert score_item(record(), answers).greedy == (True, None)


@given(st.lists(st.floats(-1e4, 0.0), min_size=1, max_size=50))
def test_a_sum_does_not_depend_on_order(values: list[float]) -> None:
    """Log-probabilities are added without intermediate rounding."""
    assert summed(Reply([], values)) == summed(Reply([], sorted(values))) == math.fsum(values)
