"""The items of two endpoints joined: the same questions, and what only stands in their place; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Columns, Place
from harness.plan import FORCED


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An item that cannot be compared."""

    baseline: str
    endpoint: str
    place: Place
    why: str
    """In words that count: the same for all items of one kind."""


@dataclass(frozen=True, slots=True)
class Matched:
    """Two endpoints' items, joined: position k of both arrays is the same question."""

    baseline: Columns
    other: Columns
    at: NDArray[np.int64]
    """Positions in the baseline's columns, in its order."""
    other_at: NDArray[np.int64]
    mismatches: tuple[Mismatch, ...]


def match(baseline: Columns, other: Columns) -> Matched:
    """Join on task, shots, subject, index and prompt hash; choices and gold must agree too.

    Items that either was not asked, because a comparison was decided without them, are passed over.
    """
    there = {place: position for position, place in enumerate(other.places)}
    asked, other_asked = _asked(baseline), _asked(other)
    pairs: list[tuple[int, int]] = []
    mismatches: list[Mismatch] = []
    for position, place in enumerate(baseline.places):
        found = there.pop(place, None)
        if not (_is_asked(baseline, position) and (found is None or _is_asked(other, found))):
            continue
        if found is None:
            why = f"only in {baseline.label}"
        else:
            why = _difference(asked[position], other_asked[found])
        if found is None or why:
            mismatches.append(Mismatch(baseline.label, other.label, place, why))
        else:
            pairs.append((position, found))
    mismatches += [
        Mismatch(baseline.label, other.label, place, f"only in {other.label}")
        for place, position in there.items()
        if _is_asked(other, position)
    ]
    at = np.array(pairs, np.int64).reshape(-1, 2)
    return Matched(baseline, other, at[:, 0], at[:, 1], tuple(mismatches))


def mismatch_summary(mismatches: Sequence[Mismatch]) -> list[str]:
    """One line for each kind of mismatch: how many, and the first."""
    counts = Counter((each.baseline, each.endpoint, each.why) for each in mismatches)
    first: dict[tuple[str, str, str], Place] = {}
    for each in mismatches:
        first.setdefault((each.baseline, each.endpoint, each.why), each.place)
    return [
        f"{baseline} and {endpoint}: {count:,} {'item' if count == 1 else 'items'} {why}, first"
        f" {first[baseline, endpoint, why]}"
        for (baseline, endpoint, why), count in counts.items()
    ]


_Asked = tuple[str, tuple[int, ...], tuple[int, ...], str]
"""Of one item: hash of its prompt, bytes of its choices, gold, how it was asked."""


def _asked(columns: Columns) -> list[_Asked]:
    modes = columns.modes or [FORCED] * len(columns.places)
    return list(
        zip(columns.prompt_hash, columns.choice_bytes.lists(), columns.gold.lists(), modes, strict=True)
    )


def _is_asked(columns: Columns, position: int) -> bool:
    return columns.stopped is None or bool(columns.stopped.asked[position])


def _difference(one: _Asked, other: _Asked) -> str:
    """Why two items of one place are not the same question, or nothing.

    An item that one endpoint never planned (a run broken off) has no prompt to compare: it is unscored there
    and is counted as such.
    """
    if one == other:
        return ""
    (prompt, choices, gold, mode), (other_prompt, other_choices, other_gold, other_mode) = one, other
    if prompt and other_prompt and prompt != other_prompt:
        return "with another prompt"
    if choices != other_choices:
        return "with other choices"
    if gold != other_gold:
        return "with another gold"
    forced = prompt and other_prompt and mode != other_mode
    return (
        "forced on one side, read off alternatives on the other (--no-shortcut forces all)" if forced else ""
    )
