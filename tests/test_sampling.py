"""From logits to a drawn token: log-probabilities, alternatives, warpers, penalties and bans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax

from harness.serving.decoding.sampling import Sampling, candidates, draw, log_softmax, score
from harness.serving.decoding.steering import Steering, steer
from harness.serving.models.weights import Floats

logits = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12).map(
    lambda values: np.asarray(values, np.float32)
)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0.01, 10),
    top_k=st.integers(0, 14),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    xtc_threshold=st.floats(0, 1),
    xtc_probability=st.sampled_from([0.0, 1.0]),
)


def random(seed: int = 0) -> np.random.Generator:
    """A source of chance."""
    return np.random.default_rng(seed)


def possible(row: Floats, **sampling: float) -> list[int]:
    """The ids that may be drawn."""
    left = candidates(row, Sampling(**sampling), random())  # type: ignore[arg-type]
    assert left is not None
    return np.flatnonzero(np.isfinite(left)).tolist()


def test_log_softmax_is_a_distribution() -> None:
    """Rows sum to one, however large the logits; what is no number is an error, never a score."""
    rows = log_softmax(np.asarray([[1e4, 1e4 - 1, -1e4], [0, 0, 0]], np.float32))
    assert np.exp(rows).sum(axis=1) == pytest.approx(1)
    for broken in (np.nan, np.inf):
        with pytest.raises(FloatingPointError), np.errstate(invalid="ignore"):
            log_softmax(np.asarray([[0, broken]], np.float32))


@given(st.lists(st.floats(-20, 0, width=32), min_size=3, max_size=3), st.integers(0, 5))
def test_alternatives_are_the_likeliest(values: list[float], top: int) -> None:
    """As many as asked for, or as there are, greatest first; the chosen value stands beside them."""
    found = score(np.asarray([values], np.float32), np.asarray([1], np.int32), top)[0]
    assert found.logprob == values[1]
    assert [value for _, value in found.top] == sorted(values, reverse=True)[:top]
    assert all(values[token] == value for token, value in found.top)


# ----------------------------------------------------------------------------------------------- drawing


@given(logits, st.integers(0, 2**32))
def test_a_temperature_near_zero_draws_the_likeliest(row: Floats, seed: int) -> None:
    """Any temperature draws an id of the row, one near 0 or at 0 only the likeliest."""
    assert 0 <= (draw(row, Sampling(temperature=100.0), random(seed)) or 0) < len(row)
    for temperature in (0.0, 1e-300):
        drawn = draw(row, Sampling(temperature=temperature), random(seed))
        assert drawn is not None
        assert row[drawn] == row.max()


def test_draws_follow_the_distribution() -> None:
    """At temperature 1 an id of probability one half is drawn about every second time."""
    chance, row = random(), np.log(np.asarray([0.5, 0.25, 0.25], np.float32))
    counts = np.bincount([draw(row, Sampling(), chance) or 0 for _ in range(2000)], minlength=3)
    assert counts / 2000 == pytest.approx([0.5, 0.25, 0.25], abs=0.05)


@given(logits, samplings, st.integers(0, 100))
def test_what_may_be_drawn_is_a_distribution(row: Floats, sampling: Sampling, seed: int) -> None:
    """Whatever the warpers, something may be drawn, it sums to one, and its order is that of the logits."""
    left = candidates(row, sampling, random(seed))
    assert left is not None
    assert np.exp(left).sum() == pytest.approx(1)
    kept = np.flatnonzero(np.isfinite(left))
    order = kept[np.argsort(row[kept], kind="stable")]
    assert (np.diff(left[order]) >= -1e-9).all()
    drawn = draw(row, sampling, random(seed))
    assert drawn in kept


@given(logits, st.floats(0.1, 5))
def test_temperature_divides_the_logits(row: Floats, temperature: float) -> None:
    """Alone it gives the softmax of the logits over it."""
    left = candidates(row, Sampling(temperature=temperature), random())
    assert left == pytest.approx(scipy_log_softmax(row.astype(float) / temperature), abs=1e-6)


def test_each_warper_keeps_what_it_should() -> None:
    """Of 1/2, 1/4, 1/8, 1/16, 1/16: top-k by count, top-p by mass with the one that crosses it, min-p by
    share of the likeliest, XTC all but the least likely of those that reach the threshold."""
    row = np.log(np.asarray([1 / 4, 1 / 2, 1 / 16, 1 / 8, 1 / 16], np.float32))
    assert possible(row, top_k=2) == [0, 1]
    assert possible(row, top_k=4) == [0, 1, 2, 3, 4], "what is as likely as the last is kept"
    assert possible(row, top_p=0.5) == [1]
    assert possible(row, top_p=0.51) == [0, 1]
    assert possible(row, top_p=1e-9) == [1]
    assert possible(row, min_p=0.24) == [0, 1, 3]
    assert possible(row, min_p=1.0) == [1]
    assert possible(row, xtc_threshold=0.2, xtc_probability=1.0) == [0, 2, 3, 4]
    assert possible(row, xtc_threshold=0.3, xtc_probability=1.0) == [0, 1, 2, 3, 4]
    assert possible(row, top_k=3, top_p=0.8) == [0, 1], "top-p counts what top-k has left"


def test_where_nothing_is_left_nothing_is_drawn() -> None:
    """A row in which every id is banned draws nothing, at any temperature."""
    row = np.full(3, -np.inf, np.float32)
    assert draw(row, Sampling(), random()) is None
    assert draw(row, Sampling(temperature=0), random()) is None
    assert candidates(row, Sampling(), random()) is None


# ---------------------------------------------------------------------------------------------- steering


def bent(row: Sequence[float], context: Sequence[int], output: Sequence[int], **how: object) -> list[float]:
    """The logits after steering."""
    steering = Steering(**how)  # type: ignore[arg-type]
    found: list[float] = steer(
        np.asarray(row, np.float32), np.asarray(context, np.int32), output, steering
    ).tolist()
    return found


def test_penalties() -> None:
    """Repetition divides or multiplies what was read or said; the others take off what was said."""
    row = [4.0, -4.0, 2.0, 1.0]
    assert bent(row, [0, 1], [2], repetition_penalty=2.0) == [2.0, -8.0, 1.0, 1.0]
    assert bent(row, [0, 1], [2, 2, 3], frequency_penalty=0.5) == [4.0, -4.0, 1.0, 0.5]
    assert bent(row, [0, 1], [2, 2, 3], presence_penalty=1.0) == [4.0, -4.0, 1.0, 0.0]
    assert bent(row, [0, 1], [2, 2, 3], frequency_penalty=-0.5, presence_penalty=1.0) == [4.0, -4.0, 2.0, 0.5]
    assert bent(row, [0, 1], [], frequency_penalty=2.0, presence_penalty=2.0) == row


def banned(context: Sequence[int], output: Sequence[int], **how: object) -> list[int]:
    """The ids that cannot come."""
    values = bent([0.0] * 6, context, output, **how)
    return [token for token, value in enumerate(values) if value == -np.inf]


def test_bans() -> None:
    """No n-gram twice, no bad sequence completed, no end before the least length."""
    assert banned([1, 2, 3, 1], [2], no_repeat_ngram=3) == [3]
    assert banned([1, 2, 3, 1], [2], no_repeat_ngram=2) == [3]
    assert banned([1, 2], [3], no_repeat_ngram=1) == []
    assert banned([1], [], no_repeat_ngram=4) == []
    assert banned([4], [1, 2], bad=((1, 2, 3), (5,), (4, 1), (2, 2))) == [2, 3, 5]
    assert banned([1, 2], [], bad=((2, 3),)) == [], "a bad sequence begins in the output"
    assert banned([1], [2], min_tokens=2, ending=frozenset({0, 5})) == [0, 5]
    assert banned([1], [2, 2], min_tokens=2, ending=frozenset({0, 5})) == []


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.integers(0, 3), max_size=12),
    st.integers(2, 4),
)
def test_exactly_repeated_ngrams_are_banned(context: list[int], output: list[int], n: int) -> None:
    """An id is banned if and only if saying it would make an n-gram that is there already."""
    whole = context + output
    grams = {tuple(whole[i : i + n]) for i in range(len(whole) - n + 1)}
    repeated = [token for token in range(4) if tuple([*whole, token][-n:]) in grams]
    assert [token for token in banned(context, output, no_repeat_ngram=n) if token < 4] == repeated
