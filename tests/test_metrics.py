"""Tests of metrics and estimates against hand-computed values, closed forms and the reference."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scoring.estimates import Tally, pooled, wilson
from harness.scoring.metrics import METRICS, Verdict, metrics_of_orders, named_metrics
from harness.scoring.scores import AsideRecord, AsideScore, ItemRecord, ItemScore


def scored(sums: tuple[float, ...], choices: tuple[str, ...], gold: tuple[int, ...] = (0,)) -> ItemScore:
    """A scored item; tokens are counted as words, and each choice has a request of its own."""
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
        n_words=tuple(len(choice.split()) for choice in choices),
        n_tokens=tuple(len(choice.split()) for choice in choices),
        keys=tuple(bytes([at]) for at in range(len(choices))),
    )
    return ItemScore(record, sums)


def beside(score: ItemScore, **asides: tuple[float, ...]) -> ItemScore:
    """The same with asides; one without sums has failed."""
    records = tuple(AsideRecord(name, score.record.keys) for name in asides)
    scores = {name: AsideScore(sums, "" if sums else "500: busy") for name, sums in asides.items()}
    return replace(score, record=replace(score.record, asides=records), asides=scores)


def judged(name: str, score: ItemScore) -> Verdict:
    """The verdict of a metric that has one."""
    verdict = METRICS[name].judge(score)
    assert verdict is not None
    return verdict


def tally(values: list[bool | None]) -> Tally:
    """A tally of these values; None is an unscored item."""
    counted = Tally()
    for value in values:
        if value is None:
            counted.unscored += 1
        else:
            counted.add(value)
    return counted


PLAIN = ("acc", "acc_norm", "acc_bytes", "acc_token")
"""Metrics that predict from an item's own sums."""
VALUES = st.lists(st.one_of(st.booleans(), st.none()), max_size=60)


def test_each_metric_divides_by_its_own_length() -> None:
    """One item on which the four metrics choose differently, worked out by hand."""
    # sums        -6      -8       -9          -10
    # characters   2 -3    8 -1     9 -1        11 -0.909...
    # bytes        2 -3   16 -0.5   9 -1        11 -0.909...
    # tokens       1 -6    1 -8     4 -2.25      2 -5
    score = scored((-6.0, -8.0, -9.0, -10.0), ("no", "éééééééé", "a b cd ef", "abcde fghij"))
    assert {name: judged(name, score).prediction for name in PLAIN} == {
        "acc": 0,
        "acc_norm": 3,
        "acc_bytes": 1,
        "acc_token": 2,
    }


@pytest.mark.parametrize("metric", PLAIN)
def test_of_equal_choices_the_first_is_predicted(metric: str) -> None:
    """Ties go to the lowest index, as numpy's argmax has it."""
    verdict = judged(metric, scored((-3.0, -2.0, -2.0), ("aa", "bb", "cc"), gold=(2,)))
    assert (verdict.prediction, verdict.correct, verdict.tied) == (1, False, True)
    assert not judged(metric, scored((-2.0, -3.0, -3.0), ("aa", "bb", "cc"))).tied


def test_any_gold_counts() -> None:
    """Where several choices are right, predicting one of them is enough."""
    score = scored((-3.0, -2.0, -1.0), ("a", "b", "c"), gold=(0, 2))
    assert judged("acc", score).correct


def test_a_choice_without_length_is_not_predicted() -> None:
    """Dividing by no characters neither fails nor wins."""
    assert judged("acc_norm", scored((-0.5, -9.0), ("", "b"))).prediction == 1


@given(st.lists(st.floats(-1e3, 0.0), min_size=1, max_size=8))
def test_choices_of_one_length_are_judged_alike_by_all_metrics(sums: list[float]) -> None:
    """Normalising by a length that all choices share changes nothing."""
    score = scored(tuple(sums), ("x",) * len(sums))
    assert len({judged(name, score) for name in PLAIN}) == 1


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


def test_values_between_0_and_1_have_students_interval() -> None:
    """Wilson's interval is that of a proportion; other means get Student's, within the possible range."""
    counted = Tally()
    for value in (0.5, 0.7, 0.6):
        counted.add(value)
    estimate = counted.estimate()
    error = 0.1 / math.sqrt(3)
    assert estimate.stderr == pytest.approx(error)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx(
        (0.6 - 4.302653 * error, 0.6 + 4.302653 * error)
    )
    counted.add(1.0)
    assert counted.estimate().ci_high == 1.0


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
    assert pooled(map(tally, parts), Tally()) == whole == pooled(map(tally, reversed(parts)), Tally())
    assert pooled(map(tally, parts), Tally()).estimate() == whole.estimate()


LOGS = tuple(math.log(p) for p in (0.5, 0.25, 0.05))
"""Log-probabilities of three choices that together have 0.8: among themselves 0.625, 0.3125, 0.0625."""


@pytest.mark.parametrize(
    ("metric", "gold", "value"),
    [
        ("mc2", (1,), 0.3125),
        ("mc2", (0, 2), 0.6875),
        ("brier_score", (1,), 0.625**2 + 0.6875**2 + 0.0625**2),
        ("brier_score", (0, 1), 0.125**2 + 0.1875**2 + 0.0625**2),
        ("nll", (1,), -math.log(0.25)),
        ("nll", (0, 1), -math.log(0.75)),
        ("margin", (0,), math.log(2)),
        ("margin", (1, 2), -math.log(2)),
        ("perplexity", (2,), -math.log(0.05)),
        ("letter_mass", (2,), 0.8),
        ("length_bias", (0,), 0.0),
        ("length_bias", (1,), -1.0),
    ],
)
def test_values_worked_out_by_hand(metric: str, gold: tuple[int, ...], value: float) -> None:
    """One item whose choices have probabilities 0.5, 0.25 and 0.05; the second is the longest."""
    score = scored(LOGS, ("a", "bbb", "cc"), gold=gold)
    assert judged(metric, score).value == pytest.approx(value)


def test_the_mass_of_unlikely_choices_does_not_underflow() -> None:
    """Sums far below what a float's exponent holds still have a distribution among themselves."""
    score = scored((-5000.0, -5000.0 - math.log(3)), ("a", "b"))
    assert judged("mc2", score).value == pytest.approx(0.75)
    assert judged("letter_mass", score).value == 0.0


def test_the_mass_of_letters_counts_equal_choices_once_and_needs_one_context() -> None:
    """Two choices of one text are one event; choices after different contexts have no common mass."""
    score = scored((math.log(0.25), math.log(0.25)), ("a", "a"))
    twice = replace(score, record=replace(score.record, keys=(b"1", b"1")))
    assert judged("letter_mass", twice).value == pytest.approx(0.25)
    apart = replace(score, record=replace(score.record, context_sha256=("aa", "bb")))
    assert METRICS["letter_mass"].judge(apart) is None
    assert METRICS["letter_mass"].judge(scored((-1.0, -2.0), ("yes", "never"))) is None


def test_one_choice_alone_is_no_question() -> None:
    """Of a single choice nothing is right or wrong: only what reads one choice applies."""
    score = scored((-1.0,), ("word",))
    applying = {name for name, metric in METRICS.items() if metric.applies(score.record)}
    assert applying == {
        *("greedy", "nll", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
    }
    four = scored((-1.0,) * 4, ("a",) * 4).record
    assert METRICS["acc_order_3"].applies(four)
    assert not METRICS["acc_order_4"].applies(four)
    assert METRICS["acc"].applies(replace(four, n_chars=()))  # of a bad row nobody knows the choices


def test_an_unknown_greediness_is_missing() -> None:
    """What the endpoint did not say is no answer; of a wrong choice it does not matter."""
    score = scored((-1.0, -2.0), ("a", "b"), (1,))
    greedy = METRICS["greedy"]
    assert greedy.missing(score)
    assert greedy.missing(replace(score, greedy=(True, None)))
    assert not greedy.missing(replace(score, greedy=(None, True)))
    assert judged("greedy", replace(score, greedy=(None, True))).value == 1.0
    assert judged("greedy", replace(score, greedy=(True, False))).value == 0.0


def test_biases_are_told_where_they_can_be() -> None:
    """Choices of one length have no length bias, texts without labels no position bias."""
    assert METRICS["length_bias"].judge(scored(LOGS, ("a", "b", "c"))) is None
    assert METRICS["position_bias"].judge(scored(LOGS, ("a text", "b", "c"))) is None
    assert judged("position_bias", scored(LOGS, ("A", "B", "C"), (2,))).group == 2


def test_accuracy_above_chance_is_0_at_chance_and_1_at_best() -> None:
    """(acc - b) / (1 - b) over items of 4 and 2 choices: b is the mean chance, 3/8."""
    four = [scored((-1.0, *(-2.0,) * 3), ("a",) * 4, (gold,)) for gold in (0, 1)]
    two = [scored((-1.0, -2.0), ("a",) * 2, (gold,)) for gold in (0, 1)]
    summary = METRICS["acc_above_chance"].summary()
    for score in (*four, *two):
        verdict = judged("acc_above_chance", score)
        summary.add(verdict.value, verdict.weight)
    assert summary.estimate().value == pytest.approx((0.5 - 0.375) / (1 - 0.375))


def test_unconditional_log_probabilities_are_taken_off() -> None:
    """What is likely anyway must be raised by the question; each metric has its own unconditional sums."""
    score = beside(scored((-2.0, -3.0), ("a", "b"), (1,)), empty=(-1.0, -4.0), answer=(-5.0, -4.0))
    assert judged("acc", score).prediction == 0
    assert judged("acc_mutual_info", score).prediction == 1
    assert judged("acc_pmi", score).prediction == 0


def test_every_order_and_the_average_over_them() -> None:
    """A model that prefers the first place: each order answers for itself, the average is right."""
    score = beside(
        scored(tuple(map(math.log, (0.5, 0.3, 0.2))), ("A", "B", "C"), (1,)),
        order_1=tuple(map(math.log, (0.2, 0.3, 0.5))),
        order_2=tuple(map(math.log, (0.2, 0.6, 0.2))),
    )
    assert judged("acc_order_1", score).prediction == 2
    assert judged("acc_order_2", score).prediction == 1
    assert (judged("acc_debiased", score).prediction, judged("acc_circular", score).value) == (1, 0.0)
    assert not METRICS["acc_order_3"].applies(score.record)
    assert metrics_of_orders(3) == ("acc_debiased", "acc_circular", "acc_order_1", "acc_order_2")


def test_an_aside_that_failed_leaves_its_metrics_unscored() -> None:
    """A failed request is no answer: what needs it is missing, the others are not."""
    score = beside(scored((-2.0, -3.0), ("a", "b")), empty=(), order_1=(-1.0, -2.0))
    missing = [name for name, each in METRICS.items() if each.applies(score.record) and each.missing(score)]
    assert missing == ["acc_mutual_info", "acc_pmi", "greedy"]
    failed = beside(scored((-2.0, -3.0), ("a", "b")), order_1=())
    assert METRICS["acc_debiased"].missing(failed)
    assert METRICS["acc_order_1"].missing(failed)


def test_metrics_are_named_once_and_the_nearest_is_told() -> None:
    """A list names metrics, "all" those that need no further request; a slip names what may be meant."""
    assert named_metrics(" ece, mc2,ece ,") == ("ece", "mc2")
    every = named_metrics("all,acc_pmi")
    more = {name for name, metric in METRICS.items() if metric.needs not in ("", "greedy")}
    assert set(METRICS) - set(every) == more - {"acc_pmi"}
    with pytest.raises(UsageError, match=r"--metrics: no metric 'acc_nrom'. .*acc_norm"):
        named_metrics("acc_nrom")


@pytest.mark.shared
def test_items_are_judged_as_the_reference_does(shared: Path) -> None:
    """acc and acc_norm of every multiple-choice item in the golden records."""
    choices = {}
    for line in (shared / "golden" / "requests.jsonl").read_text().splitlines():
        asked = json.loads(line)
        if asked["shots"] == 0:
            texts = tuple(text.removeprefix(" ") for text in asked["continuations"])
            choices[asked["task"], asked["doc_id"]] = texts
    compared = Counter[str]()
    for line in (shared / "golden" / "scores_stories260k.jsonl").read_text().splitlines():
        found = json.loads(line)
        if "acc_norm" not in found or found["task"] == "winogrande":  # other metrics; choices not as forced
            continue
        texts = choices[found["task"], found["doc_id"]]
        score = scored(tuple(found["sums"]), texts, gold=(found["gold_index"],))
        for metric in ("acc", "acc_norm"):
            assert judged(metric, score).correct == bool(found[metric]), found
        compared[found["task"].split("_")[0]] += 1
    assert (compared["hellaswag"], compared["mmlu"]) == (25, 57 * 3)
