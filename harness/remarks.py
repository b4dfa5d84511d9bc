"""What a reader must know of a run beside its numbers, one sentence each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness import reference
from harness.dialects import dialect
from harness.doctor.findings import told as told_probed
from harness.doctor.findings import told_earlier
from harness.endpoints import Endpoint
from harness.layout import SHORTCUT
from harness.manifest import EndpointRun
from harness.prepare import Prepared
from harness.replies import StoredReplies
from harness.watching.findings import told_findings

if TYPE_CHECKING:
    import pandas as pd

SHIFTED = "a token spans context and continuation; they are split by count, as the reference does"
TRUNCATED = "lost context on the left to --max-length"
READ = "were read off the alternatives of other replies"
COUNTED_APART = "count other prompts than were sent"
NOT_GREEDY = "nobody knows whether they are greedy"
TIED = "several choices have the highest"
NUMBERED = (SHIFTED, TRUNCATED, READ, COUNTED_APART, NOT_GREEDY, TIED)
"""What remarks say that count something: of shards put together they are counted anew."""


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
        remarks += told_tokens(label, progress.shifted, progress.truncated, prepared.settings.max_length)
        if part.damaged:
            remarks.append(f"{label}: {told_damaged(part.damaged)}")
        remarks += [*_told_shortcut(part), *told_counted(label, part.endpoint.dialect, part.journal)]
        remarks += [*told_probed(label, part.probed), *told_earlier(label, part.probed_earlier, part.probed)]
        remarks += told_findings(label, part.findings)
        if part.refused:
            remarks.append(f"{label}: stopped, {part.refused}")
    if any(endpoint.embedded for endpoint in prepared.endpoints):
        remarks.append(f"embedded: {reference.NOTICE}")
    return remarks + ([f"the run was broken off: {broken}"] if broken else [])


def told_damaged(rows: int) -> str:
    """That a journal was changed on disk, and what came of it."""
    many = f"{rows:,} rows" if rows != 1 else "a row"
    return (
        f"{many} of its journal had been changed on disk: nothing of that counts, and it was asked for again"
    )


def told_tokens(label: str, shifted: int, truncated: int, max_length: int | None) -> list[str]:
    """Of how many items a token spans the boundary, and of how many the context was cut."""
    told = [f"{label}: in {shifted:,} items {SHIFTED}"] if shifted else []
    return told + ([f"{label}: {truncated:,} items {TRUNCATED} {max_length}"] if truncated else [])


def _told_shortcut(part: EndpointRun) -> list[str]:
    """Whether choices were read off alternatives, and what shows that they may be."""
    label, lesson = part.endpoint.label, part.lesson
    noted, read = part.journal.meta.get(SHORTCUT), part.journal.stats().read
    if noted and read:
        shown = json.loads(noted)
        if "why" in shown:
            return [f"{label}: {shown['why']}"]
        return told_read(label, shown, read)
    said = lesson.why if lesson.tried else ""
    return [f"{label}: no choice is read off alternatives: {said}"] if said else []


def told_read(label: str, shown: Mapping[str, Any], read: int) -> list[str]:
    """How many choices were read off alternatives, and what shows that they may be."""
    most = f"{shown['largest_difference']:.1g}"
    return [
        f"{label}: {read:,} choices {READ}; {shown.get('checked', 0)} that were forced too differ by {most}"
        " nats at most (--no-shortcut forces all)"
    ]


def told_counted(label: str, format: str, journal: StoredReplies) -> list[str]:
    """Whether the endpoint counted other prompts than it was sent; formats that echo refuse such replies."""
    if not dialect(format).names_tokens:
        return []
    count, least, most = journal.counted_apart()
    if not count:
        return []
    apart = f"{least:+,}" if least == most else f"{least:+,} to {most:+,}"
    return [
        f"{label}: {count:,} replies {COUNTED_APART} ({apart} tokens): the endpoint adds tokens or drops"
        " some, and scores another text; `doctor` says more"
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
        f"{row['endpoint']}: {row['task']}: of {count:,} items {NOT_GREEDY}: their replies name no likeliest"
        " token (top_logprobs)"
        for row, count in more
        if count
    ]


def told_ties(accuracy: pd.DataFrame) -> list[str]:
    """Where choices were level: the lowest index is then the prediction, which a reader must know."""
    whole = accuracy[(accuracy["subject"] == "") & (accuracy["ties"] > 0)]
    rows = whole.drop_duplicates(["endpoint", "task"]).to_dict("records")
    return [
        f"{row['endpoint']}: {row['task']}: in {row['ties']:,} of {row['n']:,} items {TIED}"
        f" {row['metric']} score; the first of them is taken"
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
