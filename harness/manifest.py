"""How a run ended, in codes and in words: exit code, remarks, and the content of `run.json`."""

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

from harness import __version__, reference
from harness.caps import Caps, Meter, Price, Spending, Volume
from harness.choosing.catalogue import task_hash
from harness.dialects import dialect
from harness.doctor.findings import Finding as Probed
from harness.doctor.findings import told as told_probed
from harness.earlier import Earlier, sent_of
from harness.endpoints import Endpoint
from harness.forecast import Forecast
from harness.journal import Journal
from harness.layout import SHORTCUT
from harness.learning import Lesson
from harness.prepare import Prepared
from harness.progress import Progress
from harness.replies import JournalStats
from harness.suite import PreparedTask
from harness.watching.findings import documented, told_findings
from harness.watching.judging import Finding, wrong

if TYPE_CHECKING:
    import pandas as pd

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
    meter: Meter = field(default_factory=lambda: Spending(Caps()).meter(Price()))
    """Counts what is sent."""
    forecast: Forecast = field(default_factory=Forecast)
    """What was going to be sent."""
    before: JournalStats = field(default_factory=JournalStats)
    """What the journal held when the session began."""
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
    """Items that were not asked, or not to the end."""
    return sum(part.progress.items_total - part.progress.items_done for part in parts)


def remarks_of(prepared: Prepared, parts: Sequence[EndpointRun], broken: str) -> list[str]:
    """What a reader must know beside the numbers, one sentence each."""
    remarks = [remark for task in prepared.suite.tasks for remark in task.remarks]
    remarks += prepared.chat_remarks
    begins: dict[str, list[str]] = {}
    for endpoint in prepared.endpoints:
        begins.setdefault(_beginning(prepared, endpoint), []).append(endpoint.label)
    remarks += [f"{', '.join(labels)}: {what}" for what, labels in begins.items() if what]
    for part in parts:
        label, progress = part.endpoint.label, part.progress
        if progress.shifted:
            remarks.append(
                f"{label}: in {progress.shifted:,} items a token spans context and continuation;"
                " they are split by count, as the reference does"
            )
        if progress.truncated:
            remarks.append(
                f"{label}: {progress.truncated:,} items lost context on the left to --max-length"
                f" {prepared.settings.max_length}"
            )
        remarks += [*_told_shortcut(part), *_told_counted(part)]
        remarks += [*told_probed(label, part.probed), *told_findings(label, part.findings)]
        if part.refused:
            remarks.append(f"{label}: stopped, {part.refused}")
    if any(endpoint.embedded for endpoint in prepared.endpoints):
        remarks.append(f"embedded: {reference.NOTICE}")
    return remarks + ([f"the run was broken off: {broken}"] if broken else [])


def _told_shortcut(part: EndpointRun) -> list[str]:
    """Whether choices were read off alternatives, and what shows that they may be."""
    label, lesson = part.endpoint.label, part.lesson
    noted, read = part.journal.meta.get(SHORTCUT), part.journal.stats().read
    if noted and read:
        shown = json.loads(noted)
        if "why" in shown:
            return [f"{label}: {shown['why']}"]
        most = f"{shown['largest_difference']:.1g}"
        return [
            f"{label}: {read:,} choices were read off the alternatives of other replies;"
            f" {shown.get('checked', 0)} that were forced too differ by {most} nats at most"
            " (--no-shortcut forces all)"
        ]
    said = lesson.why if lesson.tried else ""
    return [f"{label}: no choice is read off alternatives: {said}"] if said else []


def _told_counted(part: EndpointRun) -> list[str]:
    """Whether the endpoint counted other prompts than it was sent; formats that echo refuse such replies."""
    if not dialect(part.endpoint.dialect).names_tokens:
        return []
    count, least, most = part.journal.counted_apart()
    if not count:
        return []
    apart = f"{least:+,}" if least == most else f"{least:+,} to {most:+,}"
    return [
        f"{part.endpoint.label}: {count:,} replies count other prompts than were sent ({apart} tokens): the"
        " endpoint adds tokens or drops some, and scores another text; `doctor` says more"
    ]


def told_greedy(accuracy: pd.DataFrame) -> list[str]:
    """Where endpoints did not say what greediness is read from."""
    whole = accuracy[(accuracy["subject"] == "") & (accuracy["metric"] == "greedy")]
    others = accuracy[(accuracy["subject"] == "") & (accuracy["metric"] != "greedy")]
    least = others.groupby(["endpoint", "task"])["unscored"].min().to_dict()
    rows = whole[whole["unscored"] > 0].to_dict("records")
    # What any other metric of the task has scored has a sum: only its greediness is not known.
    places = [(row, least.get((row["endpoint"], row["task"]), row["unscored"])) for row in rows]
    more = ((row, row["unscored"] - without_sums) for row, without_sums in places)
    return [
        f"{row['endpoint']}: {row['task']}: of {count:,} items nobody knows whether they are greedy: their"
        " replies name no likeliest token (top_logprobs)"
        for row, count in more
        if count
    ]


def told_ties(accuracy: pd.DataFrame) -> list[str]:
    """Where choices were level: the lowest index is then the prediction, which a reader must know."""
    whole = accuracy[(accuracy["subject"] == "") & (accuracy["ties"] > 0)]
    rows = whole.drop_duplicates(["endpoint", "task"]).to_dict("records")
    return [
        f"{row['endpoint']}: {row['task']}: in {row['ties']:,} of {row['n']:,} items several choices have the"
        f" highest {row['metric']} score; the first of them is taken"
        for row in rows
    ]


def _beginning(prepared: Prepared, endpoint: Endpoint) -> str:
    """What stands in front of each context; empty where nobody found out."""
    if dialect(endpoint.dialect).wants_text:
        return "prompts are sent as text; the server puts its own tokens in front, whatever --bos says"
    if endpoint.label not in prepared.tokenizers:
        return ""
    ids = " ".join(map(str, prepared.tokenizers[endpoint.label].leading))
    what = f"each context begins with token {ids}" if ids else "no token is put in front of a context"
    return f"{what} (--bos {prepared.settings.bos})"


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
        "checks": {part.endpoint.label: documented(part.findings) for part in parts},
        "sequence": sequence,
        "remarks": list(remarks),
        "timings": {**timings, **{name: round(value, 3) for name, value in seconds.items()}},
        "versions": {"python": platform.python_version(), **_versions()},
    }


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
