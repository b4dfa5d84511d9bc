"""What stopping early saves: `python -m tests.stopping` prints the table of harness/README.md.

Simulated benchmarks whose difference is known; each is compared in many random orders, looked at after every
item.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.comparison.sequential import Sequential
from harness.settings import MARGIN

DIFFERENCES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05)
ROUNDS = 200


@dataclass(frozen=True)
class Whole:
    """A benchmark of so many items, a share of which falls out differently on two endpoints."""

    items: int
    flips: float

    def differences(self, difference: float) -> np.ndarray:
        """All items' differences, whose mean is (nearly) `difference`."""
        gained = round(self.items * (self.flips + difference) / 2)
        lost = round(self.items * (self.flips - difference) / 2)
        return np.concatenate([np.ones(gained), -np.ones(lost), np.zeros(self.items - gained - lost)])


@dataclass(frozen=True)
class Saving:
    """What came of the rounds of one benchmark and difference."""

    whole: Whole
    difference: float
    asked: float
    """Mean share of the items that decided."""
    most: float
    """Nine in ten needed no more."""
    better: float
    """Share of the rounds that ended so; likewise `equivalent`."""
    equivalent: float
    wrong: float
    """Share of the rounds that ended with what is not true."""


WHOLES = (Whole(10_042, 0.05), Whole(10_042, 0.15), Whole(1_172, 0.10))
"""HellaSwag's size with endpoints that are close and less close, and ARC-Challenge's."""


def savings(wholes: Sequence[Whole], *, rounds: int) -> list[Saving]:
    """Simulate every benchmark with every difference that its flips allow."""
    return list(_savings(wholes, rounds))


def _savings(wholes: Sequence[Whole], rounds: int) -> Iterator[Saving]:
    generator = np.random.default_rng(31)
    for whole in wholes:
        weights = np.full(whole.items, 1 / whole.items)
        for difference in DIFFERENCES:
            if difference > whole.flips:
                continue
            values = whole.differences(difference)
            ended = []
            for _ in range(rounds):
                seen = generator.permutation(values)
                found = Sequential(weights, margin=MARGIN)
                found.add(seen, seen)
                ended.append((found.verdict, (found.decided_at or whole.items) / whole.items))
            shares = [share for _, share in ended]
            told = {
                name: sum(said == name for said, _ in ended) / rounds for name in ("better", "equivalent")
            }
            true = {"better"} if values.mean() > 0 else set()
            true |= {"equivalent"} if abs(values.mean()) < MARGIN else set()
            wrong = sum(said not in true and said != "undecided" for said, _ in ended) / rounds
            yield Saving(
                whole,
                difference,
                float(np.mean(shares)),
                float(np.quantile(shares, 0.9)),
                **told,
                wrong=wrong,
            )


def lines() -> Iterator[str]:
    """The table in Markdown."""
    header = "items", "flips", "difference, points", "asked", "nine in ten", "better", "equivalent", "wrong"
    yield f"| {' | '.join(header)} |"
    yield "|" + " ---: |" * len(header)
    for row in savings(WHOLES, rounds=ROUNDS):
        cells = (row.asked, row.most, row.better, row.equivalent, row.wrong)
        told = " | ".join(f"{100 * cell:.0f} %" for cell in cells)
        yield f"| {row.whole.items:,} | {100 * row.whole.flips:.0f} % | {100 * row.difference:g} | {told} |"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines())
