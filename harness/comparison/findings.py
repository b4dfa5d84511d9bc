"""What a comparison says: its rows, its flips, and the whole; records only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.comparison.columns import Place
from harness.comparison.matching import Mismatch

Level = Literal["suite", "task", "group", "subject"]
Verdict = Literal["better", "worse", "equivalent", "undecided", ""]
FlipKind = Literal["wrong to right", "right to wrong", "wrong to other wrong"]

HEADLINE = "headline"
"""The statistic of a suite's row: each task's own first metric."""
SEQUENCE = "sequence"
"""The test of a row whose items were asked until a comparison was decided (`stopped`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One pair, one part of the suite, one statistic. The fields are the columns of `comparison.csv`.

    NaN and None stand for what there is none of. `results/README.md` says what each means.
    """

    baseline: str
    endpoint: str
    level: Level
    task: str
    subject: str = ""
    shots: int | None = None
    statistic: str
    unit: str
    headline: bool
    n: int
    unscored: int
    clusters: int
    baseline_value: float = math.nan
    value: float = math.nan
    difference: float
    stderr: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    low_bound: float = math.nan
    high_bound: float = math.nan
    bootstrap_low: float = math.nan
    bootstrap_high: float = math.nan
    largest: float = math.nan
    wrong_to_right: int | None = None
    right_to_wrong: int | None = None
    wrong_to_wrong: int | None = None
    agreement: float = math.nan
    noise_stderr: float = math.nan
    test: str = ""
    p_value: float = math.nan
    p_mcnemar: float = math.nan
    p_mcnemar_mid: float = math.nan
    family: int | None = None
    p_holm: float = math.nan
    p_bh: float = math.nan
    margin: float = math.nan
    p_equivalent: float = math.nan
    low_one_sided: float = math.nan
    detectable: float = math.nan
    items_needed: int | None = None
    verdict: Verdict = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One item whose prediction differs, wrong on one side at least."""

    baseline: str
    endpoint: str
    place: Place
    id: str
    metric: str
    kind: FlipKind
    gold: tuple[int, ...]
    baseline_prediction: int
    prediction: int
    baseline_margin: float
    """Of the right choice over the likeliest wrong one, in nats; negative where a wrong one is ahead."""
    margin: float
    gold_logprob_change: float
    """Nats."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """All endpoints of a comparison by one task's headline, and which of them are tied."""

    task: str
    metric: str
    values: tuple[tuple[str, float], ...]
    """Endpoint and value, best first, over the items that all have scored."""
    tied: tuple[tuple[str, ...], ...]
    """The largest sets within which no two are shown to differ (Holm over all pairs), best first."""
    family: int
    """How many pairs that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A whole comparison."""

    labels: tuple[str, ...]
    """The endpoints, the baseline first."""
    tasks: tuple[str, ...]
    """Those that the baseline was asked."""
    margin: float
    """A difference of a metric below this does not matter in practice (a fraction)."""
    rows: tuple[Row, ...]
    flips: tuple[Flip, ...]
    mismatches: tuple[Mismatch, ...]
    rankings: tuple[Ranking, ...]
    """Where there are three endpoints or more."""
    remarks: Sequence[str]
    """What a reader must know beside the numbers, one sentence each."""
