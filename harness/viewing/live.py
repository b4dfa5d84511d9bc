"""How far a run in progress has come: its own counts, and its scores so far out of what its journals hold.

A journal is read as it grows: of each item only until it is scored, and never longer at a time than
`SECONDS`, so that a run of any size is followed at the same cost. This module does not know who watches.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.columnar import journal_of
from harness.errors import HarnessError
from harness.inert import inert
from harness.replies import StoredReplies
from harness.scoring.estimates import Estimate, pooled
from harness.scoring.metrics import METRICS
from harness.scoring.scores import NOT_TRIED
from harness.stored import Run
from harness.tables import Summaries, judge
from harness.viewing.folders import Found

SECONDS = 0.5
"""That a journal is read for at a time."""
_BATCH = 512
"""Items that are read together."""
_MOST = 50_000_000
"""Items that are followed, whatever a `run.json` says."""
_AHEAD = 16
"""Batches without anything new, after which nothing more is looked for: items are asked in their order."""


@dataclass(slots=True)
class Tally:
    """The scores of one endpoint so far."""

    run: Run
    label: str
    batch: int = _BATCH
    pending: dict[int, Sequence[int]] = field(default_factory=dict)
    """Ordinals that are not scored yet, by batch; batches that are done are left out."""
    summaries: Summaries = field(default_factory=lambda: defaultdict(dict))
    problem: str = ""
    _at: int = 0
    """The batch to go on with, in a run whose items are asked in random order."""

    def __post_init__(self) -> None:
        items = sum(_count(task.get("items")) for task in _mapping(self.run.manifest.get("tasks")).values())
        ordinals = range(min(items, _MOST))
        self.pending = {at: ordinals[at : at + self.batch] for at in ordinals[:: self.batch]}

    def advance(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Read what has come since, for a while."""
        try:
            with journal_of(self.run, self.label) as journal:
                if journal is not None:
                    self._read(journal, clock)
            self.problem = ""
        except HarnessError as error:  # a journal that is being made
            self.problem = str(error)

    def estimates(self) -> Iterator[tuple[str, str, Estimate]]:
        """Task, its headline metric, and what is known of it so far."""
        for (task, metric), of_subject in self.summaries.items():
            yield task, metric, pooled(of_subject.values(), METRICS[metric].summary()).estimate()

    def _read(self, journal: StoredReplies, clock: Callable[[], float]) -> None:
        anywhere = bool(_mapping(self.run.manifest.get("settings")).get("compare_until_decided"))
        ends, idle = clock() + SECONDS, 0
        waiting = list(self.pending)
        if anywhere:
            waiting = [each for each in waiting if each >= self._at] + [
                each for each in waiting if each < self._at
            ]
        for batch in waiting:
            self._at = batch
            idle = 0 if self._score(journal, batch) else idle + 1
            if clock() > ends or (idle >= _AHEAD and not anywhere):
                return

    def _score(self, journal: StoredReplies, batch: int) -> int:
        """Count the items of a batch that are scored by now; how many they are."""
        records = journal.records_of(self.pending[batch])
        left = []
        for score in journal.scores_of(records):
            if score.unscored == NOT_TRIED:
                left.append(score.record.ordinal)
            elif (task := self.run.stored.tasks.get(score.record.task)) and task.metrics:
                judge(score, [METRICS[task.metrics[0]]], self.summaries)
        new = len(records) - len(left)
        if left or not records:
            self.pending[batch] = left or self.pending[batch]
        else:
            del self.pending[batch]
        return new


@dataclass(slots=True)
class Watched:
    """One run in progress, whoever watches it."""

    tallies: list[Tally] = field(default_factory=list)
    _session: object = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def told(self, found: Found, now: float, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
        """How far it has come, for the page: JSON. May be called from any thread.

        Args:
            found: the run, as it is now; another session of it is counted anew.
            now: seconds since the epoch.
            clock: seconds, to read not too long.
        """
        if found.run is None:
            return {"state": "damaged", "at": "", "endpoints": []}
        sign = _mapping(found.run.manifest.get("heartbeat"))
        counts = _mapping(found.run.manifest.get("counts"))
        with self._lock:
            if not self.tallies or sign.get("session") != self._session:
                self._session = sign.get("session")
                self.tallies = [Tally(found.run, label) for label in found.run.labels]
            for tally in self.tallies:
                tally.advance(clock)
            return {
                "state": found.state(now),
                "at": str(sign.get("at", "")),
                "endpoints": [_told(tally, _mapping(counts.get(tally.label))) for tally in self.tallies],
            }


def _told(tally: Tally, counts: Mapping[str, Any]) -> dict[str, Any]:
    """One endpoint: what `run.json` counted, and what its journal adds up to."""
    pace = _mapping(counts.get("pace"))
    retries = sum(map(_count, _mapping(counts.get("retries")).values()))
    return {
        "label": inert(tally.label),
        "items": _count(counts.get("items")),
        "done": _count(counts.get("items_done")),
        "unscored": _count(counts.get("items_unscored")),
        "requests": _count(counts.get("requests_sent")),
        "reused": _count(counts.get("requests_from_journal")),
        "retries": retries,
        "rate": _number(pace.get("requests_a_second")),
        "in_flight": _count(pace.get("in_flight")),
        "seconds_left": _number(pace.get("seconds_left")),
        "refused": inert(str(counts.get("refused") or "")),
        "problem": inert(tally.problem),
        "scores": [
            {
                "task": inert(task),
                "metric": metric,
                "n": found.n,
                "unscored": found.unscored,
                "value": _number(found.value),
                "low": _number(found.ci_low),
                "high": _number(found.ci_high),
            }
            for task, metric, found in tally.estimates()
        ],
    }


def _mapping(value: object) -> Mapping[str, Any]:
    """What should be a table of `run.json`; an empty one where it is not."""
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _number(value: object) -> float | None:
    """A finite number; JSON has no others."""
    return round(float(value), 4) if isinstance(value, int | float) and abs(value) < float("inf") else None
