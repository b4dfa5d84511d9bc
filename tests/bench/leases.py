"""One budget for workers in several processes, over a minute of real time, at an endpoint that enforces it.

    python -m tests.bench.leases --shared ../shared [--workers 2,4,8] [--rpm 1200]

Each worker is a process with the program's own client. It asks the keeper of the budget in this process, over
a pipe. Some stay, some leave after a while, some come late, and one is killed with what it holds; 429 is what
the endpoint says to more than a sliding window of a minute allows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from harness.client import Client
from harness.dialects import dialect
from harness.exchange import ScoreRequest
from harness.pacing import Ask, Budget, Capacity, Grant, LeasedBudget, Lessor, Limits, Terms
from harness.patience import ClientSettings
from tests.bench.measuring import Bench, Failed, Figure, Instant, machine, table

RPM = 1200.0
MINUTE = 60.0
GATE = 16
"""Requests at once of each worker."""
OFF = 0.02
"""Of the allowance, over a minute: how far off is still in the bar."""


class Stay(NamedTuple):
    """When a worker comes and goes, in seconds."""

    begin: float
    end: float
    killed: bool = False


class Row(NamedTuple):
    """What came of a minute."""

    workers: int
    used: float
    """Of the allowance, over the first minute."""
    refused: int
    calls: float
    """Calls of the keeper a second and worker."""
    share: float
    """Of a processor that the keeper's process takes, starting workers included."""


def stays(workers: int) -> list[Stay]:
    """So many at once most of the time: half of them stay; of the others one is killed, and the rest leave;
    others come for them."""
    lasting = [Stay(0, MINUTE + 2)] * (workers // 2)
    coming = []
    for number in range(workers - len(lasting)):
        leaves = 15.0 + 25.0 * number / workers
        coming += [Stay(0, leaves, killed=number == 0), Stay(leaves + 2, MINUTE + 2)]
    return [*lasting, *coming]


# ------------------------------------------------------------------------------------------------ the worker


class Pipe:
    """The keeper, as a worker sees it: calls with numbers over a pipe."""

    def __init__(self, pipe: Connection) -> None:
        """Take the worker's end."""
        self._pipe = pipe
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._read)

    def _read(self) -> None:
        while self._pipe.poll():
            number, value = self._pipe.recv()
            if (waiting := self._calls.pop(number, None)) is not None and not waiting.done():
                waiting.set_result(value)

    async def _call(self, name: str, *given: Any) -> Any:
        self._number += 1
        number = self._number
        waiting = self._calls[number] = asyncio.get_running_loop().create_future()
        self._pipe.send((number, name, given))
        return await waiting

    async def lease(self, holder: str, share: str, ask: Ask) -> Grant:
        """As `Lends.lease`."""
        grant: Grant = await self._call("lease", holder, share, ask)
        return grant

    async def give_back(self, holder: str, share: str, requests: int, tokens: int) -> None:
        """As `Lends.give_back`."""
        await self._call("give_back", holder, share, requests, tokens)

    async def pause(self, seconds: float) -> None:
        """As `Lends.pause`."""
        await self._call("pause", seconds)

    async def follow(self, limits: Limits) -> None:
        """As `Lends.follow`."""
        await self._call("follow", limits)

    async def news(self, holder: str, seen: int) -> Terms:
        """As `Lends.news`."""
        terms: Terms = await self._call("news", holder, seen)
        return terms


def worker(pipe: Connection, name: str, url: str, rpm: float, seconds: float) -> None:
    """A process: send as fast as may be for a while, then give back what is left."""
    asyncio.run(_work(pipe, name, url, rpm, seconds))


async def _work(pipe: Connection, name: str, url: str, rpm: float, seconds: float) -> None:
    budget = LeasedBudget(Pipe(pipe), name, rpm=rpm)
    listening = asyncio.create_task(budget.listen())
    client = Client(
        base_url=url,
        dialect=dialect("friendli"),
        model=None,
        headers={},
        secrets=[],
        settings=ClientSettings(),
        budget=budget,
        gate=Capacity(GATE).gate(),
    )
    async with client:
        sending = [asyncio.create_task(_send(client, name, number)) for number in range(GATE)]
        await asyncio.sleep(seconds)
        for each in sending:
            each.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
    listening.cancel()
    await budget.close()


async def _send(client: Client, name: str, number: int) -> None:
    asked = 0
    async with client.gate:
        while True:
            asked += 1
            key = f"{name} {number} {asked}".encode()[:16].ljust(16)
            await client.score(ScoreRequest(key, [asked % 1000, number], [7]))


# ------------------------------------------------------------------------------------------------ the keeper


@dataclass(slots=True)
class _Keeper:
    lessor: Lessor
    calls: int = 0

    async def serve(self, pipe: Connection, name: str) -> None:
        """Answer a worker until it is gone."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        answering: set[asyncio.Task[None]] = set()

        async def answer(number: int, what: str, given: Sequence[Any]) -> None:
            value = await getattr(self.lessor, what)(*given)
            with contextlib.suppress(OSError):
                pipe.send((number, value))

        def read() -> None:
            try:
                while pipe.poll():
                    number, what, given = pipe.recv()
                    self.calls += 1
                    task = loop.create_task(answer(number, what, given))
                    answering.add(task)
                    task.add_done_callback(answering.discard)
            except (EOFError, OSError):
                loop.remove_reader(pipe.fileno())
                ended.set()

        loop.add_reader(pipe.fileno(), read)
        await ended.wait()
        self.lessor.gone(name)
        for each in answering:
            each.cancel()


async def minute(workers: int, rpm: float, endpoint: Instant) -> Row:
    """A minute with workers that come, go and are killed."""
    keeper = _Keeper(Lessor(Budget(rpm)))
    spawn = multiprocessing.get_context("spawn")
    endpoint.forget()

    async def one(number: int, stay: Stay) -> None:
        await asyncio.sleep(stay.begin)
        ours, theirs = spawn.Pipe()
        name, seconds = f"worker {number}", stay.end - stay.begin
        process = spawn.Process(
            target=worker, args=(theirs, name, endpoint.url, rpm, seconds + MINUTE * stay.killed)
        )
        process.start()
        theirs.close()
        if stay.killed:
            asyncio.get_running_loop().call_later(seconds, process.kill)
        await keeper.serve(ours, name)
        await asyncio.to_thread(process.join)

    begun, worked = time.monotonic(), time.process_time()
    coming = stays(workers)
    await asyncio.gather(*(one(number, stay) for number, stay in enumerate(coming)))
    seconds, worked = time.monotonic() - begun, time.process_time() - worked
    counts = await asyncio.to_thread(endpoint.counts)
    present = sum(stay.end - stay.begin for stay in coming)
    return Row(
        workers,
        sum(counts["seconds"][: int(MINUTE)]) / rpm,
        counts["refused"],
        keeper.calls / present,
        worked / seconds,
    )


def figures(rows: Sequence[Row], rpm: float) -> list[Figure]:
    """The bars."""
    return [
        figure
        for row in rows
        for figure in (
            Figure(
                f"`--rpm {rpm:g}`, {row.workers} workers that come and go: achieved over allowed rate",
                f"{row.used:.3f}",
                f"within {OFF}",
                abs(row.used - 1) <= OFF,
            ),
            Figure(f"429s of the same, {row.workers} workers", str(row.refused), "none", not row.refused),
        )
    ]


def measured(tokenizer: Path, workers: int, rpm: float) -> Row:
    """A minute with an endpoint of its own, which remembers nothing of the one before."""
    with Instant(tokenizer, "--rpm", f"{rpm:.0f}", "--latency", "0.05") as endpoint:
        return asyncio.run(minute(workers, rpm, endpoint))


def section(bench: Bench) -> list[Figure]:
    """`make bench`: 2, 4 and 8 workers."""
    return figures([measured(bench.tokenizer, workers, RPM) for workers in (2, 4, 8)], RPM)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shared", type=Path, required=True, help="the shared test material")
    parser.add_argument("--workers", default="2,4,8", help="how many at once, one table row each")
    parser.add_argument("--rpm", type=float, default=RPM, help="requests a minute of the account")
    given = parser.parse_args()
    tokenizer = given.shared / "tokenizers/gpt-neox-olmo/tokenizer.json"
    rows = []
    for workers in map(int, given.workers.split(",")):
        rows.append(measured(tokenizer, workers, given.rpm))
        print(rows[-1], file=sys.stderr, flush=True)
    if not all(row.used for row in rows):
        raise Failed("workers have sent nothing")
    print(machine())
    print(
        table(
            (
                "workers",
                "of the allowance",
                "429s",
                "calls a second and worker",
                "of a processor",
            ),
            [
                (
                    str(row.workers),
                    f"{row.used:.3f}",
                    str(row.refused),
                    f"{row.calls:.2f}",
                    f"{row.share:.1%}",
                )
                for row in rows
            ],
        )
    )
    if not all(figure.holds for figure in figures(rows, given.rpm)):
        sys.exit(1)


if __name__ == "__main__":
    main()
