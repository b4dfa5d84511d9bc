"""Endpoints' columns to what serving a model otherwise changes; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.comparison.columns import Columns, TaskFacts
from harness.comparison.engines import ShiftRow, WorstItem, shift_rows, token_shifts, worst_items
from harness.comparison.matching import match
from harness.comparison.measures import pair_up
from harness.comparison.nearties import Drift, drifts
from harness.comparison.nearties import sentence as told
from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class Drifts:
    """What changes from the first endpoint to each of the others."""

    shifts: tuple[ShiftRow, ...]
    worst: tuple[WorstItem, ...]
    predictions: tuple[Drift, ...]


def drift_columns(columns: Sequence[Columns], tasks: Sequence[TaskFacts]) -> Drifts:
    """Hold the first endpoint against each of the others, token by token.

    Args:
        columns: the endpoints, the baseline first.
        tasks: what they were asked.

    Raises:
        UsageError: there is no token to compare.
    """
    shifts: list[ShiftRow] = []
    worst: list[WorstItem] = []
    predictions: list[Drift] = []
    for other in columns[1:]:
        pair = pair_up(match(columns[0], other))
        found = token_shifts(pair)
        if not len(found.shift):
            raise UsageError(
                f"--engines: {columns[0].label} and {other.label} have no token in common: it needs runs with"
                " their journals, made with the same tokenizer"
            )
        shifts += shift_rows(pair, found)
        worst += worst_items(pair, found)
        predictions += drifts(pair, tasks)
    return Drifts(tuple(shifts), tuple(worst), tuple(predictions))


def sentences(found: Drifts) -> Iterator[str]:
    """By how much tokens shift, of each pair, and what becomes of predictions."""
    for row in found.shifts:
        if not row.task and row.group == "all":
            of = row.summaries
            yield (
                f"{row.endpoint} against {row.baseline}: {row.tokens:,} tokens shift by {of['mean_abs']:.2g}"
                f" nats on average (mean {of['mean']:+.2g}, standard deviation {of['sd']:.2g}, largest"
                f" {of['largest']:.2g})"
            )
    yield from map(told, found.predictions)
