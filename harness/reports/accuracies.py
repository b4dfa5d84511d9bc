"""Plots of single numbers with their intervals: accuracy, subjects; and of what is unscored.

A plot is a function of the report that gives one, several or no `Plot`; `plots.PLOTS` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from harness.inert import inert
from harness.reports.axes import WHOLE, category, coloured, framed, legend, shaped, side_by_side
from harness.reports.drawing import Plot, Rows, chart_of
from harness.reports.palette import INK, series
from harness.reports.records import AccuracyRow, Report

BARS = 30
"""Subjects in one plot: so many fit onto a printed page."""


def accuracy(report: Report) -> Iterator[Plot]:
    """Each task's headline metric on every endpoint."""
    shown = [
        row for row in report.accuracy if row.headline and row.level == "task" and row.unit == "fraction"
    ]
    if not shown:
        return
    yield Plot(
        name="accuracy",
        title="Accuracy by task",
        caption="Each task's headline metric: a mark is the value, its line the 95 % interval. Where two"
        " lines overlap nothing is decided: the paired differences below are sharper.",
        summary="; ".join(_told(report, row) for row in shown[:12]),
        chart=partial(_dots, report, shown),
        header=("task", "metric", "endpoint", "value", "95 % interval", "items"),
        rows=_interval_rows(report, shown),
    )


def subjects(report: Report) -> Iterator[Plot]:
    """Bars by subject, a plot for each task that has subjects."""
    for number, (task, metric) in enumerate(report.tasks.items(), 1):
        shown = [
            row
            for row in report.accuracy
            if row.of == task and row.headline and row.level == "subject" and row.unit == "fraction"
        ]
        pieces = -(-len(shown) // BARS)
        for piece in range(pieces):
            some = shown[piece * BARS : (piece + 1) * BARS]
            yield Plot(
                name=f"subjects-{number}" + (f"-{piece + 1}" if piece else ""),
                title=f"{task} by subject ({metric})" + (f", {piece + 1} of {pieces}" if pieces > 1 else ""),
                caption="A bar is the value, its line the 95 % interval: short ones rest on many items.",
                summary=f"{len(some)} subjects of {task}; "
                + "; ".join(_extremes(report, some, position) for position in range(len(report.labels))),
                chart=partial(_bars, report, some),
                header=("subject", "metric", "endpoint", "value", "95 % interval", "items"),
                rows=_interval_rows(report, some),
            )


def coverage(report: Report) -> Iterator[Plot]:
    """Why items are unscored; no plot where all are scored."""
    shown = [each for each in report.coverage if each.reasons]
    if not shown:
        return
    yield Plot(
        name="unscored",
        title="Items left unscored, by reason",
        caption="A failure is never an answer: these items stand beside every number, and in no mean.",
        summary="; ".join(
            f"{each.endpoint} on {each.task}: {sum(each.reasons.values()):,} of"
            f" {each.scored + sum(each.reasons.values()):,}"
            for each in shown[:12]
        ),
        chart=partial(_reasons, report),
        header=("task", "endpoint", "reason", "items"),
        rows=[
            (each.task, each.endpoint, reason, f"{count:,}")
            for each in shown
            for reason, count in each.reasons.items()
        ],
    )


# ------------------------------------------------------------------------------------------------- charts


def _dots(report: Report, rows: Sequence[AccuracyRow], width: int) -> Any:
    import altair as alt

    data = _cells(report, rows)
    base = chart_of(data).encode(
        y=category(width),
        yOffset=side_by_side(),
        color=coloured(report.labels, width),
        description="said:N",
    )
    marks = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
        shape=shaped(report.labels, width),
    )
    lines = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    return framed(lines + marks, width, len(rows), report.labels)


def _bars(report: Report, rows: Sequence[AccuracyRow], width: int) -> Any:
    import altair as alt

    base = chart_of(_cells(report, rows)).encode(
        y=category(width),
        yOffset=side_by_side(),
        description="said:N",
    )
    bars = base.mark_bar(cornerRadiusEnd=2, opacity=0.55).encode(
        x=alt.X("value:Q", title=None, scale=alt.Scale(domainMin=0), axis=alt.Axis(tickCount=6)),
        color=coloured(report.labels, width),
    )
    lines = base.mark_rule(color=INK, strokeWidth=1.2).encode(x="low:Q", x2="high:Q")
    return framed(bars + lines, width, len(rows), report.labels, step=12, gap=8)


def _reasons(report: Report, width: int) -> Any:
    import altair as alt

    tasks = list(dict.fromkeys(each.task for each in report.coverage if each.reasons))
    data: Rows = [
        {
            "name": each.task,
            "row": tasks.index(each.task),
            "endpoint": each.endpoint,
            "at": report.labels.index(each.endpoint),
            "reason": reason[:60],
            "count": count,
            "said": f"{each.endpoint} on {each.task}: {count:,} items, {reason}",
        }
        for each in report.coverage
        for reason, count in each.reasons.items()
    ]
    reasons = sorted({inert(each["reason"]) for each in data})
    colours = alt.Scale(domain=reasons, range=series(reasons))
    bars = (
        chart_of(data)
        .mark_bar()
        .encode(
            y=category(width),
            yOffset=side_by_side(),
            x=alt.X("count:Q", title="items", axis=alt.Axis(tickCount=6, labelExpr=WHOLE)),
            color=alt.Color("reason:N", scale=colours, legend=legend(width, reasons)),
            description="said:N",
        )
    )
    return framed(bars, width, len(tasks), report.labels, step=18)


# --------------------------------------------------------------------------------------- what they share


def _cells(report: Report, rows: Sequence[AccuracyRow]) -> Rows:
    return [
        {
            "name": row.name,
            "row": number,
            "endpoint": label,
            "at": at,
            "value": cell.value,
            "low": cell.ci_low if cell.ci_low == cell.ci_low else cell.value,
            "high": cell.ci_high if cell.ci_high == cell.ci_high else cell.value,
            "said": f"{label} on {row.name}: {cell.value:.4f} ({cell.ci_low:.4f} to {cell.ci_high:.4f}),"
            f" {cell.n:,} items",
        }
        for number, row in enumerate(rows)
        for at, (label, cell) in enumerate(zip(report.labels, row.cells, strict=True))
        if cell is not None and cell.value == cell.value
    ]


def _interval_rows(report: Report, rows: Sequence[AccuracyRow]) -> list[tuple[str, ...]]:
    return [
        (
            row.name,
            row.metric,
            label,
            f"{cell.value:.4f}" if cell.value == cell.value else "none",
            f"{cell.ci_low:.4f} to {cell.ci_high:.4f}" if cell.ci_low == cell.ci_low else "none",
            f"{cell.n:,}",
        )
        for row in rows
        for label, cell in zip(report.labels, row.cells, strict=True)
        if cell is not None
    ]


def _told(report: Report, row: AccuracyRow) -> str:
    cells = zip(report.labels, row.cells, strict=True)
    values = ", ".join(f"{label} {cell.value:.3f}" for label, cell in cells if cell is not None)
    return f"{row.name} ({row.metric}): {values}"


def _extremes(report: Report, rows: Sequence[AccuracyRow], position: int) -> str:
    """The best and the worst subject of an endpoint."""
    known = [(cell.value, row.name) for row in rows if (cell := row.cells[position]) and cell.n]
    if not known:
        return f"{report.labels[position]}: none scored"
    (low, worst), (high, best) = min(known), max(known)
    return f"{report.labels[position]}: from {low:.3f} ({worst}) to {high:.3f} ({best})"
