"""Plots of how endpoints differ from the baseline: differences, flips. As `accuracies` otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from harness.comparison.findings import Row
from harness.comparison.words import headlines, points
from harness.inert import inert
from harness.reports.axes import NARROWER, WHOLE, category, framed, legend, side_by_side
from harness.reports.drawing import WIDE, Plot, Rows, chart_of
from harness.reports.palette import BAND, GAIN, LOSS, MUTED, OPEN, SAME, SHAPES, series
from harness.reports.records import Report

VERDICTS = {"better": GAIN, "worse": LOSS, "equivalent": SAME, "undecided": OPEN}


def differences(report: Report) -> Iterator[Plot]:
    """A forest plot: each endpoint less the baseline, task by task."""
    rows = [row for row in _compared(report) if row.n and row.level in ("suite", "task")]
    if not rows or report.findings is None:
        return
    margin = report.findings.margin
    yield Plot(
        name="differences",
        title=f"Difference from {report.labels[0]}, in percentage points",
        caption="Paired, item by item: a mark is the difference, its line the 95 % interval; right of the"
        " line at 0 is better than the baseline. Within the grey band a difference does not matter in"
        f" practice (±{100 * margin:g} points). Colours are verdicts, which are corrected for the number of"
        " comparisons.",
        summary="; ".join(
            f"{row.endpoint} on {row.task or 'all tasks'}: {points(row.difference)} points,"
            f" {row.verdict or 'nothing can be said'}"
            for row in rows[:12]
        ),
        chart=partial(_forest, report, rows, margin),
        header=("task", "endpoint", "difference", "95 % interval", "items", "verdict"),
        rows=[
            (
                row.task or "all tasks",
                row.endpoint,
                points(row.difference),
                f"{points(row.ci_low)} to {points(row.ci_high)}" if row.ci_low == row.ci_low else "none",
                f"{row.n:,}",
                row.verdict or "none",
            )
            for row in rows
        ],
    )


def flips(report: Report) -> Iterator[Plot]:
    """What became right and what became wrong."""
    rows = [row for row in _compared(report) if row.level == "task" and row.wrong_to_right is not None]
    if not any((row.wrong_to_right or 0) + (row.right_to_wrong or 0) for row in rows):
        return
    yield Plot(
        name="flips",
        title=f"Flips: items that became right or wrong, compared with {report.labels[0]}",
        caption="To the right items that the baseline has wrong and the endpoint right, to the left the other"
        " way round. Two endpoints of equal accuracy may still differ in many items.",
        summary="; ".join(
            f"{row.endpoint} on {row.task}: {row.wrong_to_right:,} became right, {row.right_to_wrong:,} wrong"
            for row in rows[:12]
        ),
        chart=partial(_flip_bars, report, rows),
        header=("task", "endpoint", "became right", "became wrong", "another wrong choice", "agreement"),
        rows=[
            (
                row.task,
                row.endpoint,
                f"{row.wrong_to_right:,}",
                f"{row.right_to_wrong:,}",
                f"{row.wrong_to_wrong:,}",
                f"{100 * row.agreement:.1f} %",
            )
            for row in rows
        ],
    )


# ------------------------------------------------------------------------------------------------- charts


def _forest(report: Report, rows: Sequence[Row], margin: float, width: int) -> Any:
    import altair as alt

    others = report.labels[1:]
    data: Rows = [
        {
            "name": row.task or "all tasks",
            "row": number,
            "endpoint": row.endpoint,
            "at": others.index(row.endpoint),
            "value": 100 * row.difference,
            "low": _hundredfold(row.ci_low),
            "high": _hundredfold(row.ci_high),
            "verdict": row.verdict or "undecided",
            "said": f"{row.endpoint} on {row.task or 'all tasks'}: {points(row.difference)} points"
            f" ({points(row.ci_low)} to {points(row.ci_high)}), {row.verdict or 'nothing can be said'}",
        }
        for number, row in enumerate(rows)
    ]
    verdicts = [name for name in VERDICTS if any(each["verdict"] == name for each in data)]
    colours = alt.Scale(domain=verdicts, range=[VERDICTS[name] for name in verdicts])
    base = chart_of(data).encode(
        y=category(width),
        yOffset=side_by_side(),
        color=alt.Color("verdict:N", scale=colours, legend=legend(width, verdicts)),
        description="said:N",
    )
    axis = alt.Axis(
        tickCount=6, labelExpr="datum.value ? replace(format(datum.value, '+'), '-', '\u2212') : '0'"
    )
    marks = base.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("value:Q", title=None, axis=axis))
    if len(others) > 1:
        shapes = alt.Scale(domain=[*map(inert, others)], range=series(report.labels, SHAPES)[1:])
        marks = marks.encode(
            shape=alt.Shape(
                "endpoint:N",
                scale=shapes,
                legend=legend(width, others, symbolFillColor=MUTED, symbolStrokeColor=MUTED),
            )
        )
    zone = chart_of([{"low": -100 * margin, "high": 100 * margin}])
    zone = zone.mark_rect(color=BAND).encode(x="low:Q", x2="high:Q")
    zero = chart_of([{"at": 0}]).mark_rule(color=MUTED, strokeWidth=1).encode(x="at:Q")
    lines = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    names = {row.task for row in rows}
    return framed(zone + zero + lines + marks, width, len(names), others)


def _flip_bars(report: Report, rows: Sequence[Row], width: int) -> Any:
    """One beside the other, a chart for each endpoint."""
    import altair as alt

    others = report.labels[1:]
    columns = 1 if width < WIDE or len(others) == 1 else 2
    # Labels of the axis stand within `fit-x`, which charts in a row do not know.
    side = (width - 28 * (columns - 1)) // columns - (0 if len(others) == 1 else NARROWER)
    most = max(max(row.wrong_to_right or 0, row.right_to_wrong or 0) for row in rows)
    charts = [_flips_of([row for row in rows if row.endpoint == label], most, width) for label in others]
    if len(charts) == 1:
        fit = alt.AutoSizeParams(type="fit-x", contains="padding")
        return charts[0].properties(width=width, autosize=fit)
    titled = [
        chart.properties(width=side, title=alt.TitleParams(inert(label), limit=side))
        for chart, label in zip(charts, others, strict=True)
    ]
    return alt.concat(*titled, columns=columns)


def _flips_of(rows: Sequence[Row], most: int, width: int) -> Any:
    import altair as alt

    data = [
        {
            "name": row.task,
            "row": number,
            "kind": kind,
            "count": sign * count,
            "text": f"{count:,}" if count else "",
            "said": f"{row.endpoint} on {row.task}: {count:,} {kind}",
        }
        for number, row in enumerate(rows)
        for kind, count, sign in (
            ("became right", row.wrong_to_right or 0, 1),
            ("became wrong", row.right_to_wrong or 0, -1),
        )
    ]
    base = chart_of(data).encode(y=category(width), description="said:N")
    kinds = alt.Scale(domain=["became wrong", "became right"], range=[LOSS, GAIN])
    # Room for the numbers that stand at the ends of bars.
    scale = alt.Scale(domain=[-1.25 * most, 1.25 * most], nice=False)
    axis = alt.Axis(labelExpr=WHOLE, tickCount=5)
    bars = base.mark_bar(cornerRadius=1, height=16).encode(
        x=alt.X("count:Q", title=None, scale=scale, axis=axis),
        color=alt.Color("kind:N", scale=kinds, legend=legend(width, ["became wrong"] * 2)),
    )
    right = base.transform_filter("datum.count > 0").mark_text(align="left", dx=5)
    left = base.transform_filter("datum.count < 0").mark_text(align="right", dx=-5)
    texts = [each.encode(x="count:Q", text="text:N") for each in (right, left)]
    return alt.layer(bars, *texts).properties(height=30 * len(rows))


def _compared(report: Report) -> list[Row]:
    return headlines(report.findings) if report.findings else []


def _hundredfold(fraction: float) -> float | None:
    """In percentage points; None where there is none, which JSON can say."""
    return 100 * fraction if fraction == fraction else None
