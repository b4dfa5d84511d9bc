"""Reports: what is read, what a page holds and leaves out, that texts stay texts, the same bytes twice."""

from __future__ import annotations

import asyncio
import base64
import gzip
import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness import UsageError, load_run, reference
from harness.cli import main
from harness.errors import HarnessError
from harness.prepare import prepare
from harness.reports.documents import documents, last_paragraph, question
from harness.reports.drawing import Plot, placed
from harness.reports.gathered import Gathered, gather
from harness.reports.itemdata import FLIPPED, LIMIT, RIGHT, WRONG, Packed, pack, rank
from harness.reports.pace import beats_of, latencies_of
from harness.reports.page import Page, page, policy, scripts
from harness.reports.palette import DARK, SERIES
from harness.reports.plots import PLOTS, Chapter, plots_of
from harness.reports.records import Document
from harness.reports.wording import wordings
from harness.reports.writing import KNOWN, write_report
from harness.runner import evaluate
from tests.fake_endpoint import FakeEndpoint
from tests.ledger import note
from tests.reporting import LABELS, TOKENIZER, made_run
from tests.running import Bench
from tests.test_compare import shifted

ITEMS = 240
NO_PLOTS: Mapping[Chapter, list[Plot]] = {chapter: [] for chapter, _ in PLOTS}
HOSTILE = (
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 1">',
    "</script><script>window.pwned = 1</script>",
    "<!--<script>",
    "{{ 7 * 191 }} {% raw %}",
    "' onmouseover='window.pwned = 1",
    "&lt;b&gt; &amp;amp; \u202egnp.exe \u2028 \x1b[31m",
    "]]></style><svg onload=window.pwned=1>",
    "javascript:window.pwned=1",
)


class Everything:
    """A container of every item."""

    def __contains__(self, place: object) -> bool:
        return True


def gathered(*folders: Path, **settings: Any) -> Gathered:
    """What a report of these runs shows."""
    return gather(list(folders), margin=0.01, **settings)


def page_of(found: Gathered, *, limit: int = LIMIT) -> Page:
    """Their page, without plots, which take long to draw."""
    read = lambda: documents(found.shelves, found.said, Everything())  # noqa: E731 - reads anew each time
    return page(found.report, NO_PLOTS, read, limit=limit)


def packed_of(found: Gathered, *, room: int, plenty: int = 10**9) -> Packed:
    """Their items and documents."""
    read = lambda: documents(found.shelves, found.said, Everything())  # noqa: E731 - reads anew each time
    return pack(found.report, read, room=room, plenty=plenty)


def unpacked(text: str) -> Any:
    """What the page's script makes of packed text."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


class Elements(HTMLParser):
    """Counts the elements of a page, and keeps the attributes of each and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attributes
        self._in_script = tag == "script" and not attributes

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        (self.scripts if self._in_script else self.texts).append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run of two endpoints."""
    return made_run(tmp_path_factory.mktemp("made") / "run", ITEMS)


@pytest.fixture(scope="module")
def found(run: Path) -> Gathered:
    """What its report shows."""
    return gathered(run)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was really made, on two models of one endpoint, with a log file."""
    bench = Bench(tmp_path_factory.mktemp("asked"))

    async def work() -> Path:
        async with FakeEndpoint(shifted) as endpoint:
            urls = [f"{name}={endpoint.base_url}#{name}" for name in ("base", "tuned")]
            log = bench.folder / "run.log"
            prepared = prepare(bench.settings(*urls, metrics="ece,margin", log_file=log), {})
            with Console(quiet=True) as quiet:
                return (await evaluate(prepared, quiet)).folder

    with ThreadPoolExecutor() as threads:  # the browser's tests have a loop in this one
        return threads.submit(asyncio.run, work()).result()


# ------------------------------------------------------------------------------------------- what is shown


def test_columns_hold_what_the_tables_hold(run: Path, found: Gathered) -> None:
    """Sums, predictions, right and wrong, and why items are unscored reach the browser as the tables have
    them."""
    columns = unpacked(packed_of(found, room=10**8).columns)
    table = pd.read_parquet(run / "items.parquet")
    for number, label in enumerate(LABELS):
        rows = table[table["endpoint"] == label].reset_index(drop=True)
        end = columns["endpoints"][number]
        sums = [each for row in rows["sums"] if row is not None for each in row]
        assert end["sums"] == pytest.approx(sums, abs=1e-4)
        assert [columns["reasons"][why] for why in end["unscored"]] == rows["unscored"].fillna("").to_list()
        for at, row in enumerate(rows.to_dict("records")):
            metric = columns["metrics"][row["task"]]
            said = (end["prediction"][at], end["value"][at])
            known = (row[f"prediction_{metric}"], row[f"correct_{metric}"])
            assert said == ((-1, None) if isinstance(row["unscored"], str) else known)
            assert columns["tasks"][columns["task"][at]] == row["task"]
            assert columns["subjects"][columns["subject"][at]] == row["subject"]
            assert columns["gold"][at] == row["gold"][0]
            assert columns["id"][at] == row["id"]


def test_documents_hold_prompts_choices_and_tokens(asked: Path) -> None:
    """An item's document has what was asked, and what each endpoint said of each token."""
    found = gathered(asked)
    packed = packed_of(found, room=10**8)
    columns, blocks = unpacked(packed.columns), [unpacked(each) for each in packed.blocks]
    texts = {tuple(row[:3]): row for row in load_run(asked).texts.to_numpy().tolist()}
    assert packed.documents.total() == len(found.report.items) == len(texts)
    for item, place in enumerate(found.report.items.places):
        ((block, position),) = columns["documents"][item]
        document = blocks[block][position]
        _, _, _, contexts, choices, _, forced, tokenizer = texts[place.task, place.subject, place.index]
        assert document["contexts"] == [contexts[0]]
        assert document["choices"] == list(choices)
        assert document["tokenizer"] == tokenizer
        assert [len(each) for each in document["tokens"]] == [len(each) for each in forced]
        for number, label in enumerate(("base", "tuned")):
            sums = [sum(each) for each in document["logprobs"][label]]
            assert sums == pytest.approx(found.report.items.sums[number][item], abs=0.02)


def test_tokens_are_shown_as_texts(asked: Path) -> None:
    """The run's own tokenizer, where it still stands, says what ids are; else they are shown as numbers."""
    found = gathered(asked)
    (place, document), *_ = documents(found.shelves, found.said, Everything())
    spelled = "".join(document.tokens[0])
    assert spelled == f" {document.choices[0]}" or spelled == document.choices[0]
    (asked.parent / "tokenizer.json").rename(asked.parent / "elsewhere.json")
    try:
        (_, unknown), *_ = documents(gathered(asked).shelves, found.said, {place})
    finally:
        (asked.parent / "elsewhere.json").rename(asked.parent / "tokenizer.json")
    assert all(re.fullmatch("#[0-9]+", each) for choice in unknown.tokens for each in choice)


def test_a_tokenizer_is_known_by_its_hash(run: Path) -> None:
    """A tokenizer that stands where the run's stood, and is another one, spells nothing."""
    text = json.loads((run / "run.json").read_text())
    assert text["endpoints"][0]["tokenizer_sha256"] == TOKENIZER
    assert wordings(load_run(run)) == {}
    assert reference.FOLDER.is_dir()


def test_calibration_and_margins_are_those_of_the_metrics(run: Path, found: Gathered) -> None:
    """The curve's error is the metric `ece`, its bins make it up, and margins are those of the metric
    `margin`."""
    scores, items = load_run(run).scores, load_run(run).items
    assert {(each.endpoint, each.task) for each in found.report.calibration} == {
        (label, task) for label in LABELS for task in ("plain", "sorted")
    }
    for each in found.report.calibration:
        gap = sum(one.n * abs(one.accuracy - one.confidence) for one in each.bins) / each.n
        assert each.ece == pytest.approx(gap)
        told = scores[(scores["endpoint"] == each.endpoint) & (scores["task"] == each.task)]
        for value in told[(told["metric"] == "ece") & (told["subject"] == "")]["value"]:
            assert each.ece == pytest.approx(value, rel=1e-9)
    assert (scores["metric"] == "ece").any()
    for ahead in found.report.margins:
        rows = items[(items["endpoint"] == ahead.endpoint) & (items["task"] == ahead.task)]
        if ahead.task == "plain":
            assert sorted(ahead.values.tolist()) == pytest.approx(sorted(rows["value_margin"].dropna()))


def test_flips_are_those_of_compare(run: Path, found: Gathered, tmp_path: Path) -> None:
    """Items marked as flipped are the rows of `flips.csv`, and the sentences those of `compare`."""
    assert main(["compare", str(run), "--out", str(tmp_path)]) == 0
    flips = pd.read_csv(tmp_path / "flips.csv", keep_default_na=False)
    items = found.report.items
    marked = {(items.places[item].index, kind) for item, kind in items.flips[1].items()}
    assert marked == set(zip(flips["index"], flips["flip"], strict=True))
    assert items.flips[0] == {}
    told = (*found.report.sentences, *found.report.more)
    assert any(each.startswith("tuned is better than base on sorted") for each in told)


def test_one_endpoint_is_not_compared(run: Path) -> None:
    """A single endpoint gets a report without a comparison."""
    found = gather([f"{run}#tuned"], margin=0.01)
    assert found.report.labels == ("tuned",)
    assert found.report.findings is None
    text = page_of(found).text
    assert 'id="comparison"' not in text
    assert {plot.name for each in plots_of(found.report).values() for plot in each} >= {"accuracy", "margins"}


def test_several_runs_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    """Endpoints of several runs are told apart by their runs; what cannot be joined is told, not refused."""
    other = made_run(tmp_path / "other", 60, labels=("base",), subjects=("botany",))
    report = gathered(run, other).report
    assert report.labels == ("run/base", "tuned", "other/base")
    assert any("item" in each and "only in" in each for each in report.remarks)
    assert len(report.items) == ITEMS + 40
    assert report.items.unscored[2].count(None) == ITEMS - 20
    assert page_of(gathered(run, other)).text.count("not asked") > 0


def test_what_is_in_common_may_be_nothing(run: Path, tmp_path: Path) -> None:
    """Runs without a common item get a report that says so."""
    other = made_run(tmp_path / "other", 4, labels=("late",), subjects=("botany",))
    report = gather([f"{run}#tuned", str(other)], margin=0.01).report
    assert report.labels == ("tuned", "late")
    assert report.findings is None or report.findings.rows


def test_a_run_that_is_broken_off_says_so(tmp_path: Path) -> None:
    """The page's head says that a run is not complete."""
    folder = made_run(tmp_path / "run", 30, status="interrupted")
    assert "This run is interrupted." in page_of(gathered(folder)).text


def test_settings_that_say_no_are_shown(tmp_path: Path) -> None:
    """What was turned off, or set to 0, stands among the settings; what was not given does not."""
    settings = {"tasks": "plain", "shots": 0, "probe": False, "limit": None, "metrics": ""}
    folder = made_run(tmp_path / "run", 4, settings=settings)
    rows = {row[0]: row[1] for row in gathered(folder).report.sections[0].rows}
    assert (rows["shots"], rows["probe"]) == ("0", "no")
    assert not {"limit", "metrics"} & set(rows)


def test_latencies_and_pace(asked: Path) -> None:
    """Latencies come from the journal, one a reply; the pace from the log file, of this run alone."""
    run = load_run(asked)
    latencies = latencies_of(run, "tuned", called="called so")
    assert latencies.endpoint == "called so"
    assert len(latencies.milliseconds) == run.manifest["counts"]["tuned"]["journal"]["replies"]
    assert (latencies.milliseconds > 0).all()
    beats = list(beats_of(run))
    assert {each.endpoint for each in beats} == {"base", "tuned"}
    log = Path(run.manifest["settings"]["log_file"])
    whole = log.read_text()
    try:
        log.write_text(whole.replace(json.dumps(str(asked)), '"/another/run"') + '{"half')
        assert list(beats_of(run)) == []
        log.unlink()
        assert list(beats_of(run)) == []
    finally:
        log.write_text(whole)


# ------------------------------------------------------------------------------------------- what has room


def test_small_runs_are_held_whole(found: Gathered) -> None:
    """Where there is room nothing is left out, and nothing is said of it."""
    made = page_of(found)
    assert made.left_out == []
    assert len(made.text.encode()) < LIMIT


@given(share=st.floats(0.02, 1.1))
@settings(deadline=None, max_examples=25)
def test_the_room_is_kept(found: Gathered, share: float) -> None:
    """Whatever room there is, no more is taken; documents of flipped items go first, those of right ones
    last, and sums of every item before any of them."""
    whole = packed_of(found, room=10**8)
    size = len(whole.columns) + sum(map(len, whole.blocks))
    room = int(share * size)
    packed = packed_of(found, room=room)
    taken = len(packed.columns) + sum(map(len, packed.blocks))
    assert taken <= max(room, 1000)  # names of tasks and endpoints are there in any case
    if packed.blocks:
        assert packed.held == len(found.report.items)
    if packed.documents[RIGHT]:
        assert packed.documents[WRONG] == packed.ranks[WRONG]
    if packed.documents[WRONG]:
        assert packed.documents[FLIPPED] == packed.ranks[FLIPPED]


def test_what_is_left_out_is_said(found: Gathered) -> None:
    """A page without room for all documents says how many are missing, of which kind."""
    whole = len(page_of(found).text.encode())
    made = page_of(found, limit=whole - 8_000)
    assert len(made.text.encode()) <= whole - 8_000
    assert made.left_out
    told = html.unescape(made.text)
    assert all(each in told for each in made.left_out)
    assert "forced-choice view shows every item whole." in made.left_out


def test_right_items_do_not_fill_a_page(found: Gathered) -> None:
    """Documents of right items are held only as long as the page stays small."""
    packed = packed_of(found, room=10**8, plenty=0)
    assert packed.documents[RIGHT] == 0
    assert packed.documents[WRONG] == packed.ranks[WRONG] > 0
    assert packed.documents[FLIPPED] == packed.ranks[FLIPPED] > 0


def test_each_task_gets_its_turn(tmp_path: Path) -> None:
    """Where documents of one rank do not fit, no task has all and another none."""
    folder = made_run(tmp_path / "run", 6000, words=150)
    found = gathered(folder)
    whole = packed_of(found, room=10**8, plenty=0)
    room = len(whole.columns) + sum(map(len, whole.blocks)) * 6 // 10
    columns = unpacked(packed_of(found, room=room, plenty=0).columns)
    items = found.report.items
    held = Counter(
        items.places[item].task
        for item, where in enumerate(columns["documents"])
        if where and rank(items, item) == WRONG
    )
    assert set(held) == {"plain", "sorted"}


def test_without_texts(tmp_path: Path) -> None:
    """A run that stored no texts has a report with all sums, which says what is missing."""
    found = gathered(made_run(tmp_path / "run", 60, texts=False))
    made = page_of(found)
    assert any("stored no texts" in each for each in made.left_out)
    columns = unpacked(packed_of(found, room=10**7).columns)
    assert columns["documents"] == columns["question"] == []
    assert len(columns["task"]) == 60


# ----------------------------------------------------------------------------------------- texts stay texts


def test_the_policy_names_each_script(found: Gathered) -> None:
    """The page's policy forbids every address, and every script but its own, by their hashes."""
    text = page_of(found).text
    elements = Elements(text)
    (said,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    told = html.unescape(said)
    assert "default-src 'none'" in told
    assert "unsafe-eval" not in told
    assert not re.search(r"https?:|\*|'self'|script-src[^;]*unsafe", told)
    assert len(elements.scripts) == len(scripts()) == 3
    for each in elements.scripts:
        digest = base64.b64encode(sha256(each.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in told
    assert policy(["a"]) != policy(["b"])


def test_a_page_asks_nobody(found: Gathered) -> None:
    """No element of the page names an address to fetch."""
    elements = Elements(page_of(found).text)
    fetching = [value for name, value in elements.attributes if name in ("src", "srcset", "href", "action")]
    assert all(value is not None and value.startswith(("#", "data:,")) for value in fetching)
    assert not elements.tags.keys() & {"iframe", "img", "object", "embed", "base", "form"}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text: str, tmp_path: Path) -> None:
    """Whatever labels, subjects, questions and remarks hold: the page has the same elements as ever."""
    plain = made_run(tmp_path / "plain", 12)
    foul = made_run(
        tmp_path / "foul",
        12,
        labels=(f"base {text}", f"tuned {text}"),
        subjects=tuple(f"{each} {text}" for each in ("a", "b", "c")),
        question=f"{text.replace('{', '{{').replace('}', '}}')} {{number}}",
        remarks=[text],
        program=text,
    )
    ours, theirs = (Elements(page_of(gathered(folder)).text) for folder in (plain, foul))
    assert theirs.tags == ours.tags
    names = Counter(name for name, _ in ours.attributes)
    assert Counter(name for name, _ in theirs.attributes) == names
    assert not [name for name in names if name.startswith("on")]
    assert theirs.scripts == ours.scripts
    shown = "".join(theirs.texts)
    assert not set("\u202e\x1b\u2028") & set(shown)
    note("hostile texts in a report", tried=1, lost=int(theirs.tags != ours.tags), unit="texts")


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=40)
def test_any_question_stays_what_it_is(text: str) -> None:
    """A question becomes one short line, whatever it holds; the last paragraph is what it is made of."""
    document = Document(tokenizer="", contexts=(f"shots\n\n{text}",), choices=(), tokens=(), logprobs={})
    line = question(document)
    assert "\n" not in line
    assert len(line) <= 160
    assert last_paragraph(f"one\n\ntwo {text.strip() and 'three'}").startswith("two")


def test_plots_hold_nothing_that_runs() -> None:
    """A picture with an element or attribute that no picture needs is refused."""
    start = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" viewBox="0 0 9 9">'
    assert 'id="a-clip"' in placed(f'{start}<g id="clip"/></svg>', "a", "wide")
    for inside in ("<script/>", '<g onclick="x()"/>', "<image/>", "<foreignObject/>", "<a/>", "<use/>"):
        with pytest.raises(HarnessError, match="no plot"):
            placed(f"{start}{inside}</svg>", "a", "wide")


# ------------------------------------------------------------------------------------------------ the files


@pytest.fixture(scope="module")
def hostile_plots(tmp_path_factory: pytest.TempPathFactory) -> list[Plot]:
    """All plots of a run whose names are hostile and long."""
    labels = tuple(
        f"{name} {HOSTILE[at]}" for at, name in zip((1, 4, 6), ("base", "tuned", "third"), strict=True)
    )
    folder = made_run(tmp_path_factory.mktemp("plots") / "run", 300, labels=labels)
    found = plots_of(gathered(folder).report)
    return [plot for of_chapter in found.values() for plot in of_chapter]


def test_every_colour_has_a_dark_partner(hostile_plots: list[Plot]) -> None:
    """What is drawn has no colour that a dark page would not know."""
    assert set(SERIES) <= set(DARK)
    assert len(set(DARK)) == len(DARK) == len({light.lower() for light in DARK})
    for plot in hostile_plots:
        for picture in (plot.wide, plot.narrow):
            used = {each.lower() for each in re.findall(r'(?:fill|stroke)="([^"]*)"', picture)}
            assert used <= {*DARK, "none", "transparent"}, plot.name


def test_pictures_are_wellformed_and_tell_what_they_show(hostile_plots: list[Plot]) -> None:
    """Each plot has its numbers as a table, a sentence for those who cannot see it, and files that stand
    alone."""
    assert {plot.name for plot in hostile_plots} >= {"accuracy", "subjects-2", "differences", "flips"}
    for plot in hostile_plots:
        assert plot.summary and plot.caption
        assert all(len(row) == len(plot.header) for row in plot.rows)
        assert plot.rows
        assert ElementTree.fromstring(plot.svg()).tag.endswith("svg")
        for picture, most in ((plot.wide, 800), (plot.narrow, 360)):
            width = float(re.findall(r'width="([\d.]+)"', picture)[0])
            assert width <= most, plot.name
    assert hostile_plots[0].png().startswith(b"\x89PNG")


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    """Two reports of a run are equal, byte for byte, page and plots; what an earlier one left is gone, but
    nothing of a page of another name beside it."""
    for folder in ("page-plots", "plots"):
        (tmp_path / "two" / folder).mkdir(parents=True)
    (tmp_path / "two/page-plots/subjects-9.svg").write_text("of an earlier report")
    (tmp_path / "two/page-plots/mine.svg").write_text("of somebody else")
    (tmp_path / "two/plots/accuracy.svg").write_text("of report.html")
    for name in ("one", "two"):
        assert main(["report", str(run), "--out", str(tmp_path / name / "page.html")]) == 0
    ours, theirs = (
        {str(each.relative_to(tmp_path / name)): each.read_bytes() for each in _files(tmp_path / name)}
        for name in ("one", "two")
    )
    assert theirs.pop("page-plots/mine.svg") == b"of somebody else"
    assert theirs.pop("plots/accuracy.svg") == b"of report.html"
    assert ours == theirs
    assert {Path(name).suffix for name in ours} == {".html", ".svg", ".png"}


def _files(folder: Path) -> Iterator[Path]:
    return (each for each in sorted(folder.rglob("*")) if each.is_file())


def test_each_kind_of_plot_is_known() -> None:
    """What takes stale pictures away knows the names of all plots."""
    assert len(KNOWN) == len(PLOTS)


def test_usage_errors(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be reported is one line on stderr and exit code 2."""
    for arguments, said in (
        ([], "give a run's folder"),
        ([str(tmp_path / "none")], "no run is there"),
        ([str(run), "--out", str(tmp_path)], "is a folder"),
        ([str(run), "--baseline", "nobody"], "no endpoint 'nobody'"),
        ([str(run), "--margin", "2"], "--margin"),
        ([str(run), f"lm-eval:{tmp_path}"], "no run to report"),
    ):
        assert main(["report", *arguments]) == 2
        printed = capsys.readouterr()
        assert said in printed.err
        assert printed.err.count("\n") == 1
    with pytest.raises(UsageError, match="margin"):
        write_report([run], margin=-1)
