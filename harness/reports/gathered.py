"""Runs to a report: what stands in their files, joined and counted; no formula of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.comparison.columns import Columns
from harness.comparison.comparing import compare_columns
from harness.comparison.findings import Findings, Flip
from harness.comparison.matching import mismatch_summary
from harness.comparison.measures import confidences, margins, side_of
from harness.comparison.words import families, headlines, sentences
from harness.errors import UsageError, check_margin
from harness.reports.documents import Shelf, Spoken, last_paragraph, spoken
from harness.reports.joining import joined, run_of
from harness.reports.pace import beats_of, latencies_of
from harness.reports.records import (
    AccuracyRow,
    Beat,
    Bin,
    Calibrated,
    Coverage,
    Endpoint,
    Estimated,
    Items,
    Margins,
    PartLevel,
    Report,
)
from harness.reports.settled import sections_of
from harness.reports.wording import wordings
from harness.scoring.estimates import wilson
from harness.scoring.scores import NOT_ASKED
from harness.scoring.summaries import Calibration
from harness.sources import End, Source, Sources, resolve
from harness.stored import Run

EXAMPLES = 12
"""Flips that the report tells in full."""
_FEW_ITEMS = 50
"""Below so many a calibration curve of ten bins says nothing."""
_FEW_SENTENCES, _MANY_SENTENCES = 6, 10
"""That all come first; that come first at most."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """A report, and where its texts are."""

    report: Report
    sources: Sources
    shelves: tuple[Shelf, ...]
    said: tuple[Spoken, ...]


def gather(given: Sequence[Source], *, baseline: str | None = None, margin: float | None = None) -> Gathered:
    """Read runs.

    Args:
        given: runs, or endpoints of runs.
        baseline: the label of the endpoint that the others are compared with; by default the first.
        margin: a difference of a metric below this does not matter in practice (a fraction); by default as
            `compare` has it.

    Raises:
        UsageError: something is no run, or a sample file of another program.
        StoreError: a run's files cannot be read.
    """
    if margin is not None:
        check_margin("--margin", margin)
    found = resolve(given, baseline=baseline, fewest=1)
    if any(end.run is None for end in found.ends):
        raise UsageError("report: sample files have no run to report; give runs, and the files to compare")
    columns = found.columns()
    findings, remarks = _compared(found, columns, margin)
    tasks = {task.name: task.metrics[0] for task in found.tasks}
    items = joined(found, columns, tasks, findings)
    flips = _telling(findings)
    first, more = _sentences(findings)
    texts = found.texts(flips)
    manifest = found.runs[0].manifest
    endpoints = tuple(map(_endpoint, found.ends, found.labels))
    report = Report(
        title=_title(found),
        begun=str(manifest.get("timings", {}).get("begun", "")),
        program=str(manifest.get("program", "")),
        status=next((run.status for run in found.runs if run.status != "complete"), "complete"),
        endpoints=endpoints,
        tasks=tasks,
        accuracy=tuple(accuracy_rows(found)),
        findings=findings,
        sentences=first,
        more=more,
        examples=tuple(
            (flip, last_paragraph(text.question), text.choices)
            for flip in flips
            if (text := texts.get(flip.place))
        ),
        calibration=tuple(_calibration(columns, tasks)),
        margins=tuple(_margins(columns, tasks)),
        coverage=tuple(_coverage(found, items, tasks)),
        latencies=tuple(
            latencies_of(run, end.label, called=label)
            for end, label in zip(found.ends, found.labels, strict=True)
            if (run := end.run)
        ),
        beats=tuple(_beats(found)),
        items=items,
        sections=tuple(
            section for run in found.runs for section in sections_of(run, many=len(found.runs) > 1)
        ),
        remarks=(*_remarks(found), *remarks),
    )
    hashes = [each.tokenizer for each in endpoints]
    return Gathered(
        report,
        found,
        tuple(_shelf(found, run, columns) for run in found.runs),
        tuple(map(spoken, columns, hashes)),
    )


# ------------------------------------------------------------------------------------------------- numbers


def accuracy_rows(found: Sources) -> Iterator[AccuracyRow]:
    """The rows of all runs' accuracy tables, endpoints side by side."""
    rows: dict[tuple[str, str, int, str], dict[int, Mapping[Any, Any]]] = {}
    for number, end in enumerate(found.ends):
        scores = run_of(end).scores
        for row in scores[scores["endpoint"] == end.label].to_dict("records"):
            place = (row["task"], row["subject"], int(row["shots"]), row["metric"])
            rows.setdefault(place, {})[number] = row
    groups = {group: task.name for task in found.tasks for group in task.groups}
    first = {task.name: task.metrics[0] for task in found.tasks}
    order = {name: number for number, task in enumerate(found.tasks) for name in (task.name, *task.groups)}
    for (task, subject, shots, metric), cells in sorted(
        rows.items(), key=lambda each: order.get(each[0][0], 0)
    ):
        of = task if task in first else groups.get(task, task)
        level: PartLevel = "subject" if subject else "task" if task in first else "group"
        yield AccuracyRow(
            level=level,
            of=of,
            name=subject or task,
            shots=shots,
            metric=metric,
            unit=next(iter(cells.values()))["unit"],
            headline=metric == first.get(of),
            cells=tuple(
                _estimated(cells[number]) if number in cells else None for number in range(len(found.ends))
            ),
        )


def _estimated(row: Mapping[Any, Any]) -> Estimated:
    return Estimated(
        value=float(row["value"]),
        stderr=float(row["stderr"]),
        ci_low=float(row["ci_low"]),
        ci_high=float(row["ci_high"]),
        n=int(row["n"]),
        unscored=int(row["unscored"]),
        low_bound=float(row["low_bound"]),
        high_bound=float(row["high_bound"]),
        ties=int(row["ties"]),
    )


def _compared(
    found: Sources, columns: Sequence[Columns], margin: float | None
) -> tuple[Findings | None, list[str]]:
    """What `compare` would say, or why nothing; items that cannot be joined are left out, and told."""
    if len(columns) < 2:
        return None, list(found.remarks())
    try:
        findings = compare_columns(
            columns,
            found.tasks,
            margin=found.margin(margin),
            remarks=(*found.told_margin(margin), *found.remarks()),
            repeats=found.repeats(),
        )
    except UsageError as error:
        return None, [str(error)]
    told = [f"not compared: {line}" for line in mismatch_summary(findings.mismatches)]
    if not any(row.n for row in findings.rows):
        return None, [*told, f"{', '.join(found.labels)} have no scored item in common: nothing is compared"]
    return findings, [*findings.remarks, *told]


def _sentences(findings: Findings | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What people look for first, and the rest; of few sentences all come first."""
    if findings is None:
        return (), ()
    told = [each for each in (*sentences(findings), families(findings)) if each]
    if len(told) <= _FEW_SENTENCES:
        return tuple(told), ()
    rows = [row for row in headlines(findings) if row.level in ("suite", "task")]
    pairs = list(zip(rows, told, strict=False))  # what stands behind the rows is said of none
    suites = [said for row, said in pairs if row.level == "suite"]
    decided = [said for row, said in pairs if row.level == "suite" or row.verdict not in ("undecided", "")]
    first = (suites or decided)[:_MANY_SENTENCES] if len(decided) > _MANY_SENTENCES else decided
    return tuple(first), tuple(each for each in told if each not in first)


def _telling(findings: Findings | None) -> list[Flip]:
    """The flips by the largest change of margin, nats; right choices lost and won in turn."""
    flips = [flip for flip in (findings.flips if findings else ()) if flip.kind != "wrong to other wrong"]
    moved = sorted(flips, key=lambda flip: -abs(flip.margin - flip.baseline_margin))
    ways = [[flip for flip in moved if flip.kind == kind] for kind in ("right to wrong", "wrong to right")]
    half = EXAMPLES // 2
    return [*ways[0][: EXAMPLES - min(half, len(ways[1]))], *ways[1][: EXAMPLES - min(half, len(ways[0]))]]


def _calibration(columns: Sequence[Columns], tasks: Mapping[str, str]) -> Iterator[Calibrated]:
    for each in columns:
        for task in tasks:
            at = _scored(each, task)
            if len(at) < _FEW_ITEMS:
                continue
            side = side_of(each, at)
            summary = Calibration()
            chosen = zip(side.sums.lists(), each.gold.take(at).lists(), strict=True)
            right = [sums.index(max(sums)) in gold for sums, gold in chosen]
            for correct, confidence in zip(right, confidences(side).tolist(), strict=True):
                summary.add(float(correct), confidence)
            ece = summary.estimate().value
            yield Calibrated(each.label, task, len(at), float(ece or 0.0), tuple(_bins(summary)))


def _bins(summary: Calibration) -> Iterator[Bin]:
    for right, confidence in summary.bins():
        n, hits = len(right), float(right.sum())
        low, high = wilson(round(hits), n)
        yield Bin(n, float(confidence.mean()), hits / n, low or 0.0, 1.0 if high is None else high)


def _margins(columns: Sequence[Columns], tasks: Mapping[str, str]) -> Iterator[Margins]:
    for each in columns:
        for task in tasks:
            values = margins(side_of(each, _scored(each, task)))
            if len(values := values[np.isfinite(values)]):
                yield Margins(each.label, task, values)


def _scored(columns: Columns, task: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where the scored items of a task stand that have choices to choose from."""
    named = np.array([place.task == task for place in columns.places], np.bool_)
    return np.flatnonzero(named & (columns.sums.lengths > 1))


def _coverage(found: Sources, items: Items, tasks: Mapping[str, str]) -> Iterator[Coverage]:
    for label, reasons in zip(found.labels, items.unscored, strict=True):
        counts: dict[str, Counter[str]] = {task: Counter() for task in tasks}
        for place, why in zip(items.places, reasons, strict=True):
            if why is not None:
                counts[place.task][_reason(why)] += 1
        for task, of_task in counts.items():
            scored, spared = of_task.pop("", 0), of_task.pop(NOT_ASKED, 0)
            if scored or spared or of_task:
                yield Coverage(label, task, scored, dict(of_task.most_common()), spared)


def _reason(why: str) -> str:
    """A reason without what differs from item to item."""
    return why.partition(" (")[0]


def _shelf(found: Sources, run: Run, columns: Sequence[Columns]) -> Shelf:
    ends = zip(found.ends, columns, strict=True)
    places = {
        (place.task, place.subject, place.index): place
        for end, each in ends
        if end.run is run
        for place in each.places
    }
    return Shelf(run, places, wordings(run))


# --------------------------------------------------------------------------------------------------- words


def _endpoint(end: End, label: str) -> Endpoint:
    run = run_of(end)
    told = next(each for each in run.manifest["endpoints"] if each["label"] == end.label)
    names = {"dialect": "format", "base_url": "URL", "model": "model", "adapter": "adapter"}
    facts = {shown: str(told[name]) for name, shown in names.items() if told.get(name)}
    if told.get("replicate"):
        facts["replicate"] = str(told["replicate"])
    return Endpoint(label, run.folder.resolve().name, str(told.get("tokenizer_sha256", "")), facts)


def _title(found: Sources) -> str:
    return " and ".join(dict.fromkeys(run.folder.resolve().name for run in found.runs))


def _remarks(found: Sources) -> list[str]:
    several = len(found.runs) > 1
    return [
        f"{run.folder.resolve().name}: {remark}" if several else remark
        for run in found.runs
        for remark in run.remarks
    ]


def _beats(found: Sources) -> Iterator[Beat]:
    for run in found.runs:
        called = {
            end.label: label for end, label in zip(found.ends, found.labels, strict=True) if end.run is run
        }
        for beat in beats_of(run):
            if beat.endpoint in called:
                yield replace(beat, endpoint=called[beat.endpoint])
