"""Runs as child processes, and an endpoint that holds them half-way."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from aiohttp import web

from tests.fake_endpoint import FakeEndpoint, completion
from tests.running import Bench, ended, sent_again, write_rows

AT_ONCE = 8
"""Requests of an endpoint that each worker has in flight."""
SECONDS = 240.0
"""In which workers begin, on a busy machine too."""


FIRST = 40
"""Requests that `Held` answers at once."""


def write_many(bench: Bench) -> None:
    """Rows of which one worker does not take all before the other has begun; and whose contexts have no
    beginning in common: else one that is held holds back the others, as the schedule has it."""
    write_rows(bench.data, hellaswag=450, mmlu=50)
    file = bench.data / "hellaswag/validation.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [json.dumps({**row, "activity_label": f"{row['ind']}"}) for row in rows]
    file.write_text("\n".join(lines))


class Held(FakeEndpoint):
    """An endpoint that answers the first requests at once, and the others only when it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self._going = asyncio.Event()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if len(self.bodies) > FIRST:
            await self._going.wait()
        return await self._counted(request, None, lambda: completion(body))

    def go_on(self) -> None:
        """Answer all from now on."""
        self._going.set()

    def assert_sent_again(self, at_most: int) -> None:
        """Nothing was sent again but so many requests, none of which was answered at first."""
        assert sent_again(self.bodies) <= at_most
        assert not [body for body in self.bodies[FIRST:] if body in self.bodies[:FIRST]]


_children: list[Process] = []


@pytest.fixture(autouse=True)
async def no_child_left() -> AsyncIterator[None]:
    """A run that a failed test leaves behind would keep the processors of the cluster from the next."""
    yield
    for child in _children:
        if child.returncode is None:
            child.kill()
            await child.wait()
    _children.clear()


async def started(
    bench: Bench, urls: Sequence[str], *extra: str, out: str = "run", alone: bool = False
) -> Process:
    """A run as a child process, all choices forced; `alone`: with a terminal's group of processes its own."""
    command = bench.command(*urls, out=out, extra=["--no-shortcut", *extra])
    if "--probe" in extra:
        command.remove("--no-probe")
    child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, start_new_session=alone)
    _children.append(child)
    return child


async def whole(bench: Bench, urls: Sequence[str], *extra: str, out: str = "run") -> bytes:
    """A run to its end; what it said."""
    return await done(await started(bench, urls, *extra, out=out))


async def done(child: Process) -> bytes:
    """What a run said that must have ended well."""
    printed, said = await ended(child)
    assert child.returncode == 0, said
    return printed + said


async def interrupted(child: Process, send: Callable[[], None] | None = None) -> None:
    """Ctrl-C, once it has heard of it; `send` sends it."""
    (send or (lambda: child.send_signal(signal.SIGINT)))()
    assert child.stderr is not None
    async with asyncio.timeout(SECONDS):
        while b"Stopping" not in await child.stderr.readline():
            pass


async def until(holds: Callable[[], bool]) -> None:
    """Look again and again until something holds."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110 - other processes decide when
            await asyncio.sleep(0.01)


def kept(bench: Bench, out: str = "run") -> int:
    """The replies that a run holds on disk."""
    found = 0
    for file in (bench.folder / out / "journal").glob("*.sqlite"):
        with closing(sqlite3.connect(file)) as journal, suppress(sqlite3.OperationalError):  # no tables yet
            found += journal.execute("SELECT count(sum) FROM replies").fetchone()[0]
    return found


async def half_way(bench: Bench, endpoint: Held, log: Path) -> None:
    """Wait until both workers have as much in flight as they may, and what was answered is kept."""

    def both() -> bool:
        return len(workers(log)) == 2 and len(endpoint.bodies) == FIRST + 2 * AT_ONCE

    await until(lambda: both() and kept(bench) == FIRST)


def workers(log: Path) -> list[int]:
    """The processes of the workers of a run that have begun, by its log file."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line["pid_there"] for line in lines if line["event"] == "worker_ready"]
