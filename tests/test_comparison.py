"""From endpoints' columns to rows, verdicts and words, on items small enough to count by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, rel_entr, softmax

from harness.comparison.columns import Columns, Place, TaskFacts, Tokens, columns_of_scores
from harness.comparison.comparing import compare_columns
from harness.comparison.findings import HEADLINE, Findings, Row
from harness.comparison.matching import match, mismatch_summary
from harness.comparison.measures import divergence, gold_logprob, margin, pair_up, token_shift
from harness.comparison.ragged import ragged
from harness.comparison.words import families, sentences
from harness.scoring.scores import AsideRecord, AsideScore, ItemRecord, ItemScore
from tests.making import comparable

RIGHT, WRONG, OTHER = (-1.0, -2.0, -3.0), (-2.0, -1.0, -3.0), (-2.0, -3.0, -1.0)
"""Sums of three choices of which the first is gold; the last two are wrong in different ways."""
TASK = TaskFacts("toy", ("acc",), {})


def columns(label: str, sums: Sequence[Sequence[float] | None], **changes: object) -> Columns:
    """One endpoint's items of one task, in order; None is an unscored item."""
    return columns_of_scores(
        label, [comparable(i, each, **changes) for i, each in enumerate(sums)], {"toy": ("acc",)}
    )


def compare(*endpoints: Columns, tasks: Sequence[TaskFacts] = (TASK,), margin: float = 0.01) -> Findings:
    """The findings, the first endpoint being the baseline."""
    return compare_columns(endpoints, tasks, margin=margin)


def row(findings: Findings, statistic: str = "acc", **fields: object) -> Row:
    """The only row with this statistic and these fields."""
    wanted = {"level": "task", "statistic": statistic, **fields}
    [found] = [
        each for each in findings.rows if all(getattr(each, name) == value for name, value in wanted.items())
    ]
    return found


def test_by_hand() -> None:
    """Flips, agreement, values and difference of six items, counted by hand."""
    before = columns("a", [RIGHT, RIGHT, WRONG, WRONG, WRONG, RIGHT])
    after = columns("b", [RIGHT, WRONG, RIGHT, RIGHT, OTHER, RIGHT])
    found = row(compare(before, after))
    assert (found.wrong_to_right, found.right_to_wrong, found.wrong_to_wrong) == (2, 1, 1)
    assert found.agreement == pytest.approx(2 / 6)
    assert (found.baseline_value, found.value) == pytest.approx((3 / 6, 4 / 6))
    assert found.difference == pytest.approx(1 / 6)
    assert (found.n, found.unscored, found.clusters, found.test) == (6, 0, 6, "mcnemar")
    assert found.p_value == found.p_mcnemar == 1.0
    assert found.p_mcnemar_mid == pytest.approx(2 * (0.5 - 0.375 / 2))


def test_a_mass_is_compared_without_flips() -> None:
    """A metric of values between 0 and 1 has means, a t-test and bounds, and nothing that flips."""
    metrics = {"toy": ("mc2",)}
    sums: dict[str, list[tuple[float, ...] | None]] = {
        "a": [RIGHT, WRONG, None, OTHER],
        "b": [RIGHT, RIGHT, RIGHT, WRONG],
    }
    sides = [
        columns_of_scores(label, [comparable(i, each) for i, each in enumerate(of)], metrics)
        for label, of in sums.items()
    ]
    findings = compare(*sides, tasks=[TaskFacts("toy", ("mc2",), {})])
    found = row(findings, "mc2")
    masses = [[softmax(each)[0] for each in side] for side in ([RIGHT, WRONG, OTHER], [RIGHT, RIGHT, WRONG])]
    assert (found.baseline_value, found.value) == pytest.approx(tuple(map(np.mean, masses)))
    assert (found.test, found.wrong_to_right, found.n, found.headline) == ("t", None, 3, True)
    assert found.high_bound - found.low_bound == pytest.approx(
        (1 - softmax(RIGHT)[0] + softmax(RIGHT)[0]) / 4
    )
    assert findings.flips == ()
    assert "became right" not in " ".join(sentences(findings))


def with_aside(score: ItemScore, sums: Sequence[float] | None) -> ItemScore:
    """An item that was asked "Answer:" too; without sums that failed."""
    found = AsideScore(tuple(sums), "") if sums else AsideScore((), "400: no")
    record = replace(score.record, asides=(AsideRecord("answer", ()),))
    return replace(score, record=record, asides={"answer": found})


def test_what_a_metric_lacks_is_no_wrong_answer() -> None:
    """Items whose aside failed on one side are unscored: in no mean, flip or test, and in the bounds."""
    equal = (-1.0, -1.0, -1.0)
    both = [RIGHT, WRONG, RIGHT, WRONG]
    before = [with_aside(comparable(i, each), equal) for i, each in enumerate(both)]
    after = [with_aside(comparable(i, each), equal if i < 2 else None) for i, each in enumerate(both)]
    metrics = {"toy": ("acc_pmi",)}
    sides = [columns_of_scores(label, scores, metrics) for label, scores in (("a", before), ("b", after))]
    findings = compare(*sides, tasks=[TaskFacts("toy", ("acc_pmi",), {})])
    found = row(findings, "acc_pmi")
    assert (found.n, found.unscored, found.baseline_value, found.value) == (2, 2, 0.5, 0.5)
    assert (found.wrong_to_right, found.right_to_wrong, found.wrong_to_wrong, found.agreement) == (0, 0, 0, 1)
    assert (found.low_bound, found.high_bound) == (-0.25, 0.25)
    assert findings.flips == ()
    assert row(findings, "gold_logprob").n == 4


def test_items_that_a_metric_does_not_apply_to_are_none_of_its_own() -> None:
    """Of three choices there is no fourth order: neither scored, nor unscored, nor in the bounds."""
    four = (-1.0, -2.0, -3.0, -4.0)
    lengths = {"n_bytes": (1,) * 4, "n_chars": (1,) * 4, "n_tokens": (1,) * 4}
    scores = [comparable(0, RIGHT), comparable(1, four, **lengths), comparable(2, four, **lengths)]
    asked = [
        scores[0],
        *(replace(each, asides={"order_3": AsideScore(four, "")}) for each in scores[1:]),
    ]
    metrics = {"toy": ("acc_order_3",)}
    sides = [columns_of_scores(label, asked, metrics) for label in "ab"]
    found = row(compare(*sides, tasks=[TaskFacts("toy", ("acc_order_3",), {})]), "acc_order_3")
    assert (found.n, found.unscored, found.low_bound, found.high_bound) == (2, 0, 0.0, 0.0)


def test_a_suite_s_flips_are_whole_or_not_told() -> None:
    """Where a task's headline has no flips, the mean over tasks has none either, not a part of them."""
    metrics = {"toy": ("mc2",), "other": ("acc",)}
    sides = [
        columns_of_scores(
            label,
            [
                comparable(0, RIGHT),
                comparable(1, WRONG),
                *(comparable(i, each, task="other") for i in (2, 3)),
            ],
            metrics,
        )
        for label, each in (("a", RIGHT), ("b", WRONG))
    ]
    tasks = [TaskFacts(name, of, {}) for name, of in metrics.items()]
    suite = row(compare(*sides, tasks=tasks), HEADLINE, level="suite")
    assert (suite.wrong_to_right, suite.right_to_wrong) == (None, None)
    assert math.isnan(suite.agreement)


def test_greedy_matches_are_compared_exactly() -> None:
    """Right and wrong without a prediction is tested as right and wrong is; unknown ones are left out."""
    told = {"a": (True, False, False, None), "b": (True, True, True, True)}
    sides = [
        columns_of_scores(
            label,
            [
                replace(comparable(i, (-1.0,), n_bytes=(1,), n_chars=(1,), n_tokens=(1,)), greedy=(each,))
                for i, each in enumerate(greedy)
            ],
            {"toy": ("greedy",)},
        )
        for label, greedy in told.items()
    ]
    found = row(compare(*sides, tasks=[TaskFacts("toy", ("greedy",), {})]), "greedy")
    assert (found.test, found.n, found.unscored, found.p_value) == ("mcnemar", 3, 1, 0.5)
    assert found.difference == pytest.approx(2 / 3)
    assert (found.wrong_to_right, found.right_to_wrong) == (2, 0)
    assert found.agreement == pytest.approx(1 / 3)


def test_flips_are_listed() -> None:
    """Each flip names its item, both predictions, and how far the right choice was ahead."""
    flips = compare(columns("a", [RIGHT, RIGHT, WRONG]), columns("b", [RIGHT, WRONG, OTHER])).flips
    assert [(each.place.index, each.kind) for each in flips] == [
        (1, "right to wrong"),
        (2, "wrong to other wrong"),
    ]
    assert (flips[0].baseline_prediction, flips[0].prediction, flips[0].gold) == (0, 1, (0,))
    assert (flips[0].baseline_margin, flips[0].margin, flips[0].gold_logprob_change) == (1.0, -1.0, -1.0)


def test_unscored_items() -> None:
    """An item that either endpoint left unscored is no answer: it is counted, and bounds the difference."""
    before = columns("a", [RIGHT, RIGHT, WRONG, None, None])
    after = columns("b", [RIGHT, None, None, WRONG, None])
    found = row(compare(before, after))
    assert (found.n, found.unscored, found.difference) == (1, 4, 0.0)
    # Right before and unknown now: -1 or 0. Wrong before: 0 or 1. Wrong now: -1 or 0. Unknown: -1 to 1.
    assert (found.low_bound, found.high_bound) == pytest.approx((-3 / 5, 2 / 5))


def test_no_item_in_common() -> None:
    """Without an item that both scored nothing is said, and nothing breaks."""
    findings = compare(columns("a", [RIGHT, None]), columns("b", [None, RIGHT]))
    found = row(findings)
    assert (found.n, found.unscored, found.verdict) == (0, 2, "")
    assert math.isnan(found.difference)
    assert list(sentences(findings)) == ["b and a have no scored item in common on toy (acc)."]


logs = st.floats(-40, -0.01)
choices = st.lists(logs, min_size=2, max_size=5)


@given(st.data())
def test_measures(data: st.DataObject) -> None:
    """Gold, margin and divergence of any sums agree with scipy's functions, item by item."""
    before, after, golds = [], [], []
    for _ in range(data.draw(st.integers(1, 6))):
        one = data.draw(choices)
        before.append(one)
        after.append(data.draw(st.lists(logs, min_size=len(one), max_size=len(one))))
        golds.append(data.draw(st.sets(st.integers(0, len(one) - 1), min_size=1)))
    scores = [
        [
            comparable(i, sums, gold=tuple(sorted(gold)))
            for i, (sums, gold) in enumerate(zip(side, golds, strict=True))
        ]
        for side in (before, after)
    ]
    a, b = (
        columns_of_scores(label, each, {"toy": ("acc",)}) for label, each in zip("ab", scores, strict=True)
    )
    pair = pair_up(match(a, b))
    for i, gold in enumerate(golds):
        right = sorted(gold)
        wrong = [j for j in range(len(before[i])) if j not in gold]
        p, q = softmax(before[i]), softmax(after[i])
        assert gold_logprob(pair).change[i] == pytest.approx(
            logsumexp(np.array(after[i])[right]) - logsumexp(np.array(before[i])[right])
        )
        assert divergence(pair).change[i] == pytest.approx(
            (rel_entr(p, q).sum() + rel_entr(q, p).sum()) / 2, abs=1e-9
        )
        if wrong:
            ahead = [
                max(np.array(side)[right]) - max(np.array(side)[wrong]) for side in (before[i], after[i])
            ]
            assert margin(pair).change[i] == pytest.approx(ahead[1] - ahead[0])
        else:
            assert math.isnan(margin(pair).change[i])


def with_tokens(given: Columns, logprobs: Sequence[Sequence[float]], ids: Sequence[int]) -> Columns:
    """Columns that know the log-probability of each token, a list a choice."""
    return replace(given, tokens=Tokens(ragged(logprobs, np.float64), np.array(ids, np.int64)))


def test_token_shift() -> None:
    """The mean is over all tokens of all choices, the largest over single tokens."""
    sums = [(-1.0, -2.0), (-3.0, -4.0)]
    before = with_tokens(columns("a", sums), [[-1.0], [-1.5, -0.5], [-3.0], [-4.0]], [1, 2, 3, 4])
    after = with_tokens(columns("b", sums), [[-1.5], [-1.5, -0.9], [-3.0], [-2.0]], [1, 2, 3, 4])
    found = row(compare(before, after), "token_shift")
    assert found.difference == pytest.approx((0.5 + 0.0 + 0.4 + 0.0 + 2.0) / 5)
    assert found.largest == pytest.approx(2.0)
    assert found.n == 2
    assert (found.test, found.verdict) == ("", "")


def test_other_tokens_are_not_compared() -> None:
    """Where another tokenizer split the choices otherwise, tokens cannot be put side by side."""
    sums = [(-1.0, -2.0), (-3.0, -4.0)]
    before = with_tokens(columns("a", sums), [[-1.0], [-2.0], [-3.0], [-4.0]], [1, 2, 3, 4])
    after = with_tokens(columns("b", sums), [[-1.0], [-2.0], [-3.0], [-1.0, -3.0]], [1, 2, 3, 9])
    shift = token_shift(pair_up(match(before, after)))
    assert shift.change[0] == 0
    assert math.isnan(shift.change[1])
    assert row(compare(before, after), "token_shift").n == 1


def test_mismatches() -> None:
    """An item that stands elsewhere, asks otherwise or has another gold is told, and not compared."""
    before = columns("a", [RIGHT] * 5)
    items = [comparable(i, RIGHT) for i in (0, 1, 2, 3, 7)]
    items[1] = comparable(1, RIGHT, prompt_hash="another")
    items[2] = comparable(2, RIGHT, gold=(1,))
    items[3] = comparable(3, (-1.0, -2.0))
    matched = match(before, columns_of_scores("b", items, {"toy": ("acc",)}))
    assert matched.at.tolist() == [0]
    assert {(each.place.index, each.why) for each in matched.mismatches} == {
        (1, "with another prompt"),
        (2, "with another gold"),
        (3, "with other choices"),
        (4, "only in a"),
        (7, "only in b"),
    }
    assert (
        mismatch_summary(matched.mismatches)[0]
        == "a and b: 1 item with another prompt, first toy item 1 (0 shots)"
    )


def test_an_item_never_planned_is_unscored() -> None:
    """Where a run was broken off before an item, there is no prompt to compare: it counts as unscored."""
    after = columns_of_scores(
        "b", [comparable(0, RIGHT), comparable(1, None, prompt_hash="", n_tokens=())], {"toy": ("acc",)}
    )
    found = compare(columns("a", [RIGHT, RIGHT]), after)
    assert found.mismatches == ()
    assert (row(found).n, row(found).unscored) == (1, 1)


def test_clusters() -> None:
    """Flips of one cluster go together: the same flips are weaker evidence."""
    before, after = [WRONG] * 12 + [RIGHT] * 12, [RIGHT] * 24
    alone = row(compare(columns("a", before), columns("b", after)))
    named = [comparable(i, sums, cluster=f"passage {i // 6}") for i, sums in enumerate(before)]
    together = row(compare(columns_of_scores("a", named, {"toy": ("acc",)}), columns("b", after)))
    assert (alone.clusters, alone.test, together.clusters, together.test) == (24, "mcnemar", 4, "sign_flip")
    assert together.p_value == 0.5  # two clusters that flipped whole, one way
    assert together.p_mcnemar == alone.p_value < 0.001
    assert together.stderr > 2 * alone.stderr


SUBJECTS = TaskFacts("toy", ("acc",), {"toy_both": ("x", "y")})


def in_subjects(label: str, by_subject: Mapping[str, Sequence[Sequence[float]]]) -> Columns:
    """Items of several subjects."""
    scores = [
        comparable(i, sums, subject=subject)
        for subject, each in by_subject.items()
        for i, sums in enumerate(each)
    ]
    return columns_of_scores(label, scores, {"toy": ("acc",)})


def test_groups_and_subjects() -> None:
    """A task, its groups and its subjects have rows of their own, pooled over items."""
    before = in_subjects("a", {"x": [WRONG] * 4, "y": [RIGHT] * 2, "z": [RIGHT] * 2})
    after = in_subjects("b", {"x": [RIGHT] * 4, "y": [RIGHT] * 2, "z": [WRONG] * 2})
    findings = compare(before, after, tasks=[SUBJECTS])
    found = {
        (each.level, each.task, each.subject): each.difference for each in findings.rows if each.headline
    }
    assert found == pytest.approx(
        {
            ("task", "toy", ""): 2 / 8,
            ("group", "toy_both", ""): 4 / 6,
            ("subject", "toy", "x"): 1.0,
            ("subject", "toy", "y"): 0.0,
            ("subject", "toy", "z"): -1.0,
        }
    )


def test_suite() -> None:
    """Over several tasks each weighs the same, whatever its size."""
    metrics = {"small": ("acc",), "large": ("acc",)}
    tasks = [TaskFacts("small", ("acc",), {}), TaskFacts("large", ("acc",), {})]
    before = [comparable(i, RIGHT, task="small") for i in range(4)]
    before += [comparable(i, WRONG, task="large") for i in range(40)]
    after = [comparable(i, RIGHT if i else WRONG, task="small") for i in range(4)]
    after += [comparable(i, RIGHT if i < 30 else WRONG, task="large") for i in range(40)]
    findings = compare(
        *(columns_of_scores(x, y, metrics) for x, y in (("a", before), ("b", after))), tasks=tasks
    )
    suite = row(findings, HEADLINE, level="suite")
    small, large = row(findings, task="small"), row(findings, task="large")
    assert suite.difference == pytest.approx((-1 / 4 + 30 / 40) / 2)
    assert suite.stderr == pytest.approx(math.hypot(small.stderr, large.stderr) / 2)
    assert (suite.n, suite.wrong_to_right, suite.right_to_wrong, suite.test) == (44, 30, 1, "t")


def test_family() -> None:
    """Verdicts on tasks rest on p corrected for all pairs; each statistic is a family of its own."""
    before = columns("a", [WRONG] * 6 + [RIGHT] * 100)
    after = [RIGHT] * 6 + [RIGHT] * 100
    alone = row(compare(before, columns("b", after)))
    assert (alone.family, alone.verdict) == (1, "better")  # six flips one way: p = 1/32
    findings = compare(before, columns("b", after), columns("c", after))
    found = row(findings, endpoint="b")
    assert (found.family, found.verdict) == (2, "undecided")
    assert found.p_holm == pytest.approx(2 * found.p_value)
    assert found.items_needed is not None
    assert found.items_needed > 106
    assert families(findings) == "p is corrected for many comparisons: Holm over 2 task rows."
    findings = compare(before, columns("b", after))
    assert families(findings) == "p is corrected for many comparisons: Holm over 1 task row."


@pytest.mark.parametrize(
    ("gained", "lost", "n", "verdict"),
    [
        (40, 10, 1_000, "better"),
        (10, 40, 1_000, "worse"),
        (3, 3, 5_000, "equivalent"),
        (5, 4, 100, "undecided"),
    ],
)
def test_verdicts(gained: int, lost: int, n: int, verdict: str) -> None:
    """Better, worse, equivalent within a point, or undecided."""
    same = n - gained - lost
    before = columns("a", [WRONG] * gained + [RIGHT] * (lost + same))
    after = columns("b", [RIGHT] * gained + [WRONG] * lost + [RIGHT] * same)
    assert row(compare(before, after)).verdict == verdict


def test_words() -> None:
    """A reader without statistics is told what is shown, by how much, and how sure that is."""
    before, after = [WRONG] * 40 + [RIGHT] * 960, [RIGHT] * 990 + [WRONG] * 10
    assert list(sentences(compare(columns("base", before), columns("tuned", after)))) == [
        "tuned is better than base on toy (acc): +3.00 points, 95 % interval +1.59 to +4.39;"
        " 40 became right, 10 wrong; p < 0.0001."
    ]
    assert list(
        sentences(compare(columns("base", before[:45]), columns("tuned", [WRONG, *before[1:44], WRONG])))
    ) == [
        "Undecided between tuned and base on toy (acc): \N{MINUS SIGN}2.22 points, 95 % interval"
        " \N{MINUS SIGN}9.61 to +5.35; 0 became right, 1 wrong. About 430 items would decide it;"
        " the 45 here show 10.40 points or more."
    ]


def test_better_by_less_than_matters() -> None:
    """A difference that is sure but smaller than the margin is called both."""
    before, after = [WRONG] * 30 + [RIGHT] * 9_970, [RIGHT] * 10_000
    [told] = sentences(compare(columns("base", before), columns("tuned", after)))
    assert told.startswith(
        "tuned is better than base, though by less than 1 point, on toy (acc): +0.30 points"
    )


def test_replicate_is_equivalent() -> None:
    """An endpoint asked twice does not differ from itself, however often."""
    same = [RIGHT, WRONG, OTHER] * 500
    twice = [columns(label, same) for label in ("a", "a#2")]
    findings = compare(*(replace(each, identity="one", replicate=i) for i, each in enumerate(twice)))
    assert row(findings).verdict == "equivalent"
    assert row(findings, "gold_logprob").verdict == "undecided"
    assert "asked twice" in findings.remarks[0]


def test_noise_floor() -> None:
    """What repeating the same requests changes bounds every interval of that endpoint from below."""
    generator = np.random.default_rng(2)

    def noisy() -> list[Sequence[float]]:
        return [tuple(np.array(RIGHT) + generator.normal(0, 0.5, 3)) for _ in range(200)]

    first = noisy()
    base = replace(columns("a", first), identity="base")
    again = replace(columns("a#2", noisy()), identity="base", replicate=1)
    copy = replace(columns("b", [tuple(np.array(each) + 0.01) for each in first]), identity="tuned")
    findings = compare(base, again, copy)
    found = row(findings, "gold_logprob", endpoint="b")
    assert found.stderr == pytest.approx(0.0, abs=1e-12)  # the same shift everywhere: no spread at all
    assert found.noise_stderr == pytest.approx(math.sqrt(2) * 0.5 / math.sqrt(200), rel=0.15)
    assert found.ci_low < 0 < found.ci_high
    assert found.verdict == "undecided"
    without = row(compare(base, copy), "gold_logprob")
    assert math.isnan(without.noise_stderr)
    assert without.verdict == "better"


def test_rankings() -> None:
    """Among three endpoints or more it is said which are tied, by tests of all pairs."""
    sums = {"a": [WRONG] * 30 + [RIGHT] * 170, "b": [RIGHT] * 200, "c": [RIGHT] * 199 + [WRONG]}
    findings = compare(*(columns(*each) for each in sums.items()))
    [ranking] = findings.rankings
    assert [name for name, _ in ranking.values] == ["b", "c", "a"]
    assert (ranking.tied, ranking.family) == ((("b", "c"), ("a",)), 3)
    assert compare(*(columns(*each) for each in list(sums.items())[:2])).rankings == ()


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=8), st.randoms())
def test_ragged(lists: list[list[int]], random: object) -> None:
    """Lists come back as they were put in, whole or some of them in any order."""
    held = (
        ragged(lists, np.int64) if all(abs(x) < 2**62 for one in lists for x in one) else ragged([], np.int64)
    )
    given = lists if len(held.lengths) else []
    assert held.lists() == [tuple(each) for each in given]
    positions = np.arange(len(given))[::-1]
    assert held.take(positions).lists() == [tuple(each) for each in given[::-1]]


def test_places_in_words() -> None:
    """An item is named as people look for it."""
    assert str(Place("mmlu", 5, "anatomy", 3)) == "mmlu anatomy item 3 (5 shots)"


def test_order_of_the_other_does_not_matter() -> None:
    """Items are joined by what they are, not by where they stand."""
    sums = [RIGHT, WRONG, OTHER, RIGHT]
    shuffled = [comparable(i, sums[i]) for i in (2, 0, 3, 1)]
    found = compare(columns("a", sums), columns_of_scores("b", shuffled, {"toy": ("acc",)}))
    assert row(found).agreement == 1.0
    assert isinstance(shuffled[0], ItemScore)
    assert isinstance(shuffled[0].record, ItemRecord)
