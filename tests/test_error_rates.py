"""Does it keep its promises? Simulated comparisons of endpoints whose true difference is known.

Every setting is 2,000 comparisons. A rate estimated from so many has a Monte-Carlo standard error of its own,
which the limits allow for twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from harness.comparison.estimating import Draft
from harness.comparison.findings import Row
from harness.comparison.paired import LEVEL, Floats, Integers, clusters, mean_error, p_sign_flip
from harness.comparison.verdicts import suite_drafts
from harness.scoring.estimates import wilson

COMPARISONS = 2_000
TOLERANCE = 2 * math.sqrt(LEVEL * (1 - LEVEL) / COMPARISONS)


@dataclass(frozen=True)
class Setting:
    """Two endpoints and some items."""

    n: int
    discordant: float
    """Share of items that one has right and the other wrong."""
    difference: float
    """True difference of accuracy."""
    per_cluster: int = 1
    alike: float = 0.0
    """How strongly flips of one cluster go together: the chance that an item copies its cluster."""

    def __str__(self) -> str:
        clustered = f", clusters of {self.per_cluster}" if self.per_cluster > 1 else ""
        return f"{self.n} items, {self.discordant} flip, {self.difference:+}{clustered}"

    def draw(self, generator: np.random.Generator) -> tuple[Floats, Integers]:
        """The flips of one comparison, and the cluster of each item."""
        count = self.n // self.per_cluster
        codes = np.arange(self.n) // self.per_cluster
        gained, lost = (self.discordant + self.difference) / 2, (self.discordant - self.difference) / 2
        chances = [lost, 1 - self.discordant, gained]
        own = generator.choice([-1.0, 0.0, 1.0], self.n, p=chances)
        shared = generator.choice([-1.0, 0.0, 1.0], count, p=chances)[codes]
        return np.where(generator.random(self.n) < self.alike, shared, own), codes


EQUAL = [
    Setting(200, 0.10, 0.0),
    Setting(500, 0.05, 0.0),
    Setting(2_000, 0.10, 0.0),
    Setting(1_000, 0.10, 0.0, per_cluster=5, alike=0.5),
    Setting(2_000, 0.10, 0.0, per_cluster=10, alike=0.7),
    Setting(3_000, 0.06, 0.0, per_cluster=3, alike=0.5),
]
DIFFERENT = [
    Setting(500, 0.10, 0.03),
    Setting(1_000, 0.06, -0.02),
    Setting(1_000, 0.20, 0.05),
    Setting(1_000, 0.20, 0.05, per_cluster=5, alike=0.5),
    Setting(2_000, 0.10, -0.03, per_cluster=4, alike=0.7),
]


@pytest.mark.parametrize("setting", EQUAL, ids=str)
def test_false_alarms(setting: Setting) -> None:
    """Equal endpoints are called different no more often than the level allows."""
    generator = np.random.default_rng(11)
    alarms = 0
    for _ in range(COMPARISONS):
        values, codes = setting.draw(generator)
        alarms += p_sign_flip(clusters(values, codes).sums) < LEVEL
    assert alarms / COMPARISONS <= LEVEL + TOLERANCE


@pytest.mark.parametrize("setting", EQUAL + DIFFERENT, ids=str)
def test_coverage(setting: Setting) -> None:
    """The 95 % interval holds the true difference in 93.5 to 96.5 of 100 comparisons."""
    generator = np.random.default_rng(12)
    covered = 0
    for _ in range(COMPARISONS):
        low, high = mean_error(clusters(*setting.draw(generator)), flips=True).interval()
        covered += low <= setting.difference <= high
    assert 0.935 <= covered / COMPARISONS <= 0.965


@pytest.mark.parametrize("per_cluster", [1, 4])
def test_log_probabilities(per_cluster: int) -> None:
    """Changes of log-probabilities, skewed and alike inside clusters: false alarms and coverage likewise."""
    generator, n, truth = np.random.default_rng(16), 600, 0.3
    codes = np.arange(n) // per_cluster
    alarms = covered = 0
    for _ in range(COMPARISONS):
        own, shared = (generator.standard_exponential(count) - 1 for count in (n, n // per_cluster))
        values = own + shared[codes]
        alarms += mean_error(clusters(values, codes), flips=False).p_differs() < LEVEL
        low, high = mean_error(clusters(values + truth, codes), flips=False).interval()
        covered += low <= truth <= high
    assert alarms / COMPARISONS <= LEVEL + TOLERANCE
    assert 0.935 <= covered / COMPARISONS <= 0.965


@pytest.mark.parametrize("discordant", [0.05, 0.2])
def test_suite(discordant: float) -> None:
    """The mean over three tasks of unlike size: false alarms and coverage of the suite's row."""
    generator = np.random.default_rng(17)
    settings = [Setting(n, discordant, 0.02) for n in (150, 400, 1_000)]
    covered = alarms = 0
    for _ in range(COMPARISONS):
        low, high, _ = of_suite([setting.draw(generator) for setting in settings])
        covered += low <= 0.02 <= high
        equal = [Setting(setting.n, discordant, 0.0).draw(generator) for setting in settings]
        alarms += of_suite(equal)[2] < LEVEL
    assert alarms / COMPARISONS <= LEVEL + TOLERANCE
    assert 0.935 <= covered / COMPARISONS <= 0.98  # few flips in the smallest task: on the safe side


def of_suite(tasks: Sequence[tuple[Floats, Integers]]) -> tuple[float, float, float]:
    """Interval and p of the suite's row over these flips, by the code that makes it."""
    drafts = []
    for number, (values, codes) in enumerate(tasks):
        found = clusters(values, codes)
        row = Row(
            baseline="a",
            endpoint="b",
            level="task",
            task=str(number),
            statistic="acc",
            unit="fraction",
            headline=True,
            n=len(values),
            unscored=0,
            clusters=found.count,
            difference=found.mean,
            stderr=found.stderr,
            test="mcnemar",
        )
        drafts.append(Draft(row, mean_error(found, flips=True)))
    [suite] = suite_drafts(drafts, 0.01)
    return suite.row.ci_low, suite.row.ci_high, suite.row.p_value


def test_ignoring_clusters_would_fail() -> None:
    """The same clusters taken as single items give far too many false alarms: the simulation can fail."""
    generator, setting = np.random.default_rng(13), EQUAL[4]
    alarms = sum(p_sign_flip(setting.draw(generator)[0]) < LEVEL for _ in range(COMPARISONS))
    assert alarms / COMPARISONS > 3 * LEVEL


@pytest.mark.parametrize("setting", EQUAL[2:4], ids=str)
def test_false_equivalence(setting: Setting) -> None:
    """Endpoints that differ by just the margin are called equivalent no more often than the level allows."""
    margin = 0.02
    shifted = Setting(setting.n, setting.discordant, margin, setting.per_cluster, setting.alike)
    generator = np.random.default_rng(14)
    called = sum(
        mean_error(clusters(*shifted.draw(generator)), flips=True).p_within(margin) < LEVEL
        for _ in range(COMPARISONS)
    )
    assert called / COMPARISONS <= LEVEL + TOLERANCE


@pytest.mark.parametrize("count", [3, 5, 10, 20])
@pytest.mark.parametrize("alike", [0.3, 0.9])
def test_few_clusters(count: int, alike: float) -> None:
    """From a handful of sources of twenty items each an endpoint that is too bad passes no more often."""
    setting, generator = Setting(20 * count, 0.20, -0.05, 20, alike), np.random.default_rng(15)
    passed = sum(
        mean_error(clusters(*setting.draw(generator)), flips=True).interval(2 * LEVEL)[0] > setting.difference
        for _ in range(COMPARISONS)
    )
    assert passed / COMPARISONS <= LEVEL + TOLERANCE


@pytest.mark.parametrize(("right", "n"), [(0, 5), (3, 10), (50, 100), (4_021, 10_042), (7, 7)])
def test_wilson_is_wilson(right: int, n: int) -> None:
    """The interval of a proportion is statsmodels'."""
    assert wilson(right, n) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-12)


@pytest.mark.parametrize("n", [30, 100, 500])
def test_wilson_by_enumeration(n: int) -> None:
    """Its exact coverage, every outcome enumerated, is 95 % on average and hardly ever much less."""
    intervals = [wilson(right, n) for right in range(n + 1)]
    truths = np.linspace(0.1, 0.9, 161)
    chances = stats.binom.pmf(np.arange(n + 1)[:, None], n, truths)
    inside = np.array(
        [
            [low <= truth <= high for truth in truths]
            for low, high in intervals
            if low is not None and high is not None
        ]
    )
    coverage = (chances * inside).sum(axis=0)
    assert coverage.mean() == pytest.approx(0.95, abs=0.005)
    assert coverage.min() > 0.92
