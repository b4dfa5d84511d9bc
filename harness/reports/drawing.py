"""Plots to pictures: SVG that stands in a page, SVG and PNG files.

altair describes a plot, vl-convert draws it; neither asks any host. Pictures are what they are without a
script: pages need none to show them. This module does not know what is plotted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from harness.errors import HarnessError
from harness.inert import inert
from harness.reports.palette import FONT, INK, PAPER, SIZE, theme

if TYPE_CHECKING:
    import altair as alt

WIDE, NARROW = 760, 340
"""Pixels a plot may be wide: on a desk, and on a telephone."""
_TITLE, _EDGE = 44, 16
"""Pixels above a plot in a file, for its title, and around it."""
_ELEMENTS = {"svg", "g", "path", "line", "rect", "text", "tspan", "defs", "clipPath", "circle", "title"}
"""All that pictures consist of: none of it runs, or asks for anything."""
_SVG = "{http://www.w3.org/2000/svg}"
_SHAPE, _FINE = re.compile(r' (?:d|transform|[xy]2?|width|height)="[^"]*"'), re.compile(r"(\d\.\d\d)\d+")
"""What says where things are; a hundredth of a pixel is enough."""
_NAMED = re.compile(r'<(?:clipPath|g|linearGradient) id="(\w+)"')
_SIZE = re.compile(r'<svg [^>]*?width="([\d.]+)" height="([\d.]+)" viewBox="[^"]*">')


Rows = list[dict[str, Any]]
"""What is plotted: a mark each, or an end of one."""


@dataclass(frozen=True)
class Plot:
    """A plot, not yet drawn."""

    name: str
    """Of its files, without their ending."""
    title: str
    caption: str
    """How to read it."""
    summary: str
    """What it shows, for those who cannot see it."""
    chart: Callable[[int], alt.TopLevelMixin]
    """The plot, so many pixels wide."""
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    """The numbers that it shows, as a table."""

    @cached_property
    def wide(self) -> str:
        """Drawn for a desk."""
        return _drawn(self.chart(WIDE))

    @cached_property
    def narrow(self) -> str:
        """Drawn for a telephone."""
        return _drawn(self.chart(NARROW))

    def inline(self) -> str:
        """Both, to stand in a page whose style shows one of them."""
        return placed(self.wide, f"{self.name}-w", "wide") + placed(self.narrow, f"{self.name}-n", "narrow")

    def svg(self) -> str:
        """A picture that stands alone: with its title, on white."""
        width, height = _measures(self.wide)
        inner = self.wide[self.wide.index(">") + 1 :].removesuffix("</svg>")
        all_width, all_height = width + 2 * _EDGE, height + _TITLE + _EDGE
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{all_width:g}" height="{all_height:g}"'
            f' viewBox="0 0 {all_width:g} {all_height:g}" role="img"'
            f' aria-label="{escape(inert(self.summary))}">'
            f'<rect width="100%" height="100%" fill="{PAPER}"/>'
            f'<text x="{_EDGE}" y="28" font-family="{FONT}" font-size="{SIZE + 4}px" font-weight="600"'
            f' fill="{INK}">{escape(inert(self.title))}</text>'
            f'<g transform="translate({_EDGE},{_TITLE})">{inner}</g></svg>\n'
        )

    def png(self) -> bytes:
        """The same in pixels, at twice the size."""
        import vl_convert

        return vl_convert.svg_to_png(self.svg(), scale=2)


def chart_of(rows: Rows) -> alt.Chart:
    """A chart of these data, which stand in it."""
    import altair as alt

    shown = [{name: _shown(each) for name, each in row.items()} for row in rows]
    return alt.Chart(alt.InlineData(values=shown))


def _shown(value: Any) -> Any:
    return inert(value) if isinstance(value, str) else value


def placed(svg: str, name: str, kind: str) -> str:
    """A picture that may stand in a page beside others: its names are its own, its width gives way.

    Args:
        svg: as it was drawn.
        name: different from that of any other picture of the page.
        kind: the class that it gets.

    Raises:
        HarnessError: there is something in it that no picture needs.
    """
    for element in ElementTree.fromstring(svg).iter():
        if element.tag.removeprefix(_SVG) not in _ELEMENTS or any(
            key.startswith("on") for key in element.attrib
        ):
            raise HarnessError(f"a plot holds {element.tag}, which no plot does")
    width, height = _measures(svg)
    own = re.sub(r'\bid="', f'id="{name}-', svg)
    own = re.sub(r"url\(#", f"url(#{name}-", own)
    inner = own[own.index(">") + 1 :]
    # The lines are drawn for screens: they stay so thin at any size.
    start = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'{start} aria-hidden="true" focusable="false">{inner}'


def _drawn(chart: Any) -> str:
    import vl_convert

    svg = vl_convert.vegalite_to_svg({**chart.to_dict(), "config": theme()})
    svg = _SHAPE.sub(lambda found: _FINE.sub(r"\1", found[0]), svg)
    # Names are counted on from one plot to the next: the same plot would not be the same bytes.
    for number, name in enumerate(dict.fromkeys(_NAMED.findall(svg))):
        svg = svg.replace(f'id="{name}"', f'id="n{number}"').replace(f"url(#{name})", f"url(#n{number})")
    return svg


def _measures(svg: str) -> tuple[float, float]:
    """Width and height in pixels."""
    found = _SIZE.match(svg)
    if not found:
        raise HarnessError("a plot was drawn without a size")
    return float(found[1]), float(found[2])
