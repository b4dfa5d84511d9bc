"""What is asked beside a run: adapters held against their base, looks at the model, what is repeated."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness import compare, reference
from harness.errors import UsageError
from harness.items import BadItem, Item, Pair
from harness.manifest import Exit
from harness.outlook import foreseen
from harness.plan import EndpointIdentity, KeyMaker
from harness.prepare import prepare
from harness.prompts import Prompt
from harness.replies import StoredReplies
from harness.runner import RunResult
from harness.serving.faults.plan import read_faults
from harness.serving.server import Options, Served, listening, load
from harness.watching.chosen import (
    END,
    MIDDLE,
    MOST_ITEMS,
    MOST_REQUESTS,
    START,
    drawn,
    look_at,
    moments,
    shares,
)
from harness.watching.findings import CHECK_COLUMNS
from harness.watching.judging import LEAST, TAKEN, Floor, Look, difference, drift, floor_of
from harness.watching.kept import Kept, kept
from tests.fake_endpoint import Altered, Body, FakeEndpoint, Fault, Hang, Script, Status
from tests.ledger import note
from tests.running import ROOT, Bench, bench, write_rows
from tests.test_tables import section, table

__all__ = ["bench"]

LORA = "#ep1:lora"
ITEMS = 80
"""Of HellaSwag, of which two are looked at: eight requests."""
LOOK = 8
PROBE = 6
"""Requests of the brief probe: three that are scored, two of a text, one for its ids."""


@pytest.fixture
def rows(bench: Bench) -> None:
    """Enough items that the model is looked at three times."""
    write_rows(bench.folder / "data", hellaswag=ITEMS)


def lower(by: float) -> Altered:
    """All log-probabilities are lower."""

    def change(reply: Body) -> None:
        found = reply["choices"][0]["logprobs"]
        found["token_logprobs"] = [each - by for each in found["token_logprobs"]]
        found["top_logprobs"] = [
            {text: value - by for text, value in each.items()} for each in found["top_logprobs"]
        ]

    return Altered(change)


def of(body: Body) -> str:
    """The adapter that a request asks for."""
    return str(body["model"]).partition(":")[2]


def adapters(by: float = 0.3, *, until: float = math.inf) -> Script:
    """Adapters move everything, up to some request."""

    def script(number: int, body: Body) -> Fault | None:
        return lower(by * len(of(body))) if of(body) and number <= until else None

    return script


async def run(bench: Bench, *urls: str, **changes: Any) -> RunResult:
    """A run of HellaSwag with its checks."""
    given = {"tasks": "hellaswag", "probe": True, "shortcut": False, **changes}
    async with asyncio.timeout(60):
        return await bench.run(*urls, **given)


def checks(bench: Bench, out: str = "run", **wanted: str) -> list[dict[str, str]]:
    """Rows of `checks.csv`."""
    file = bench.folder / out / "checks.csv"
    found = list(csv.DictReader(io.StringIO(file.read_text()))) if file.exists() else []
    return [each for each in found if wanted.items() <= each.items()]


def looks(bench: Bench, out: str = "run") -> list[str]:
    """The looks at the endpoints, in the order of their journals."""
    return [each.moment for known in kept_of(bench, out) for each in known.seen]


def kept_of(bench: Bench, out: str = "run") -> list[Kept]:
    """What each journal keeps."""
    found = []
    for file in sorted((bench.folder / out / "journal").glob("*.sqlite")):
        journal = StoredReplies(file)
        found.append(kept(journal))
        journal.close()
    return found


# ---------------------------------------------------------------------------------------------- adapters


async def test_an_adapter_that_is_not_applied_is_refused_before_anything_is_spent(
    bench: Bench, rows: None
) -> None:
    """Equal to its base in every token: exit 4, no item asked, and the row in the table says why."""
    async with FakeEndpoint() as endpoint:
        result = await run(bench, f"{endpoint.base_url}{LORA}")
    assert result.exit is Exit.REFUSED
    assert "adapter lora is not applied" in result.parts[0].refused
    assert len(endpoint.bodies) < ITEMS
    assert result.parts[0].progress.items_done == 0
    [row] = checks(bench, check="adapter")
    assert (row["verdict"], row["largest_difference"]) == ("refused", "0")
    assert bench.manifest()["checks"]["ep1:lora"][0]["verdict"] == "refused"


async def test_an_adapter_that_is_applied_is_told_with_its_distance(bench: Bench, rows: None) -> None:
    """Start and end are in the table and in `run.json`, and nothing of it is a remark or an item."""
    async with FakeEndpoint(adapters()) as endpoint:
        result = await run(bench, f"{endpoint.base_url}{LORA}")
        await run(bench, f"{endpoint.base_url}{LORA}", out="plain", probe=False)
    assert result.exit is Exit.DONE
    found = checks(bench, check="adapter")
    assert [each["when"].split()[0] for each in found] == [START, END]
    for each in found:
        assert each["verdict"] == "fine"
        assert float(each["mean_difference"]) == pytest.approx(1.2)
        assert float(each["largest_difference"]) == pytest.approx(1.2)
    said = bench.manifest()["checks"]["ep1:lora"]
    assert [each["mean_difference"] for each in said if each["check"] == "adapter"] == pytest.approx(
        [1.2] * 2
    )
    assert not any("adapter" in remark for remark in result.remarks)
    assert bench.scores() == bench.scores("plain")
    for name in ("items.csv", "items.parquet", "texts.parquet"):
        assert (bench.folder / "run" / name).read_bytes() == (bench.folder / "plain" / name).read_bytes()


async def test_an_adapter_that_is_lost_in_mid_run_marks_its_numbers_for_good(
    bench: Bench, rows: None
) -> None:
    """Exit 4 and a remark, and again when the same command finds nothing left to ask."""
    async with FakeEndpoint(adapters(until=2 * ITEMS)) as endpoint:
        first = await run(bench, f"{endpoint.base_url}{LORA}")
        sent = len(endpoint.bodies)
        second = await run(bench, f"{endpoint.base_url}{LORA}")
    assert len(endpoint.bodies) == sent
    for result in (first, second):
        assert result.exit is Exit.REFUSED
        assert any("the adapter was not applied (end of" in remark for remark in result.remarks)
        assert int(result.accuracy["unscored"].sum()) == 0
    assert [each["verdict"] for each in checks(bench, check="adapter")] == ["fine", "wrong"]


async def test_an_adapter_that_hardly_shows_is_a_warning(bench: Bench, rows: None) -> None:
    """Below the noise that is taken for granted it may be no adapter at all: said, and no more."""
    async with FakeEndpoint(adapters(0.001)) as endpoint:
        result = await run(bench, f"{endpoint.base_url}{LORA}")
    assert result.exit is Exit.DONE
    assert {each["verdict"] for each in checks(bench, check="adapter")} == {"warning"}
    assert sum("the adapter hardly shows" in remark for remark in result.remarks) == 2


async def test_a_base_that_cannot_be_asked_proves_nothing_and_stops_nothing(bench: Bench, rows: None) -> None:
    """404 for the base alone: one line each time, and the adapter is scored."""

    def script(number: int, body: Body) -> Fault | None:
        return lower(0.3) if of(body) else Status(404, body=b'{"message": "no such endpoint"}')

    async with FakeEndpoint(script) as endpoint:
        result = await run(bench, f"{endpoint.base_url}{LORA}")
    assert result.exit is Exit.DONE
    found = checks(bench, check="adapter")
    assert {each["verdict"] for each in found} == {"not checked"}
    assert "the base model cannot be asked" in found[0]["says"]
    assert "404" in found[0]["says"]


async def test_an_adapter_that_one_server_of_two_applies_is_a_warning(bench: Bench, rows: None) -> None:
    """Where some replies are the base's to the last digit, the distance of the others does not hide it."""
    told = adapters()

    def script(number: int, body: Body) -> Fault | None:
        return told(number, body) if number % 2 else None

    async with FakeEndpoint(script) as endpoint:
        result = await run(bench, f"{endpoint.base_url}{LORA}")
    assert {each["verdict"] for each in checks(bench, check="adapter")} == {"warning"}
    assert sum("the adapter is not always applied" in remark for remark in result.remarks) == 2


@pytest.mark.parametrize("with_base", [True, False])
async def test_adapters_of_one_base_share_it(bench: Bench, rows: None, with_base: bool) -> None:
    """The base is looked at once a moment, by itself where the run asks it, else by the first adapter."""
    async with FakeEndpoint(adapters()) as endpoint:
        url = endpoint.base_url
        bases = [f"{url}#ep1"] if with_base else []
        result = await run(bench, *bases, f"{url}#ep1:lora", f"{url}#ep1:other", limit=20)
    assert result.exit is Exit.DONE
    assert {each["verdict"] for each in checks(bench, check="adapter")} == {"fine"}
    assert len(checks(bench, check="adapter")) == 4
    of_base = [each.moment for known in kept_of(bench) for each in known.seen if each.of_base]
    assert of_base == ([] if with_base else [START, END])
    whole = len(looks(bench))
    assert whole == (9 if with_base else 8)


async def test_an_adapter_that_is_missing_leaves_the_others_proven(bench: Bench, rows: None) -> None:
    """The first is refused with 404, and the base is asked on behalf of the second all the same."""

    def script(number: int, body: Body) -> Fault | None:
        if of(body) == "lora":
            return Status(404, body=b'{"message": "no such adapter"}')
        return lower(0.3) if of(body) else None

    async with FakeEndpoint(script) as endpoint:
        result = await run(bench, f"{endpoint.base_url}{LORA}", f"{endpoint.base_url}#ep1:other", limit=20)
    assert result.exit is Exit.REFUSED
    assert [bool(part.refused) for part in result.parts] == [True, False]
    assert [each["verdict"] for each in checks(bench, endpoint="ep1:other", check="adapter")] == ["fine"] * 2


async def test_a_run_that_is_cancelled_in_a_look_leaves_nothing_behind(bench: Bench, rows: None) -> None:
    """Nobody answers: the second interrupt ends the looks at adapter and base at once."""
    looking = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        if not looks(bench):
            return None
        looking.set()
        return Hang()

    async with FakeEndpoint(script) as endpoint:
        running = asyncio.create_task(run(bench, f"{endpoint.base_url}{LORA}", f"{endpoint.base_url}#ep1:b"))
        await looking.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [each for each in others if "watching" in repr(each.get_coro())]


async def test_an_adapter_is_compared_with_what_it_was_asked_itself(bench: Bench, rows: None) -> None:
    """A base with another tokenizer in the same run is asked other ids: not checked, and no false alarm."""
    other = bench.folder / "other"
    other.mkdir()
    text = bench.tokenizer.read_text().replace('"e":', '"\\u00e9":', 1)
    (other / "tokenizer.json").write_text(text)
    async with FakeEndpoint(adapters()) as endpoint:
        url = endpoint.base_url
        tokenizers = (f"base={other}", f"lora={bench.tokenizer}")
        result = await run(bench, f"base={url}#ep1", f"lora={url}{LORA}", tokenizer=tokenizers)
    assert result.exit is Exit.DONE
    found = checks(bench, check="adapter")
    assert {each["verdict"] for each in found} == {"not checked"}
    assert "other token ids" in found[0]["says"]


async def test_few_items_are_proof_enough(bench: Bench) -> None:
    """A run too short to be watched for drift still shows that its adapter is applied."""
    async with FakeEndpoint(adapters()) as endpoint:
        await run(bench, f"{endpoint.base_url}{LORA}", limit=3)
    assert looks(bench).count(MIDDLE) == 0
    assert [each["verdict"] for each in checks(bench, check="adapter")] == ["fine", "fine"]


# ------------------------------------------------------------------------------------------------- drift


@pytest.mark.parametrize("where", [(START, MIDDLE), (MIDDLE, END)])
async def test_a_model_that_changes_is_told(bench: Bench, rows: None, where: tuple[str, str]) -> None:
    """Between which looks, by how much; the numbers stand, and the exit code is of them alone."""
    async with FakeEndpoint(
        lambda number, body: lower(0.5) if where[1] in looks(bench) else None
    ) as endpoint:
        result = await run(bench, endpoint.base_url)
    assert result.exit is Exit.DONE
    [step] = [each for each in checks(bench, verdict="changed") if MIDDLE in each["when"]]
    before, after = (part.split()[0] for part in step["when"].split(" to "))
    assert (before, after) == where
    assert float(step["mean_difference"]) == pytest.approx(0.5)
    assert float(step["mean_shift"]) == pytest.approx(-0.5)
    assert float(step["floor"]) == TAKEN
    assert any("the served model changed between" in remark for remark in result.remarks)
    said = next(iter(bench.manifest()["checks"].values()))
    assert "changed" in {each["verdict"] for each in said}


async def test_a_model_that_stays_is_no_news(bench: Bench, rows: None) -> None:
    """Three looks, all equal, and no word of them beside the numbers."""
    async with FakeEndpoint() as endpoint:
        result = await run(bench, endpoint.base_url)
    assert looks(bench) == [START, MIDDLE, END]
    assert {each["verdict"] for each in checks(bench)} == {"fine"}
    assert not any("model changed" in remark for remark in result.remarks)


async def test_a_model_that_changes_between_sessions_is_told(bench: Bench, rows: None) -> None:
    """A run that is continued is held against what earlier sessions saw."""
    async with FakeEndpoint() as endpoint:
        url = endpoint.base_url
        await run(bench, f"x={url}#ep", limit=20)
        endpoint._script = lambda number, body: lower(0.4)
        result = await run(bench, f"x={url}#ep")
    told = [remark for remark in result.remarks if "the served model changed between end of" in remark]
    assert len(told) == 1
    assert looks(bench) == 2 * [START, MIDDLE, END]


async def test_a_run_that_has_nothing_left_to_send_asks_nothing(bench: Bench, rows: None) -> None:
    """Also with a sample: what was repeated is not repeated again, and its noise is still told."""
    async with FakeEndpoint() as endpoint:
        await run(bench, endpoint.base_url, repeat_sample=10)
        sent = len(endpoint.bodies)
        for more in ({"repeat_sample": 10}, {}):
            result = await run(bench, endpoint.base_url, **more)
            assert len(endpoint.bodies) == sent
            assert checks(bench, check="noise")[0]["items"] == "10"
            assert any("noise floor: of 10 items" in remark for remark in result.remarks)


async def test_what_looks_say_never_answers_an_item(bench: Bench, rows: None) -> None:
    """Replies to looks that are far off change no score: they stand under keys of their own."""
    async with FakeEndpoint() as endpoint:
        await run(bench, endpoint.base_url, out="plain", probe=False)
        asked = [(*body["tokens"], -1, *body["forced_output_tokens"]) for body in endpoint.bodies]
        seen: set[tuple[int, ...]] = set()

        def script(number: int, body: Body) -> Fault | None:
            question = (*body["tokens"], -1, *body["forced_output_tokens"])
            again = question in seen
            seen.add(question)
            # The first time that the items which are looked at are asked is the look at the start.
            return lower(2.0) if question in asked[:LOOK] and not again else None

        endpoint._script = script
        await run(bench, endpoint.base_url)
    assert bench.scores() == bench.scores("plain")
    assert checks(bench, verdict="changed")


async def test_a_run_that_is_stopped_leaves_out_what_is_left(bench: Bench, rows: None) -> None:
    """No look at the end, no sample; the next session looks on, and compares with what it finds."""
    stop = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        if number == 30:
            stop.set()
        return None

    async with FakeEndpoint(script) as endpoint:
        first = await run(bench, endpoint.base_url, stop=stop, repeat_sample=5)
        assert first.exit is Exit.INTERRUPTED
        assert looks(bench) == [START]
        second = await run(bench, endpoint.base_url, repeat_sample=5)
    assert second.exit is Exit.DONE
    assert looks(bench) == [START, START, MIDDLE, END]
    assert len(checks(bench, check="drift")) == 4


async def test_caps_that_leave_little_room_leave_out_the_looks(bench: Bench, rows: None) -> None:
    """What is asked beside a run never eats up a small cap, and that it was left out is said."""
    async with FakeEndpoint() as endpoint:
        result = await run(bench, endpoint.base_url, max_requests=200)
    assert looks(bench) == []
    assert any("the caps of the run leave too little room" in remark for remark in result.remarks)
    settings = bench.settings("embedded", tasks="hellaswag", probe=True, tokenizer=(), max_requests=200)
    assert [part.beside for part in foreseen(prepare(replace(settings, out=None), {})).parts] == [PROBE]
    few = replace(settings, out=None, max_requests=10 * PROBE - 1)
    assert [part.beside for part in foreseen(prepare(few, {})).parts] == [0], "nor a probe"
    assert result.parts[0].meter.sent.requests == 200


async def test_looks_are_counted_and_foreseen(bench: Bench, rows: None) -> None:
    """Plan, forecast, caps and fact are of the same requests, the looks and the sample among them."""
    async with FakeEndpoint(adapters()) as endpoint:
        urls = [f"{endpoint.base_url}#ep1:lora", f"{endpoint.base_url}#ep1:other"]
        settings = bench.settings(
            *urls, tasks="hellaswag", probe=True, shortcut=False, repeat_sample=10, out="plan"
        )
        outlook = foreseen(prepare(settings, {}))
        result = await run(bench, *urls, repeat_sample=10)
        left = foreseen(prepare(bench.settings(*urls, tasks="hellaswag", probe=True, shortcut=False), {}))
    first, second = outlook.parts
    assert (first.beside, second.beside) == (PROBE + 10 * 4 + 5 * LOOK, PROBE + 10 * 4 + 3 * LOOK)
    for planned, part in zip(outlook.parts, result.parts, strict=True):
        assert planned.whole.requests == part.forecast.volume.requests == 4 * ITEMS + planned.beside
        assert planned.whole.prompt_tokens == part.forecast.volume.prompt_tokens
        assert part.meter.sent == part.forecast.volume, "the probe, too, is of what was planned"
        assert part.after.attempts == part.progress.requests_done
    assert left.left.requests == 0


# ------------------------------------------------------------------------------------------------- noise


async def test_a_sample_shows_the_noise_and_comparisons_use_it(bench: Bench, rows: None) -> None:
    """Flips and spread of sums are told, drift is held against them, and no interval is shorter."""

    def script(number: int, body: Body) -> Fault | None:
        if not of(body):
            return None
        return lower(0.4 + 0.2 * math.modf(number * 0.618)[0])

    async with FakeEndpoint(script) as endpoint:
        urls = (f"base={endpoint.base_url}#ep1", f"lora={endpoint.base_url}{LORA}")
        result = await run(bench, *urls, repeat_sample=20)
    assert result.exit is Exit.DONE
    still, noisy = checks(bench, check="noise")
    assert (still["items"], float(still["sum_sd"]), float(still["mean_difference"])) == ("20", 0.0, 0.0)
    assert 0.02 < float(noisy["mean_difference"]) < 0.2
    assert float(noisy["largest_sum_difference"]) > float(noisy["sum_sd"]) > 0
    assert set(json.loads(noisy["flips"])) == {"acc", "acc_norm", "acc_bytes", "acc_token"}
    assert all(float(each["floor"]) == LEAST for each in checks(bench, endpoint="base", check="drift"))
    assert {each["verdict"] for each in checks(bench, endpoint="lora", check="drift")} == {"fine"}
    comparison = compare(bench.folder / "run")
    assert (comparison.frame.query("statistic == 'gold_logprob'").noise_stderr > 0).all()
    assert "20 items of lora were scored twice" in " ".join(comparison.remarks)
    repeated = list(csv.DictReader((bench.folder / "run/repeats/items.csv").read_text().splitlines()))
    assert len(repeated) == 40
    assert not any(each["unscored"] for each in repeated)
    items = list(csv.DictReader((bench.folder / "run/items.csv").read_text().splitlines()))
    assert len(items) == 2 * ITEMS


async def test_a_sample_is_repeated_as_its_items_were_asked(bench: Bench) -> None:
    """Lettered items are asked in the same way, spread over both tasks, and a larger sample asks the rest."""
    async with FakeEndpoint() as endpoint:
        for count in (4, 8):
            before = len(endpoint.bodies)
            await run(bench, endpoint.base_url, tasks="hellaswag,mmlu", shortcut=True, repeat_sample=count)
    assert len(endpoint.bodies) - before < 4 * 4 + 4 * LOOK
    repeated = list(csv.DictReader((bench.folder / "run/repeats/items.csv").read_text().splitlines()))
    assert [each["task"] for each in repeated] == ["hellaswag"] * 4 + ["mmlu"] * 4
    items = list(csv.DictReader((bench.folder / "run/items.csv").read_text().splitlines()))
    same = {(each["task"], each["subject"], each["index"]): each["sums"] for each in items}
    for each in repeated:
        assert same[each["task"], each["subject"], each["index"]] == each["sums"]


def test_a_sample_of_none_is_refused(bench: Bench) -> None:
    """The text names the flag."""
    with pytest.raises(UsageError, match="--repeat-sample 0: must be at least 1"):
        bench.settings("embedded", repeat_sample=0)


# ---------------------------------------------------------------------------------- the embedded endpoint


@cache
def model() -> Served[Any]:
    """The reference model with its adapters."""
    return load(reference.FOLDER, reference.ADAPTERS)


@asynccontextmanager
async def served(faults: str) -> AsyncIterator[str]:
    """The reference model on loopback, with faults; the address of its geography adapter."""
    async with listening(model().app(Options(faults=read_faults([faults])))) as url:
        yield f"{url}#x:geography"


async def demonstrated(tmp_path: Path, faults: str, **changes: Any) -> tuple[RunResult, list[dict[str, str]]]:
    """A real run against it, and its checks."""
    from harness.runner import evaluate
    from harness.settings import RunSettings

    async with served(faults) as spec, asyncio.timeout(60):
        given = {"tasks": "sample_hellaswag", "limit": 20, "tokenizer": (str(reference.FOLDER),), **changes}
        settings = RunSettings(endpoint=(f"it={spec}",), out=tmp_path / "run", concurrency=4, **given)
        result = await evaluate(prepare(settings, {}), Console(file=io.StringIO()))
    file = tmp_path / "run/checks.csv"
    return result, list(csv.DictReader(io.StringIO(file.read_text())))


@pytest.mark.parametrize(
    ("faults", "exit", "wanted"),
    [
        ("", Exit.DONE, {"fine"}),
        ("ignore_adapter", Exit.REFUSED, {"refused"}),
        ("drift=-0.4@40", Exit.DONE, {"fine", "changed"}),
        ("order=0.02", Exit.DONE, {"fine"}),
    ],
)
async def test_faults_are_caught_and_nothing_else(
    tmp_path: Path, faults: str, exit: Exit, wanted: set[str]
) -> None:
    """An adapter that is ignored, a model that drifts: each is called so, and a small noise is not."""
    result, found = await demonstrated(tmp_path, faults)
    verdicts = {each["verdict"] for each in found}
    note("adapters ignored, models that drift", tried=1, lost=int(verdicts != wanted), unit="runs")
    assert result.exit is exit
    assert verdicts == wanted


async def test_measured_noise_is_no_drift(tmp_path: Path) -> None:
    """What depends on the order of requests differs as much each time: with a sample that is known."""
    _, blind = await demonstrated(tmp_path / "blind", "order=0.6")
    _, seeing = await demonstrated(tmp_path / "seeing", "order=0.6", repeat_sample=15)
    assert "changed" in {each["verdict"] for each in blind if each["check"] == "drift"}
    assert {each["verdict"] for each in seeing if each["check"] == "drift"} == {"fine"}


# ------------------------------------------------------------------------------------------- pure parts


def question(task: str, index: int, choices: int = 4) -> Prompt:
    """An item with its prompt."""
    pairs = tuple(Pair(f"{task} {index}", f" {at}", str(at)) for at in range(choices))
    return Prompt(Item(task=task, subject="", index=index, id="", pairs=pairs, gold=(0,)), "", 0)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(1, 12), st.integers(0, 10_000))
def test_looks_cost_little(sizes: list[int], choices: int, items: int) -> None:
    """A handful of items, few requests, from as many tasks as there are; one at least, where there is any."""
    tasks = [[question(f"t{at}", each, choices) for each in range(size)] for at, size in enumerate(sizes)]
    found = look_at(tasks, items)
    assert len(found) <= max(1, min(MOST_ITEMS, items // 20))
    assert len(found) * choices <= max(min(MOST_REQUESTS, items // 10), choices)
    assert bool(found) == any(sizes)
    assert len({each.item.task for each in found}) == min(len(found), sum(size > 0 for size in sizes))


def test_looks_are_at_distinct_items() -> None:
    """The same question twice is looked at once, and a bad row not at all."""
    same = question("t", 0)
    found = look_at([[BadItem("t", "", 0, "no answer"), same, same, question("t", 3)]], 1000)
    assert [each.item.index for each in found] == [0, 3]


def test_short_runs_are_looked_at_less() -> None:
    """Fewer than twenty items are over before a model changes; an adapter is proven all the same."""
    assert moments(19, proof=False) == ()
    assert moments(19, proof=True) == (START, END)
    assert moments(20, proof=False) == (START, MIDDLE, END)
    assert moments(0, proof=True) == ()


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(0, 200))
def test_samples_are_spread_over_tasks(sizes: list[int], count: int) -> None:
    """All that was asked for, no more of a task than it has, and as many of each as can be."""
    found = shares(sizes, count)
    assert sum(found) == min(count, sum(sizes))
    assert all(share <= size for share, size in zip(found, sizes, strict=True))
    open_ones = [share for share, size in zip(found, sizes, strict=True) if share < size]
    assert not open_ones or max(found) - min(open_ones) <= 1


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 30), max_size=5), st.integers(0, 60))
def test_larger_samples_hold_smaller_ones(sizes: Mapping[str, int], count: int) -> None:
    """What is drawn depends on nothing but the items, so that a larger sample asks only what is new."""
    chosen = {subject: range(size) for subject, size in sizes.items()}
    less, more = (drawn("task", chosen, each) for each in (count, count + 7))
    assert sum(map(len, less.values())) == min(count, sum(sizes.values()))
    for subject, indices in less.items():
        assert set(indices) <= set(more[subject])
        assert all(0 <= each < sizes[subject] for each in indices)


VALUES = st.floats(-20, 0).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20), st.floats(-2, 2))
def test_differences(values: Sequence[tuple[float, ...]], by: float) -> None:
    """Of a common shift all three measures are that shift; what has no reply on one side does not count."""
    moved = [tuple(each + by for each in one) for one in values]
    found = difference([*values, None, (0.0,)], [*moved, (0.0,), None])
    assert found is not None
    assert found.tokens == 2 * len(values)
    for measure in (found.mean, found.largest, abs(found.shift)):
        assert measure == pytest.approx(abs(by), abs=1e-9)


def test_nothing_in_common_is_no_difference() -> None:
    """Looks without a reply in common say nothing, and are no step."""
    assert difference([None], [(0.0,)]) is None
    assert drift([Look("a", [None]), Look("b", [(-1.0,)])], Floor()) == []


def test_a_slow_change_adds_up() -> None:
    """Each step within the noise, all of them together beyond it: the last look against the first."""
    looks = [Look(str(at), [(-1.0 - 0.03 * at,)]) for at in range(4)]
    verdicts = [each.verdict for each in drift(looks, Floor())]
    assert verdicts == ["fine", "fine", "fine", "changed"]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 5))
def test_floors_lie_above_what_was_measured(mean: float, deviation: float, items: int) -> None:
    """Never below the mean, never at nothing, and nearer to the mean the more items are looked at."""
    found = floor_of(mean, deviation, items)
    assert found.measured
    assert found.nats >= max(mean, LEAST)
    assert floor_of(mean, deviation, items + 1).nats <= found.nats


def test_keys_of_what_is_asked_beside_are_keys_of_nothing_else() -> None:
    """A look, another look, the sample, and the item itself never answer one another."""
    identity = EndpointIdentity(dialect="friendli", base_url="u", model="m", adapter="")
    made = {
        KeyMaker(identity, again).keys([1, 2], [[3]])[0] for again in ("", "seen 1", "seen 2", "sample 1")
    }
    assert len(made) == 4


def test_readme_names_the_columns_of_the_checks() -> None:
    """All of them, in order."""
    assert tuple(table(section("`checks.csv`"), "Column | Type | Meaning")) == CHECK_COLUMNS
    assert (ROOT / "results/README.md").read_text().count("`checks.csv`") >= 2
