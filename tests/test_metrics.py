"""Tests of metrics and estimates against hand-computed values, closed forms and the reference."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics import METRICS, Tally, pooled, wilson
from harness.scores import ItemRecord, ItemScore


def scored(sums: tuple[float, ...], choices: tuple[str, ...], gold: tuple[int, ...] = (0,)) -> ItemScore:
    """A scored item; tokens are counted as words."""
    record = ItemRecord(
        ordinal=0,
        task="t",
        subject="",
        shots=0,
        index=0,
        id="",
        gold=gold,
        cluster="",
        n_chars=tuple(map(len, choices)),
        n_bytes=tuple(len(choice.encode()) for choice in choices),
        n_tokens=tuple(len(choice.split()) for choice in choices),
    )
    return ItemScore(record, sums)


def tally(values: list[bool | None]) -> Tally:
    """A tally of these values; None is an unscored item."""
    counted = Tally()
    for value in values:
        if value is None:
            counted.add_unscored()
        else:
            counted.add(value)
    return counted


VALUES = st.lists(st.one_of(st.booleans(), st.none()), max_size=60)


def test_each_metric_divides_by_its_own_length() -> None:
    """One item on which the four metrics choose differently, worked out by hand."""
    # sums        -6      -8       -9          -10
    # characters   2 -3    8 -1     9 -1        11 -0.909...
    # bytes        2 -3   16 -0.5   9 -1        11 -0.909...
    # tokens       1 -6    1 -8     4 -2.25      2 -5
    score = scored((-6.0, -8.0, -9.0, -10.0), ("no", "éééééééé", "a b cd ef", "abcde fghij"))
    assert {name: metric.judge(score).prediction for name, metric in METRICS.items()} == {
        "acc": 0,
        "acc_norm": 3,
        "acc_bytes": 1,
        "acc_token": 2,
    }


@pytest.mark.parametrize("metric", METRICS)
def test_of_equal_choices_the_first_is_predicted(metric: str) -> None:
    """Ties go to the lowest index, as numpy's argmax has it."""
    verdict = METRICS[metric].judge(scored((-3.0, -2.0, -2.0), ("aa", "bb", "cc"), gold=(2,)))
    assert (verdict.prediction, verdict.correct) == (1, False)


def test_any_gold_counts() -> None:
    """Where several choices are right, predicting one of them is enough."""
    score = scored((-3.0, -2.0, -1.0), ("a", "b", "c"), gold=(0, 2))
    assert METRICS["acc"].judge(score).correct


def test_a_choice_without_length_is_not_predicted() -> None:
    """Dividing by no characters neither fails nor wins."""
    assert METRICS["acc_norm"].judge(scored((-0.5, -9.0), ("", "b"))).prediction == 1


@given(st.lists(st.floats(-1e3, 0.0), min_size=1, max_size=8))
def test_choices_of_one_length_are_judged_alike_by_all_metrics(sums: list[float]) -> None:
    """Normalising by a length that all choices share changes nothing."""
    score = scored(tuple(sums), ("x",) * len(sums))
    assert len({metric.judge(score) for metric in METRICS.values()}) == 1


def test_an_estimate_worked_out_by_hand() -> None:
    """Three of four right, one unscored: mean, n-1 standard error and both bounds."""
    estimate = tally([True, True, None, False, True]).estimate()
    assert (estimate.n, estimate.unscored, estimate.value) == (4, 1, 0.75)
    assert estimate.stderr == pytest.approx(math.sqrt((3 * 0.25**2 + 0.75**2) / 3 / 4))
    assert (estimate.low_bound, estimate.high_bound) == (0.6, 0.8)


def test_nothing_scored_has_no_value_but_bounds() -> None:
    """Without a scored item anything between 0 and 1 is possible, and no error is known."""
    estimate = tally([None, None]).estimate()
    assert (estimate.value, estimate.stderr, estimate.ci_low, estimate.ci_high) == (None,) * 4
    assert (estimate.n, estimate.unscored, estimate.low_bound, estimate.high_bound) == (0, 2, 0.0, 1.0)


def test_no_items_have_no_bounds() -> None:
    """An empty tally knows nothing at all."""
    estimate = Tally().estimate()
    assert (estimate.value, estimate.low_bound, estimate.high_bound) == (None, None, None)


def test_one_item_has_no_standard_error() -> None:
    """The n-1 form needs two items; the interval does not."""
    estimate = tally([True]).estimate()
    assert estimate.stderr is None
    assert estimate.ci_low == pytest.approx(0.2065, abs=1e-4)


def test_values_between_0_and_1_have_no_wilson_interval() -> None:
    """The interval is that of a proportion; for other values none is claimed."""
    counted = Tally()
    counted.add(0.5)
    counted.add(1.0)
    estimate = counted.estimate()
    assert (estimate.value, estimate.ci_low, estimate.ci_high) == (0.75, None, None)
    assert estimate.stderr == pytest.approx(0.25)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 3), (2904, 10042)])
def test_wilson_against_the_closed_form(right: int, n: int) -> None:
    """The interval is (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.95996."""
    z, p = 1.959963984540054, right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert wilson(right, n) == pytest.approx((centre - half, centre + half), abs=1e-12)


@given(VALUES)
def test_an_estimate_is_that_of_the_plain_formulas(values: list[bool | None]) -> None:
    """Streaming gives what the whole list gives, and the bounds enclose the value."""
    known = [float(value) for value in values if value is not None]
    estimate = tally(values).estimate()
    if known:
        assert estimate.value == pytest.approx(fmean(known))
        assert estimate.low_bound is not None
        assert estimate.high_bound is not None
        assert estimate.value is not None
        assert estimate.low_bound <= estimate.value <= estimate.high_bound
    if len(known) > 1:
        assert estimate.stderr == pytest.approx(stdev(known) / math.sqrt(len(known)))


@given(st.lists(VALUES, max_size=8))
def test_pooled_parts_equal_the_whole(parts: list[list[bool | None]]) -> None:
    """A group is its items: pooling weighs parts by size, and their order changes no bit."""
    whole = tally([value for part in parts for value in part])
    assert pooled(map(tally, parts)) == whole == pooled(map(tally, reversed(parts)))
    assert pooled(map(tally, parts)).estimate() == whole.estimate()


@pytest.mark.shared
def test_items_are_judged_as_the_reference_does(shared: Path) -> None:
    """acc and acc_norm of every multiple-choice item in the golden records."""
    choices = {}
    for line in (shared / "golden" / "requests.jsonl").read_text().splitlines():
        asked = json.loads(line)
        if asked["shots"] == 0:
            texts = tuple(text.removeprefix(" ") for text in asked["continuations"])
            choices[asked["task"], asked["doc_id"]] = texts
    judged = Counter[str]()
    for line in (shared / "golden" / "scores_stories260k.jsonl").read_text().splitlines():
        found = json.loads(line)
        if "acc_norm" not in found or found["task"] == "winogrande":  # other metrics; choices not as forced
            continue
        texts = choices[found["task"], found["doc_id"]]
        score = scored(tuple(found["sums"]), texts, gold=(found["gold_index"],))
        for metric in ("acc", "acc_norm"):
            assert METRICS[metric].judge(score).correct == bool(found[metric]), found
        judged[found["task"].split("_")[0]] += 1
    assert (judged["hellaswag"], judged["mmlu"]) == (25, 57 * 3)
