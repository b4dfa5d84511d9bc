"""A run cut into shards; pure.

A shard is what one worker, or one job of many, does: items whole, neighbours together, so that what begins
alike is computed by the same server. Which items shard i of n holds depends on nothing but the suite.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.errors import UsageError

NEAR = 0.25
"""A cut moves to where other shots begin if that is no farther than this share of a shard."""
MOST = 100_000
"""Shards of a run."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `number` of `of`, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """What its folder is called."""
        return f"{self.number}-of-{self.of}"

    def part(self, amount: int) -> int:
        """Its part of a number of things: those of all shards add up to it."""
        return amount * self.number // self.of - amount * (self.number - 1) // self.of


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring items of one task."""

    task: int
    """Position of the task in the suite."""
    start: int
    """The first of them, counted among the task's items that are asked for."""
    stop: int
    """The first that is not."""

    def __len__(self) -> int:
        return self.stop - self.start


def parse_shard(text: str) -> Shard:
    """What `--shard` says.

    Raises:
        UsageError: it is not "I/N" with I from 1 to N.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]) <= MOST:
        raise UsageError(f"--shard {text}: give I/N, I from 1 to N, such as 3/16 (N at most {MOST:,})")
    return Shard(int(found[1]), int(found[2]))


def cut(
    size: int,
    shards: int,
    *,
    breaks: Sequence[int] = (),
    joined: Collection[int] = frozenset(),
    shift: int = 0,
) -> list[range]:
    """Positions cut into so many runs of neighbours, about equally long; some are empty if there are too few.

    Args:
        size: how many positions.
        shards: how many runs.
        breaks: where other beginnings (shots) start, ascending; a cut is moved there from nearby.
        joined: positions that stay with the one before, as both are about the same text.
        shift: which runs are the longer ones; of several tasks each has another, so that the last run does
            not get all that is left over.
    """
    near = NEAR * size / shards
    cuts = [0]
    for number in range(1, shards):
        ideal = (number * size + shift % shards) // shards
        at = _nearest(breaks, ideal, near)
        if at is None:
            at = _apart(ideal, joined, size)
        cuts.append(max(cuts[-1], at))
    return [range(start, stop) for start, stop in zip(cuts, [*cuts[1:], size], strict=True)]


def _nearest(breaks: Sequence[int], ideal: int, near: float) -> int | None:
    """The break that is nearest, if it is near."""
    at = bisect_left(breaks, ideal)
    found = min(breaks[max(0, at - 1) : at + 1], key=lambda each: abs(each - ideal), default=None)
    return found if found is not None and abs(found - ideal) <= near else None


def _apart(ideal: int, joined: Collection[int], size: int) -> int:
    """The first position from here on that may be parted from the one before."""
    while ideal < size and ideal in joined:
        ideal += 1
    return ideal
