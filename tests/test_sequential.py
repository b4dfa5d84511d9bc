"""A comparison that may be looked at after every item: its promises by simulation, and what it rests on."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.comparison.ordering import random_order, shares, waiting_time
from harness.comparison.paired import LEVEL, Floats
from harness.comparison.sequential import Sequential, bets
from tests.stopping import WHOLES, Whole, savings

COMPARISONS = 2_000
TOLERANCE = 2 * math.sqrt(LEVEL * (1 - LEVEL) / COMPARISONS)
MARGIN = 0.02


@dataclass(frozen=True)
class Benchmark:
    """All differences of a pair over a benchmark, task by task; what is compared is the mean over tasks."""

    name: str
    tasks: tuple[tuple[int, int, int], ...]
    """Of each task: items, those gained, those lost."""
    per_cluster: int = 1
    """Items that share a source, and are gained or lost together."""

    def __str__(self) -> str:
        return self.name

    @property
    def differences(self) -> Floats:
        """In the order of the files: gained first, then lost, which no order but a random one survives."""
        parts = []
        for items, gained, lost in self.tasks:
            values = np.zeros(items)
            values[: gained * self.per_cluster] = 1
            values[gained * self.per_cluster : (gained + lost) * self.per_cluster] = -1
            parts.append(values)
        return np.concatenate(parts)

    @property
    def weights(self) -> Floats:
        """The share of each item."""
        return shares([str(at) for at, (items, _, _) in enumerate(self.tasks) for _ in range(items)])

    @property
    def truth(self) -> float:
        """The difference over the whole."""
        return float(self.differences @ self.weights)


def drawn(weights: Floats, generator: np.random.Generator) -> np.ndarray:
    """An order as `random_order` makes it, out of another source of chance."""
    return np.argsort(generator.standard_exponential(len(weights)) / weights)


EQUAL = [
    Benchmark("5 % flip", ((500, 13, 13),)),
    Benchmark("20 % flip", ((500, 50, 50),)),
    Benchmark("few items", ((60, 6, 6),)),
    Benchmark("clusters of ten", ((500, 5, 5),), per_cluster=10),
    Benchmark("tasks that differ both ways", ((500, 20, 0), (125, 0, 5))),
    Benchmark("three tasks of unlike size", ((500, 25, 25), (120, 12, 12), (30, 3, 3))),
]


@pytest.mark.parametrize("benchmark", EQUAL, ids=str)
def test_false_alarms(benchmark: Benchmark) -> None:
    """Looked at after every item, equal endpoints are ever called better or worse no oftener than the level
    allows: the interval leaves out the truth no oftener at any time."""
    assert benchmark.truth == pytest.approx(0.0, abs=1e-12)
    generator, alarms = np.random.default_rng(21), 0
    values, weights = benchmark.differences, benchmark.weights
    for _ in range(COMPARISONS):
        order = drawn(weights, generator)
        found = Sequential(weights[order], margin=0.0)
        found.add(values[order], values[order])
        alarms += found.verdict in ("better", "worse")
    assert alarms / COMPARISONS <= LEVEL + TOLERANCE


@pytest.mark.parametrize("flips", [0.05, 0.2])
def test_false_equivalence(flips: float) -> None:
    """Endpoints that differ by just the margin are called equivalent, or the wrong way round, no oftener."""
    items = 500
    gained, lost = round(items * (flips + MARGIN) / 2), round(items * (flips - MARGIN) / 2)
    benchmark = Benchmark("", ((items, gained, lost),))
    values, weights = benchmark.differences, benchmark.weights
    generator, wrong = np.random.default_rng(22), 0
    for _ in range(COMPARISONS):
        order = drawn(weights, generator)
        found = Sequential(weights, margin=MARGIN)
        found.add(values[order], values[order])
        wrong += found.verdict in ("equivalent", "worse")
    assert wrong / COMPARISONS <= LEVEL + TOLERANCE


def test_false_alarms_where_items_fail() -> None:
    """Failures that fall on just the items that one endpoint would have lost raise no false alarms: they are
    put in at their worst, while leaving them out calls equal endpoints different nearly always."""
    benchmark, generator = EQUAL[1], np.random.default_rng(23)
    values, weights = benchmark.differences, benchmark.weights
    alarms = naive = 0
    for _ in range(COMPARISONS // 4):
        order = drawn(weights, generator)
        seen = values[order]
        failed = (seen < 0) & (generator.random(len(seen)) < 0.9)
        found = Sequential(weights, margin=0.0)
        found.add(np.where(failed, -1.0, seen), np.where(failed, 1.0, seen))
        alarms += found.verdict in ("better", "worse")
        kept = seen[~failed]
        without = Sequential(np.full(len(kept), 1 / len(kept)), margin=0.0)
        without.add(kept, kept)
        naive += without.verdict == "better"
    assert alarms / (COMPARISONS // 4) <= LEVEL
    assert naive / (COMPARISONS // 4) > 0.9


def test_looking_at_p_would_fail() -> None:
    """The same peeking at a fixed-size interval gives far too many false alarms, and so does the order of the
    file: the simulation can fail."""
    benchmark, generator = EQUAL[0], np.random.default_rng(24)
    values, weights, alarms = benchmark.differences, benchmark.weights, 0
    for _ in range(500):
        seen = values[drawn(weights, generator)]
        count = np.arange(1, len(seen) + 1)
        mean = np.cumsum(seen) / count
        stderr = np.sqrt(np.maximum(np.cumsum(seen**2) / count - mean**2, 0) / count)
        alarms += bool((np.abs(mean) > 1.96 * stderr)[50:].any())
    assert alarms / 500 > 2 * LEVEL
    as_filed = Sequential(weights, margin=0.0)
    as_filed.add(values, values)
    assert as_filed.verdict == "better"


def test_interval_holds_the_truth() -> None:
    """Stopped at a moment that was chosen to mislead, the interval still holds the difference."""
    benchmark, generator = Benchmark("", ((600, 45, 30),)), np.random.default_rng(25)
    values, weights, missed, rounds = benchmark.differences, benchmark.weights, 0, 200
    for _ in range(rounds):
        order = drawn(weights, generator)
        seen = values[order]
        means = np.cumsum(seen) / np.arange(1, len(seen) + 1)
        stop = 20 + int(np.abs(means[20:] - benchmark.truth).argmax()) + 1
        found = Sequential(weights, margin=0.0)
        found.add(seen[:stop], seen[:stop])
        state = found.state(whole=True)
        missed += not state.low - 1e-9 <= benchmark.truth <= state.high + 1e-9
    assert missed / rounds <= LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / rounds)


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60),
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
    st.sampled_from([0.0, 0.05, 0.3]),
)
@settings(max_examples=60)
def test_parts_do_not_matter(values: list[float], sizes: list[int], margin: float) -> None:
    """However the items are dealt out to looks, the same item decides, and the whole interval is the same."""
    seen = np.array(values)
    weights = np.full(len(seen), 1 / len(seen))
    at_once, dealt = (Sequential(weights, margin=margin) for _ in range(2))
    at_once.add(seen, seen)
    start = 0
    for turn in range(len(seen)):
        part = seen[start : start + sizes[turn % len(sizes)]]
        if len(part):
            dealt.add(part, part)
        start += len(part)
    assert dealt.state() == at_once.state()
    assert dealt.decided_at == at_once.decided_at


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=40),
    st.integers(0, 39),
    st.lists(st.integers(1, 5), min_size=40, max_size=40),
)
@settings(max_examples=60)
def test_what_is_not_known_never_helps(pairs: list[tuple[float, float]], stop: int, sizes: list[int]) -> None:
    """The interval of items known only within bounds holds that of any values within them, whatever the
    shares; and it never leaves what is still possible."""
    ends = np.sort(np.array(pairs), axis=1)
    low, high = ends[:, 0], ends[:, 1]
    weights = np.array(sizes[: len(low)], float)
    weights /= weights.sum()
    between = (low + high) / 2
    taken = min(stop + 1, len(low))
    wide, narrow = (Sequential(weights, margin=0.1) for _ in range(2))
    wide.add(low[:taken], high[:taken])
    narrow.add(between[:taken], between[:taken])
    outer, inner = wide.state(whole=True), narrow.state(whole=True)
    assert outer.low <= inner.low + 1e-5
    assert outer.high >= inner.high - 1e-5
    assert outer.p_value >= inner.p_value - 1e-9
    rest = 1 - weights[:taken].sum()
    seen = float(between[:taken] @ weights[:taken])
    assert seen - rest - 1e-6 <= inner.low <= inner.high + 1e-5 <= seen + rest + 2e-5


@pytest.mark.parametrize(
    ("gained", "lost", "said"), [(6, 5, "better"), (5, 6, "worse"), (5, 5, "equivalent")]
)
def test_all_items_are_an_answer(gained: int, lost: int, said: str) -> None:
    """Once all items are asked the difference is known exactly, and the interval is a point."""
    values, weights = Benchmark("", ((100, gained, lost),)).differences, np.full(100, 0.01)
    order = np.random.default_rng(4).permutation(100)
    found = Sequential(weights, margin=0.0)
    found.add(values[order], values[order])
    assert found.verdict == said
    state = found.state(whole=True)
    assert state.low == pytest.approx(values.mean(), abs=1e-9)
    assert state.high == pytest.approx(values.mean(), abs=1e-9)


def test_one_unknown_item_can_leave_it_open() -> None:
    """Where all items are asked and one that decides could not be scored, nothing is decided."""
    found = Sequential(np.full(4, 0.25), margin=0.0)
    found.add(np.array([0, -1.0, 0, 0]), np.array([0, 1.0, 0, 0]))
    assert found.over
    assert found.verdict == "undecided"
    assert found.state().unknown == 1
    assert found.state().low == pytest.approx(-0.25)
    assert found.state().high == pytest.approx(0.25)


def ordered(sizes: dict[str, int], seed: int) -> list[tuple[str, int]]:
    """Items of some tasks in the order in which they are asked."""
    places = [(task, index) for task, size in sizes.items() for index in range(size)]
    times = np.array([waiting_time(seed, task, "", index) for task, index in places])
    return [places[each] for each in random_order(times, shares([task for task, _ in places]))]


def test_orders() -> None:
    """An order holds every item once, is that of its seed, and does not depend on what else is asked."""
    first, again, other = (ordered({"a": 300}, seed) for seed in (0, 0, 1))
    assert sorted(first) == [("a", index) for index in range(300)]
    assert first == again
    assert first != other
    assert ordered({"a": 100}, 0) == [each for each in first if each[1] < 100]
    assert [each for each in ordered({"a": 300, "b": 40}, 0) if each[0] == "a"] == first


def test_small_tasks_come_first() -> None:
    """Of two tasks as many items of each are asked while there are any of the smaller one."""
    early = Counter(task for task, _ in ordered({"big": 3_000, "small": 300}, 0)[:200])
    assert early["small"] == pytest.approx(100, abs=30)


@pytest.mark.parametrize("items", [1, 2, 10, 10_000, 10**6])
def test_bets_fit_the_items(items: int) -> None:
    """Bets go from 1 down to what suits the most even benchmark, and not far beyond."""
    found = bets(items, LEVEL)
    suited = math.sqrt(2 * math.log(2 / LEVEL) / items)
    assert found[0] == 1
    assert found[-1] <= max(suited, 1) and found[-1] >= min(suited, 1) / 2


def test_savings() -> None:
    """The larger the difference, the fewer items decide; the table that the documents show says so."""
    rows = savings(WHOLES[:1], rounds=20)
    shares_asked = [row.asked for row in rows if abs(row.difference) >= 0.01]
    assert shares_asked == sorted(shares_asked, reverse=True)
    assert rows[-1].asked < 0.15
    assert all(row.wrong <= 0.15 for row in rows)
    assert isinstance(WHOLES[0], Whole)
