"""A report as people meet it: in Chromium, from a file, with no network; any complaint of a page fails."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from harness.reports.gathered import gather
from harness.reports.plots import plots_of
from harness.reports.records import Items, Report
from harness.reports.writing import write_report
from tests.browser.conftest import Open
from tests.browser.pictures import pixels
from tests.ledger import note
from tests.reporting import LABELS, made_run
from tests.test_reports import HOSTILE, asked

__all__ = ["asked"]

ITEMS = 600
MANY = 60_000
SECONDS = 3.0
"""In which a page with so many items is ready."""
DESK, TELEPHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

CONTRASTS = (Path(__file__).parent / "contrasts.js").read_text().partition("\n")[2]
"""Finds texts that do not stand out from their ground."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run with its report."""
    made = made_run(tmp_path_factory.mktemp("browser") / "run", ITEMS)
    write_report([made])
    return made


@pytest.fixture(scope="session")
def report(folder: Path) -> Report:
    """What the report shows."""
    return gather([folder], margin=0.01).report


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of many items on two endpoints."""
    return write_report([made_run(tmp_path_factory.mktemp("many") / "run", MANY)]).file


def count_of(page: Page) -> int:
    """How many items are found, as the page says."""
    return int(page.inner_text(".found").split(" of ")[0].replace(",", ""))


def choose(page: Page, label: str, option: str) -> None:
    """Pick an option of one of the selections over the table."""
    page.locator(".controls label", has_text=re.compile(f"^{label}")).locator("select").select_option(option)


def wrong(items: Items, position: int) -> list[int]:
    """Items that an endpoint has wrong."""
    return [item for item, value in enumerate(items.values[position]) if value < 0.5]


def test_plots_are_drawn(folder: Path, report: Report, open_page: Open) -> None:
    """Every plot is a picture of some size with marks on it, has words for those who cannot see it, and its
    numbers as a table; only the drawing for this width is shown."""
    page = open_page(folder / "report.html").ready()
    plots = [plot for each in plots_of(report).values() for plot in each]
    assert len(plots) >= 6
    for plot in plots:
        figure = page.locator(f"#plot-{plot.name}")
        assert figure.locator("h3").inner_text() == plot.title
        picture = figure.locator(".picture")
        assert picture.get_attribute("role") == "img"
        assert picture.get_attribute("aria-label") == plot.summary
        box = picture.locator("svg:visible").bounding_box()
        assert picture.locator("svg:visible").count() == 1
        assert box is not None and box["width"] > 400 and box["height"] > 80
        assert figure.locator("svg.wide .role-mark [aria-label], svg.wide .mark-line path").count() > 1
        figure.locator("summary").click()
        assert figure.locator("tbody tr").count() == len(plot.rows)


def test_words_of_marks_are_shown(folder: Path, open_page: Open) -> None:
    """What a mark stands for is told when the pointer is on it."""
    page = open_page(folder / "report.html").ready()
    mark = page.locator("#plot-differences svg.wide .mark-symbol [aria-label]").first
    said = mark.get_attribute("aria-label")
    mark.hover()
    assert said and "points" in said
    assert page.inner_text("#tip") == said
    page.mouse.move(2, 2)
    expect(page.locator("#tip")).to_be_hidden()


def test_filters(folder: Path, report: Report, open_page: Open) -> None:
    """Each filter shows the items that the run's own numbers name."""
    page, items = open_page(folder / "report.html").ready(), report.items
    assert count_of(page) == len(items) == ITEMS
    base, tuned = set(wrong(items, 0)), set(wrong(items, 1))
    unscored = [item for item, why in enumerate(items.unscored[1]) if why]
    expected: dict[tuple[str, str], int] = {
        ("wrong", "any endpoint"): len(base | tuned),
        ("wrong", "base"): len(base),
        ("right", "tuned"): ITEMS - len(tuned) - len(unscored),
        ("unscored", "any endpoint"): len(unscored),
        ("flipped", "any endpoint"): len(items.flips[1]),
        ("became wrong", "tuned"): sum(kind == "right to wrong" for kind in items.flips[1].values()),
        ("became right", "base"): 0,
        ("nearly a tie", "base"): sum(abs(each) < 0.1 for each in items.margins[0]),
    }
    assert all(count for (kind, _), count in expected.items() if kind != "became right")
    for (kind, end), count in expected.items():
        choose(page, "show", kind)
        choose(page, "on", end)
        assert count_of(page) == count, (kind, end)
    choose(page, "show", "all items")
    choose(page, "task", "sorted")
    assert count_of(page) == sum(place.task == "sorted" for place in items.places)
    choose(page, "subject", "virology")
    assert count_of(page) == sum(place.subject == "virology" for place in items.places)
    choose(page, "task", "plain")
    assert count_of(page) == sum(place.task == "plain" for place in items.places)


def test_search(folder: Path, open_page: Open) -> None:
    """Words are looked for in questions, ids, subjects and tasks, all of them, in any order."""
    page = open_page(folder / "report.html").ready()
    for text, count in (("id-137", 1), ("ITEM 42?", 1), ("virology sorted", 200), ("no such words", 0)):
        page.fill("input[type=search]", text)
        expect(page.locator(".found")).to_have_text(f"{count} of {ITEMS} items")
    expect(page.locator("table.items tbody")).to_have_text("No item is like this.")


def test_sorting(folder: Path, report: Report, open_page: Open) -> None:
    """A click on an endpoint sorts by how far its right choices are ahead, another turns it round."""
    page = open_page(folder / "report.html").ready()
    header = page.locator("table.items thead th.end").first
    lowest = min(each for each in report.items.margins[0] if each == each)
    for sign, extreme in ((1, lowest), (-1, max(report.items.margins[0]))):
        header.click()
        shown = page.locator("table.items td.end:nth-child(5) .ahead").all_inner_texts()
        numbers = [float(each.replace("\N{MINUS SIGN}", "-")) for each in shown]
        assert numbers[0] == pytest.approx(extreme, abs=0.006)
        assert all(sign * (later - earlier) >= 0 for earlier, later in pairwise(numbers))
        assert header.get_attribute("aria-sort") == ("ascending" if sign > 0 else "descending")


def test_paging(folder: Path, open_page: Open) -> None:
    """Rows are on pages: hundreds of items put some dozen rows into the document."""
    page = open_page(folder / "report.html").ready()
    assert page.locator("table.items > tbody > tr").count() == 25
    first = page.locator("button.open").first.inner_text()
    page.locator(".dt-paging-button", has_text="2").first.click()
    assert page.locator("button.open").first.inner_text() != first


def test_an_item_opens(asked: Path, open_page: Open) -> None:
    """A row opens by its button, by the keyboard too, and shows prompt, choices, sums and tokens."""
    found = gather([asked], margin=0.01)
    file = write_report([asked]).file
    page = open_page(file).ready()
    button = page.locator("button.open").nth(3)
    button.focus()
    page.keyboard.press("Enter")
    detail = page.locator(".item")
    expect(detail).to_have_count(1)
    assert button.get_attribute("aria-expanded") == "true"
    items, item = found.report.items, 3
    texts = {tuple(row[:3]): row for row in found.shelves[0].run.texts.to_numpy().tolist()}
    place = items.places[item]
    _, _, _, contexts, choices, _, forced, _ = texts[place.task, place.subject, place.index]
    assert detail.locator("pre").text_content() == contexts[0]
    assert [each.strip() for each in detail.locator("td.text").all_inner_texts()] == list(choices)
    for at, total in enumerate(items.sums[0][item]):
        shown = detail.locator("tbody tr").nth(at).locator("td.number").first.inner_text()
        assert f"{total:.3f}".replace("-", "\N{MINUS SIGN}") in shown
    assert detail.locator(".tokens").count() == 2 * len(choices)
    assert detail.locator(".token").count() == 2 * sum(map(len, forced))
    page.keyboard.press("Enter")
    expect(detail).to_have_count(0)


def test_hostile_text_is_inert(tmp_path: Path, open_page: Open) -> None:
    """Names, subjects, questions and remarks full of markup are shown as they are, and run nothing."""
    foul = "".join(HOSTILE)
    made = made_run(
        tmp_path / "run",
        60,
        labels=(f"base {foul}", f"tuned {HOSTILE[1]}"),
        subjects=tuple(f"{each} {HOSTILE[2]}" for each in "abc"),
        question=f"{HOSTILE[0]}{HOSTILE[1]}{HOSTILE[7]} {{number}}?",
        remarks=[foul],
    )
    page = open_page(write_report([made]).file).ready()
    for at in range(5):
        page.locator("button.open").nth(at).click()
    page.locator("#plot-accuracy svg.wide .mark-symbol.role-mark [aria-label]").first.hover()
    page.wait_for_selector(".item >> nth=4")
    ran = page.evaluate("window.pwned")
    added = page.locator("img, iframe, object, [onerror], [onload], [onmouseover], .item script").count()
    assert ran is None
    assert added == 0
    assert HOSTILE[0] in page.inner_text(".item pre >> nth=0")
    assert HOSTILE[1] in page.inner_text(".endpoints")
    note("hostile pages in a browser", tried=1, lost=int(bool(ran) or added > 0), unit="pages")


def test_many_items(many: Path, open_page: Open) -> None:
    """60,000 items are there, and can be searched, within seconds, as they are not in the document."""
    assert many.stat().st_size <= 25_000_000
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        page = open_page(many).ready()
        times.append(time.perf_counter() - begun)
        assert count_of(page) == MANY
    assert page.locator("*").count() < 10_000
    # Other work of the machine can only make it slower.
    assert min(times) < SECONDS, times
    page.fill("input[type=search]", f"id-{MANY - 1}")
    expect(page.locator(".found")).to_have_text(f"1 of {MANY:,} items")
    page.locator("button.open").click()
    assert f"item {MANY - 1}" in page.inner_text(".item pre")


SCENES: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESK, "color_scheme": "light"},
    "dark": {"viewport": DESK, "color_scheme": "dark"},
    "narrow": {"viewport": TELEPHONE, "color_scheme": "light"},
    "narrow dark": {"viewport": TELEPHONE, "color_scheme": "dark"},
}


@pytest.mark.parametrize("scene", SCENES)
def test_it_can_be_read(scene: str, folder: Path, open_page: Open) -> None:
    """On a desk and on a telephone, in the light and in the dark: something is to be seen, nothing sticks out
    at the side, and all text stands out from its ground (WCAG AA)."""
    page = open_page(folder / "report.html", **SCENES[scene]).ready()
    choose(page, "show", "wrong")
    page.locator("button.open").first.click()
    page.wait_for_selector(".item")
    picture = pixels(page.screenshot())
    brightness = float(picture.mean())
    assert brightness < 80 if "dark" in scene else brightness > 200
    assert len({tuple(each) for each in picture[::3, ::3].reshape(-1, 3).tolist()}) > 20
    width = SCENES[scene]["viewport"]["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in page.locator("figure.plot").all():
        box = plot.locator("svg:visible").bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.evaluate(CONTRASTS) == []


def test_it_can_be_printed(folder: Path, open_page: Open) -> None:
    """On paper tables are unfolded, there are no controls, and the page is light even where screens are
    dark."""
    page = open_page(folder / "report.html", color_scheme="dark").ready()
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 4
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for hidden in ("nav.contents", ".controls", ".dt-paging", "summary"):
        assert page.locator(f"{hidden}:visible").count() == 0
    assert page.locator("details tbody tr:visible").count() > 50
    assert float(pixels(page.screenshot()).mean()) > 200
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.locator("details[open]").count() == 0


def test_a_screen_reader_finds_its_way(folder: Path, open_page: Open) -> None:
    """There are landmarks, headings without a gap, names for all regions and controls, heads for all columns,
    and a way past the contents."""
    page = open_page(folder / "report.html").ready()
    page.locator("button.open").first.click()
    page.wait_for_selector(".item")
    for landmark in ("banner", "main", "contentinfo", "search"):
        assert page.get_by_role(landmark).count() == 1, landmark
    assert page.get_by_role("navigation", name="Contents").count() == 1
    levels = [
        int(each)
        for each in page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => h.tagName[1])")
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels) if later != 4)
    assert page.locator("section:not([aria-labelledby])").count() == 0
    assert page.locator("table:not(:has(caption)):not(.item table)").count() == 0
    assert page.locator("thead th:not([scope]):not(.items th)").count() == 0
    for control in page.locator("input, select, button").all():
        assert control.evaluate("(each) => each.ariaLabel || each.labels?.length || each.textContent.trim()")
    assert page.get_attribute("html", "lang") == "en"
    page.keyboard.press("Home")
    assert page.locator("a.skip").get_attribute("href") == "#main"


def test_without_a_script(folder: Path, open_page: Open) -> None:
    """Where scripts are off, plots and tables are there, and it is said what is not."""
    page = open_page(folder / "report.html", java_script_enabled=False).page
    assert page.locator("figure.plot svg:visible").count() >= 6
    assert page.locator("table.accuracy tbody tr").count() > 3
    assert "needs JavaScript" in page.inner_text("noscript")


def test_many_endpoints(tmp_path: Path, open_page: Open) -> None:
    """Nine endpoints of long names make tables scroll, each in its place, and never the page."""
    labels = [f"dedicated:endpoint{number}:adapter-of-a-long-name-{number}" for number in range(9)]
    file = write_report([made_run(tmp_path / "run", 60, labels=labels)]).file
    for viewport in (DESK, TELEPHONE):
        page = open_page(file, viewport=viewport).ready()
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert page.locator("table.items > tbody > tr").first.locator("td.end").count() == 9


def test_one_endpoint(folder: Path, open_page: Open, tmp_path: Path) -> None:
    """A report of a single endpoint has no filters for flips, and no choice of endpoints."""
    file = write_report([f"{folder}#{LABELS[0]}"], out=tmp_path / "one.html").file
    page = open_page(file).ready()
    assert "flipped" not in page.locator(".controls").inner_text()
    assert page.locator("#comparison").count() == 0
    choose(page, "show", "wrong")
    assert 0 < count_of(page) < ITEMS
