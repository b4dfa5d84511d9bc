"""Tests of ratios, calibration, recall and links against hand-computed values and the plain formulas."""

from __future__ import annotations

import math
from statistics import fmean, pstdev, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.estimates import BITS, EXP, Summary, Tally, pooled
from harness.scoring.metrics import METRICS
from harness.scoring.summaries import Calibration, Ratio, Recalls

ITEMS = st.lists(st.tuples(st.booleans(), st.floats(0.1, 1.0), st.integers(0, 3)), max_size=60)
"""Right or not, confidence (or weight), position."""


def filled(summary: Summary, items: list[tuple[bool, float, int]]) -> Summary:
    """A summary of these items."""
    for right, weight, group in items:
        summary.add(float(right), weight, group)
    return summary


def test_a_ratio_weighs_long_items_more() -> None:
    """Nats over bytes, worked out by hand: 12 nats over 4 bytes, the error that of the linearised ratio."""
    ratio = Ratio()
    ratio.add(10.0, 3.0)
    ratio.add(2.0, 1.0)
    estimate = ratio.estimate()
    assert estimate.value == 3.0
    # residuals 10 - 3*3 = 1 and 2 - 3*1 = -1; sqrt(2 / 1 * 2) / 4
    assert estimate.stderr == pytest.approx(0.5)
    assert estimate.ci_low == pytest.approx(3.0 - 12.7062047 * 0.5)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40))
def test_a_ratio_of_equal_weights_is_a_mean(values: list[float]) -> None:
    """With weights of 1 it is the mean, with its n - 1 standard error."""
    ratio = Ratio()
    for value in values:
        ratio.add(value)
    estimate = ratio.estimate()
    assert estimate.value == pytest.approx(fmean(values))
    assert estimate.stderr == pytest.approx(stdev(values) / math.sqrt(len(values)), abs=1e-6)


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    """Interval and error follow: ends by the function, the error by its slope."""
    counted = Tally(lowest=-math.inf, highest=math.inf, link=EXP)
    for value in (1.0, 2.0, 3.0):
        counted.add(value)
    estimate = counted.estimate()
    assert estimate.value == pytest.approx(math.exp(2))
    assert estimate.stderr == pytest.approx(math.exp(2) / math.sqrt(3))
    assert estimate.ci_low == pytest.approx(math.exp(2 - 4.3026527 / math.sqrt(3)))
    assert (estimate.low_bound, estimate.high_bound) == (estimate.value, estimate.value)


def test_what_has_no_bound_says_none_while_items_are_unscored() -> None:
    """An unscored item could have any perplexity."""
    counted = Tally(lowest=-math.inf, highest=math.inf, link=EXP)
    counted.add(1.0)
    counted.unscored = 1
    estimate = counted.estimate()
    assert (estimate.low_bound, estimate.high_bound) == (None, None)
    assert counted.estimate().value == pytest.approx(math.e)


def test_an_impossible_text_has_infinite_perplexity() -> None:
    """Sums beyond what a float's exponent holds do not raise."""
    counted = Tally(lowest=-math.inf, highest=math.inf, link=EXP)
    counted.add(5000.0)
    assert counted.estimate().value == math.inf


def test_bits_are_nats_over_ln_2() -> None:
    """One nat a byte is 1.4427 bits a byte."""
    ratio = Ratio(link=BITS)
    ratio.add(8.0, 8.0)
    assert ratio.estimate().value == pytest.approx(1 / math.log(2))


def test_calibration_worked_out_by_hand() -> None:
    """Twenty items in ten bins of two: what is claimed, less what is right."""
    error = Calibration()
    for at in range(20):
        error.add(float(at % 2), weight=(at + 1) / 20)
    bins = [abs(1 - (2 * at + 1 + 2 * at + 2) / 20) for at in range(10)]
    assert error.estimate().value == pytest.approx(sum(bins) / 20)


def test_a_calibrated_model_has_no_error() -> None:
    """Half right at a confidence of one half."""
    error = Calibration()
    for at in range(100):
        error.add(float(at % 2), weight=0.5)
    assert error.estimate().value == pytest.approx(0.0, abs=1e-12)
    assert Calibration().estimate().value is None


def test_recall_of_each_position_is_what_counts() -> None:
    """A model that always says A finds every A and nothing else."""
    recalls = Recalls()
    for position in (0, 0, 1, 2, 3):
        recalls.add(float(position == 0), group=position)
    assert recalls.estimate().value == pytest.approx(pstdev([1, 0, 0, 0]))
    alone = Recalls()
    alone.add(1.0)
    assert alone.estimate().value is None


@given(st.lists(ITEMS, max_size=6))
@pytest.mark.parametrize("kind", [Ratio, Calibration, Recalls, Tally])
def test_pooled_parts_equal_the_whole(
    kind: type[Summary], parts: list[list[tuple[bool, float, int]]]
) -> None:
    """A group is its items, whatever the summary, and in whatever order its parts come."""
    whole = filled(kind(), [item for part in parts for item in part]).estimate()
    for ordered in (parts, parts[::-1]):
        found = pooled((filled(kind(), part) for part in ordered), kind()).estimate()
        assert found.n == whole.n
        assert found.value == pytest.approx(whole.value)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_an_empty_number(name: str) -> None:
    """Of no item nothing is known, and of unscored ones no value."""
    summary = METRICS[name].summary()
    assert summary.estimate().value is None
    summary.unscored = 3
    estimate = summary.estimate()
    assert (estimate.value, estimate.n, estimate.unscored) == (None, 0, 3)
