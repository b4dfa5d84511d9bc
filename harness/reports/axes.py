"""What plots share: axes, legends, colours, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.inert import inert
from harness.reports.drawing import WIDE
from harness.reports.palette import GRID, SHAPES, series

WHOLE = "datum.value % 1 ? '' : format(abs(datum.value), ',d')"
"""Labels of an axis that counts: whole numbers, whatever the side."""
NARROWER = 118
"""Pixels of a label beside an axis, on a telephone; on a desk `WIDER`."""
WIDER = 220
_LETTER, _SYMBOL = 7, 34
"""Pixels of a letter, and of what stands before a name in a legend and behind it."""


def framed(
    chart: Any,
    width: int,
    names: int,
    labels: Sequence[str],
    *,
    step: int = 16,
    gap: int = 18,
) -> Any:
    """A chart with a line for each name and endpoint, as wide as given, labels and all."""
    import altair as alt

    height = names * (step * len(labels) + gap)
    return chart.properties(
        width=width, height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )


def category(width: int) -> Any:
    """The axis that names what is plotted: `name`, in the order of `row`."""
    import altair as alt

    limit = WIDER if width >= WIDE else NARROWER
    axis = alt.Axis(labelLimit=limit, grid=True, gridColor=GRID, bandPosition=0, tickBand="extent")
    scale = alt.Scale(paddingInner=0.25, paddingOuter=0.12)
    return alt.Y("name:N", sort=in_order("row"), title=None, axis=axis, scale=scale)


def side_by_side() -> Any:
    """Where an endpoint's mark stands beside those of others: in the order of `at`."""
    import altair as alt

    return alt.YOffset("endpoint:N", sort=in_order("at"))


def in_order(field: str) -> Any:
    """The order of names by a number. A list of the names themselves would become part of an expression that
    Vega reads, and names may hold anything."""
    import altair as alt

    return alt.EncodingSortField(field=field, op="min")


def coloured(labels: Sequence[str], width: int) -> Any:
    """The colour of an endpoint, with the legend that says so."""
    import altair as alt

    scale = alt.Scale(domain=[*map(inert, labels)], range=series(labels))
    return alt.Color("endpoint:N", scale=scale, legend=legend(width, labels))


def shaped(labels: Sequence[str], width: int) -> Any:
    """Its shape, likewise."""
    import altair as alt

    scale = alt.Scale(domain=[*map(inert, labels)], range=series(labels, SHAPES))
    return alt.Shape("endpoint:N", scale=scale, legend=legend(width, labels))


def legend(width: int, names: Sequence[str], **more: Any) -> Any:
    """Above the plot; as many names in a line as there is room for."""
    import altair as alt

    room = width - 60
    columns = max(1, min(len(names), room // (_SYMBOL + _LETTER * max(map(len, names), default=0))))
    limit = min(300, room // columns - _SYMBOL)
    return alt.Legend(
        symbolOpacity=1, orient="top", title=None, columns=columns, labelLimit=limit, offset=12, **more
    )


def room(width: int, count: int, most: int) -> tuple[int, int]:
    """How wide each of several plots is in pixels, and how many stand side by side."""
    columns = 1 if width < WIDE else min(most, max(2, count))
    return (width - 28 * (columns - 1)) // columns - 58, columns
