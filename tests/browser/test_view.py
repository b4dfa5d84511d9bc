"""The local page as people meet it: in Chromium, from a server on loopback; any complaint of a page fails."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from harness.viewing.app import application
from harness.viewing.folders import Folders
from harness.viewing.local import listening
from tests.browser.conftest import READY, Opened
from tests.browser.pictures import pixels
from tests.browser.test_report_page import CONTRASTS, DESK, TELEPHONE
from tests.fake_endpoint import FakeEndpoint
from tests.reporting import LABELS, made_run
from tests.running import Bench, bench
from tests.test_reports import HOSTILE

__all__ = ["bench"]

ODD = " ".join(each for each in HOSTILE if "{" not in each)
ITEMS = 120
MANY = 60_000
SECONDS = 30.0


@contextmanager
def serving(folder: Path, **changes: Any) -> Iterator[str]:
    """The page over a folder, served by a thread of its own."""
    address: Future[str] = Future()
    ended = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with listening(application(folder, **changes)) as found:
            address.set_result(found)
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield address.result(SECONDS)
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join()


@dataclass
class Site:
    """The page over a folder, and how to open it."""

    address: str
    folder: Path
    open: Callable[..., Page]

    def key(self, name: str) -> str:
        """What addresses call a run."""
        return next(each.key for each in Folders(self.folder).found().values() if each.name == name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some runs."""
    folder = tmp_path_factory.mktemp("view")
    made_run(folder / "monday", ITEMS)
    made_run(folder / "tuesday", ITEMS, labels=("other",), timings={"begun": "2026-11-28T08:00:00Z"})
    made_run(folder / "hostile", 30, labels=(ODD, "b"), subjects=(ODD,), question=ODD)
    (folder / "broken").mkdir()
    (folder / "broken/run.json").write_text("{")
    return folder


@pytest.fixture
def opener(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens addresses; at the end no page may have complained, or asked any other host."""
    opened: list[tuple[str, Opened]] = []

    def open_address(address: str, **settings: Any) -> Page:
        found = Opened(browser.new_context(**{"viewport": DESK, **settings}).new_page())
        page = found.page
        page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
        page.on("request", lambda asked: found.asked.append(asked.url))
        host = re.match(r"http://127\.0\.0\.1:\d+/", address)
        assert host
        opened.append((host[0], found))
        page.goto(address)
        return page

    yield open_address
    for _, each in opened:
        each.page.context.close()
    assert [line for _, each in opened for line in each.said] == []
    foreign = [url for host, each in opened for url in each.asked if not url.startswith((host, "data:"))]
    assert foreign == []


@pytest.fixture
def site(runs: Path, opener: Callable[..., Page]) -> Iterator[Site]:
    """The page over the runs."""
    with serving(runs) as address:
        yield Site(address, runs, opener)


def names(page: Page) -> list[str]:
    """The runs of the list, in order."""
    return page.locator("table.runs th.name").all_inner_texts()


def test_the_list_is_searched_as_one_types(site: Site) -> None:
    """All runs are there, the newest first, broken ones too; typing finds, headings sort, names open."""
    page = site.open(site.address)
    assert names(page)[0] == "tuesday"
    assert set(names(page)) == {"monday", "tuesday", "hostile", "broken"}
    expect(page.locator("tr.damaged .state")).to_have_text("damaged")
    page.fill("#find input[name=q]", "mond")
    expect(page.locator("table.runs th.name")).to_have_text(["monday"])
    assert page.url.endswith("q=mond&sort=begun&down=1")
    page.fill("#find input[name=q]", "")
    expect(page.locator("table.runs th.name")).to_have_count(4)
    page.click("table.runs thead a:has-text('run')")
    assert names(page) == ["broken", "hostile", "monday", "tuesday"]
    page.click("table.runs a:has-text('monday')")
    expect(page.locator("h1")).to_have_text("monday")


def test_items_are_paged_filtered_and_opened(site: Site) -> None:
    """A run's items come in pages; filters, search and headings ask the server; a row opens whole."""
    page = site.open(f"{site.address}run/{site.key('monday')}")
    page.wait_for_selector(f"{READY}[data-facts=yes]")
    found, rows = page.locator("p.found"), page.locator("table.items > tbody > tr")
    expect(found).to_have_text(f"{ITEMS} of {ITEMS} items")
    expect(rows).to_have_count(25)
    page.click(".dt-paging-button:has-text('2') >> nth=0")
    expect(page.locator("button.open >> nth=0")).to_have_text("25")
    show, _, task, subject = (page.locator(".controls select").nth(at) for at in range(4))
    show.select_option("unscored")
    expect(found).to_have_text(f"2 of {ITEMS} items")
    expect(page.locator("td.end .mark.none >> nth=0")).to_contain_text("unscored")
    show.select_option("all items")
    task.select_option("sorted")
    expect(found).to_have_text(f"80 of {ITEMS} items")
    subject.select_option("virology")
    expect(found).to_have_text(f"40 of {ITEMS} items")
    task.select_option("")
    page.fill(".controls input[type=search]", "of item 41?")
    expect(found).to_have_text(f"1 of {ITEMS} items")
    page.click("button.open")
    detail = page.locator(".item")
    expect(detail.locator("pre mark")).to_contain_text("What is the number of item 41?")
    expect(detail.locator("tbody tr")).to_have_count(4)
    expect(detail).to_contain_text("choice 3 of 41")
    page.click("button.open")
    expect(detail).to_have_count(0)
    page.fill(".controls input[type=search]", "")
    expect(found).to_have_text(f"{ITEMS} of {ITEMS} items")
    page.click(f"table.items thead th:has-text('{LABELS[1]}')")
    expect(page.locator("th.dt-ordering-asc")).to_have_count(1)
    expect(page.locator("td.end .ahead >> nth=1")).to_have_text(re.compile("\N{MINUS SIGN}"))


def test_a_report_is_opened(site: Site) -> None:
    """A run's report opens from its page, works as it does from a file, and leads back."""
    page = site.open(f"{site.address}run/{site.key('monday')}")
    page.click("a:has-text('Report')")
    page.wait_for_selector(READY)
    expect(page.locator("figure.plot svg.wide >> nth=0")).to_be_visible()
    page.select_option(".controls select >> nth=0", "flipped")
    page.click("button.open >> nth=0")
    expect(page.locator(".item")).to_be_visible()
    page.go_back()
    expect(page.locator("h1")).to_have_text("monday")


def test_two_runs_are_compared(site: Site) -> None:
    """What is picked in the list stands side by side: verdicts, differences, and the items that flipped."""
    page = site.open(f"{site.address}?sort=run&down=0")
    for name in ("monday", "tuesday"):
        page.check(f"input[aria-label='Compare {name}']")
    page.click("button:has-text('Compare what is picked')")
    expect(page.locator("h1")).to_have_text(f"Compared with {LABELS[0]}")
    expect(page.locator(".verdicts li >> nth=0")).to_be_visible()
    expect(page.locator("#plot-differences svg.wide")).to_be_visible()
    page.wait_for_selector(READY)
    expect(page.locator("table.items thead th.end")).to_have_text([*LABELS, "other"])
    expect(page.locator("td.end .flip >> nth=0")).to_be_visible()
    page.uncheck(f"input[aria-label='Compare {LABELS[1]} of monday']")
    page.check("input[aria-label='other of tuesday is the baseline']")
    page.click("#pick button")
    expect(page.locator("h1")).to_have_text("Compared with other")
    page.wait_for_selector(READY)
    expect(page.locator("table.items thead th.end")).to_have_text(["other", LABELS[0]])


def test_hostile_texts_are_inert(site: Site) -> None:
    """Whatever labels, subjects and questions hold, it is shown as text, and nothing of it runs."""
    key = site.key("hostile")
    page = site.open(f"{site.address}run/{key}")
    page.wait_for_selector(f"{READY}[data-facts=yes]")
    page.click("button.open >> nth=1")
    page.wait_for_selector(".item pre")
    expect(page.locator("table.items td.question >> nth=0")).to_contain_text("<")
    page.goto(f"{site.address}compare?with={key}")
    page.wait_for_selector(READY)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img, iframe, object, embed, base").count() == 0


def test_a_run_in_progress_moves(tmp_path: Path, opener: Callable[..., Page]) -> None:
    """The page of a run in progress follows its signs of life, and says when it has ended."""
    sign = {"at": "2026-11-27T12:00:00Z", "every_s": 30.0, "session": "1" * 8}
    folder = made_run(tmp_path / "run", 20, status="running", heartbeat=sign)
    content = json.loads((folder / "run.json").read_text())

    def write(done: int, **changes: Any) -> None:
        counts = {label: {"items": 20, "items_done": done, "requests_sent": 4 * done} for label in LABELS}
        text = json.dumps({**content, "counts": counts, **changes})
        (folder / "new").write_text(text)
        (folder / "new").replace(folder / "run.json")

    write(5)
    with serving(tmp_path, every=0.02, now=lambda: 1_795_780_800.0) as address:
        key = next(iter(Folders(tmp_path).found()))
        page = opener(f"{address}run/{key}")
        bar = page.locator("#live .bar >> nth=0")
        expect(bar).to_have_attribute("aria-valuenow", "5")
        expect(page.locator("header .state")).to_have_text("running")
        write(15)
        expect(bar).to_have_attribute("aria-valuenow", "15")
        expect(page.locator("#live .counts >> nth=0")).to_contain_text("15 of 20 items")
        write(20, status="complete")
        expect(page.locator("#live .said")).to_contain_text("It has ended.")
        page.click("#live .said a")
        expect(page.locator("#live")).to_have_count(0)
        expect(page.locator("header .state")).to_have_text("complete")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, TELEPHONE], ids=["desk", "telephone"])
def test_it_is_readable(site: Site, scheme: str, size: dict[str, int]) -> None:
    """In light and dark, wide and narrow: nothing is wider than the page, every text stands out."""
    for address in ("", f"run/{site.key('monday')}", f"compare?with={site.key('monday')}"):
        page = site.open(f"{site.address}{address}", viewport=size, color_scheme=scheme)
        if address:
            page.wait_for_selector(READY)
            page.click("button.open >> nth=0")
            page.wait_for_selector(".item pre")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(CONTRASTS) == []
        shown = pixels(page.screenshot())
        assert (shown.mean() > 128) == (scheme == "light")
        assert shown.std() > 5  # there is something on it


def test_many_items_are_there_at_once(tmp_path: Path, opener: Callable[..., Page]) -> None:
    """However many items a run has, its page holds a few rows of them."""
    made_run(tmp_path / "run", MANY, texts=False)
    with serving(tmp_path) as address:
        page = opener(f"{address}run/{next(iter(Folders(tmp_path).found()))}")
        page.wait_for_selector(READY)
        expect(page.locator("p.found")).to_have_text(f"{MANY:,} of {MANY:,} items")
        assert page.locator("table.items tr").count() == 26
        page.select_option(".controls select >> nth=0", "became right")
        expect(page.locator("td.end .flip >> nth=0")).to_have_text("became right")


def test_a_real_run_shows_its_tokens(bench: Bench, opener: Callable[..., Page]) -> None:
    """An item of a run that was made shows each forced token with what the endpoint said of it."""

    async def make() -> None:
        async with FakeEndpoint() as endpoint:
            await bench.run(f"it={endpoint.base_url}")

    thread = threading.Thread(target=asyncio.run, args=(make(),))
    thread.start()
    thread.join()
    with serving(bench.folder) as address:
        (found,) = Folders(bench.folder).found().values()
        page = opener(f"{address}run/{found.key}")
        page.wait_for_selector(READY)
        page.click("button.open >> nth=0")
        expect(page.locator(".tokens")).to_have_count(4)
        text = page.locator(".tokens >> nth=0").locator("code").all_inner_texts()
        assert "".join(text).replace("·", " ").strip() == "eats it on day 0."
