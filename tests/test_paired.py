"""The mean of paired differences, against statsmodels and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from harness.comparison.paired import (
    Clusters,
    Floats,
    Integers,
    MeanError,
    Projection,
    clusters,
    mean_error,
    p_mcnemar,
    p_sign_flip,
)
from harness.comparison.resampling import RESAMPLES, bootstrap

few = st.integers(-1, 1)
"""A flip: right to wrong, none, wrong to right."""


def some(n: int = 200, *, per_cluster: int = 1, seed: int = 0) -> tuple[Floats, Integers]:
    """Differences of continuous values with something in common inside clusters."""
    generator = np.random.default_rng(seed)
    codes = np.arange(n) // per_cluster
    return generator.normal(0.1, 1.0, n) + generator.normal(0, 1.0, n)[codes], codes.astype(np.int64)


def plain(values: Floats, codes: Integers) -> MeanError:
    """The error of a mean, nothing added."""
    return mean_error(clusters(values, codes), flips=False)


@pytest.mark.parametrize("per_cluster", [1, 3, 7])
def test_clustered_error(per_cluster: int) -> None:
    """The standard error is the cluster-robust one of a regression on nothing but a constant."""
    values, codes = some(per_cluster=per_cluster)
    fit = OLS(values, np.ones_like(values)).fit(cov_type="cluster", cov_kwds={"groups": codes})
    found = plain(values, codes)
    assert found.mean == pytest.approx(float(fit.params[0]))
    assert found.stderr == pytest.approx(float(fit.bse[0]))


def test_error_of_single_items() -> None:
    """Where every item stands alone, interval and p are those of the paired t-test."""
    values, codes = some()
    found, reference = plain(values, codes), DescrStatsW(values)
    assert found.interval() == pytest.approx(reference.tconfint_mean())
    assert found.p_differs() == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    assert found.stderr == pytest.approx(stats.sem(values))


def test_mean_over_tokens() -> None:
    """A mean over tokens is a ratio of sums; its error is the usual one of a ratio."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 20, 300).astype(np.float64)
    sums = sizes * 0.2 + generator.normal(0, 1, 300)
    found = clusters(sums, np.arange(300), sizes)
    assert found.mean == pytest.approx(sums.sum() / sizes.sum())
    residuals = sums - found.mean * sizes
    expected = math.sqrt(len(sums) * float(np.var(residuals, ddof=1))) / float(sizes.sum())
    assert found.stderr == pytest.approx(expected)


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5])
def test_equivalence(margin: float) -> None:
    """Two one-sided tests, as statsmodels has them for pairs."""
    values, codes = some()
    p_value = ttost_paired(values, np.zeros_like(values), -margin, margin)[0]
    assert plain(values, codes).p_within(margin) == pytest.approx(p_value)


def test_flips_get_one_more_each_way() -> None:
    """Equivalence and interval of flips are the textbook's, of the items with a flip more each way."""
    values = np.array([1.0] * 9 + [-1.0] * 4 + [0.0] * 187)
    found = mean_error(clusters(values, np.arange(200)), flips=True)
    more = np.append(values, (1.0, -1.0))
    half = stats.t.ppf(0.975, 199) * stats.sem(more)
    assert found.interval() == pytest.approx((more.mean() - half, more.mean() + half))
    reference = ttost_paired(more, np.zeros_like(more), -0.05, 0.05)[0]  # its t counts the two flips too
    assert found.p_within(0.05) == pytest.approx(reference, rel=1e-3)
    # Bonett and Price (2012): (c + 1 - b - 1) / (n + 2), with that table's own variance.
    gained, lost, n = 10 / 202, 5 / 202, 202
    wald = math.sqrt((gained + lost - (gained - lost) ** 2) / n)
    assert found.mean == pytest.approx(gained - lost)
    assert found.stderr == pytest.approx(wald, rel=0.003)  # n - 1 in place of n


def test_no_flip_is_no_certainty() -> None:
    """Ten items without a flip are not shown to be equivalent within a point; ten thousand are."""
    for n, shown in ((10, False), (10_000, True)):
        found = mean_error(clusters(np.zeros(n), np.arange(n)), flips=True)
        assert (found.p_within(0.01) < 0.05) == shown


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar(gained: int, lost: int) -> None:
    """The exact test is statsmodels'; the mid-p form takes off half the chance of what happened."""
    table = [[0, gained], [lost, 0]]
    assert p_mcnemar(gained, lost) == pytest.approx(mcnemar(table, exact=True).pvalue)
    if gained + lost:
        fewer, n = min(gained, lost), gained + lost
        mid = 2 * (stats.binom.cdf(fewer, n, 0.5) - 0.5 * stats.binom.pmf(fewer, n, 0.5))
        assert p_mcnemar(gained, lost, mid=True) == pytest.approx(min(1.0, mid))


@given(st.lists(few, min_size=1, max_size=120))
def test_swapping_single_items_is_mcnemar(flips: list[int]) -> None:
    """Where no cluster holds more than one flip, swapping whole clusters is McNemar's exact test."""
    expected = mcnemar([[0, flips.count(1)], [flips.count(-1), 0]], exact=True).pvalue
    assert p_sign_flip(np.array(flips, np.float64)) == pytest.approx(expected)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=12))
def test_swapping_clusters_by_enumeration(sums: list[int]) -> None:
    """Its p is the share of all ways to swap clusters whose total is at least as far from 0."""
    signs = np.array(np.meshgrid(*[(-1, 1)] * len(sums))).reshape(len(sums), -1)
    totals = np.abs(np.array(sums) @ signs)
    expected = float((totals >= abs(sum(sums))).mean())
    assert p_sign_flip(np.array(sums, np.float64)) == pytest.approx(min(1.0, expected))


def test_swapping_clusters_against_scipy() -> None:
    """It agrees with scipy's permutation test of paired samples, drawn at random."""
    sums = np.array([3, -1, 2, 2, -4, 1, 1, 5, -2, 1, 3, 2, -1, 4], np.float64)
    drawn = stats.permutation_test(
        (sums, np.zeros_like(sums)),
        lambda a, b, axis: np.sum(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10**9,  # more than there are: all are enumerated
    )
    assert p_sign_flip(sums) == pytest.approx(drawn.pvalue)


def test_thousands_of_flips() -> None:
    """Far in the tail the exact p keeps its relative precision."""
    sums = np.array([1.0] * 3_000 + [-1.0] * 2_000)
    assert p_sign_flip(sums) == pytest.approx(stats.binomtest(2_000, 5_000).pvalue, rel=1e-9)


@pytest.mark.parametrize("per_cluster", [1, 5])
def test_bootstrap(per_cluster: int) -> None:
    """The percentile interval agrees with scipy's, which resamples clusters likewise."""
    values, codes = some(400, per_cluster=per_cluster)
    sums = np.bincount(codes, values)
    drawn = stats.bootstrap(
        (sums / per_cluster,), np.mean, n_resamples=4 * RESAMPLES, method="percentile", rng=3
    )
    [(low, high)] = bootstrap(values[None], codes)
    width = drawn.confidence_interval.high - drawn.confidence_interval.low
    assert low == pytest.approx(drawn.confidence_interval.low, abs=0.06 * width)
    assert high == pytest.approx(drawn.confidence_interval.high, abs=0.06 * width)


def test_bootstrap_shares_its_draws() -> None:
    """Series over the same items are drawn together: their intervals differ as the series do."""
    values, codes = some(100, per_cluster=2)
    first, second = bootstrap(np.stack([values, values + 3]), codes)
    assert second == pytest.approx([bound + 3 for bound in first])


def test_bootstrap_leaves_out_what_is_missing() -> None:
    """An item without a value counts for nothing."""
    values, codes = some(100)
    values[10:20] = np.nan
    [(low, high)] = bootstrap(values[None], codes)
    assert low < np.nanmean(values) < high


def test_detectable_difference() -> None:
    """What is called detectable is found with 80 % power, by statsmodels' reckoning."""
    values, codes = some(2_000)
    found = plain(values, codes)
    power = TTestPower().power(found.detectable() / float(np.std(values, ddof=1)), len(values), 0.05)
    assert power == pytest.approx(0.80, abs=0.001)


def test_items_needed() -> None:
    """Miller's (2024) example: a variance of 1/9 and a difference of 0.03 take 969 items."""
    assert Projection(0.03, 1 / 9, flips=False).to_differ() == 969
    assert Projection(0.0, 1 / 9, flips=False).to_differ() == math.inf


def test_items_to_be_equivalent() -> None:
    """With that many items two one-sided tests succeed in 80 of 100 cases, by simulation."""
    generator, margin = np.random.default_rng(5), 0.3
    for mean in (0.0, 0.1):
        n = int(Projection(mean, 1.0, flips=False).to_lie_within(margin))
        drawn = generator.normal(mean, 1.0, (4_000, n))
        errors = drawn.std(axis=1, ddof=1) / math.sqrt(n)
        reach = stats.t.ppf(0.95, n - 1) * errors
        shown = float((np.abs(drawn.mean(axis=1)) + reach < margin).mean())
        assert shown == pytest.approx(0.80, abs=0.03)


def test_items_that_show_no_difference() -> None:
    """Without a single flip so far, as many items as are said to do are then shown to be equivalent."""
    n = int(Projection(0.0, 0.0, flips=True).to_lie_within(0.01))
    shown = mean_error(clusters(np.zeros(n), np.arange(n)), flips=True)
    assert shown.p_within(0.01) < 0.05
    fewer = mean_error(clusters(np.zeros(n // 2), np.arange(n // 2)), flips=True)
    assert fewer.p_within(0.01) > 0.05


def test_items_that_keep_a_bound() -> None:
    """What is said to show that a mean lies above a bound does so in 80 of 100 cases, by simulation."""
    n = int(Projection(0.1, 1.0, flips=False).to_exceed(-0.1))
    drawn = np.random.default_rng(6).normal(0.1, 1.0, (4_000, n))
    reach = stats.t.ppf(0.95, n - 1) * drawn.std(axis=1, ddof=1) / math.sqrt(n)
    assert float((drawn.mean(axis=1) - reach > -0.1).mean()) == pytest.approx(0.80, abs=0.03)


def test_noise_keeps_intervals_honest() -> None:
    """No interval is shorter than repeating the same requests makes it."""
    same = clusters(np.zeros(100), np.arange(100))
    assert mean_error(same, flips=False).stderr == 0
    assert mean_error(same, flips=False, noise=0.04).stderr == pytest.approx(math.sqrt(0.04 / 100))
    values, codes = some()
    assert mean_error(clusters(values, codes), flips=False, noise=1e-9) == plain(values, codes)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few(n: int) -> None:
    """Below two clusters there is no error, and nothing is shown."""
    found = mean_error(clusters(np.ones(n), np.arange(n)), flips=False)
    assert math.isnan(found.stderr)
    assert math.isnan(found.p_differs())
    assert all(map(math.isnan, found.interval()))
    assert bootstrap(np.ones((1, n)), np.arange(n)) == [pytest.approx((math.nan, math.nan), nan_ok=True)]


def test_identical_endpoints() -> None:
    """Without any difference there is nothing to find, and no number of items would find it."""
    found = plain(np.zeros(50), np.arange(50))
    assert found.p_differs() == 1.0
    assert p_sign_flip(np.zeros(50)) == 1.0


@given(st.lists(st.tuples(few, st.integers(0, 9)), min_size=2, max_size=80))
def test_order_does_not_matter(items: list[tuple[int, int]]) -> None:
    """The same items in another order give the same mean and error."""
    values, codes = (np.array(column) for column in zip(*items, strict=True))
    one = clusters(values.astype(np.float64), codes)
    other = clusters(values[::-1].astype(np.float64), codes[::-1])
    assert one.mean == pytest.approx(other.mean)
    assert one.stderr == pytest.approx(other.stderr, nan_ok=True)
    assert isinstance(one, Clusters)
