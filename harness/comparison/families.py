"""Many comparisons at once: corrected p-values, and which endpoints are tied; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from harness.comparison.paired import Floats


def holm(p_values: Floats) -> Floats:
    """Adjusted so that the chance of any false alarm in the family is bounded (Holm 1979).

    Args:
        p_values: shape (family,), none of them NaN.
    """
    count, order = len(p_values), np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (count - np.arange(count)))
    return _put_back(stepped, order)


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Adjusted so that the expected share of false alarms among the alarms is bounded (BH 1995).

    Args:
        p_values: shape (family,), none of them NaN.
    """
    count, order = len(p_values), np.argsort(p_values, kind="stable")
    raised = p_values[order] * count / np.arange(1, count + 1)
    return _put_back(np.minimum.accumulate(raised[::-1])[::-1], order)


def tied_sets(ranked: Sequence[str], different: Collection[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The largest sets within which no two are shown to differ, best first.

    The letters of a compact letter display (Piepho 2004, insert and absorb), one set a letter. An endpoint
    may be in several: "not shown to differ" does not carry over from pair to pair.

    Args:
        ranked: names, best first.
        different: pairs that are shown to differ, in either order.
    """
    sets: list[frozenset[str]] = [frozenset(ranked)]
    for first, second in sorted(different):
        split = [part for each in sets for part in _without_both(each, first, second)]
        sets = [each for each in dict.fromkeys(split) if not any(each < other for other in split)]
    places = {name: place for place, name in enumerate(ranked)}
    listed = [tuple(sorted(each, key=places.__getitem__)) for each in sets]
    return sorted(listed, key=lambda names: [places[name] for name in names])


def _without_both(names: frozenset[str], first: str, second: str) -> list[frozenset[str]]:
    if first in names and second in names:
        return [names - {first}, names - {second}]
    return [names]


def _put_back(sorted_values: Floats, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    """Values in the order before sorting, none above 1."""
    values = np.empty(len(order))
    values[order] = np.minimum(sorted_values, 1.0)
    return values
