"""Signs of life: in `run.json`, in the log file, and what the process holds."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from harness.earlier import earlier
from harness.errors import StoreError
from harness.events import LOGGER
from harness.heartbeat import LOG_SECONDS, Signs, process_facts
from harness.manifest import Exit
from harness.runs import SIGN_SECONDS, RunFolder
from tests.fake_endpoint import Body, FakeEndpoint, Fault, Status
from tests.running import Bench, bench
from tests.virtual_time import in_virtual_time

__all__ = ["bench"]


PATIENCE = 5_000
"""Requests after which an endpoint waits no more for a sign: a run whose signs do not come has to end."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs every hundredth of a second."""
    monkeypatch.setattr("harness.heartbeat.SIGN_SECONDS", 0.01)


async def test_run_json_counts_as_it_goes(bench: Bench, quick: None) -> None:
    """While a run goes on its `run.json` is renewed, whole, with the counts of each endpoint, and says when;
    at its end the same keys hold what came of it."""
    seen: list[dict[str, Any]] = []

    def script(number: int, body: Body) -> Fault | None:
        if (
            number <= 40
            or number > PATIENCE
            or (seen and seen[-1]["counts"].get("it", {}).get("items_done", 0) > 2)
        ):
            return None
        seen.append(bench.manifest())
        return Status(429)

    async with FakeEndpoint(script) as endpoint:
        await bench.run(f"it={endpoint.base_url}")
    running, ended = seen[-1], bench.manifest()
    assert (running["status"], ended["status"]) == ("running", "complete")
    assert list(running) == list(ended)
    now, whole = running["counts"]["it"], ended["counts"]["it"]
    assert list(now) == list(whole)
    assert 2 < now["items_done"] < now["items"] == whole["items_done"] == 24
    assert 0 < now["requests_sent"] <= 40
    assert set(now["retries"]) <= {"429"}
    assert whole["pace"] == {**whole["pace"], "in_flight": 0, "waiting": 0, "seconds_left": 0, "state": ""}
    for each in (running, ended):
        beat = each["heartbeat"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", beat["at"])
        assert (beat["every_s"], len(beat["session"])) == (SIGN_SECONDS, 8)
    assert 0 < running["timings"]["sending_s"] <= ended["timings"]["whole_s"]


async def test_the_time_of_a_killed_session_counts(bench: Bench, quick: None) -> None:
    """What `run.json` said last is what the next session knows of one that was killed."""
    kept: list[dict[str, Any]] = []

    def script(number: int, body: Body) -> Fault | None:
        kept.append(bench.manifest())
        return None if kept[-1]["counts"] or number > PATIENCE else Status(429)

    async with FakeEndpoint(script) as endpoint:
        await bench.run(f"it={endpoint.base_url}")
    (killed, *_) = [each for each in kept if each["counts"]]
    (bench.folder / "run/run.json").write_text(json.dumps(killed))
    assert earlier(bench.folder / "run").seconds == killed["timings"]["sending_s"] > 0


async def test_signs_go_on_while_tables_are_written(
    bench: Bench, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million items that takes minutes, in which nobody should think that the run is dead."""
    from harness.tables import write_results as write

    signs: list[object] = []

    def slowly(*given: Any) -> Any:
        before = bench.manifest()["counts"]
        deadline = time.monotonic() + 30
        while bench.manifest()["counts"] == before and time.monotonic() < deadline:
            time.sleep(0.001)  # in the thread that writes
        signs.append(bench.manifest()["counts"]["it"]["items_done"])
        return write(*given)

    monkeypatch.setattr("harness.runner.write_results", slowly)
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}")
    assert signs == [24]


async def test_a_missing_sign_stops_nobody(
    bench: Bench, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `run.json` cannot be renewed the log file says so, and the run goes on to its end."""
    write, tried = RunFolder.write_manifest, list[str]()

    def cannot(folder: RunFolder, said: Mapping[str, Any]) -> None:
        if said["status"] == "running" and said["counts"]:
            tried.append("")
            raise StoreError("run.json: No space left on device")
        write(folder, said)

    monkeypatch.setattr(RunFolder, "write_manifest", cannot)
    log = bench.folder / "log"

    def script(number: int, body: Body) -> Fault | None:
        return None if tried or number > PATIENCE else Status(429)

    async with FakeEndpoint(script) as endpoint:
        result = await bench.run(f"it={endpoint.base_url}", log_file=log)
    assert result.exit is Exit.DONE
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    missed = [line for line in lines if line["event"] == "run_json_not_written"]
    assert 0 < len(missed) <= len(tried)  # one that is being written when the block is left is told by nobody
    assert {(line["level"], line["reason"]) for line in missed} == {
        ("warning", "run.json: No space left on device")
    }


# ------------------------------------------------------------------------------------------- the log file


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """The names of the events that are told of meanwhile."""
    names: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: names.append(record.getMessage())  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield names
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.removeHandler(handler)


def test_a_heartbeat_a_minute(heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In an hour there are sixty, and none when it is over; a run of seconds has none."""
    monkeypatch.setattr(Signs, "_to_run_json", lambda signs: asyncio.sleep(10**9))
    signs = Signs(cast(RunFolder, None), {}, [])

    async def work(seconds: float) -> None:
        async with signs.given():
            await asyncio.sleep(seconds)
        await asyncio.sleep(3600)

    in_virtual_time(work(59))
    assert heard == []
    in_virtual_time(work(3600 + LOG_SECONDS / 2))
    assert heard == ["process"] * 60


async def test_process_facts(tmp_path: Path) -> None:
    """Tasks, threads and open files are counted as they are."""
    before = process_facts()
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    task = asyncio.create_task(asyncio.sleep(3600))
    with (tmp_path / "file").open("w"):
        during = process_facts()
    task.cancel()
    over.set()
    thread.join()
    for name in ("tasks", "threads", "files"):
        if name in before:
            assert cast(int, during[name]) == cast(int, before[name]) + 1, name
    if "memory_mb" in before:
        assert 1 < cast(float, before["memory_mb"]) < 100_000
