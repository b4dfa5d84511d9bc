"""One model behind two endpoints: shifts of tokens, the worst items, whether near-ties explain the flips."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from harness import UsageError, reference
from harness.compared import compare
from harness.comparison.columns import Columns, Stop, TaskFacts, Tokens, columns_of_scores
from harness.comparison.drifting import drift_columns, sentences
from harness.comparison.engines import GROUPS, SUMMARIES, WORST, shift_rows, token_shifts, worst_items
from harness.comparison.matching import match
from harness.comparison.measures import Pair, pair_up
from harness.comparison.nearties import Drift, drifts
from harness.comparison.paired import LEVEL, Floats
from harness.comparison.ragged import ragged
from harness.enginefiles import DRIFT_COLUMNS, SHIFT_COLUMNS, WORST_COLUMNS
from harness.serving.server import listening, load
from harness.showing import shift_table
from tests.making import comparable
from tests.running import ROOT, Bench, bench

__all__ = ["bench"]

TASK = TaskFacts("toy", ("acc",), {})
TASKS = [TASK]


def columns(label: str, tokens: Sequence[Sequence[Sequence[float]]], **changes: object) -> Columns:
    """An endpoint of which every token of every choice of every item is given; the first choice is right."""
    scores = [comparable(at, [sum(choice) for choice in item], **changes) for at, item in enumerate(tokens)]
    flat = [choice for item in tokens for choice in item]
    ids = np.arange(len(flat))
    held = Tokens(ragged(flat, np.float64), ids)
    return replace(columns_of_scores(label, scores, {"toy": ("acc", "acc_norm")}), tokens=held)


def paired(before: Columns, after: Columns) -> Pair:
    """Both, joined."""
    return pair_up(match(before, after))


def scored(label: str, scores: Floats) -> Columns:
    """An endpoint whose choices are single tokens with these log-probabilities, shape (items, choices)."""
    return columns(label, [[[float(each)] for each in item] for item in scores])


def test_shifts_by_hand() -> None:
    """Each token's shift, where it stands, what the baseline gave it; by group and part, counted by hand."""
    before = columns("a", [[[-1.0, -0.5], [-5.0]], [[-0.001], [-2.0, -0.05, -3.0]]])
    after = columns("b", [[[-1.5, -0.5], [-4.0]], [[-0.002], [-2.0, -0.05, -3.5]]])
    pair = paired(before, after)
    found = token_shifts(pair)
    assert found.shift == pytest.approx([-0.5, 0, 1.0, -0.001, 0, 0, -0.5])
    assert found.item.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert found.choice.tolist() == [0, 0, 1, 0, 1, 1, 1]
    assert found.position.tolist() == [0, 1, 0, 0, 0, 1, 2]
    rows = {(row.group, row.part): row for row in shift_rows(pair, found)}
    assert rows["all", "all"].tokens == 7
    assert rows["all", "all"].summaries["mean"] == pytest.approx(-0.001 / 7)
    assert rows["all", "all"].summaries["largest"] == 1.0
    assert rows["position", "first token"].tokens == 4
    assert rows["position", "third and fourth"].summaries["mean"] == -0.5
    assert {part: row.tokens for (group, part), row in rows.items() if group == "logprob"} == {
        "-0.01 to 0": 1,
        "-0.1 to -0.01": 1,
        "-1 to -0.1": 1,
        "-4 to -1": 3,
        "below -4": 1,
    }
    worst = list(worst_items(pair, found))
    assert [(each.place.index, each.shift, each.choice, each.position) for each in worst] == [
        (0, 1.0, 1, 0),
        (1, -0.5, 1, 2),
    ]
    assert worst[0].sum_shift == 1.0
    assert worst[0].margin == pytest.approx(3.5)
    assert worst[0].margin_change == pytest.approx(-1.5)


def test_only_equal_ids_are_compared() -> None:
    """Tokens of choices that the endpoints were asked with other ids are left out; with none left, it is an
    error that says what is needed."""
    before, after = (columns(label, [[[-1.0], [-2.0]]]) for label in "ab")
    assert after.tokens is not None
    some = replace(after, tokens=Tokens(after.tokens.logprobs, np.array([0, 7])))
    assert len(token_shifts(paired(before, some)).shift) == 1
    none = replace(after, tokens=Tokens(after.tokens.logprobs, np.array([8, 9])))
    for other in (none, replace(after, tokens=None)):
        with pytest.raises(UsageError, match="a and b have no token in common"):
            drift_columns([before, other], TASKS)


@given(
    st.lists(
        st.lists(st.lists(st.floats(-30, 0), min_size=1, max_size=4), min_size=2, max_size=4),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 2**32 - 1),
)
def test_groups_hold_every_token_once(items: list[list[list[float]]], seed: int) -> None:
    """Whatever the tokens, the parts of each group hold all of them, quantiles are in order, and no more
    items are listed than there are."""
    generator = np.random.default_rng(seed)
    moved = [[[min(0.0, each + generator.normal()) for each in choice] for choice in item] for item in items]
    pair = paired(columns("a", items), columns("b", moved))
    found = token_shifts(pair)
    rows = list(shift_rows(pair, found))
    for group in GROUPS:
        assert sum(row.tokens for row in rows if row.group == group) == len(found.shift)
    for row in rows:
        quantiles = [value for name, value in row.summaries.items() if name.startswith("q")]
        assert quantiles == sorted(quantiles)
        assert list(row.summaries) == list(SUMMARIES)
    worst = [abs(each.shift) for each in worst_items(pair, found)]
    assert worst == sorted(worst, reverse=True)
    assert len(worst) == min(len(items), WORST)


def only(pair: Pair) -> Drift:
    """The drift of the only task."""
    (found,) = drifts(pair, TASKS)
    return found


def model(generator: np.random.Generator, items: int = 400) -> Floats:
    """Scores of four choices, the right one better on average."""
    return np.asarray(-np.abs(generator.normal(6, 2, (items, 4)) - np.array([1.0, 0, 0, 0])))


def test_noise_is_explained_by_near_ties() -> None:
    """Shifts without a direction are called near-ties, as often as the levels promise; what is expected is
    what comes on average."""
    generator = np.random.default_rng(41)
    flips, expected, said = 0, 0.0, []
    for _ in range(40):
        before = model(generator)
        after = before + generator.normal(0, 0.15, before.shape) + generator.normal(0, 1, (len(before), 1))
        found = only(paired(scored("a", before), scored("b", after - 9)))
        flips += found.flips
        expected += found.expected_flips
        said.append(found.explained)
    assert flips == pytest.approx(expected, rel=0.1)
    assert said.count("near-ties") >= 40 * (1 - 2 * LEVEL) - 3 * (40 * 2 * LEVEL) ** 0.5


def test_a_direction_is_not() -> None:
    """An engine that lowers the right choice a little everywhere is found out, though each shift is small."""
    generator = np.random.default_rng(42)
    before = model(generator, 1_500)
    push = np.array([-0.25, 0, 0, 0])
    found = only(
        paired(scored("a", before), scored("b", before + push + generator.normal(0, 0.05, before.shape)))
    )
    assert found.explained == "one direction"
    assert found.change < found.change_low
    assert found.right_to_wrong > 3 * found.wrong_to_right


def test_flips_beyond_near_ties_are_not() -> None:
    """Where shifts are large just on items that are close, more flip than shifts of this size explain."""
    generator = np.random.default_rng(43)
    before = model(generator, 1_500)
    ordered = np.sort(before, axis=1)
    close = (ordered[:, -1] - ordered[:, -2]) < 0.3
    noise = generator.normal(0, 0.02, before.shape)
    noise[close] *= 20
    found = only(paired(scored("a", before), scored("b", before + noise)))
    assert found.explained == "more flips"
    assert found.flips > 1.3 * found.expected_flips


def test_equal_engines() -> None:
    """Where nothing shifts nothing is expected, and nothing differs."""
    before = model(np.random.default_rng(44), 50)
    found = only(paired(scored("a", before), scored("b", before)))
    assert (found.flips, found.expected_flips, found.change, found.explained) == (0, 0, 0, "no difference")
    assert (found.p_flips, found.p_change) == (1, 1)


def test_lengths_count_where_the_metric_has_them() -> None:
    """Predictions are those of the metric: the same sums, over unlike lengths, flip otherwise."""
    sums = np.array([[-4.0, -5.0], [-4.0, -5.0]])
    moved = np.array([[-4.9, -5.0], [-4.0, -5.0]])
    before, after = (
        columns(label, [[[a], [b]] for a, b in each.tolist()], n_chars=(4, 6))
        for label, each in (("a", sums), ("b", moved))
    )
    (plain,) = drifts(paired(before, after), [TaskFacts("toy", ("acc",), {})])
    (divided,) = drifts(paired(before, after), [TaskFacts("toy", ("acc_norm",), {})])
    assert (plain.flips, divided.flips) == (0, 0)  # -4.9 / 4 and -4 / 4 are both behind -5 / 6
    assert (plain.metric, divided.metric) == ("acc", "acc_norm")
    assert list(drifts(paired(before, after), [TaskFacts("toy", ("mc2",), {})])) == []


def test_a_stopped_run_is_not_judged() -> None:
    """Of a run that stopped once decided counts are told, and no reason."""
    before = model(np.random.default_rng(45), 60)
    after = before + np.random.default_rng(46).normal(0, 1, before.shape) - 5
    stopped = replace(scored("b", after), stopped=Stop(0, np.ones(60, np.bool_), 0.01))
    found = drift_columns([scored("a", before), stopped], TASKS)
    assert found.predictions[0].flips > 0
    assert found.predictions[0].explained == ""
    assert "nothing can be said of the reasons" in list(sentences(found))[-1]


def test_sentences_and_table() -> None:
    """Each answer is a sentence, and the table shows every group of all tasks."""
    generator = np.random.default_rng(47)
    before = model(generator, 300)
    after = before + generator.normal(0, 0.3, before.shape) - 4
    found = drift_columns([scored("a", before), scored("b", after)], TASKS)
    first, second = sentences(found)
    assert first.startswith("b against a: 1,200 tokens shift by ")
    assert re.search(
        r"toy \(acc\), b against a: \d+ of 300 predictions differ, \d+ of them of near-ties", second
    )
    assert "Near-ties explain it" in second
    assert shift_table(found).row_count == len(found.shifts)


def test_readme_names_the_columns() -> None:
    """`results/README.md` has all columns of the three files, in order."""
    text = (ROOT / "results/README.md").read_text()
    for name, expected in (("drift", DRIFT_COLUMNS), ("shifts", SHIFT_COLUMNS), ("worst", WORST_COLUMNS)):
        section = text.split(f"\n## `{name}.csv`\n", 1)[1].split("\n## ", 1)[0]
        assert tuple(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == expected


def rounded(folder: Path, bits: int) -> Path:
    """The reference model with its matrices rounded to so many bits of mantissa: bf16 has 7, fp8 3."""
    copy = folder / f"bits{bits}"
    shutil.copytree(reference.FOLDER, copy, ignore=shutil.ignore_patterns("adapters"))
    weights = load_file(copy / "model.safetensors")
    for name, values in weights.items():
        if values.ndim > 1:
            mantissa, exponent = np.frexp(values.astype(np.float32))
            steps = 2.0 ** (bits + 1)
            weights[name] = np.ldexp(np.round(mantissa * steps) / steps, exponent).astype(values.dtype)
    save_file(weights, copy / "model.safetensors")
    return copy


async def test_real_engines(bench: Bench) -> None:
    """The reference model as it is, and with weights rounded as bf16 and as fp8 have them, by real HTTP: the
    coarser the larger the shifts, nothing systematic, and near-ties explain what differs."""
    folders = (reference.FOLDER, rounded(bench.folder, 7), rounded(bench.folder, 3))
    async with (
        listening(load(folders[0]).app()) as whole,
        listening(load(folders[1]).app()) as bf16,
        listening(load(folders[2]).app()) as fp8,
    ):
        await bench.run(
            f"f16={whole}",
            f"bf16={bf16}",
            f"fp8={fp8}",
            tasks="sample_hellaswag",
            tokenizer=(str(reference.FOLDER),),
            data_dir=None,
            limit=40,
        )
    found = compare(bench.folder / "run", engines=True)
    assert found.drifts is not None
    sizes = {row.endpoint: row.summaries for row in found.drifts.shifts if row.group == "all"}
    assert 0 < sizes["bf16"]["sd"] < sizes["fp8"]["sd"] / 4
    assert abs(sizes["fp8"]["mean"]) < sizes["fp8"]["sd"] / 4
    assert {each.explained for each in found.drifts.predictions} <= {"near-ties", "no difference"}
    folder = found.write()
    for name, expected in (("drift", DRIFT_COLUMNS), ("shifts", SHIFT_COLUMNS), ("worst", WORST_COLUMNS)):
        rows = list(csv.reader((folder / f"{name}.csv").read_text().splitlines()))
        assert tuple(rows[0]) == expected
        assert len(rows) > 1
