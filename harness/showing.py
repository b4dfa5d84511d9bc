"""What a person sees at the end of a run: the accuracy table and where things are."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from harness.caps import FREE, HOUR, Price, Volume
from harness.forecast import Fact, compared
from harness.manifest import EndpointRun, Exit
from harness.places import whole_of
from harness.progress import retries_text
from harness.saying import duration, money
from harness.tables import pivot
from harness.watching.judging import wrong

if TYPE_CHECKING:
    import pandas as pd

    from harness.comparison.drifting import Drifts
    from harness.comparison.findings import Findings
    from harness.merging.whole import Merge
    from harness.runner import RunResult

GIVEN = 4
"""Columns before the endpoints': task, shots, metric, items."""
LONG = 14
"""Characters of a label that stands in one line: an address with a port."""
NARROWEST = 9
"""Characters of an endpoint's column: three of them fit into 80 beside the others."""
SHIFTS = ("mean", "sd", "q05", "q50", "q95", "largest")
"""Summaries of token shifts that people are shown."""
REASONS = 3
"""Why items can never be scored: so many reasons are told, and the number of the others."""
NEXT = (
    "FRIENDLI_TOKEN=... {program} run --endpoint dedicated:ENDPOINT_ID --tokenizer MODEL_HUB_ID"
    " --tasks hellaswag --limit 200"
)
"""What a person types after the first run."""


def accuracy_table(accuracy: pd.DataFrame) -> Table:
    """Tasks and their groups down, endpoints across; subjects stand in `scores.csv` alone.

    Args:
        accuracy: the rows of `scores.csv`.
    """
    cells = pivot(accuracy).reset_index("subject", drop=True).reset_index(allow_duplicates=True)
    table = Table(
        title="Accuracy ± standard error",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for position, name in enumerate(cells.columns):
        # What is given is never cut; cells of endpoints go onto a second line in a narrow terminal.
        given = position < GIVEN
        justify: Literal["left", "right"] = "left" if position in (0, 2) else "right"
        table.add_column(
            _header(str(name)),
            justify=justify,
            no_wrap=given,
            overflow="fold",
            min_width=None if given else NARROWEST,
        )
    for row in cells.itertuples(index=False):
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else cell) for cell in row))
    return table


def comparison_table(findings: Findings, *, subjects: bool = False) -> Table:
    """The suite, tasks and groups down, what is compared across; `subjects` adds a row for each of theirs."""
    from harness.exports import cells  # after a run nobody should wait for what compares

    shown = cells(findings, subjects=subjects)
    table = Table(
        title=Text(f"Compared with {findings.labels[0]}: difference with 95 % interval"),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name, numeric in zip(shown.header, shown.numeric, strict=True):
        table.add_column(_header(name), justify="right" if numeric else "left", overflow="fold")
    for row in shown.rows:
        table.add_row(*map(Text, row))
    return table


def shift_table(found: Drifts) -> Table:
    """How tokens shift, over all tasks: in all, by their place in the continuation, and by their size."""
    table = Table(
        title=Text("Log-probability of a token, less the baseline's (nats)"),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("endpoint", "tokens of", "", "number", *SHIFTS):
        table.add_column(name, justify="left" if name in ("endpoint", "tokens of", "") else "right")
    for row in found.shifts:
        if not row.task:
            of = "" if row.group == "all" else row.group
            numbers = (f"{row.summaries[name]:+.3g}" for name in SHIFTS)
            table.add_row(Text(row.endpoint), of, row.part, f"{row.tokens:,}", *numbers)
    return table


def _header(label: str) -> Text:
    """A label, a long one broken after its last colon: adapter or port stand on a line of their own."""
    return Text(label if len(label) <= LONG else ":\n".join(label.rsplit(":", 1)))


def closing_lines(result: RunResult, *, program: str) -> Iterator[str]:
    """What was done, what must be known beside the numbers, where the files are, and what to do next.

    Args:
        result: of the run.
        program: how the person can call the program.
    """
    for part in result.parts:
        progress = part.progress
        line = f"{part.endpoint.label}: {progress.requests_done:,} requests in {duration(result.seconds)}"
        if progress.requests_reused:
            line += f", {progress.requests_reused:,} answered already"
        if progress.retries:
            line += f", retries {retries_text(progress.retries)}"
        yield line
        foreseen = _cost(part.meter.price, part.forecast.volume)
        yield f"{part.endpoint.label}: {compared(part.forecast, _fact(part), foreseen)}"
    yield from _hours(result.parts, result.sending)
    yield from result.remarks
    where = f"Files: {result.folder}/ (scores.csv, items.csv, run.json, ...)"
    if len(result.parts) > 1 and whole_of(result.folder) is None:
        yield f"Which of them is better? {program} compare {shlex.quote(str(result.folder))}"
    if all(part.endpoint.embedded for part in result.parts):
        where += f". Next, your own endpoint and a real benchmark: {NEXT.format(program=program)}"
    yield where
    if (whole := whole_of(result.folder)) is not None:
        yield f"This is one shard. All of them together: {program} merge {shlex.quote(str(whole))}"
    if result.exit is Exit.INTERRUPTED:
        yield "Interrupted; the same command continues this run."
    elif result.exit is not Exit.DONE:
        yield from _unscored_lines(result.parts)


def merged_lines(merge: Merge, *, program: str) -> Iterator[str]:
    """What was put together, what is lacking, and where it is.

    Args:
        merge: what came of it.
        program: how the person can call the program.
    """
    count = merge.shards
    left = merge.untried
    items = f"{left:,} item{'s are' if left != 1 else ' is'} not tried"
    yield f"{count:,} shard{'s' * (count != 1)} put together; {items}."
    yield from merge.told
    yield f"Files: {merge.folder}/ (scores.csv, items.csv, run.json, ...)"
    if merge.untried:
        again = f"{program} merge {shlex.quote(str(merge.folder))}"
        yield f"When the shards have gone on: {again}. Or give run without --shard, which asks the rest."


def _fact(part: EndpointRun) -> Fact:
    """What this session sent, and what the endpoint said of it."""
    before, now = part.before, part.after
    counted, cached = (
        None if after is None else after - (earlier or 0)
        for after, earlier in (
            (now.prompt_tokens, before.prompt_tokens),
            (now.cached_tokens, before.cached_tokens),
        )
    )
    return Fact(
        sent=part.meter.sent,
        retries=part.progress.retries.total(),
        read=part.progress.choices_read,
        counted=counted,
        cached=cached,
        cost=_cost(part.meter.price, part.meter.sent),
    )


def _cost(price: Price, volume: Volume) -> float | None:
    """What so much costs, where that is known and anything."""
    return price.of(volume) if price.by_token and price != FREE else None


def _hours(parts: Sequence[EndpointRun], seconds: float) -> Iterator[str]:
    """What endpoints cost that are paid by the hour; adapters share that of their base."""
    prices = {part.endpoint.account: part.meter.price.hour for part in parts}
    hourly = sum(price for price in prices.values() if price is not None)
    if hourly:
        yield f"{duration(seconds)} at {hourly:g} an hour: cost {money(hourly * seconds / HOUR)}"


def _unscored_lines(parts: Sequence[EndpointRun]) -> Iterator[str]:
    """Which items are unscored for good, with the reasons, and whether others may still be scored."""
    said: dict[str, list[str]] = {}
    for part in parts:
        if part.progress.unscorable:
            said.setdefault(_for_good(part.progress.unscorable), []).append(part.endpoint.label)
    for what, labels in said.items():
        yield f"{', '.join(labels)}: {what}"
    if any(part.meter.reason for part in parts):
        return  # a remark says so, and what to do
    if any(part.refused or part.progress.may_still_be_scored for part in parts):
        yield "Not every item is scored; the same command tries the others again."
    elif not said and not any(wrong(part.findings) for part in parts):  # a remark says that one
        yield "Some metrics lack items (unscored in scores.csv), and the same command cannot change that."


def _for_good(reasons: Counter[str]) -> str:
    """How many items can never be scored, and why, with the commonest reasons first."""
    plain: Counter[str] = Counter()
    for reason, count in reasons.items():
        plain[re.sub(r" \(\d[^)]*\)", "", re.sub(r"choice \d+", "a choice", reason))] += count
    told = [f"{count:,} × {reason}" for reason, count in plain.most_common(REASONS)]
    more = [f"{len(plain) - REASONS} reasons more"] if len(plain) > REASONS else []
    count = plain.total()
    return (
        f"{count:,} item{'s' * (count != 1)} cannot be scored, and the same command will not change that:"
        f" {'; '.join([*told, *more])} (unscored in items.csv)"
    )
