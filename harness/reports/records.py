"""What a report shows: records only. Nothing here knows files, colours or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Place
from harness.comparison.findings import Findings, Flip
from harness.comparison.paired import Floats

PartLevel = Literal["task", "group", "subject"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a report."""

    label: str
    """What it is called everywhere in the report."""
    run: str
    """The name of its run's folder."""
    tokenizer: str
    """Hash of its tokenizer; empty where unknown."""
    facts: Mapping[str, str]
    """What identifies it, for people, by name."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """One number of the accuracy table; NaN stands for what there is none of."""

    value: float
    stderr: float
    ci_low: float
    ci_high: float
    n: int
    unscored: int
    low_bound: float
    high_bound: float
    ties: int


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One metric of a task, of a group of its subjects, or of a subject."""

    level: PartLevel
    of: str
    """The task, of groups too."""
    name: str
    """The task, the group or the subject."""
    shots: int
    metric: str
    unit: str
    headline: bool
    """Whether it is the task's first metric."""
    cells: tuple[Estimated | None, ...]
    """One an endpoint; None where it was not asked."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Items of similar confidence."""

    n: int
    confidence: float
    """Mean probability, among an item's choices, of the likeliest."""
    accuracy: float
    """The share of them for which that choice is right."""
    ci_low: float
    """Wilson's 95 % interval of the accuracy."""
    ci_high: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How confidence and accuracy go together, of one endpoint on one task."""

    endpoint: str
    task: str
    n: int
    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Margins:
    """By how much right choices are ahead of wrong ones, of one endpoint on one task (nats)."""

    endpoint: str
    task: str
    values: Floats
    """One a scored item that has right and wrong choices."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many items of a task one endpoint has scored."""

    endpoint: str
    task: str
    scored: int
    reasons: Mapping[str, int]
    """Unscored items by reason, the most frequent first."""
    spared: int = 0
    """Items that were not asked since a comparison was decided without them: no failures."""

    @property
    def asked(self) -> int:
        """Items that it was to score."""
        return self.scored + sum(self.reasons.values())


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long replies took, of one endpoint, in the order in which they came to be stored."""

    endpoint: str
    milliseconds: Floats
    retried: NDArray[np.bool_]
    """Whether a request was sent more than once."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a log file says of an endpoint at one moment."""

    endpoint: str
    session: str
    seconds: float
    """Since the session began."""
    rate: float
    """Requests a second, lately; NaN where the moment is a change of pace."""
    at_once: float
    """Requests allowed at once; NaN where the moment is a heartbeat."""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Every item of a report, in columns; endpoints as in `Report.endpoints`."""

    places: Sequence[Place]
    ids: Sequence[str]
    """The data set's own ids."""
    gold: Sequence[tuple[int, ...]]
    choices: Sequence[int]
    """How many there are."""
    sums: Sequence[Sequence[tuple[float, ...]]]
    """By endpoint and item, nats; empty where it is unscored, or was not asked."""
    predictions: Sequence[Sequence[int]]
    """By endpoint and item, by the task's headline; -1 where there is none."""
    values: Sequence[Sequence[float]]
    """Likewise: 1 right, 0 wrong, of some metrics what is between; NaN where there is none."""
    margins: Sequence[Sequence[float]]
    """Likewise: nats by which the likeliest right choice is ahead; NaN where there is none."""
    unscored: Sequence[Sequence[str | None]]
    """Likewise: why; empty where it is scored, None where it was not asked."""
    flips: Sequence[Mapping[int, str]]
    """By endpoint: the items that flipped against the baseline, and how."""

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, slots=True)
class Section:
    """Facts of one kind, as a table with a heading."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a report shows, but for texts and tokens of items."""

    title: str
    begun: str
    """When the first run began (UTC), as its `run.json` has it."""
    program: str
    """Name and version of the program that made the first run."""
    status: str
    """Of the first run that is not complete, else "complete"."""
    endpoints: tuple[Endpoint, ...]
    """The baseline first."""
    tasks: Mapping[str, str]
    """Each task and its headline metric, in the order of the tables."""
    accuracy: tuple[AccuracyRow, ...]
    findings: Findings | None
    """None of a single endpoint, and where nothing can be compared."""
    sentences: tuple[str, ...]
    """The verdicts that people look for, in words: on the suite, and whatever is decided."""
    more: tuple[str, ...]
    """The others."""
    examples: tuple[tuple[Flip, str, tuple[str, ...]], ...]
    """The flips that say most, each with the end of its question and the choices."""
    calibration: tuple[Calibrated, ...]
    margins: tuple[Margins, ...]
    coverage: tuple[Coverage, ...]
    latencies: tuple[Latencies, ...]
    beats: tuple[Beat, ...]
    items: Items
    sections: tuple[Section, ...]
    """Settings and hashes."""
    remarks: tuple[str, ...]
    """What a reader must know beside the numbers, one sentence each."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The endpoints, the baseline first."""
        return tuple(each.label for each in self.endpoints)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What was asked of one item, and what came back, as one tokenizer has it."""

    tokenizer: str
    """Its hash."""
    contexts: tuple[str, ...]
    """One for all choices, or one a choice; none where an earlier document of the item has the same."""
    choices: tuple[str, ...]
    """Likewise."""
    tokens: tuple[tuple[str, ...], ...]
    """The forced tokens of each choice, as texts; those that nobody can read as "#17"."""
    logprobs: Mapping[str, tuple[tuple[float, ...], ...]]
    """By endpoint that has this tokenizer: the log-probability of each token of each choice (nats)."""
