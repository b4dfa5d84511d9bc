"""Runs that stop once it is decided which endpoint is better."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness import UsageError
from harness.compared import compare
from harness.comparison.sequential import State
from harness.deciding.order import Chunks, order_of
from harness.deciding.outcome import told
from harness.deciding.referee import AHEAD, Pair, Referee
from harness.items import BadItem
from harness.manifest import Exit
from harness.prepare import prepare
from harness.reports.gathered import gather
from harness.rescoring import rescore
from harness.scoring.scores import NOT_ASKED
from tests.fake_endpoint import Body, FakeEndpoint, Fault, Script, Status, values
from tests.running import Bench, bench, write_rows
from tests.test_reports import packed_of, page_of, unpacked

__all__ = ["bench"]

VERBS = ("eats", "sells", "drops", "hides")
ITEMS = 160


def asked_of(body: Body) -> tuple[int, str]:
    """Which item of HellaSwag a request is of, and the verb of its choice."""
    text = "".join(chr(each + 32) for each in body["forced_output_tokens"])
    return int(text.rsplit("day ", 1)[1].rstrip(".")), text.split()[0]


def knowing(right: Callable[[int], bool], fails: Callable[[int], bool] = lambda item: False) -> Script:
    """An endpoint that is right on these items, and refuses to score those."""

    def script(number: int, body: Body) -> Fault | None:
        item, verb = asked_of(body)
        if fails(item):
            return Status(400)
        best = VERBS[(item + (0 if right(item) else 1)) % 4]
        level = 0.01 if verb == best else 3.0
        said = [-level * (1 + at % 7 / 100) for at in range(len(body["forced_output_tokens"]))]
        return values(lambda found: found.__setitem__(slice(None), said))

    return script


def half(item: int) -> bool:
    """Right on every other item."""
    return item % 2 == 0


def most(item: int) -> bool:
    """Right wherever `half` is, and on most others."""
    return half(item) or item % 5 > 0


@pytest.fixture
def large(bench: Bench) -> Bench:
    """A bench with more items."""
    write_rows(bench.data, hellaswag=ITEMS)
    return bench


async def run(bench: Bench, one: FakeEndpoint, other: FakeEndpoint, **changes: Any) -> Any:
    """A run of HellaSwag on both that stops once decided, unless it is told otherwise."""
    settings = {"tasks": "hellaswag", "compare_until_decided": True, **changes}
    return await bench.run(f"base={one.base_url}#a", f"new={other.base_url}#b", environ={}, **settings)


async def test_it_stops_once_decided(large: Bench) -> None:
    """The better endpoint is found with part of the items; what was not asked is no failure; the same command
    says the same without a request; without the flag all is asked, and the tables are those of any run."""
    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(knowing(most)) as other:
        result = await run(large, one, other)
        first = large.manifest()
        sent = len(one.bodies), len(other.bodies)
        again = await run(large, one, other)
        assert (len(one.bodies), len(other.bodies)) == sent
        assert large.manifest()["sequence"] == first["sequence"]
        items = pd.read_parquet(large.folder / "run/items.parquet")
        texts = pd.read_parquet(large.folder / "run/texts.parquet")
        scores = pd.read_csv(large.folder / "run/scores.csv")
        rescored = rescore(large.folder / "run")
        whole = await run(large, one, other, compare_until_decided=False)
        assert len(one.bodies) == len(other.bodies) == 4 * ITEMS
        await run(large, one, other, compare_until_decided=False, out="plain")
    assert (result.exit, again.exit, whole.exit) == (Exit.DONE, Exit.DONE, Exit.DONE)
    assert first["status"] == "decided"
    (pair,) = first["sequence"]["pairs"]
    assert (pair["verdict"], pair["unknown"], first["sequence"]["items"]) == ("better", 0, ITEMS)
    truth = sum(most(item) - half(item) for item in range(ITEMS)) / ITEMS
    assert 0 < pair["low"] < truth < pair["high"]
    asked = items[items.unscored.isna()]
    counts = asked.groupby("endpoint").size()
    assert pair["items"] <= counts.min() <= counts.max() <= pair["items"] + 3 * AHEAD < ITEMS
    assert set(items.unscored.dropna()) == {NOT_ASKED}
    assert set(scores.unscored) == {0}
    assert rescored.unscored == 0
    assert set(asked["index"]) <= set(texts["index"])
    saved = first["sequence"]["saved"]
    assert saved["items"] == len(items) - len(asked)
    assert saved["requests"] == pytest.approx(4 * saved["items"], abs=2)
    assert large.manifest()["status"] == "complete"
    assert large.scores() == large.scores("plain")
    assert any("new is better than base over all 160 items" in each for each in result.remarks)


async def test_items_come_side_by_side(large: Bench) -> None:
    """Both endpoints are asked the same items in the same random order, neither far ahead of the other."""
    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(knowing(half)) as other:
        await run(large, one, other, margin=0.0, concurrency=4)
        orders = [list(dict.fromkeys(asked_of(body)[0] for body in each.bodies)) for each in (one, other)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(ITEMS))
    assert orders[0] != sorted(orders[0])
    places = [{item: at for at, item in enumerate(order)} for order in orders]
    assert max(abs(places[0][item] - places[1][item]) for item in range(ITEMS)) <= 2 * AHEAD


async def test_nothing_is_taken_twice(large: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools that end while the referee reads what came: it looks again only when it is done with that."""
    look, take_all, reading = Referee._look, Referee._take_all, threading.Lock()
    begun: list[int] = []
    last, twice = threading.Event(), threading.Event()

    async def looking(self: Referee) -> None:
        begun.append(1)
        if len(begun) > 1:
            last.set()
        await look(self)

    def slowly(self: Referee, pairs: Sequence[Pair]) -> None:
        if not reading.acquire(blocking=False):
            twice.set()
            return
        try:
            last.wait(10)  # seconds: until the pools have ended
            twice.wait(0.2)
            take_all(self, pairs)
        finally:
            reading.release()

    monkeypatch.setattr(Referee, "_look", looking)
    monkeypatch.setattr(Referee, "_take_all", slowly)
    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(knowing(half)) as other:
        result = await run(large, one, other, margin=0.0)
    assert result.exit is Exit.DONE
    assert last.is_set() and not twice.is_set()


async def test_equal_endpoints_are_told_to_be(large: Bench) -> None:
    """Endpoints that answer alike are equivalent within the margin before all items are asked."""
    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(knowing(half)) as other:
        result = await run(large, one, other, margin=0.1)
    (pair,) = large.manifest()["sequence"]["pairs"]
    assert pair["verdict"] == "equivalent"
    assert -0.1 <= pair["low"] <= 0 <= pair["high"] <= 0.1
    assert large.manifest()["sequence"]["saved"]["items"] > 0
    assert result.exit is Exit.DONE


async def test_failures_never_decide(large: Bench) -> None:
    """An endpoint that refuses just the items that it would get wrong is not called better: they are put in
    at their worst, all is asked, and the run ends as one with unscored items does."""
    hard = [item for item in range(ITEMS) if item % 10 == 1]
    script = knowing(lambda item: item not in hard, fails=lambda item: item in hard)
    async with FakeEndpoint(knowing(lambda item: item not in hard)) as one, FakeEndpoint(script) as other:
        result = await run(large, one, other, margin=0.02)
    found = large.manifest()
    (pair,) = found["sequence"]["pairs"]
    assert (pair["verdict"], pair["unknown"], pair["items"]) == ("undecided", len(hard), ITEMS)
    assert pair["low"] <= 0 <= pair["high"]
    assert (result.exit, found["status"]) == (Exit.UNSCORED, "incomplete")
    assert found["sequence"]["saved"]["items"] == 0


async def test_some_failures_do_not_hinder(large: Bench) -> None:
    """Where the difference is large enough in spite of a few failures it is decided, and they are counted."""
    script = knowing(most, fails=lambda item: item % 30 == 0)
    async with FakeEndpoint(knowing(lambda item: item % 4 == 0)) as one, FakeEndpoint(script) as other:
        result = await run(large, one, other)
        sent = len(other.bodies)
        await run(large, one, other)
        assert len(other.bodies) == sent
    (pair,) = large.manifest()["sequence"]["pairs"]
    assert pair["verdict"] == "better"
    assert result.exit is Exit.DONE
    assert pair["unknown"] == 0 or "put in at their worst" in " ".join(result.remarks)


async def test_a_decided_pair_needs_no_more(large: Bench) -> None:
    """Of several endpoints one that is decided is asked no more, while the baseline goes on for the others;
    each pair has its share of the level."""
    async with (
        FakeEndpoint(knowing(half)) as one,
        FakeEndpoint(knowing(lambda item: True)) as best,
        FakeEndpoint(knowing(lambda item: half(item) or item % 20 == 1)) as close,
    ):
        urls = [
            f"{name}={each.base_url}#{name}"
            for name, each in (("base", one), ("best", best), ("close", close))
        ]
        await large.run(*urls, tasks="hellaswag", compare_until_decided=True, margin=0.0)
        asked = [len({asked_of(body)[0] for body in each.bodies}) for each in (one, best, close)]
    found = large.manifest()["sequence"]
    assert [pair["verdict"] for pair in found["pairs"]] == ["better", "better"]
    assert found["level"] == pytest.approx(0.025)
    assert asked[1] < asked[2]
    assert asked[0] >= asked[2] - 2 * AHEAD


async def test_an_endpoint_that_refuses(large: Bench) -> None:
    """Where the baseline refuses nothing can be decided: others are not asked in vain, and nothing hangs."""
    async with FakeEndpoint(lambda number, body: Status(404)) as one, FakeEndpoint(knowing(half)) as other:
        result = await asyncio.wait_for(run(large, one, other), 30)
        assert len(other.bodies) < 4 * ITEMS
    assert result.exit is Exit.REFUSED
    assert large.manifest()["sequence"]["decided"] is False


async def test_it_continues(large: Bench) -> None:
    """A run that was interrupted goes on, and decides as one that was not."""
    stop = asyncio.Event()
    inner = knowing(most)

    def stopping(number: int, body: Body) -> Fault | None:
        if number == 20:
            stop.set()
        return inner(number, body)

    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(stopping) as other:
        broken = await run(large, one, other, stop=stop)
        between = large.manifest()
        await run(large, one, other)
        found = large.manifest()["sequence"]
        await run(large, one, other, out="straight")
    assert (broken.exit, between["status"]) == (Exit.INTERRUPTED, "interrupted")
    assert between["sequence"]["pairs"][0]["verdict"] == "undecided"
    assert found["pairs"] == large.manifest("straight")["sequence"]["pairs"]


async def test_what_compare_says_of_it(large: Bench) -> None:
    """Rows of right and wrong have the sequence's interval and p, over all items; others have neither
    interval nor test, nothing has the p of a fixed number of items, and a reader is told."""
    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(knowing(most)) as other:
        await run(large, one, other)
    (pair,) = large.manifest()["sequence"]["pairs"]
    found = compare(large.folder / "run")
    rows = {row.statistic: row for row in found.findings.rows if row.level == "task"}
    row = rows["acc_norm"]
    assert (row.test, row.verdict, row.unscored) == ("sequence", "better", 0)
    assert pair["items"] <= row.n < ITEMS
    assert -1e-6 <= row.ci_low >= pair["low"] - 1e-6
    assert row.p_value <= pair["p_value"]
    assert np.isnan([row.p_mcnemar, row.bootstrap_low, row.detectable]).all()
    shift = rows["gold_logprob"]
    assert (shift.test, shift.verdict) == ("", "")
    assert np.isnan([shift.ci_low, shift.p_value]).all()
    assert any("until a comparison was decided" in each for each in found.remarks)
    assert not found.findings.mismatches


async def test_a_stopped_run_that_goes_on_and_is_cut_off(large: Bench) -> None:
    """What was asked until it was decided does not become a number of items that was fixed beforehand by a
    later session that asks no more: its sequence is still what counts, with the margin that it had. A
    comparison and a report take that margin too, and say so, unless they are given another."""
    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(knowing(most)) as other:
        await run(large, one, other, margin=0.02)
        first = large.manifest()
        again = await run(large, one, other, compare_until_decided=False, max_requests=1)
    assert (again.exit, large.manifest()["sequence"]) == (Exit.UNSCORED, None)
    assert large.manifest()["random_order"] == first["random_order"] == {"seed": 0, "margin": 0.02}
    found = compare(large.folder / "run")
    row = next(row for row in found.findings.rows if row.headline)
    assert (row.test, math.isnan(row.p_mcnemar), row.margin) == ("sequence", True, 0.02)
    assert any("--margin is 0.02 here, as the run had it" in each for each in found.remarks)
    assert not any("was decided with --margin" in each for each in found.remarks)
    reported = gather([str(large.folder / "run")]).report
    assert reported.findings is not None
    assert reported.findings.margin == 0.02
    found = compare(large.folder / "run", margin=0.01)
    assert found.findings.margin == 0.01
    assert any("was decided with --margin 0.02; here it is 0.01" in each for each in found.remarks)
    assert not any("as the run had it" in each for each in found.remarks)


async def test_a_report_on_a_stopped_run(large: Bench) -> None:
    """What was not asked is no failure, and nothing that `view` could show: a page counts it apart, and cries
    no alarm over a run that ended as it was to."""
    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(knowing(most)) as other:
        await run(large, one, other)
    found = gather([str(large.folder / "run")], margin=0.01)
    assert all(each.spared and not each.reasons for each in found.report.coverage)
    assert {each.asked + each.spared for each in found.report.coverage} == {ITEMS}
    page = page_of(found)
    assert "This run is" not in page.text
    assert "more not asked: decided without them" in page.text
    assert "these intervals promise too much" in page.text
    columns = unpacked(packed_of(found, room=10**8).columns)
    assert columns["reasons"] == [""], "the filter `unscored` finds none"
    assert any(-1 in each["unscored"] for each in columns["endpoints"])
    kept = pd.read_parquet(large.folder / "run/texts.parquet")[["subject", "index"]].drop_duplicates()
    assert page.left_out == [
        f"Of {ITEMS - len(kept)} items no prompt is stored: they were not asked, or the run kept no texts."
    ]


async def test_stopped_runs_of_other_orders(large: Bench) -> None:
    """What two runs asked in different orders until each was decided is the beginning of no order: nothing
    but values is told."""
    async with FakeEndpoint(knowing(half)) as one, FakeEndpoint(knowing(most)) as other:
        await run(large, one, other, out="a")
        await run(large, one, other, out="b", seed=1)
    found = compare(f"{large.folder / 'a'}#base", f"{large.folder / 'b'}#new")
    row = next(row for row in found.findings.rows if row.headline)
    assert row.n
    assert (row.test, row.verdict) == ("", "")


def test_orders_hold_every_item_once(large: Bench) -> None:
    """The chunks of an order hold each prompt of the suite once, under its own ordinal."""
    write_rows(large.data, hellaswag=700, mmlu=5)
    suite = prepare(large.settings("http://127.0.0.1:9/v1#a", tasks="mmlu@2,hellaswag"), {}).suite
    order = order_of(suite, seed=3)
    chunks, turn, found = Chunks(order), 0, []
    while turn < suite.size:
        part = chunks.prompts(turn, turn + 100)
        assert [int(order.turns[ordinal]) for ordinal, _ in part] == list(range(turn, turn + len(part)))
        found += part
        turn += len(part)
    straight = dict(suite.prompts())
    assert len(found) == len(straight) == order.compared
    assert all(prompt == straight[ordinal] for ordinal, prompt in found)
    assert order.shares.sum() == pytest.approx(1)


def test_bad_rows_come_last(large: Bench) -> None:
    """Rows that are no items are compared with nobody: their turns come when all others are over."""
    file = large.data / "hellaswag/validation.jsonl"
    lines = file.read_text().splitlines()
    file.write_text(
        "\n".join([lines[0], lines[1].replace('"label": "1"', '"label": "x"'), *lines[2:]]) + "\n"
    )
    settings = large.settings("http://127.0.0.1:9/v1#a", tasks="hellaswag", skip_bad_rows=True)
    suite = prepare(settings, {}).suite
    order = order_of(suite, seed=0)
    assert order.compared == ITEMS - 1
    ((ordinal, prompt),) = Chunks(order).prompts(ITEMS - 1, ITEMS)
    assert ordinal == 1
    assert isinstance(prompt, BadItem)


@pytest.mark.parametrize(
    ("changes", "endpoints", "said"),
    [
        ({}, 1, "give --endpoint twice or more"),
        ({"repeat_sample": 5}, 2, "--repeat-sample and --compare-until-decided exclude each other"),
        ({"margin": 2.0}, 2, "--margin 2: must be between 0 and 1"),
        ({"margin": 0.1, "compare_until_decided": False}, 2, "--margin is of --compare-until-decided"),
    ],
)
def test_what_cannot_be_meant(bench: Bench, changes: dict[str, Any], endpoints: int, said: str) -> None:
    """Settings that mean nothing together are refused before anything is sent."""
    urls = [f"http://127.0.0.1:9/v1#{at}" for at in range(endpoints)]
    with pytest.raises(UsageError, match=re.escape(said)):
        prepare(bench.settings(*urls, **{"compare_until_decided": True, **changes}), {})


def test_sentences() -> None:
    """Each verdict is a sentence that a reader without statistics understands."""
    state = State("better", 120, 0, 0.0102, 0.0534, 0.021, 1.0)
    assert told("new", "base", state, 1_000, 0.01, 0.05) == (
        "new is better than base over all 1,000 items, told by 120 of them: 95 % interval +1.02 to +5.34"
        " points, p = 0.021. It holds however often one looks."
    )
    equal = replace(state, verdict="equivalent", unknown=2)
    assert told("new", "base", equal, 1_000, 0.01, 0.025).startswith(
        "new and base differ by less than 1 point over all 1,000 items, told by 120 of them: 97.5 % interval"
    )
    assert "2 that could not be scored are put in at their worst" in told("n", "b", equal, 9, 0.01, 0.05)
    assert told("n", "b", equal, 9, 0.0, 0.05).startswith("n and b are equal over all 9 items")
    assert told("n", "b", replace(state, verdict="undecided"), 9, 0.0, 0.05).startswith("Undecided between")
