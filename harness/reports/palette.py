"""Colours and the look of plots.

A plot is drawn once, in the colours of a light page; in a dark one the page's style replaces each colour by
its partner (`darkened`). So no colour may stand for two things that part in the dark. Series are told
apart by shape as well, and differ in lightness: they can be read without colours, and by the colour-blind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

INK, MUTED, GRID, PAPER, BAND = "#1d2430", "#5a6472", "#e4e7ec", "#ffffff", "#eef1f5"
SERIES: Sequence[str] = (
    *("#0069a8", "#c8500a", "#00795f", "#9a3d8b", "#806000", "#4f5d6b", "#b3304c", "#3f51b5"),
)
"""Of endpoints, in their order; from the ninth on they come again."""
SHAPES: Sequence[str] = (
    *(
        "circle",
        "square",
        "triangle-up",
        "diamond",
        "cross",
        "triangle-down",
        "triangle-right",
        "triangle-left",
    ),
)
GAIN, LOSS, SAME, OPEN = "#0069a9", "#c8500b", "#00795e", "#6b7684"
"""Better, worse, equivalent, undecided; and items that became right or wrong."""

DARK: Mapping[str, str] = {
    INK: "#e6e9ee",
    MUTED: "#a3adba",
    GRID: "#333b46",
    PAPER: "#14181e",
    BAND: "#232a33",
    **dict(
        zip(
            SERIES,
            ("#5cb8f5", "#ff9a57", "#45d0ab", "#e29ad6", "#dfbf52", "#aab6c4", "#ff8fa3", "#a3aefa"),
            strict=True,
        )
    ),
    GAIN: "#5cb8f5",
    LOSS: "#ff9a57",
    SAME: "#45d0ab",
    OPEN: "#9aa5b3",
}
"""What stands in a dark page for each colour of a light one."""

FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"
"""Of equal widths, all of them: what is measured when a plot is drawn fits when it is shown."""
SIZE = 12
"""Pixels of letters, as large as the smallest text beside them."""


def darkened() -> str:
    """Style rules that give a plot in a dark page its colours."""
    return "\n".join(
        f'.plot svg [{name}="{light}"] {{ {name}: {dark}; }}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    )


def series(labels: Sequence[str], among: Sequence[str] = SERIES) -> list[str]:
    """A colour (or a shape) for each endpoint."""
    return [among[position % len(among)] for position in range(len(labels))]


def theme() -> dict[str, Any]:
    """The part of a Vega-Lite specification that says how everything looks."""
    text = {"labelFont": FONT, "titleFont": FONT, "labelFontSize": SIZE, "titleFontSize": SIZE}
    axis = {
        **text,
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 6,
        "gridColor": GRID,
        "domainColor": GRID,
        "tickColor": GRID,
        "ticks": False,
        "domain": False,
    }
    return {
        "background": "transparent",
        "view": {"stroke": None},
        "axis": axis,
        "axisY": {"labelColor": INK},
        "legend": {
            **text,
            "labelColor": INK,
            "titleColor": MUTED,
            "symbolSize": 70,
            "symbolOpacity": 1,
            "rowPadding": 4,
        },
        "title": {
            "font": FONT,
            "fontSize": SIZE + 1,
            "fontWeight": 600,
            "color": INK,
            "subtitleFont": FONT,
            "subtitleFontSize": SIZE,
            "subtitleColor": MUTED,
            "anchor": "start",
            "offset": 8,
        },
        "text": {"font": FONT, "fontSize": SIZE, "color": INK},
        "rule": {"color": MUTED},
        "concat": {"spacing": 28},
    }
