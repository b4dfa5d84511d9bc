"""Many comparisons at once, against statsmodels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from harness.comparison.families import benjamini_hochberg, holm, tied_sets

families = st.lists(st.floats(0, 1), min_size=1, max_size=40)
names = "abcdefg"


@given(families)
def test_holm(p_values: list[float]) -> None:
    """Holm's correction is statsmodels'."""
    expected = multipletests(p_values, method="holm")[1]
    assert holm(np.array(p_values)) == pytest.approx(expected)


@given(families)
def test_benjamini_hochberg(p_values: list[float]) -> None:
    """So is the one of Benjamini and Hochberg."""
    expected = multipletests(p_values, method="fdr_bh")[1]
    assert benjamini_hochberg(np.array(p_values)) == pytest.approx(expected)


def test_one_comparison_needs_no_correction() -> None:
    """A family of one keeps its p."""
    assert holm(np.array([0.03])) == pytest.approx([0.03])
    assert benjamini_hochberg(np.array([0.03])) == pytest.approx([0.03])


def test_nothing_differs() -> None:
    """Then all are tied."""
    assert tied_sets("abc", []) == [("a", "b", "c")]


def test_ties_do_not_carry_over() -> None:
    """The best and the worst differ, the one between is tied with both."""
    assert tied_sets("abc", [("a", "c")]) == [("a", "b"), ("b", "c")]


def test_all_differ() -> None:
    """Then each stands alone, best first."""
    assert tied_sets("abc", list(combinations("abc", 2))) == [("a",), ("b",), ("c",)]


@given(st.sets(st.sampled_from(list(combinations(names, 2)))))
def test_tied_sets_are_the_maximal_ones(different: set[tuple[str, str]]) -> None:
    """No set holds a pair that differs, every pair that does not is in one, and none lies inside another."""
    found = [frozenset(each) for each in tied_sets(names, different)]
    for pair in combinations(names, 2):
        together = any(set(pair) <= each for each in found)
        assert together == (pair not in different)
    assert not any(one < other for one in found for other in found)
    assert set(names) == set().union(*found)
