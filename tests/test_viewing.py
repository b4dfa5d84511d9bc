"""The local page: who may ask, which runs it finds, what it answers, and what it costs at a million items."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from harness.cli import main
from harness.comparison.columns import Place
from harness.errors import UsageError
from harness.reports.gathered import gather
from harness.sources import resolve
from harness.viewing.app import application
from harness.viewing.building import build, glimpse
from harness.viewing.folders import Folders
from harness.viewing.guarding import host_of
from harness.viewing.itemtable import SHOWS, ItemTable, Query
from harness.viewing.live import Tally
from harness.viewing.local import listening
from harness.viewing.opened import Library, lines
from harness.viewing.rows import rows_of
from harness.viewing.settings import ViewSettings
from harness.viewing.shelves import Shelf
from tests.fake_endpoint import Body, FakeEndpoint, Fault, Status
from tests.ledger import note
from tests.reporting import LABELS, SUBJECTS, made_run
from tests.running import LONGEST, ROOT, Bench, bench

__all__ = ["bench"]

ITEMS = 150
HOSTILE = '</script><img src=x onerror="alert(1)">\x1b[31m'
NOW = datetime(2026, 11, 27, 20, tzinfo=UTC).timestamp()
Pages = TestClient[Any, Any]


@asynccontextmanager
async def pages(folder: Path, **changes: Any) -> AsyncIterator[Pages]:
    """The page over a folder, and who asks it."""
    async with TestClient(TestServer(application(folder, **changes))) as client:
        yield client


async def text_of(client: Pages, address: str, status: int = 200, **headers: str) -> str:
    """What an address answers with."""
    async with client.get(address, headers=headers) as reply:
        text = await reply.text()
        assert reply.status == status, text
        return text


async def json_of(client: Pages, address: str, status: int = 200) -> Any:
    """Likewise, data."""
    return json.loads(await text_of(client, address, status, Accept="application/json"))


def key_of(folder: Path, name: str) -> str:
    """What addresses call a run."""
    return next(each.key for each in Folders(folder).found().values() if each.name == name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, one of them deeper in it."""
    folder = tmp_path_factory.mktemp("runs")
    made_run(folder / "monday", ITEMS)
    made_run(
        folder / "team/tuesday",
        ITEMS,
        labels=("other",),
        timings={"begun": "2026-11-28T08:00:00Z"},
    )
    return folder


@pytest.fixture
def table(runs: Path) -> ItemTable:
    """The items of the first run."""
    return build(resolve([runs / "monday"]))


# --------------------------------------------------------------------------------------------- who may ask


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            ("127.0.0.1", 200),
            ("127.0.0.1:8000", 200),
            ("localhost:1", 200),
            ("LOCALHOST", 200),
            ("[::1]:5", 200),
        ),
        *(("evil.example", 403), ("evil.example:80", 403), ("127.0.0.1.evil.example", 403), ("0.0.0.0", 403)),
        *(("localhost.evil.example:80", 403), ("192.168.0.1", 403), ("127.0.0.1@evil.example", 403)),
    ],
)
async def test_only_loopback_names_are_answered(runs: Path, host: str, status: int) -> None:
    """A page that lets its own name point to loopback gets nothing, whatever it asks for."""
    async with pages(runs) as client:
        for address in ("/", "/nothing", "/static/view.js"):
            async with client.get(address, headers={"Host": host}) as reply:
                assert (reply.status == 403) == (status == 403)


@given(name=st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=20))
def test_the_host_is_what_stands_before_the_port(name: str) -> None:
    """A port is taken off, once, and nothing else."""
    assert host_of(f"{name}:80") == name.strip().lower()


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_get_is_answered(runs: Path, method: str) -> None:
    """There is nothing to change, and no way to."""
    async with pages(runs) as client:
        for address in ("/", f"/run/{key_of(runs, 'monday')}", "/items"):
            async with client.request(method, address) as reply:
                assert reply.status == 405


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("none", "navigate", "document", 200),
        ("same-origin", "cors", "empty", 200),
        ("cross-site", "navigate", "document", 200),
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "cors", "empty", 403),
    ],
)
async def test_other_pages_get_nothing(runs: Path, site: str, mode: str, dest: str, status: int) -> None:
    """Links lead here; what another page asks for inside itself is refused."""
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    async with pages(runs) as client, client.get("/", headers=headers) as reply:
        assert reply.status == status


async def test_every_answer_has_the_headers(runs: Path) -> None:
    """Pages, data, files, streams and errors say that nothing is to be guessed, framed, kept or asked for."""
    key = key_of(runs, "monday")
    addresses = (
        "/",
        f"/run/{key}",
        f"/run/{key}/events",
        f"/items?with={key}",
        "/static/style.css",
        "/nothing",
    )
    async with pages(runs) as client:
        for address in addresses:
            async with client.get(address) as reply:
                assert reply.headers["X-Content-Type-Options"] == "nosniff"
                assert reply.headers["X-Frame-Options"] == "DENY"
                assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
                policy = reply.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'self';")
                assert "frame-ancestors 'none'" in policy


ESCAPES = [
    "../secret",
    "..%2fsecret",
    "%2e%2e/secret",
    "..%5csecret",
    "%00",
    "....//secret",
    "/etc/passwd",
    "secret",
]


@pytest.mark.parametrize("escape", ESCAPES)
async def test_no_address_leads_out(tmp_path: Path, escape: str) -> None:
    """No text of an address becomes a path: only what was found in the folder has an address."""
    made_run(tmp_path / "secret", 10)
    made_run(tmp_path / "results/run", 10)
    key = next(iter(Folders(tmp_path).found().values())).key
    async with pages(tmp_path / "results") as client:
        for pattern in (
            "/{}",
            "/run/{}",
            "/static/{}",
            "/items?with={}",
            "/report?with={}",
            "/item?with={}.0&at=0",
        ):
            for name in (escape, key):
                url = URL(f"http://127.0.0.1:{client.port}{pattern.format(name)}", encoded=True)
                async with ClientSession() as session, session.get(url) as reply:
                    assert reply.status in (400, 404)
                    assert "id-3" not in await reply.text()


@pytest.mark.parametrize("name", ["run.json", "items.parquet", "texts.parquet", "scores.csv", "journal"])
async def test_links_out_of_the_folder_are_not_followed(tmp_path: Path, name: str) -> None:
    """A run whose files are links to somewhere else is shown as damaged, and nothing of it is read."""
    outside = made_run(tmp_path / "outside", 20)
    (outside / "journal").mkdir()
    (outside / "journal/it.sqlite").write_bytes(b"")
    inside = made_run(tmp_path / "results/run", 20)
    (inside / name).unlink(missing_ok=True)
    (inside / name).symlink_to(outside / name)
    (tmp_path / "results/whole").symlink_to(outside)
    (found,) = Folders(tmp_path / "results").found().values()
    assert (found.name, found.state(NOW)) == ("run", "damaged")
    assert "leads out of the folder" in found.problem
    async with pages(tmp_path / "results") as client:
        assert "leads out of the folder" in await text_of(client, "/")
        await json_of(client, f"/items?with={found.key}", 500)


# ---------------------------------------------------------------------------------------- which runs it finds


def test_runs_are_found_wherever_they_stand(runs: Path) -> None:
    """Runs below a folder are found, also deeper in it; so is the folder itself, where it is one."""
    assert [each.name for each in Folders(runs).found().values()] == ["monday", "team/tuesday"]
    assert [each.name for each in Folders(runs / "monday").found().values()] == ["monday"]


def damaged(folder: Path) -> Iterator[str]:
    """Run folders as nobody wants them, one after another; their names."""
    texts = {
        "empty": "",
        "half": '{"status": "comp',
        "list": "[]",
        "number": "7",
        "no-endpoints": json.dumps({"status": "complete", "remarks": [], "tasks": {}, "endpoints": []}),
        "deep": "[" * 100_000,
        "types": json.dumps({"status": 7, "remarks": {}, "tasks": [], "endpoints": "x", "identity": None}),
        "odd": "\x00\xff",
    }
    for name, text in texts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "run.json").write_text(text, encoding="latin-1")
        yield name
    (folder / "lost/journal").mkdir(parents=True)
    yield "lost"
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe/run.json")
    yield "pipe"
    (folder / "folder/run.json").mkdir(parents=True)
    yield "folder"


async def test_damaged_runs_are_shown_as_such(tmp_path: Path) -> None:
    """Whatever stands where a run should be, it is listed with what is wrong, beside the others."""
    names = list(damaged(tmp_path))
    made_run(tmp_path / "good", 20)
    found = {each.name: each for each in Folders(tmp_path).found().values()}
    lost = [name for name in names if found[name].state(NOW) != "damaged" or not found[name].problem]
    assert lost == []
    async with pages(tmp_path) as client:
        text = await text_of(client, "/?sort=run&down=0")
        assert [name for name in (*names, "good") if f">{name}</a>" not in text] == []
        for name in names:
            assert found[name].problem[:20] in (await text_of(client, f"/run/{found[name].key}")).replace(
                "&#34;", '"'
            )
    note(
        "damaged run folders that the page shows beside a sound one",
        tried=len(names),
        lost=len(lost),
        unit="folders",
    )


@pytest.mark.parametrize("name", ["scores.csv", "items.parquet", "texts.parquet"])
async def test_a_broken_table_breaks_itself_alone(tmp_path: Path, name: str) -> None:
    """With one table broken the run is still shown, and what needs it says which file it is."""
    folder = made_run(tmp_path / "run", 30)
    (folder / name).write_bytes(b"\x00PAR1 not this")
    key = key_of(tmp_path, "run")
    async with pages(tmp_path) as client:
        assert "1 of 1 runs" in await text_of(client, "/")
        shown = await text_of(client, f"/run/{key}")
        assert ("scores.csv:" in shown) == (name == "scores.csv")
        items = await json_of(client, f"/items?with={key}", 200 if name == "scores.csv" else 500)
        assert name == "scores.csv" or name in items["error"]


@pytest.mark.parametrize(
    ("status", "silent", "state"),
    [
        ("complete", 1e6, "complete"),
        ("interrupted", 1e6, "interrupted"),
        ("decided", 0, "decided"),
        ("running", 0, "running"),
        ("running", 89, "running"),
        ("running", 91, "dead"),
        ("running", -5, "running"),
    ],
)
def test_a_silent_run_is_dead(tmp_path: Path, status: str, silent: float, state: str) -> None:
    """A run that says it runs, but has been silent three times as long as it should, is dead."""
    sign = {"at": "2026-11-27T20:00:00Z", "every_s": 30.0, "session": "0" * 8}
    made_run(tmp_path / "run", 10, status=status, heartbeat=sign)
    (found,) = Folders(tmp_path).found().values()
    assert found.state(NOW + silent) == state


def test_a_changed_run_is_read_again(tmp_path: Path) -> None:
    """What is known of a run holds until one of its files is written anew."""
    made_run(tmp_path / "run", 10, status="running")
    folders = Folders(tmp_path)
    (before,) = folders.found().values()
    (same,) = folders.found().values()
    assert same is before
    content = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**content, "status": "complete"}))
    (after,) = folders.found().values()
    assert (before.state(NOW), after.state(NOW)) == ("dead", "complete")


async def test_a_run_in_progress_has_no_tables_of_earlier_sessions(tmp_path: Path) -> None:
    """Tables of an earlier session are told to be so where there are some, and only there."""
    folder = made_run(tmp_path / "run", 10, status="running")
    async with pages(tmp_path) as client:
        before = await text_of(client, f"/run/{key_of(tmp_path, 'run')}")
    header = (folder / "scores.csv").read_text().partition("\n")[0]
    (folder / "scores.csv").write_text(header + "\n")
    async with pages(tmp_path) as client:
        after = await text_of(client, f"/run/{key_of(tmp_path, 'run')}")
    assert ("of an earlier session" in before, "of an earlier session" in after) == (True, False)


async def test_the_list_is_searched_sorted_and_paged(tmp_path: Path) -> None:
    """Words are looked for in names, tasks, endpoints and states; the newest run comes first by itself."""
    for number in range(52):
        label = "special" if number == 7 else "base"
        begun = f"2026-11-{1 + number % 28:02d}T{number % 24:02d}:00:00Z"
        made_run(tmp_path / f"run-{number:02d}", 3, labels=(label,), texts=False, timings={"begun": begun})

    def names(text: str) -> list[str]:
        return re.findall(r'href="/run/\w+">(run-\d\d)</a>', text)

    async with pages(tmp_path) as client:
        first = names(await text_of(client, "/"))
        assert len(first) == 50
        assert len(names(await text_of(client, "/?page=2"))) == 2
        assert names(await text_of(client, "/?sort=run&down=0"))[:2] == ["run-00", "run-01"]
        assert names(await text_of(client, "/?sort=run&down=1"))[0] == "run-51"
        assert names(await text_of(client, "/?q=SPECIAL")) == ["run-07"]
        assert names(await text_of(client, "/?q=run-0+complete+plain&sort=run&down=0")) == [
            f"run-0{n}" for n in range(10)
        ]
        assert "No run is like this" in await text_of(client, "/?q=nowhere")
        await text_of(client, "/?page=x", 400)


async def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    """Where no run is yet the page says what makes one."""
    async with pages(tmp_path) as client:
        assert "forced-choice run" in await text_of(client, "/")


async def test_hostile_names_and_texts_are_inert(tmp_path: Path) -> None:
    """Names of folders, labels, subjects, questions and reasons are text wherever they stand."""
    name = "<img src=x onerror=alert(1)>\n"
    made_run(
        tmp_path / name, 30, labels=(HOSTILE, "b"), subjects=(HOSTILE,), question=HOSTILE, remarks=[HOSTILE]
    )
    made_run(tmp_path / "plain", 3).rename(tmp_path / "no text: \udcff")
    found = next(each for each in Folders(tmp_path).found().values() if each.name == name)
    other = next(each for each in Folders(tmp_path).found().values() if each.name != name)
    async with pages(tmp_path) as client:
        assert "no text: \ufffd" in await text_of(client, f"/run/{other.key}")
        for address in ("/", f"/run/{found.key}", f"/compare?with={found.key}", f"/report?with={found.key}"):
            text = await text_of(client, address)
            assert "<img" not in text
            assert "\x1b" not in text
        rows = await json_of(client, f"/items?with={found.key}&show=unscored")
        assert "\x1b" not in json.dumps(rows, ensure_ascii=False)
        item = await json_of(client, f"/item?with={found.key}&at=1")
        assert "\x1b" not in json.dumps(item, ensure_ascii=False)
        assert item["endpoints"][0]["label"].startswith("</script>")  # data: the page puts it in as text


# ------------------------------------------------------------------------------------------------------ items


def by_hand(table: ItemTable, query: Query) -> list[int]:
    """The positions that a query is about, item by item."""
    found = []
    for at in range(len(table)):
        place = table.place(at)
        ends = range(len(table.ends)) if query.end is None else [query.end]
        if query.show != "all items" and not any(_like(table, query.show, number, at) for number in ends):
            continue
        if (query.task and place.task != query.task) or (query.subject and place.subject != query.subject):
            continue
        words = query.search.casefold()
        named = (str(table.ids[at]), place.task, place.subject)
        if words and not (any(words in each.casefold() for each in named) or words == str(place.index)):
            continue
        found.append(at)
    return _ordered(table, query, found)


def _like(table: ItemTable, show: str, number: int, at: int) -> bool:
    first, end = table.ends[0], table.ends[number]
    value, before = float(end.value[at]), float(first.value[at])
    moved = (
        first.prediction[at] >= 0 and end.prediction[at] >= 0 and first.prediction[at] != end.prediction[at]
    )
    return bool(
        {
            "wrong": value < 0.5,
            "right": value >= 0.5,
            "flipped": moved and not (value >= 0.5 and before >= 0.5),
            "became right": moved and value >= 0.5 > before,
            "became wrong": moved and before >= 0.5 > value,
            "nearly a tie": abs(float(end.margin[at])) < 0.1,
            "unscored": end.reason[at] > 0,
        }[show]
    )


def _ordered(table: ItemTable, query: Query, found: list[int]) -> list[int]:
    def key(at: int) -> Any:
        place = table.place(at)
        if query.sort in ("", "item"):
            return at if not query.sort else place.index
        if query.sort == "task":
            return place.task, place.subject
        margin = float(table.ends[int(query.sort)].margin[at])
        return (-np.inf if query.descending else np.inf) if margin != margin else margin

    return (
        sorted(found, key=key, reverse=query.descending)
        if query.sort
        else found[:: -1 if query.descending else 1]
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    query=st.builds(
        Query,
        show=st.sampled_from(SHOWS),
        end=st.sampled_from([None, 0, 1]),
        task=st.sampled_from(["", "plain", "sorted", "no such"]),
        subject=st.sampled_from(["", *SUBJECTS]),
        search=st.sampled_from(["", "id-1", "ANAT", "7", "12", "(", "nowhere", "é"]),
        sort=st.sampled_from(["", "item", "task", "0", "1"]),
        descending=st.booleans(),
    ),
    most=st.integers(0, ITEMS + 1),
)
def test_queries_find_what_one_finds_by_hand(table: ItemTable, query: Query, most: int) -> None:
    """Every filter, search and order gives the items that going through them one by one gives."""
    positions, count = table.where(query)
    found, wanted = positions.tolist(), by_hand(table, query)
    assert count == len(found)
    first, counted = table.where(query, most=most)
    assert (first.tolist(), counted) == (found[:most], count)
    assert sorted(found) == sorted(wanted)
    margins = [table.ends[int(query.sort)].margin[at] for at in found] if query.sort.isdigit() else []
    if query.sort.isdigit():
        known = [each for each in margins if each == each]
        assert known == sorted(known, reverse=query.descending)
        assert all(each != each for each in margins[len(known) :])  # those without a margin come last
    elif not (query.sort and query.descending):
        assert found == wanted


@pytest.mark.parametrize("changed", [{"show": "nice"}, {"end": 7}, {"sort": "9"}, {"sort": "\u0663"}])
def test_queries_that_cannot_be_meant(table: ItemTable, changed: Mapping[str, Any]) -> None:
    """What cannot be asked for is refused."""
    with pytest.raises(UsageError):
        table.where(Query(**changed))


def test_items_are_those_of_the_report(runs: Path, table: ItemTable) -> None:
    """Sums, predictions, margins, reasons and flips are what a report of the run says of every item."""
    items = gather([runs / "monday"], margin=0.01).report.items
    assert [table.place(at) for at in range(len(table))] == list(items.places)
    assert [str(each) for each in table.ids] == list(items.ids)
    library = Library(resolve([runs / "monday"]), table)
    for at in range(0, ITEMS, 7):
        whole = library.item(at)
        assert tuple(whole["gold"]) == items.gold[at]
        for number, end in enumerate(whole["endpoints"]):
            assert tuple(end["sums"]) == items.sums[number][at]
            assert end["prediction"] == items.predictions[number][at]
            assert end["unscored"] == items.unscored[number][at]
            assert end["flip"] == items.flips[number].get(at, "")
            margin = items.margins[number][at]
            assert (
                end["margin"] is None
                if margin != margin
                else end["margin"] == pytest.approx(margin, abs=1e-4)
            )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(start=st.integers(0, ITEMS + 5), length=st.integers(1, 60))
def test_a_glimpse_is_part_of_the_whole(runs: Path, table: ItemTable, start: int, length: int) -> None:
    """The first pages are read by themselves, and show what the whole table does."""
    sources = resolve([runs / "monday"])
    seen = glimpse(sources, range(start, start + length))
    assert seen is not None
    assert seen.items == ITEMS
    assert len(seen.table) == max(0, min(length, ITEMS - start))
    shown = range(len(seen.table))
    wanted = lines(table, [start + at for at in shown], {})
    assert lines(seen.table, shown, {}) == [{**each, "at": at} for at, each in enumerate(wanted)]


def test_endpoints_that_were_asked_different_items(tmp_path: Path) -> None:
    """Runs of different items stand side by side: what one was not asked is empty there."""
    made_run(tmp_path / "short", 30, labels=("a",))
    made_run(tmp_path / "long", 60, labels=("b",), subjects=("anatomy",))
    found = resolve([tmp_path / "short", tmp_path / "long"])
    assert glimpse(found, range(10)) is None
    table = build(found)
    places = [table.place(at) for at in range(len(table))]
    assert len(set(places)) == len(places)
    for number, (name, count) in enumerate((("short", 30), ("long", 60))):
        end = table.ends[number]
        assert int((end.reason >= 0).sum()) == count
        rows = rows_of(
            found.runs[number], end.row[end.row >= 0].tolist(), ["task", "subject", "shots", "index"]
        )
        there = [places[at] for at in np.flatnonzero(end.row >= 0)]
        assert [Place(**{**row}) for row in rows] == there, name


async def test_pages_of_items(runs: Path) -> None:
    """Items come in pages, with what they ask; an item comes whole, with prompt, choices and token ids."""
    key = key_of(runs, "monday")
    async with pages(runs) as client:
        facts = await json_of(client, f"/facts?with={key}")
        assert (facts["labels"], facts["items"]) == (list(LABELS), ITEMS)
        assert facts["subjects"] == {"sorted": list(SUBJECTS[1:])}
        page = await json_of(client, f"/items?with={key}&show=flipped&start=3&length=4")
        assert len(page["rows"]) == 4 < page["matching"] < page["items"] == ITEMS
        assert all(row["endpoints"][1]["flip"] for row in page["rows"])
        row = page["rows"][0]
        assert row["question"].startswith(f"What is the number of item {row['index']}?")
        item = await json_of(client, f"/item?with={key}&at={row['at']}")
        assert item["index"] == row["index"]
        (document,) = item["documents"]
        assert document["choices"][2] == f"choice 2 of {row['index']}"
        assert document["tokens"] == [["#7", "#8"]] * 4
        await json_of(client, f"/item?with={key}&at={ITEMS}", 400)
        await json_of(client, f"/items?with={key}&length=100000", 400)
        await json_of(client, "/items", 400)
        await json_of(client, f"/items?with={key}.9", 400)


async def test_words_of_questions_are_searched(runs: Path) -> None:
    """Words are looked for in what items ask, and not in the shots before it."""
    key = key_of(runs, "monday")
    async with pages(runs) as client:
        found = await json_of(client, f"/items?with={key}&search=NUMBER+of+item+42%3F")
        assert [row["index"] for row in found["rows"]] == [42]
        assert (await json_of(client, f"/items?with={key}&search=word50"))["matching"] == 0


def test_a_long_search_ends(runs: Path, table: ItemTable) -> None:
    """A search that takes too long answers with what it has, and says that it is not all."""
    library = Library(resolve([runs / "monday"]), table)
    assert library.search("number").whole
    clock = iter(range(0, 1000, 100))
    assert not library.search("number", lambda: next(clock)).whole


async def test_tokens_come_out_of_the_journal(bench: Bench) -> None:
    """An item of a real run shows what the endpoint said of each token; their sum is the choice's."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}")
    key = key_of(bench.folder, "run")
    before = sorted(os.listdir(bench.folder / "run/journal"))
    async with pages(bench.folder) as client:
        for at in (0, 5, 13, 23):
            item = await json_of(client, f"/item?with={key}&at={at}")
            (document,) = item["documents"]
            said = document["logprobs"]["it"]
            assert [len(each) for each in said] == [len(each) for each in document["tokens"]]
            assert [sum(each) for each in said] == pytest.approx(item["endpoints"][0]["sums"], abs=0.05)
            assert (
                "".join(document["tokens"][0]).strip() == document["choices"][0].strip()
                or item["task"] == "mmlu"
            )
    assert sorted(os.listdir(bench.folder / "run/journal")) == before


# ------------------------------------------------------------------------------------ reports and comparisons


async def test_reports_are_made_and_kept(runs: Path) -> None:
    """A report is the page that `report` writes, made once; nothing is written into the run's folder."""
    key = key_of(runs, "monday")
    before = sorted(os.listdir(runs / "monday"))
    async with pages(runs) as client, client.get(f"/report?with={key}") as reply:
        text = await reply.text()
        assert "<h1>monday</h1>" in text
        assert "'sha256-" in reply.headers["Content-Security-Policy"]
        assert await text_of(client, f"/report?with={key}") == text
    assert sorted(os.listdir(runs / "monday")) == before


async def test_endpoints_are_compared(runs: Path) -> None:
    """Runs, or endpoints of runs, are compared as `compare` does it, with the baseline that one chooses."""
    monday, tuesday = key_of(runs, "monday"), key_of(runs, "team/tuesday")
    async with pages(runs) as client:
        text = await text_of(client, f"/compare?with={monday}")
        assert f"Compared with {LABELS[0]}" in text
        assert "better" in text
        turned = await text_of(client, f"/compare?with={monday}&baseline={monday}.1")
        assert f"Compared with {LABELS[1]}" in turned
        both = await text_of(client, f"/compare?with={monday}.1&with={tuesday}")
        assert f"Compared with {LABELS[1]}" in both
        assert 'id="plot-differences"' in both
        assert "Pick two endpoints" in await text_of(client, f"/compare?with={tuesday}")
        assert "Pick two endpoints" in await text_of(client, "/compare?with=nothing")


async def test_what_would_take_long_names_the_command(tmp_path: Path) -> None:
    """Of a run of very many items a report is not made while somebody waits: the command is said."""
    made_run(tmp_path / "run", 12, tasks={"plain": {"metrics": ["acc"], "items": 200_000}})
    key = key_of(tmp_path, "run")
    async with pages(tmp_path) as client:
        for name in ("report", "compare"):
            text = await text_of(client, f"/{name}?with={key}", 400)
            assert f"forced-choice {name} {tmp_path / 'run'}" in text


async def test_slow_things_are_made_once() -> None:
    """Whoever asks for what is being made waits for it; the least used goes first when there is no room."""
    shelf: Shelf[str] = Shelf(len, 10)
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name * 4

    found = await asyncio.gather(*(shelf.get("a", lambda: make("a")) for _ in range(5)))
    assert (found, made) == (["aaaa"] * 5, ["a"])
    for name in ("b", "a", "c", "b"):
        await shelf.get(name, lambda name=name: make(name))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]


# ------------------------------------------------------------------------------------------------ in progress


async def events_of(client: Pages, key: str) -> AsyncIterator[dict[str, Any]]:
    """What a run's stream of events says."""
    async with client.get(f"/run/{key}/events", timeout=ClientTimeout(30)) as reply:
        assert reply.content_type == "text/event-stream"
        async for line in reply.content:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


async def test_a_run_in_progress_is_followed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a run goes on its counts and its scores so far arrive as they come; the end is the last event."""
    monkeypatch.setattr("harness.heartbeat.SIGN_SECONDS", 0.02)
    seen: list[dict[str, Any]] = []
    began, half = asyncio.Event(), asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        began.set()  # its folder is there by now
        return None if number <= 30 or half.is_set() else Status(429)

    async with FakeEndpoint(script) as endpoint, pages(bench.folder, every=0.01) as client:
        run = bench.run(f"it={endpoint.base_url}", shortcut=False, concurrency=1, attempts=100_000)
        running = asyncio.create_task(run)
        await began.wait()
        async for event in events_of(client, key_of(bench.folder, "run")):
            seen.append(event)
            (end,) = event["endpoints"]
            if 0 < end["done"] < end["items"] and end["scores"]:
                half.set()
        await running
    middle = next(each for each in seen if each["endpoints"][0]["scores"])
    assert (middle["state"], seen[-1]["state"]) == ("running", "complete")
    assert 0 < middle["endpoints"][0]["scores"][0]["n"] < 12
    last = seen[-1]["endpoints"][0]
    assert last["done"] == last["items"] == 24
    scores = gather([bench.folder / "run"], margin=0.01).report.accuracy
    final = {
        row.name: cell.value
        for row in scores
        if row.level == "task" and row.headline and (cell := row.cells[0])
    }
    assert {each["task"]: each["value"] for each in last["scores"]} == pytest.approx(final, abs=1e-4)


async def test_a_tally_takes_its_time(bench: Bench) -> None:
    """A journal is read for a while at a time, goes on where it stopped, and counts each item once."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}")
    (found,) = (each.run for each in Folders(bench.folder / "run").found().values())
    assert found is not None
    tally = Tally(found, "it", batch=4)
    clock = iter(range(10_000))
    left = [sum(map(len, tally.pending.values()))]
    while left[-1]:
        tally.advance(lambda: float(next(clock)))
        left.append(sum(map(len, tally.pending.values())))
    assert left == [24, 20, 16, 12, 8, 4, 0]
    counted = {task: estimate.n for task, _, estimate in tally.estimates()}
    assert counted == {"hellaswag": 12, "mmlu": 12}


# ------------------------------------------------------------------------------------------------ the command


def test_settings_that_cannot_be_meant() -> None:
    """A port that there is not is refused."""
    with pytest.raises(UsageError, match="--port 70000"):
        ViewSettings(port=70_000)


async def test_the_command_says_its_address_first(runs: Path) -> None:
    """Line 1 of `view` is the address, where the list is; SIGTERM ends it with exit code 0."""
    command = [sys.executable, "run_eval.py", "view", str(runs), "--no-open"]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert server.stdout is not None
    address = (await server.stdout.readline()).decode().rstrip("\n")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    async with ClientSession() as session, session.get(address) as reply:
        assert "team/tuesday" in await reply.text()
    server.terminate()
    assert await asyncio.wait_for(server.wait(), LONGEST) == 0


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no such folder the command says so, and what to give."""
    assert main(["view", str(tmp_path / "nowhere")]) == 2
    assert "no such folder; give the one that runs are written into" in capsys.readouterr().err.replace(
        "\n", " "
    )


async def test_it_listens_on_loopback_alone(runs: Path) -> None:
    """The address is on 127.0.0.1; a port that is taken is said with the way out."""
    async with listening(application(runs)) as address:
        found = URL(address)
        assert found.host == "127.0.0.1"
        async with ClientSession() as session, session.get(address) as reply:
            assert reply.status == 200
        with pytest.raises(UsageError, match="--port 0 picks a free one"):
            async with listening(application(runs), found.port or 0):
                pass
