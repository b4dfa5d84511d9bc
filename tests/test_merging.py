"""`run --shard` and `merge`: shards put together are the run that one machine would have made."""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from harness import load_run
from harness.endpoint_settings import EndpointSettings
from harness.errors import UsageError
from harness.manifest import Exit
from harness.merging.whole import merge
from harness.rescoring import rescore
from harness.runs import RunFolder, SuiteIdentity
from tests.fake_endpoint import Body, FakeEndpoint, Fault, Hang, Status
from tests.ledger import note
from tests.running import Bench, bench, ended, kept, sent_again, start, until

__all__ = ["bench"]

TABLES = ("scores.csv", "items.csv", "items.parquet", "prompts.txt")


async def shards(bench: Bench, of: int, *urls: str, out: str = "many", **changes: Any) -> list[Exit]:
    """All shards of a run, one after another; how they ended."""
    numbers = range(1, of + 1)
    return [(await bench.run(*urls, out=out, shard=f"{number}/{of}", **changes)).exit for number in numbers]


def assert_same(bench: Bench, one: str = "one", other: str = "many") -> None:
    """Two runs have the same tables, byte for byte, and the same texts in the same order."""
    first, second = bench.folder / one, bench.folder / other
    for name in TABLES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    texts = [parquet.read_table(folder / "texts.parquet") for folder in (first, second)]
    assert texts[0].equals(texts[1])


def replies(folder: Path) -> dict[bytes, tuple[Any, ...]]:
    """All rows of a run's journals, but for how long they took."""
    found: dict[bytes, tuple[Any, ...]] = {}
    for file in (folder / "journal").glob("*.sqlite"):
        with closing(sqlite3.connect(file)) as journal:
            rows = journal.execute("SELECT key, sum, token_logprobs, attempts, reason FROM replies")
            found |= {key: tuple(others) for key, *others in rows}
    return found


@pytest.mark.parametrize(("of", "limit"), [(1, None), (2, None), (3, None), (7, None), (6, 1)])
async def test_the_tables_of_one_machine(bench: Bench, of: int, limit: int | None) -> None:
    """Whatever their number, shards put together have the tables of one run, and have sent what it sent."""
    more: dict[str, Any] = {"tasks": "hellaswag,mmlu@1", "metrics": "acc_token,mc2,acc_pmi", "limit": limit}
    async with FakeEndpoint() as one, FakeEndpoint() as two:
        urls = f"a={one.base_url}", f"b={two.base_url}#m:adapter"
        await bench.run(*urls, out="one", **more)
        assert set(await shards(bench, of, *urls, **more)) == {Exit.DONE}
        merged = merge(bench.folder / "many")
        assert (merged.exit, merged.shards, merged.untried) == (Exit.DONE, of, 0)
        assert_same(bench)
        before = len(one.bodies), len(two.bodies)
        result = await bench.run(*urls, out="many", **more)
        assert result.exit is Exit.DONE
        assert (len(one.bodies), len(two.bodies)) == before, "after a merge nothing is asked again"
        assert_same(bench)
    assert replies(bench.folder / "one") == replies(bench.folder / "many")


async def test_choices_that_are_read_off_alternatives(bench: Bench) -> None:
    """Where lettered choices are read off alternatives, shards learn that each for itself, and agree."""
    more: dict[str, Any] = {"tasks": "sample_mmlu,sample_hellaswag", "data_dir": None, "shots": 1, "limit": 6}
    urls = "embedded", "embedded:geography"
    await bench.run(*urls, out="one", tokenizer=(), **more)
    await shards(bench, 2, *urls, tokenizer=(), **more)
    merged = merge(bench.folder / "many")
    assert_same(bench)
    said = bench.manifest("many")["counts"]["embedded"]["shortcut"]
    assert (said["used"], said["logprobs"]) == (True, 20)
    assert any("were read off the alternatives" in remark for remark in merged.told)


async def test_what_is_written_can_be_used(bench: Bench) -> None:
    """`rescore` and `load_run` take a merged run for what it is: its settings name no shard."""
    async with FakeEndpoint() as endpoint:
        await shards(bench, 2, f"it={endpoint.base_url}", max_requests=1000, rpm=1e6)
    merge(bench.folder / "many")
    scores = bench.scores("many")
    run = load_run(bench.folder / "many")
    assert (run.status, run.labels, len(run.items)) == ("complete", ("it",), 24)
    settings = bench.manifest("many")["settings"]
    assert (settings["shard"], settings["max_requests"], settings["rpm"]) == (None, 1000, 1e6)
    counts = bench.manifest("many")["counts"]["it"]
    assert (counts["items"], counts["items_done"], counts["requests_sent"]) == (24, 24, 96)
    assert counts["journal"]["replies"] == 96
    rescore(bench.folder / "many")
    assert bench.scores("many") == scores


async def test_again_is_the_same(bench: Bench) -> None:
    """A second merge changes nothing, but for the time at which it was made."""
    async with FakeEndpoint() as endpoint:
        await shards(bench, 3, f"it={endpoint.base_url}", probe=True)
    merge(bench.folder / "many")
    first, said = replies(bench.folder / "many"), bench.manifest("many")
    merge(bench.folder / "many")
    second, again = replies(bench.folder / "many"), bench.manifest("many")
    assert first == second
    assert {**said, "heartbeat": None} == {**again, "heartbeat": None}
    assert len(said["shards"]) == 3


async def test_missing_shards(bench: Bench) -> None:
    """What missing shards hold is "not tried", and they are named; once they are there, all is."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="one")
        await bench.run(url, out="many", shard="2/3")
        merged = merge(bench.folder / "many")
        assert merged.exit is Exit.UNSCORED
        assert merged.untried == 16
        assert "Shards not begun: 1/3, 3/3" in merged.told
        assert bench.manifest("many")["status"] == "incomplete"
        assert len(load_run(bench.folder / "many").items) == 24
        await bench.run(url, out="many", shard="3/3")
        await bench.run(url, out="many", shard="1/3")
        assert merge(bench.folder / "many").exit is Exit.DONE
    assert_same(bench)


async def test_nothing_is_sent_twice(bench: Bench) -> None:
    """What the run or shards of another cut have answered is taken over, with its attempts, and not sent."""

    def busy(number: int, body: Body) -> Fault | None:
        return Status(503) if number % 5 == 0 else None

    async with FakeEndpoint(busy) as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", tasks="hellaswag,mmlu", limit=2)
        await bench.run(url, out="many", shard="1/2")
        await shards(bench, 3, url)
        asked = Counter(json.dumps(body, sort_keys=True) for body in endpoint.bodies)
        retried = sum(
            bench.manifest("many/shards/" + name)["counts"]["it"]["retries"].get("503", 0)
            for name in ("1-of-2", "1-of-3", "2-of-3", "3-of-3")
        )
        assert len(asked) == 96
        assert asked.total() <= 96 + len(endpoint.bodies) // 5
        assert retried
        before = merge(bench.folder / "many")
        assert before.exit is Exit.DONE
    said = bench.manifest("many")
    sent = sum(each["sent"]["it"]["requests"] for each in said["shards"].values())
    own = said["without_shards"]["sent"]["it"]["requests"]
    assert own + sent == asked.total()
    kept = said["counts"]["it"]["journal"]["attempts"]
    beside = said["beside_journal"].get("it", {"requests": 0})["requests"]
    assert kept + beside == asked.total()


async def test_a_run_does_not_pass_over_its_shards(bench: Bench) -> None:
    """A run in a folder whose shards are not merged is refused, so that nothing is sent twice."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", shard="1/2")
        with pytest.raises(UsageError, match=r"not merged yet \(1-of-2\); give `merge"):
            await bench.run(url, out="many")
        merge(bench.folder / "many")
        assert (await bench.run(url, out="many")).exit is Exit.DONE
        assert sent_again(endpoint.bodies) == 0
        merge(bench.folder / "many")
        assert bench.manifest("many")["status"] == "complete"


async def test_another_suite(bench: Bench) -> None:
    """A shard of another suite is refused before anything is written, naming the field that differs."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", shard="1/2")
        with pytest.raises(UsageError, match="1-of-2: holds a run of another suite: seed"):
            await bench.run(url, out="many", shard="2/2", seed=2)
        assert not (bench.folder / "many/shards/2-of-2").exists()
        await bench.run(url, out="other", shard="2/2", seed=2)
    shutil.copytree(bench.folder / "other/shards/2-of-2", bench.folder / "many/shards/2-of-2")
    with pytest.raises(UsageError, match=r"is of another suite than .*: seed"):
        merge(bench.folder / "many")


async def test_another_limit(bench: Bench) -> None:
    """The items are those of the session that began last; what others answered is kept, and used again."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await shards(bench, 2, url, limit=3)
        merge(bench.folder / "many")
        sent = len(endpoint.bodies)
        assert len(load_run(bench.folder / "many").items) == 3 + 9
        await bench.run(url, out="one")
        _an_hour_ago(bench.folder / "many")
        await shards(bench, 3, url)
        assert len(endpoint.bodies) == sent + 2 * 96 - sent
    assert merge(bench.folder / "many").exit is Exit.DONE
    assert_same(bench)


def _an_hour_ago(folder: Path) -> None:
    """Let everything in a run's folder have begun before all that comes."""
    for file in folder.rglob("run.json"):
        said = json.loads(file.read_text())
        said["timings"]["begun"] = "2020-01-01T00:00:00Z"
        file.write_text(json.dumps(said))


async def test_failures(bench: Bench) -> None:
    """A failure in one shard gives way to the reply that another cut brought; what nobody answered stays."""

    def refuses(number: int, body: Body) -> Fault | None:
        return Status(400) if number <= 10 else None

    async with FakeEndpoint(refuses) as endpoint:
        url = f"it={endpoint.base_url}"
        exits = await shards(bench, 2, url, concurrency=1)
        assert exits == [Exit.UNSCORED, Exit.DONE]
        merged = merge(bench.folder / "many")
        assert (merged.exit, merged.untried) == (Exit.UNSCORED, 0)
        assert "Shards incomplete: 1/2" in merged.told
        unscored = load_run(bench.folder / "many").items["unscored"].dropna()
        assert set(unscored) == {"400"}
        assert set(await shards(bench, 3, url)) == {Exit.DONE}
        assert merge(bench.folder / "many").exit is Exit.DONE


async def test_caps_hold_over_all_shards(bench: Bench) -> None:
    """Each shard takes its part of a cap, less its part of what was sent without shards."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", limit=1, max_requests=60)
        assert len(endpoint.bodies) == 16
        exits = await shards(bench, 2, url, max_requests=60)
        assert exits == [Exit.UNSCORED, Exit.UNSCORED]
        assert 56 <= len(endpoint.bodies) <= 60
        merge(bench.folder / "many")
        exits = await shards(bench, 2, url, max_requests=60)
        assert len(endpoint.bodies) <= 60, "what was merged is not counted twice, nor forgotten"
        await shards(bench, 2, url, max_requests=300)
        assert merge(bench.folder / "many").exit is Exit.DONE
        assert sent_again(endpoint.bodies) == 0


async def test_too_little_for_so_many(bench: Bench) -> None:
    """A cap of less than one request for each shard is refused before anything is sent."""
    with pytest.raises(UsageError, match="--max-requests 3: is less than one for each of 4 shards"):
        await bench.run("http://127.0.0.1:9/v1", shard="1/4", max_requests=3)


def test_the_pace_is_parted(bench: Bench) -> None:
    """Each of so many shards gets its part of the account's minute."""
    from harness.prepare import prepare

    settings = bench.settings("http://127.0.0.1:9/v1", shard="1/4", rpm=60, tpm=1000)
    (allowed,) = prepare(settings, {}).allowances.values()
    assert (allowed.rpm, allowed.tpm) == (15, 250)


async def test_looks_have_numbers_of_their_own(bench: Bench) -> None:
    """Shards look at the same items under keys of their own; put together, none is lost."""
    async with FakeEndpoint() as endpoint:
        urls = f"base={endpoint.base_url}#m", f"tuned={endpoint.base_url}#m:adapter"
        exits = await shards(bench, 2, *urls, probe=True)
        assert set(exits) == {Exit.REFUSED}, "the adapter says what its base says"
        keys = [set(replies(bench.folder / f"many/shards/{number}-of-2")) for number in (1, 2)]
        assert not keys[0] & keys[1]
        merge(bench.folder / "many")
        assert set(replies(bench.folder / "many")) == keys[0] | keys[1]
    checks = bench.manifest("many")["checks"]["tuned"]
    assert [each["verdict"] for each in checks] == ["refused", "refused"] or len(checks) == 1


async def test_two_on_one_shard(bench: Bench) -> None:
    """A second process on the same shard is refused; another may run at the same time, and be merged."""
    stalling = True

    def stalled(number: int, body: Body) -> Fault | None:
        return Hang() if stalling and number > 5 else None

    async with FakeEndpoint(stalled) as endpoint:
        url = f"it={endpoint.base_url}"
        child = await start(bench, endpoint.base_url, "--shard", "1/2", out="many")
        try:
            await until(lambda: endpoint.in_flight == 8)
            stalling = False
            with pytest.raises(UsageError, match="1-of-2: another run is working in this folder"):
                await bench.run(url, out="many", shard="1/2")
            assert (await bench.run(url, out="many", shard="2/2")).exit is Exit.DONE
            merged = merge(bench.folder / "many")  # while the first is at work
            assert "Shards running: 1/2" in merged.told
            assert 10 <= merged.untried <= 12
            with pytest.raises(UsageError, match=r"not merged yet \(1-of-2\)"):
                await bench.run(url, out="many")
        finally:
            child.kill()
            await ended(child)


@pytest.mark.parametrize("left", [0, 5000])
async def test_a_damaged_list_of_items_is_written_anew(bench: Bench, left: int) -> None:
    """A list of items that was cut short or emptied is replaced by the next shard, and merge works."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", shard="1/2")
        (file,) = (bench.folder / "many" / "shards").glob("items-*.sqlite")
        file.write_bytes(file.read_bytes()[:left])
        await bench.run(url, out="many", shard="2/2")
        assert merge(bench.folder / "many").untried == 0


async def test_no_shard_beside_the_whole_run(bench: Bench) -> None:
    """While a run without --shard is at work, a shard of it is refused; while it is merged, it is not."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", shard="1/2")
        merge(bench.folder / "many")
        identity = SuiteIdentity(bench.manifest("many")["identity"])
        sent = len(endpoint.bodies)
        with RunFolder(bench.folder / "many", identity, sends=True):
            with pytest.raises(UsageError, match="a run without --shard is working there; wait"):
                await bench.run(url, out="many", shard="2/2")
            assert len(endpoint.bodies) == sent
        with RunFolder(bench.folder / "many", identity):
            assert (await bench.run(url, out="many", shard="2/2")).exit is Exit.DONE


async def test_servers_at_addresses_of_their_own(bench: Bench) -> None:
    """Where each shard asks a server of its own, one identity makes them one endpoint; without it they are
    two, and may not have one name."""
    async with FakeEndpoint() as one, FakeEndpoint() as two:
        for number, each in enumerate((one, two), 1):
            named = EndpointSettings(spec=each.base_url, name="it", identity="ours")
            await bench.run(endpoint=(named,), out="many", shard=f"{number}/2")
            await bench.run(f"it={each.base_url}", out="other", shard=f"{number}/2")
    assert merge(bench.folder / "many").exit is Exit.DONE
    with pytest.raises(UsageError, match=r"two endpoints of these shards are called it.*one `identity`"):
        merge(bench.folder / "other")


async def test_no_shards(bench: Bench) -> None:
    """Where there is nothing to put together, it says what makes it."""
    with pytest.raises(UsageError, match="no shards are there; run --shard I/N --out"):
        merge(bench.folder / "many")


async def test_what_another_machine_writes_is_left_alone(bench: Bench) -> None:
    """The journals of a shard that lives on another machine are not read before it has ended."""
    async with FakeEndpoint() as endpoint:
        await shards(bench, 2, f"it={endpoint.base_url}")
    file = bench.folder / "many/shards/2-of-2/run.json"
    said = json.loads(file.read_text())
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    said |= {"status": "running", "heartbeat": {**said["heartbeat"], "at": now, "host": "elsewhere"}}
    file.write_text(json.dumps(said))
    merged = merge(bench.folder / "many")
    assert merged.told[0] == "Shard 2/2: at work on elsewhere"
    assert merged.untried == 12
    said["heartbeat"]["host"] = platform.node()
    file.write_text(json.dumps(said))
    assert merge(bench.folder / "many").untried == 0


async def test_a_list_that_is_gone(bench: Bench) -> None:
    """Without the list of all items nothing is put together, and the way out is told and works."""
    async with FakeEndpoint() as endpoint:
        await shards(bench, 2, f"it={endpoint.base_url}")
        for file in (bench.folder / "many/shards").glob("items-*.sqlite"):
            file.unlink()
        with pytest.raises(UsageError, match="is missing; any of the shards writes it anew"):
            merge(bench.folder / "many")
        await bench.run(f"it={endpoint.base_url}", out="many", shard="1/2")
    assert merge(bench.folder / "many").exit is Exit.DONE


KILLED_IN = """
import os, signal, sys
from pathlib import Path
from harness.merging import folding, texts, whole
_, room, name, after, folder = sys.argv
room, after = {"folding": folding, "texts": texts, "whole": whole}[room], int(after)
real, calls = getattr(room, name), 0
def killing(*given, **named):
    global calls
    calls += 1
    if calls == after:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
setattr(room, name, killing)
whole.merge(Path(folder))
"""
"""A merge that is killed at the begin of the n-th call of one of its functions."""


@pytest.mark.parametrize(
    "moment",
    [
        *(("folding", "_attached", 2), ("folding", "_attached", 7), ("folding", "_take_in_place", 3)),
        *(("whole", "write_results", 1), ("texts", "_in_order", 1), ("whole", "last_record", 1)),
    ],
    ids=lambda moment: f"{moment[1]}-{moment[2]}",
)
async def test_a_merge_that_is_killed(bench: Bench, moment: tuple[str, str, int]) -> None:
    """Whenever a merge is killed, another one makes what it would have made; meanwhile no run begins."""
    room, name, after = moment
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="one")
        await shards(bench, 3, url)
        command = [sys.executable, "-c", KILLED_IN, room, name, str(after), str(bench.folder / "many")]
        child = await asyncio.create_subprocess_exec(*command)
        await ended(child)
        assert child.returncode == -signal.SIGKILL
        with pytest.raises(UsageError, match="not merged yet"):
            await bench.run(url, out="many")
        assert merge(bench.folder / "many").exit is Exit.DONE
    assert_same(bench)
    said = bench.manifest("many")
    assert said["without_shards"]["sent"] == {}
    assert sum(each["sent"]["it"]["requests"] for each in said["shards"].values()) == 96


async def test_shards_that_are_killed(bench: Bench) -> None:
    """Shards that are killed and merged at any moment, and given again, come to the same tables, and send
    again what was in flight at most."""
    drawn = random.Random(7)
    kills = in_flight = 0
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="one")
        endpoint.bodies.clear()
        for number in range(1, 4):
            shard = bench.folder / "many" / "shards" / f"{number}-of-3"
            for _ in range(2):
                begun, before = len(endpoint.bodies), kept(shard)
                child = await start(bench, endpoint.base_url, "--shard", f"{number}/3", out="many")
                aim = begun + drawn.randint(1, 15)
                await until(lambda: len(endpoint.bodies) >= aim or child.returncode is not None)  # noqa: B023
                if child.returncode is None:
                    child.kill()
                    kills += 1
                await ended(child)
                in_flight += len(endpoint.bodies) - begun - (kept(shard) - before)
                with contextlib.suppress(UsageError):  # it was killed before there was anything
                    merge(bench.folder / "many")
            assert (await bench.run(url, out="many", shard=f"{number}/3")).exit is Exit.DONE
        assert merge(bench.folder / "many").exit is Exit.DONE
        assert sent_again(endpoint.bodies) <= in_flight
    lost = len(replies(bench.folder / "one").keys() - replies(bench.folder / "many").keys())
    note("shards killed (SIGKILL), merged, and given again", tried=kills, lost=lost, unit="kills")
    assert_same(bench)
