"""`harness.workers`: a run from several processes has the numbers of a run from one, whatever is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from harness.errors import StoreError, UsageError
from harness.exchange import Outcome
from harness.manifest import Exit
from harness.pool import Pool
from harness.reading import Reading, Taken
from harness.settings import RunSettings
from harness.workers.desk import Desk
from harness.workers.hands import Hand
from harness.workers.messages import Ready, ToRun
from tests.crews import MemoryEngine, use
from tests.fake_endpoint import Body, FakeEndpoint, Fault, Hang, Status
from tests.running import REQUESTS, Bench, bench, ended, kept, sent_again, start, until

__all__ = ["bench"]

IN_FLIGHT = 8
"""Of an endpoint at each worker."""
TABLES = ("scores.csv", "items.csv", "items.parquet", "prompts.txt")


def assert_same(bench: Bench, *outs: str) -> None:
    """Runs have the same tables, byte for byte, and the same texts."""
    first, *others = (bench.folder / out for out in outs)
    for other in others:
        for name in TABLES:
            assert (first / name).read_bytes() == (other / name).read_bytes(), f"{name} of {other.name}"
        texts = [parquet.read_table(folder / "texts.parquet") for folder in (first, other)]
        assert texts[0].equals(texts[1])


@pytest.mark.parametrize("workers", [1, 2, 5])
async def test_same_tables(bench: Bench, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Whatever their number, workers ask what one process asks, once each, and the tables are the same."""
    async with FakeEndpoint() as one, FakeEndpoint() as two:
        urls = f"a={one.base_url}", f"b={two.base_url}", f"c={one.base_url}#other"
        await bench.run(*urls, out="alone", shortcut=False)
        alone = len(one.bodies), len(two.bodies)
        engine = use(monkeypatch, MemoryEngine(workers))
        result = await bench.run(*urls, out="many", shortcut=False, workers=workers)
        assert result.exit is Exit.DONE
        assert (len(one.bodies), len(two.bodies)) == (2 * alone[0], 2 * alone[1])
        assert len(engine.started) == workers
    assert_same(bench, "alone", "many")
    counts, before = bench.manifest("many")["counts"], bench.manifest("alone")["counts"]
    for label in ("a", "b", "c"):
        for name in ("items", "items_done", "items_unscored", "requests_sent", "sent", "forecast"):
            assert counts[label][name] == before[label][name], name


async def test_a_whole_run_with_probe_looks_asides_and_shots(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks, the repeated sample, further metrics and the shortcut are as in one process."""
    more: dict[str, Any] = {
        "probe": True,
        "metrics": "acc_pmi",
        "repeat_sample": 3,
        "tasks": "hellaswag,mmlu@1",
    }
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="alone", **more)
        sent = len(endpoint.bodies)
        use(monkeypatch, MemoryEngine(2))
        result = await bench.run(url, out="many", workers=2, **more)
        assert result.exit is Exit.DONE
        assert (
            sent <= len(endpoint.bodies) - sent <= sent + 40
        )  # a worker learns by itself how choices are read
    assert (bench.folder / "many" / "scores.csv").read_bytes() == bench.scores("alone")
    assert (bench.folder / "many" / "checks.csv").exists()
    assert bench.manifest("many")["counts"]["it"]["probe"]


async def test_an_endpoint_that_tokenizes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the endpoint's own tokenizer workers ask for ids as the run does, and come to the same tables."""
    more: dict[str, Any] = {"tokenizer": ("endpoint",), "shortcut": False, "tasks": "hellaswag"}
    async with FakeEndpoint() as endpoint:
        await bench.run(f"a={endpoint.base_url}", out="alone", **more)
        use(monkeypatch, MemoryEngine(2))
        result = await bench.run(f"a={endpoint.base_url}", out="many", workers=2, **more)
        assert result.exit is Exit.DONE
    assert_same(bench, "alone", "many")


async def test_a_lost_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lost worker had is done by others: the tables are the same, and only that is sent again which
    was in flight: not on disk when the worker was lost."""
    engine, in_flight = MemoryEngine(3), 0
    desks: list[Desk] = []
    made = Desk.__init__

    def kept_at_hand(self: Desk, *given: Any) -> None:
        made(self, *given)
        desks.append(self)

    monkeypatch.setattr(Desk, "__init__", kept_at_hand)

    def script(number: int, body: Body) -> Fault | None:
        nonlocal in_flight
        if number in (40, 70):
            in_flight += number - kept(bench.folder / "many")
            engine.kill(max(engine.started, key=desks[0]._ledger.held))  # who has most to do
        return None

    async with FakeEndpoint() as well, FakeEndpoint(script) as endpoint:
        short: dict[str, Any] = {"shortcut": False, "max_length": 60}
        await bench.run(f"a={well.base_url}", out="alone", **short)
        use(monkeypatch, engine)
        result = await bench.run(f"a={endpoint.base_url}", out="many", workers=3, **short)
        assert result.exit is Exit.DONE
        assert len(engine.started) == 5
        # What each that was killed had on its way to the endpoint then was not counted yet.
        assert 0 < sent_again(endpoint.bodies) <= in_flight + 2 * IN_FLIGHT
    assert_same(bench, "alone", "many")
    counts = [bench.manifest(each)["counts"]["a"] for each in ("alone", "many")]
    for name in ("items_done", "items_unscored", "truncated_items"):
        assert counts[0][name] == counts[1][name], name
    assert 0 < counts[0]["truncated_items"] <= counts[0]["items_done"] == 24


async def test_a_worker_that_falls_silent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that neither answers nor ends is given up, and its part done by another."""
    engine, well = MemoryEngine(2), 0
    monkeypatch.setattr("harness.workers.crew.FEWEST", 2)  # so that both have something
    took, ready = Desk.take_in, set()

    def take_in(self: Desk, hand: Hand, message: ToRun) -> None:
        if isinstance(message, Ready):
            ready.add(hand.name)
        took(self, hand, message)

    monkeypatch.setattr(Desk, "take_in", take_in)

    def script(number: int, body: Body) -> Fault | None:
        nonlocal well
        if len(ready) < 2:
            return Status(429)
        well += 1
        if well == 10:
            engine.freeze(engine.started[0])
        return None

    async with FakeEndpoint(script) as endpoint:
        monkeypatch.setattr("harness.workers.crew.SILENCE_S", 1.5)
        use(monkeypatch, engine)
        url = f"a={endpoint.base_url}"
        more: dict[str, Any] = {"shortcut": False, "attempts": 100_000}
        result = await bench.run(url, out="many", workers=2, **more)
        assert result.exit is Exit.DONE
        assert caplog.messages.count("worker_lost") == 1
        monkeypatch.undo()
        await bench.run(f"a={endpoint.base_url}", out="alone", shortcut=False)
    assert_same(bench, "alone", "many")


async def test_bad_rows_of_a_lost_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad rows are counted once, also where the worker that had them is lost; and what it had sent is."""
    rows = bench.data / "hellaswag" / "validation.jsonl"
    lines = rows.read_text().splitlines()
    for at in (0, 3, 5, 8):
        lines[at] = json.dumps({**json.loads(lines[at]), "label": "nine"})
    rows.write_text("\n".join(lines) + "\n")
    engine = MemoryEngine(1)

    def script(number: int, body: Body) -> Fault | None:
        if number == 25:
            engine.kill(engine.started[0])
        return None

    async with FakeEndpoint(script) as endpoint:
        use(monkeypatch, engine)
        more: dict[str, Any] = {"skip_bad_rows": True, "shortcut": False, "tasks": "hellaswag"}
        result = await bench.run(f"a={endpoint.base_url}", workers=1, **more)
        assert result.exit is Exit.UNSCORED
        counts = bench.manifest()["counts"]["a"]
        assert (counts["items_done"], counts["items_unscored"]) == (12, 4)
        assert counts["sent"]["requests"] >= counts["journal"]["attempts"] == 4 * 8
        assert counts["sent"]["requests"] <= len(endpoint.bodies)


async def test_repeats_are_asked_as_the_items_were(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where workers read choices off alternatives, the repeated sample is read too."""
    sent = {}
    for name, workers in (("alone", None), ("many", 1)):
        with monkeypatch.context() as patch:
            if workers:
                use(patch, MemoryEngine(workers))
            more: dict[str, Any] = {"tasks": "sample_mmlu", "limit": 3, "repeat_sample": 6, "data_dir": None}
            await bench.run("embedded", out=name, workers=workers, tokenizer=(), **more)
            sent[name] = bench.manifest(name)["counts"]["embedded"]["sent"]["requests"]
    assert sent["alone"] == sent["many"]


async def test_a_doubt_is_told_to_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one worker finds that alternatives are not what forcing gives any more, none reads on."""
    seen: list[str] = []
    real = Pool.doubt

    async def doubt(self: Pool, difference: float, why: str) -> None:
        seen.append(why)
        await real(self, difference, why)

    checks: list[Reading] = []
    judged = Reading._judged

    def only_the_first_finds_it(self: Reading, check: Any, outcome: Outcome) -> Taken:
        checks.append(self)
        check.value += self is checks[0]
        return judged(self, check, outcome)

    monkeypatch.setattr(Pool, "doubt", doubt)
    monkeypatch.setattr(Reading, "_judged", only_the_first_finds_it)
    monkeypatch.setattr("harness.reading.EVERY", 8)
    engine = use(monkeypatch, MemoryEngine(3))
    more: dict[str, Any] = {"tasks": "sample_mmlu", "shots": 0, "data_dir": None, "tokenizer": ()}
    result = await bench.run("embedded", workers=3, **more)
    assert result.exit is Exit.DONE
    assert len(engine.started) == 3
    assert seen
    assert all("no longer what forcing gives" in each for each in seen)
    journal = bench.manifest()["counts"]["embedded"]["shortcut"]
    assert journal["used"] is False


async def test_workers_that_end_again_and_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no worker lives, the run breaks off with a reason, keeps what came, and the same command without
    workers goes on from there."""
    engine = MemoryEngine(2)

    def script(number: int, body: Body) -> Fault | None:
        if number % 10 == 0:
            engine.kill(engine.started[-1])
        return None

    async with FakeEndpoint(script) as endpoint:
        use(monkeypatch, engine)
        monkeypatch.setattr("harness.workers.crew.RESTARTS", 1)
        result = await bench.run(f"a={endpoint.base_url}", out="many", shortcut=False, workers=2)
        assert result.exit is Exit.UNSCORED
        assert "again and again" in " ".join(result.remarks)
        monkeypatch.undo()
        on_disk, sent = bench.manifest("many")["counts"]["a"]["journal"]["replies"], len(endpoint.bodies)
        assert on_disk
        done = await bench.run(f"a={endpoint.base_url}", out="many", shortcut=False)
        assert done.exit is Exit.DONE
        assert len(endpoint.bodies) - sent == REQUESTS - on_disk


@pytest.mark.parametrize("first", ["alone", "workers"])
async def test_begun_one_way_and_finished_the_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """A run that was stopped goes on in one process or in several, whichever it began in; nothing is sent
    twice."""
    stop = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        if number == 50:
            stop.set()
        return None

    async with FakeEndpoint(script) as endpoint:
        url = f"a={endpoint.base_url}"
        for session in (first, "workers" if first == "alone" else "alone"):
            more: dict[str, Any] = {}
            with monkeypatch.context() as patch:
                if session == "workers":
                    more["workers"] = 2
                    use(patch, MemoryEngine(2))
                result = await bench.run(url, stop=stop, shortcut=False, **more)
            if session == first:
                assert result.exit is Exit.INTERRUPTED
                assert 50 <= len(endpoint.bodies) < REQUESTS
                stop.clear()
        assert result.exit is Exit.DONE
        assert sent_again(endpoint.bodies) == 0
        await bench.run(url, out="fresh", shortcut=False)
    assert_same(bench, "fresh", "run")


async def test_one_endpoint_that_refuses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that one worker meets ends the endpoint for all of them; the other endpoint is finished."""

    def refuses(number: int, body: Body) -> Fault | None:
        return Status(403) if number > 20 else None

    async with FakeEndpoint(refuses) as bad, FakeEndpoint() as good:
        use(monkeypatch, MemoryEngine(2))
        result = await bench.run(f"bad={bad.base_url}", f"good={good.base_url}", shortcut=False, workers=2)
        assert result.exit is Exit.REFUSED
        assert len(good.bodies) == REQUESTS
        assert len(bad.bodies) <= 20 + 2 * IN_FLIGHT
    counts = bench.manifest()["counts"]
    assert "403" in counts["bad"]["refused"]
    assert counts["good"]["items_done"] == 24
    assert not counts["good"]["refused"]


async def test_failures_are_those_of_one_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that cannot be scored are left unscored for the same reasons."""

    def fails(number: int, body: Body) -> Fault | None:
        return Status(400) if sum(body["tokens"]) % 5 == 0 else None

    async with FakeEndpoint(fails) as endpoint:
        url = f"a={endpoint.base_url}"
        alone = await bench.run(url, out="alone", shortcut=False)
        use(monkeypatch, MemoryEngine(2))
        many = await bench.run(url, out="many", shortcut=False, workers=2)
        assert alone.exit is many.exit is Exit.UNSCORED
    assert_same(bench, "alone", "many")
    assert (
        bench.manifest("alone")["counts"]["a"]["items_unscored"]
        == bench.manifest("many")["counts"]["a"]["items_unscored"]
        > 0
    )


async def test_bad_rows_and_more_workers_than_items(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad rows that are skipped stay unscored items, also where a worker has nothing to do."""
    rows = bench.data / "hellaswag" / "validation.jsonl"
    lines = rows.read_text().splitlines()
    lines[3] = json.dumps({**json.loads(lines[3]), "label": "nine"})
    rows.write_text("\n".join(lines[:6]) + "\n")
    more: dict[str, Any] = {"tasks": "hellaswag", "skip_bad_rows": True}
    async with FakeEndpoint() as endpoint:
        url = f"a={endpoint.base_url}"
        await bench.run(url, out="alone", **more)
        use(monkeypatch, MemoryEngine(9))
        result = await bench.run(url, out="many", workers=9, **more)
        assert result.exit is Exit.UNSCORED
    assert_same(bench, "alone", "many")


async def test_other_data_at_a_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds other rows than the run has breaks it off with a line that says so, before it sends
    anything."""
    async with FakeEndpoint() as endpoint:
        engine = use(monkeypatch, MemoryEngine(1))
        begun = engine.start

        async def changed(name: str) -> Any:
            rows = bench.data / "hellaswag" / "validation.jsonl"
            rows.write_text(rows.read_text().replace("cake", "bread"))
            return await begun(name)

        monkeypatch.setattr(engine, "start", changed)
        result = await bench.run(f"a={endpoint.base_url}", workers=1)
        assert "worker 1: finds another suite on" in " ".join(result.remarks)
        assert result.exit is Exit.UNSCORED
        assert not endpoint.bodies


async def test_a_journal_that_cannot_be_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the run cannot keep what workers send, it breaks off as one process would, and nothing counts
    that is not on disk."""
    from harness import journal

    broken, well = False, 0

    def script(number: int, body: Body) -> Fault | None:
        nonlocal well
        if well == 60 and not broken:  # however slow the disk is, it is full before all is sent
            return Status(429)
        well += 1
        return None

    async with FakeEndpoint(script) as endpoint:
        use(monkeypatch, MemoryEngine(2))
        real = journal.Journal._commit

        def full(self: journal.Journal, group: Any) -> None:
            nonlocal broken
            if well > 20:
                broken = True
                raise StoreError("the disk is full; make room and give the same command again")
            real(self, group)

        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "_commit", full)
            with suppress(StoreError):
                more: dict[str, Any] = {"shortcut": False, "attempts": 100_000}
                result = await bench.run(f"a={endpoint.base_url}", workers=2, **more)
                assert "disk is full" in " ".join(result.remarks)
        assert well < REQUESTS
        monkeypatch.undo()
        done = await bench.run(f"a={endpoint.base_url}", shortcut=False)
        assert done.exit is Exit.DONE


@pytest.mark.parametrize("cap", [1, 30, 61])
async def test_caps_hold_for_all_workers_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cap: int
) -> None:
    """No cap is passed by workers together, the run stops there, and with a higher one it goes on."""
    async with FakeEndpoint() as one, FakeEndpoint() as two:
        urls = f"a={one.base_url}", f"b={two.base_url}"
        use(monkeypatch, MemoryEngine(3))
        result = await bench.run(*urls, workers=3, max_requests=cap)
        assert result.exit is Exit.UNSCORED
        assert "--max-requests" in " ".join(result.remarks)
        assert 0.8 * cap <= len(one.bodies) + len(two.bodies) <= cap
        use(monkeypatch, MemoryEngine(3))
        result = await bench.run(*urls, workers=3, max_requests=1000)
        assert result.exit is Exit.DONE


async def test_a_budget_is_shared_by_all_workers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers together keep within --rpm: the run takes as long as that allows."""
    async with FakeEndpoint() as endpoint:
        use(monkeypatch, MemoryEngine(3))
        result = await bench.run(f"a={endpoint.base_url}", workers=3, shortcut=False, rpm=2400, tasks="mmlu")
        assert result.exit is Exit.DONE
        assert result.sending >= (len(endpoint.bodies) - 22) * 60 / 2400


@pytest.mark.parametrize(
    "given",
    [
        {"workers": 0},
        {"workers": 5000},
        {"ray_address": "auto"},
        {"shard": "1/2", "workers": 2},
        {"shard": "3/2"},
        {"workers": 2, "compare_until_decided": True},
    ],
)
def test_what_cannot_be_meant_is_refused(given: Mapping[str, Any]) -> None:
    """Settings that exclude each other, or mean nothing, are refused with the flag's name."""
    with pytest.raises(UsageError, match="--"):
        RunSettings(endpoint=("embedded",), tasks="sample_mmlu", **given)


# ------------------------------------------------------------------------------------ processes of their own


def _workers_of(pid: int) -> list[int]:
    """The worker processes of a run."""
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            ours = each.name.isdigit() and b"harness.workers" in (each / "cmdline").read_bytes()
            if ours and int((each / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(each.name))
    return found


async def test_killed_processes(bench: Bench) -> None:
    """A worker process that is killed is replaced; the run that is killed takes its workers with it, and the
    same command goes on: the same tables, and nothing sent again but what was in flight."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", out="alone", shortcut=False)
        before = len(endpoint.bodies)
        extra = "--workers=2", "--no-shortcut"
        child = await start(bench, endpoint.base_url, *extra)
        await until(lambda: len(endpoint.bodies) > before + 20)
        workers = _workers_of(child.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        in_flight = len(endpoint.bodies) - before - kept(bench.folder / "run")
        _, said = await ended(child)
        assert child.returncode == 0, said
        assert b"lost" in said or len(endpoint.bodies) - before == REQUESTS
        assert sent_again(endpoint.bodies[before:]) <= in_flight + IN_FLIGHT
    assert_same(bench, "alone", "run")


async def test_a_killed_run(bench: Bench) -> None:
    """The run itself is killed: its workers end, and the same command goes on from what was kept."""
    killed = False

    def script(number: int, body: Body) -> Fault | None:
        return Hang() if number > 40 and not killed else None

    async with FakeEndpoint(script) as endpoint:
        child = await start(bench, endpoint.base_url, "--workers=2", "--no-shortcut")
        await until(lambda: kept(bench.folder / "run") > 20)
        workers = _workers_of(child.pid)
        assert len(workers) == 2
        child.kill()
        await ended(child)
        await until(lambda: not any(Path(f"/proc/{each}").exists() for each in workers))
        in_flight = len(endpoint.bodies) - kept(bench.folder / "run")
        killed = True
        assert len(endpoint.bodies) < REQUESTS
        again = await start(bench, endpoint.base_url, "--workers=2", "--no-shortcut")
        _, said = await ended(again)
        assert again.returncode == 0, said
        assert sent_again(endpoint.bodies) <= in_flight
        await bench.run(f"it={endpoint.base_url}", out="alone", shortcut=False)
    assert_same(bench, "alone", "run")
