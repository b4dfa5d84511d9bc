"""Plots of how things are spread: calibration, margins, latency, pace. As `accuracies` otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.inert import inert
from harness.reports.axes import WHOLE, coloured, room
from harness.reports.drawing import Plot, Rows, chart_of
from harness.reports.palette import MUTED
from harness.reports.records import Beat, Calibrated, Latencies, Margins, Report

BARS = 30
"""Of a histogram of margins."""
SPANS = 60
"""Pieces of a run over which latencies are shown, or fewer."""
_MANY = 20
"""Replies that such a piece has at least: fewer have no tenth and ninetieth percentile."""


def calibration(report: Report) -> Iterator[Plot]:
    """Reliability diagrams: is what is said with confidence right as often as that?"""
    if not report.calibration:
        return
    yield Plot(
        name="calibration",
        title="Calibration: how often confident answers are right",
        caption="Items are sorted by confidence (the probability, among the choices, of the likeliest) and"
        " cut into ten bins of equal size; a point is a bin, its line the 95 % interval of its accuracy. On"
        " the diagonal confidence and accuracy agree; below it the endpoint is too sure. ECE is the mean"
        " distance from it.",
        summary="; ".join(
            f"{each.endpoint} on {each.task}: expected calibration error {each.ece:.3f}"
            for each in report.calibration[:12]
        ),
        chart=partial(_reliability, report),
        header=("task", "endpoint", "ECE", "confidence", "accuracy", "items"),
        rows=[
            (
                each.task,
                each.endpoint,
                f"{each.ece:.4f}",
                f"{one.confidence:.4f}",
                f"{one.accuracy:.4f}",
                f"{one.n:,}",
            )
            for each in report.calibration
            for one in each.bins
        ],
    )


def margins(report: Report) -> Iterator[Plot]:
    """Histograms: by how much right choices are ahead."""
    shown = [each for each in report.margins if len(each.values)]
    if not shown:
        return
    yield Plot(
        name="margins",
        title="Margins: by how much the right choice is ahead",
        caption="Log-probability of the right choice less that of the likeliest wrong one, in nats, whole"
        " choices compared as they are. Left of 0 a wrong choice is ahead; many items near 0 are decided by"
        " little, and may flip with noise. What lies outside is counted in the outermost bars.",
        summary="; ".join(
            f"{each.endpoint} on {each.task}: median {np.median(each.values):+.2f} nats,"
            f" {100 * np.mean(np.abs(each.values) < 0.1):.0f} % within 0.1 of a tie"
            for each in shown[:12]
        ),
        chart=partial(_histograms, report, shown),
        header=("task", "endpoint", "items", "wrong ahead", "within 0.1 nats", "median", "10 %", "90 %"),
        rows=[_margin_row(each) for each in shown],
    )


def latency(report: Report) -> Iterator[Plot]:
    """How long replies took, from the first to the last."""
    shown = [each for each in report.latencies if len(each.milliseconds)]
    if not shown:
        return
    yield Plot(
        name="latency",
        title="Latency over the run",
        caption="Milliseconds from sending a request to the last byte of its reply (of the last attempt), in"
        " the order in which replies were stored, whose times are not: the line is the median of each piece"
        " of the run, the band spans the middle 80 %.",
        summary="; ".join(
            f"{each.endpoint}: median {np.median(each.milliseconds):,.0f} ms over"
            f" {len(each.milliseconds):,} replies, {int(each.retried.sum()):,} sent more than once"
            for each in shown[:12]
        ),
        chart=partial(_over_time, report, shown),
        header=("endpoint", "replies", "median", "90 %", "99 %", "longest", "sent again"),
        rows=[
            (
                each.endpoint,
                f"{len(each.milliseconds):,}",
                *(f"{value:,.1f} ms" for value in np.percentile(each.milliseconds, (50, 90, 99, 100))),
                f"{int(each.retried.sum()):,}",
            )
            for each in shown
        ],
    )


def pace(report: Report) -> Iterator[Plot]:
    """Requests a second, and requests at once, as the log file has them."""
    if not report.beats:
        return
    rates = [each for each in report.beats if each.rate == each.rate]
    changes = [each for each in report.beats if each.at_once == each.at_once]
    fastest = max((each.rate for each in rates), default=0.0)
    yield Plot(
        name="pace",
        title="Pace over the run",
        caption="From the run's log file: requests a second at each sign of life (once a minute, and at the"
        " end), and how many were allowed at once where that was found out.",
        summary=f"{len(rates)} signs of life, at most {fastest:.1f} requests a second;"
        f" the number of requests at once was changed {len(changes)} times",
        chart=partial(_paces, report, rates, changes),
        header=("session", "after", "endpoint", "requests a second", "at once", "why"),
        rows=[
            (
                each.session,
                f"{each.seconds:,.1f} s",
                each.endpoint,
                f"{each.rate:.1f}" if each.rate == each.rate else "",
                f"{each.at_once:g}" if each.at_once == each.at_once else "",
                each.why,
            )
            for each in report.beats
        ],
    )


# ------------------------------------------------------------------------------------------------- charts


def _reliability(report: Report, width: int) -> Any:
    import altair as alt

    side, columns = room(width, len({each.task for each in report.calibration}), 3)
    charts = []
    for task in dict.fromkeys(each.task for each in report.calibration):
        of_task = [each for each in report.calibration if each.task == task]
        data = [point for each in of_task for point in _bin_points(each)]
        base = chart_of(data).encode(color=coloured(report.labels, width), description="said:N")
        unit = alt.Scale(domain=[0, 1])
        x = alt.X("confidence:Q", title="confidence", scale=unit, axis=alt.Axis(tickCount=5))
        y = alt.Y("accuracy:Q", title="accuracy", scale=unit, axis=alt.Axis(tickCount=5))
        diagonal = chart_of([{"x": 0, "y": 0}, {"x": 1, "y": 1}])
        ece = ", ".join(f"{each.ece:.3f}" for each in of_task)
        layers = (
            diagonal.mark_line(color=MUTED, strokeDash=[3, 3], strokeWidth=1).encode(x="x:Q", y="y:Q"),
            base.mark_rule(strokeWidth=1, opacity=0.7).encode(x=x, y="low:Q", y2="high:Q"),
            base.mark_line(strokeWidth=2).encode(x=x, y=y),
            base.mark_point(filled=True, size=36, opacity=1).encode(x=x, y=y),
        )
        title = alt.TitleParams(_short(task, side), subtitle=f"ECE {ece}", limit=side)
        charts.append(alt.layer(*layers).properties(width=side, height=side, title=title))
    return _table_of(charts, columns)


def _histograms(report: Report, shown: Sequence[Margins], width: int) -> Any:
    import altair as alt

    tasks = list(dict.fromkeys(each.task for each in shown))
    side, columns = room(width, len(tasks), 2)
    charts = []
    for task in tasks:
        data = _bars([each for each in shown if each.task == task])
        y = alt.Y("count:Q", title="items", axis=alt.Axis(tickCount=4, labelExpr=WHOLE))
        base = chart_of(data).encode(
            x=alt.X(
                "at:Q", title="nats", axis=alt.Axis(tickCount=6, grid=False), scale=alt.Scale(nice=False)
            ),
            y=y,
            color=coloured(report.labels, width),
        )
        zero = chart_of([{"at": 0}]).mark_rule(color=MUTED, strokeDash=[3, 3]).encode(x="at:Q")
        area = base.mark_area(interpolate="step-after", opacity=0.14).encode(y=y.stack(None))
        line = base.mark_line(interpolate="step-after", strokeWidth=2)
        title = alt.TitleParams(_short(task, side), limit=side)
        charts.append((area + zero + line).properties(width=side, height=150, title=title))
    return _table_of(charts, columns)


def _over_time(report: Report, shown: Sequence[Latencies], width: int) -> Any:
    import altair as alt

    data = [point for each in shown for point in _spans(each)]
    base = chart_of(data).encode(
        x=alt.X("reply:Q", title="replies", axis=alt.Axis(tickCount=6, format=",d", grid=False)),
        color=coloured(report.labels, width),
        description="said:N",
    )
    y = alt.Y("median:Q", title="milliseconds", scale=alt.Scale(domainMin=0))
    band = base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", stack=None), y2="high:Q")
    chart = band + base.mark_line(strokeWidth=2).encode(y=y)
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    return chart.properties(width=width, height=240, autosize=fit)


def _paces(report: Report, rates: Sequence[Beat], changes: Sequence[Beat], width: int) -> Any:
    import altair as alt

    axis = alt.Axis(grid=False, tickCount=6)
    x = alt.X("minutes:Q", title="minutes since the session began", axis=axis, scale=alt.Scale(domainMin=0))
    charts = []
    for beats, field, title in (
        (rates, "rate", "requests a second"),
        (changes, "at_once", "at once"),
    ):
        if not beats:
            continue
        data = [
            {
                "minutes": each.seconds / 60,
                "value": getattr(each, field),
                "endpoint": each.endpoint,
                "session": each.session,
            }
            for each in beats
        ]
        chart = (
            chart_of(data)
            .mark_line(interpolate="linear" if field == "rate" else "step-after", strokeWidth=2, point=True)
            .encode(
                x=x,
                y=alt.Y("value:Q", title=title, scale=alt.Scale(domainMin=0), axis=alt.Axis(tickCount=4)),
                color=coloured(report.labels, width),
                detail="session:N",
            )
        )
        charts.append(chart.properties(width=width - 70, height=160))
    return alt.vconcat(*charts)


# --------------------------------------------------------------------------------------- what they share


def _table_of(charts: Sequence[Any], columns: int) -> Any:
    import altair as alt

    return alt.concat(*charts, columns=columns)


def _short(name: str, pixels: int) -> str:
    letters = pixels // 7
    name = inert(name)
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def _bin_points(calibrated: Calibrated) -> Rows:
    return [
        {
            "endpoint": calibrated.endpoint,
            "confidence": one.confidence,
            "accuracy": one.accuracy,
            "low": one.ci_low,
            "high": one.ci_high,
            "said": f"{calibrated.endpoint} on {calibrated.task}: {one.n:,} items of confidence"
            f" {one.confidence:.3f} are right in {100 * one.accuracy:.1f} %",
        }
        for one in calibrated.bins
    ]


def _bars(shown: Sequence[Margins]) -> Rows:
    """Counts of one task in bars that are the same for all its endpoints; 0 is where one of them begins."""
    together = np.concatenate([each.values for each in shown])
    reach = float(np.percentile(np.abs(together), 99)) or 1.0
    step = 2 * reach / BARS
    edges = (np.arange(BARS + 1) - BARS // 2) * step
    rows: Rows = []
    for each in shown:
        inside = np.clip(each.values, edges[0], np.nextafter(edges[-1], -np.inf))
        counts = [*np.histogram(inside, edges)[0].tolist(), 0]
        rows += [
            {"endpoint": each.endpoint, "at": at, "count": count}
            for at, count in zip(edges.tolist(), counts, strict=True)
        ]
    return rows


def _margin_row(each: Margins) -> tuple[str, ...]:
    low, middle, high = np.percentile(each.values, (10, 50, 90))
    numbers = (f"{value:+.3f}".replace("-", "\N{MINUS SIGN}") for value in (middle, low, high))
    return (
        each.task,
        each.endpoint,
        f"{len(each.values):,}",
        f"{100 * np.mean(each.values < 0):.1f} %",
        f"{100 * np.mean(np.abs(each.values) < 0.1):.1f} %",
        *numbers,
    )


def _spans(latencies: Latencies) -> Rows:
    """The median and the middle 80 % of each piece of a run."""
    pieces = max(1, min(SPANS, len(latencies.milliseconds) // _MANY))
    rows: Rows = []
    at = 0
    for piece in np.array_split(latencies.milliseconds, pieces):
        low, middle, high = np.percentile(piece, (10, 50, 90)).tolist()
        said = f"{latencies.endpoint}: {middle:,.0f} ms, replies {at + 1:,} to {at + len(piece):,}"
        place = at + len(piece) / 2
        row = {"endpoint": latencies.endpoint, "reply": place, "median": middle, "low": low, "high": high}
        rows.append({**row, "said": said})
        at += len(piece)
    return rows
