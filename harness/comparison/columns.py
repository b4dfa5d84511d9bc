"""The scores of one endpoint as columns, an entry an item; pure.

What `ItemScore` is for one item, `Columns` is for tens of thousands, in arrays.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.comparison.ragged import Ragged, ragged
from harness.scoring.metrics import METRICS, Verdict
from harness.scoring.scores import ItemRecord, ItemScore


@dataclass(frozen=True, slots=True)
class Place:
    """Which item it is, whatever the endpoint."""

    task: str
    shots: int
    subject: str
    index: int

    def __str__(self) -> str:
        subject = f" {self.subject}" if self.subject else ""
        return f"{self.task}{subject} item {self.index} ({self.shots} shots)"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an endpoint said of each forced token."""

    logprobs: Ragged[np.float64]
    """Nats, a list a choice; choices stand as in `Columns.sums`."""
    ids: NDArray[np.int64]
    """A fingerprint of the forced ids of each choice: only equal ones are compared token by token."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Of a run that was asked in a random order, until a comparison was decided."""

    seed: int
    """Of the order."""
    asked: NDArray[np.bool_]
    """Which items were, shape (items,)."""
    margin: float
    """With which it was decided (a fraction)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What came of all items on one endpoint."""

    label: str
    """What the endpoint is called in every table."""
    identity: str = ""
    """Of the endpoint and the run that asked it; empty where unknown."""
    replicate: int = 0
    """Endpoints of equal identity and another replicate number are one endpoint asked twice."""
    places: Sequence[Place]
    ids: Sequence[str]
    """The data set's own ids."""
    prompt_hash: Sequence[str]
    """SHA-256 of the first context; empty where the item was never planned."""
    cluster: Sequence[str]
    """Items of one cluster share a source; empty where unknown."""
    gold: Ragged[np.int64]
    """Which choices are right."""
    choice_bytes: Ragged[np.int64]
    """UTF-8 bytes of each choice: what a prompt's hash does not cover."""
    scored: NDArray[np.bool_]
    sums: Ragged[np.float64]
    """Summed log-probability of each choice in nats; an empty list where the item is unscored."""
    predictions: Mapping[str, NDArray[np.int64]]
    """By metric: the predicted choice; -1 where there is none. Only of metrics that predict."""
    values: Mapping[str, NDArray[np.float64]]
    """By metric that endpoints are compared by, from 0 to 1: of right and wrong 1 or 0; NaN where the item
    has none."""
    divisors: Mapping[str, Ragged[np.int64]] = field(default_factory=dict)
    """By metric: what it divides each choice's sum by, where that is known; of unscored items too."""
    tokens: Tokens | None = None
    """None where only sums are known."""
    modes: Sequence[str] | None = None
    """How each item was asked, as `plan` has it, where that may make a difference; None: all were forced, or
    what was not was shown to be the same."""
    stopped: Stop | None = None
    """Where items were left out because a comparison was decided without them."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a comparison needs to know of a task."""

    name: str
    metrics: tuple[str, ...]
    """Those that the task reports; the first is its headline."""
    groups: Mapping[str, Sequence[str]]
    """Named unions of subjects."""


def compared_metrics(names: Container[str]) -> list[str]:
    """Those of some metrics that endpoints are compared by, in the order in which files list them."""
    return [metric.name for metric in METRICS.values() if metric.compared and metric.name in names]


def place_of(record: ItemRecord) -> Place:
    """Where an item stands."""
    return Place(record.task, record.shots, record.subject, record.index)


def columns_of_scores(
    label: str, scores: Sequence[ItemScore], metrics: Mapping[str, Sequence[str]]
) -> Columns:
    """Columns out of single scores, each judged by the metrics of its task; without tokens.

    Args:
        label: what the endpoint is called.
        scores: one an item.
        metrics: by task, those that it reports.
    """
    records = [each.record for each in scores]
    names = compared_metrics({name for told in metrics.values() for name in told})
    judged = {name: [_judge(each, name, metrics) for each in scores] for name in names}
    return Columns(
        label=label,
        places=[place_of(each) for each in records],
        ids=[each.id for each in records],
        prompt_hash=[each.prompt_hash for each in records],
        cluster=[each.cluster for each in records],
        gold=ragged((each.gold for each in records), np.int64),
        choice_bytes=ragged((each.n_bytes for each in records), np.int64),
        scored=np.array([bool(each.sums) for each in scores], np.bool_),
        sums=ragged((each.sums for each in scores), np.float64),
        divisors={
            "acc_norm": ragged((each.n_chars for each in records), np.int64),
            "acc_bytes": ragged((each.n_bytes for each in records), np.int64),
            "acc_token": ragged((each.n_tokens for each in records), np.int64),
        },
        predictions={
            name: np.array([-1 if each is None else each.prediction for each in found], np.int64)
            for name, found in judged.items()
            if METRICS[name].predicts
        },
        values={
            name: np.array([math.nan if each is None else each.value for each in found], np.float64)
            for name, found in judged.items()
        },
    )


def _judge(score: ItemScore, metric: str, metrics: Mapping[str, Sequence[str]]) -> Verdict | None:
    """What a metric says of an item; None where it is unscored, or its task does not report the metric."""
    told = score.sums and metric in metrics.get(score.record.task, ())
    found = METRICS[metric]
    if not told or not found.applies(score.record) or found.missing(score):
        return None
    return METRICS[metric].judge(score)
