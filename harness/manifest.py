"""How far a run is and how it ended: its endpoints' parts, the exit code, the content of `run.json`."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from harness import __version__
from harness.caps import Caps, Meter, Price, Spending, Volume
from harness.choosing.catalogue import task_hash
from harness.doctor.findings import Finding as Probed
from harness.doctor.findings import amiss
from harness.earlier import Earlier, RandomOrder, sent_of
from harness.endpoints import Endpoint
from harness.forecast import Forecast
from harness.journal import Journal
from harness.layout import SHORTCUT
from harness.learning import Lesson
from harness.prepare import Prepared
from harness.progress import Progress
from harness.replies import JournalStats
from harness.runs import Whose, whose
from harness.scoring.scores import NOT_TRIED
from harness.settings import MARGIN
from harness.suite import PreparedTask
from harness.watching.findings import documented
from harness.watching.judging import Finding, wrong

if TYPE_CHECKING:
    pass

LIBRARIES = (
    "aiohttp",
    "datasets",
    "jinja2",
    "msgspec",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "tenacity",
    "tokenizers",
)


class Exit(IntEnum):
    """Exit codes of the program."""

    DONE = 0
    GATE_FAILED = 1
    USAGE = 2
    UNSCORED = 3
    REFUSED = 4
    INTERRUPTED = 130

    @property
    def status(self) -> str:
        """What `run.json` says of a run that ended so."""
        return {Exit.DONE: "complete", Exit.INTERRUPTED: "interrupted"}.get(self, "incomplete")


NOTHING_EARLIER = Earlier()
PACE = ("requests_a_second", "in_flight", "waiting", "seconds_left", "state")
"""What of an endpoint's progress holds for a moment only."""


@dataclass(slots=True)
class EndpointRun:
    """One endpoint's part of a run, as far as it has come."""

    endpoint: Endpoint
    journal: Journal
    progress: Progress
    refused: str = ""
    """Why the endpoint was given up, or empty."""
    lesson: Lesson = field(default_factory=Lesson)
    """Whether choices are read off alternatives."""
    probed: list[Probed] = field(default_factory=list)
    """What the brief probe found."""
    probed_earlier: Sequence[Probed] = ()
    """What those of earlier sessions found amiss."""
    meter: Meter = field(default_factory=lambda: Spending(Caps()).meter(Price()))
    """Counts what is sent."""
    forecast: Forecast = field(default_factory=Forecast)
    """What was going to be sent."""
    before: JournalStats = field(default_factory=JournalStats)
    """What the journal held when the session began."""
    damaged: int = 0
    """Replies that the journal held then, changed on disk: they are asked for again."""
    after: JournalStats = field(default_factory=JournalStats)
    """And when it ended."""
    ended: bool = False
    findings: Sequence[Finding] = ()
    """What was found beside the items (`watching`)."""


def exit_code(
    unscored: int, parts: Sequence[EndpointRun], *, interrupted: bool, capped: bool = False
) -> Exit:
    """The code a run ends with: being told to stop weighs most, then a refusal, then unscored items, or a cap
    that was reached."""
    if interrupted:
        return Exit.INTERRUPTED
    if any(part.refused or wrong(part.findings) for part in parts):
        return Exit.REFUSED
    return Exit.UNSCORED if unscored or capped else Exit.DONE


def untried(parts: Sequence[EndpointRun]) -> int:
    """Items that were not asked, or not to the end, in any session; reads the journals."""
    return sum(score.unscored == NOT_TRIED for part in parts for score in part.journal.scores())


def manifest(
    prepared: Prepared,
    status: str,
    begun: float,
    *,
    took: Mapping[str, float] | None = None,
    parts: Sequence[EndpointRun] = (),
    remarks: Sequence[str] = (),
    earlier: Earlier = NOTHING_EARLIER,
    sequence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `run.json`; `begun` in seconds since the epoch, `took` in seconds by name.

    What took how long is no difference of times of day: these are set while a run goes on. `sequence` says
    how far a comparison has come that stops once it is decided.
    """
    timings = {"begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun))}
    seconds = {"earlier_s": earlier.seconds, **(took or {})}
    return {
        "program": f"forced-choice {__version__}",
        "status": status,
        "settings": asdict(prepared.settings),
        "suite": prepared.identity.digest(),
        "tasks": {task.task.name: _task(task) for task in prepared.suite.tasks},
        "endpoints": [_endpoint(prepared, endpoint) for endpoint in prepared.endpoints],
        "counts": {part.endpoint.label: counts_of(part) for part in parts},
        "beside_journal": {label: asdict(volume) for label, volume in _beside(parts, earlier).items()},
        "probes_amiss": probes_amiss(parts, earlier.probed),
        "shards": to_builtins(earlier.shards),
        "without_shards": None,
        "checks": {part.endpoint.label: documented(part.findings) for part in parts},
        "sequence": sequence,
        "random_order": _random_order(prepared, earlier),
        "remarks": list(remarks),
        "timings": {**timings, **{name: round(value, 3) for name, value in seconds.items()}},
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _random_order(prepared: Prepared, earlier: Earlier) -> dict[str, Any] | None:
    """The order of this session, or of an earlier one: until all is asked it must be known that a run once
    stopped as soon as it was decided, since which items it has then depends on what came."""
    settings, order = prepared.settings, earlier.order
    if settings.compare_until_decided:
        order = RandomOrder(settings.seed, MARGIN if settings.margin is None else settings.margin)
    return {"seed": order.seed, "margin": order.margin} if order else None


def _task(task: PreparedTask) -> dict[str, Any]:
    """One task: what it is, where its rows came from, how many are asked for."""
    return {
        "version": task.task.version,
        "hash": task_hash(task.task),
        "shots": task.shots,
        "split": task.task.split,
        "source": task.rows.source,
        "revision": task.rows.revision,
        "rows": task.survey.rows,
        "bad_rows": task.survey.n_bad,
        "content_sha256": task.survey.content_sha256,
        "items": task.size,
        "metrics": list(task.metrics),
        "asides": list(task.asides),
        "groups": {name: list(subjects) for name, subjects in task.task.groups.items()},
    }


def _endpoint(prepared: Prepared, endpoint: Endpoint) -> dict[str, Any]:
    """One endpoint: its address and identity, never its secrets."""
    found = prepared.tokenizers.get(endpoint.label)
    return {
        "label": endpoint.label,
        "dialect": endpoint.dialect,
        "base_url": endpoint.base_url,
        "model": endpoint.model,
        "adapter": endpoint.adapter,
        "replicate": endpoint.replicate,
        "identity": endpoint.identity.text(),
        "tokenizer_sha256": found.sha256 if found else "",
        "tokenizer_revision": getattr(found, "revision", ""),
    }


def _beside(parts: Sequence[EndpointRun], earlier: Earlier) -> dict[str, Volume]:
    """What was sent in all sessions and stands in no journal, so that caps count it too."""
    beside = dict(earlier.beside)
    for part in parts:
        kept = sent_of(part.after).beyond(sent_of(part.before))
        lost = part.meter.sent.beyond(kept)
        if lost != Volume():
            label = part.endpoint.label
            beside[label] = beside.get(label, Volume()) + lost
    return beside


def probes_amiss(
    parts: Sequence[EndpointRun], earlier: Mapping[Whose, Sequence[Probed]]
) -> list[dict[str, Any]]:
    """What brief probes found amiss in all sessions, of whatever endpoint: its replies are in the folder."""
    found = {**earlier, **{whose(p.endpoint.identity): amiss(p.probed_earlier, p.probed) for p in parts}}
    return [
        {"identity": identity, "replicate": replicate, **each.document()}
        for (identity, replicate), findings in found.items()
        for each in findings
    ]


def counts_of(part: EndpointRun) -> dict[str, Any]:
    """What happened on one endpoint in this session, so far, and what its journal holds in all (while the run
    goes on, what it held when the session began)."""
    progress = part.progress
    said = progress.so_far()
    return {
        "items": progress.items_total,
        "items_done": progress.items_done,
        "items_unscored": progress.items_unscored,
        "pace": {name: said[name] for name in PACE},
        "requests_sent": progress.requests_done,
        "requests_from_journal": progress.requests_reused,
        "choices_read": progress.choices_read,
        "shortcut": _shortcut(part),
        "probe": [each.document() for each in part.probed],
        "retries": dict(sorted(progress.retries.items())),
        "forecast": {**asdict(part.forecast.volume), "whole": part.forecast.whole},
        "sent": asdict(part.meter.sent),
        "cost": part.meter.price.of(part.meter.sent) if part.meter.price.by_token else None,
        "boundary_shifted_items": progress.shifted,
        "truncated_items": progress.truncated,
        "refused": part.refused,
        "journal": asdict(part.after if part.ended else part.before),
    }


def _shortcut(part: EndpointRun) -> dict[str, Any]:
    """Whether choices are read off alternatives, in this session or an earlier one, and what shows it."""
    noted = part.journal.meta.get(SHORTCUT)
    if noted:
        said = json.loads(noted)
        return {"used": "why" not in said, **said}
    return {"used": False, "why": part.lesson.why}


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a distribution"
    return found
