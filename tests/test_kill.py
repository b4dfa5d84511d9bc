"""Runs that are killed, interrupted or doubled, as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.fake_endpoint import Body, FakeEndpoint, Fault, Hang, Status
from tests.running import ROOT, Bench

WORKERS = 8
REQUESTS = 4 * (12 + 3 * 4)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench for child processes."""
    return Bench(tmp_path)


async def start(bench: Bench, url: str, *extra: str, out: str = "run") -> asyncio.subprocess.Process:
    """The run as a child process."""
    command = bench.command(f"it={url}", out=out, extra=extra)
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environ)


async def until(holds: Callable[[], bool]) -> None:
    """Look again and again until something holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - another process decides when
            await asyncio.sleep(0.002)


def committed(bench: Bench) -> int:
    """Replies that the journal holds on disk."""
    files = list((bench.folder / "run/journal").glob("*.sqlite"))
    if not files:
        return 0
    with closing(sqlite3.connect(files[0])) as journal:
        try:
            return int(journal.execute("SELECT count(*) FROM replies").fetchone()[0])
        except sqlite3.OperationalError:  # the tables are not there yet
            return 0


async def truth(bench: Bench) -> bytes:
    """The accuracy table of a run that is left alone."""
    async with FakeEndpoint() as endpoint:
        child = await start(bench, endpoint.base_url, out="truth")
        await child.communicate()
    assert child.returncode == 0
    return bench.scores("truth")


def sent_again(bodies: list[Body]) -> int:
    """Requests beyond the first of each kind."""
    kinds = Counter(json.dumps(body, sort_keys=True) for body in bodies)
    return kinds.total() - len(kinds)


async def test_sigkill_half_way(bench: Bench) -> None:
    """SIGKILL half-way, then the same command: the same table, and only what was in flight is sent again."""
    half = REQUESTS // 2
    hanging = True

    def script(number: int, body: Body) -> Fault | None:
        return Hang() if hanging and number > half else None

    async with FakeEndpoint(script) as endpoint:
        child = await start(bench, endpoint.base_url)
        await until(lambda: len(endpoint.bodies) == half + WORKERS and committed(bench) == half)
        child.kill()
        await child.communicate()
        assert child.returncode == -signal.SIGKILL
        hanging = False
        child = await start(bench, endpoint.base_url)
        await child.communicate()
    assert child.returncode == 0
    assert sent_again(endpoint.bodies) == WORKERS
    assert len(endpoint.bodies) == REQUESTS + WORKERS
    assert bench.scores() == await truth(bench)


async def test_sigkill_at_any_moment(bench: Bench) -> None:
    """Killed again and again at whatever moment, the run ends with the same table and loses nothing."""
    chance = random.Random(20)
    expected = await truth(bench)
    async with FakeEndpoint() as endpoint:
        for _ in range(6):
            stop_at = len(endpoint.bodies) + chance.randrange(1, 16)
            kept = committed(bench)
            child = await start(bench, endpoint.base_url)
            await until(lambda: len(endpoint.bodies) >= stop_at or child.returncode is not None)  # noqa: B023
            if child.returncode is None:
                child.kill()
            await child.communicate()
            assert committed(bench) >= kept
        child = await start(bench, endpoint.base_url)
        await child.communicate()
    assert child.returncode == 0
    assert bench.scores() == expected


async def test_ctrl_c(bench: Bench) -> None:
    """Ctrl-C once ends with 130, keeps what was in flight, and the same command goes on."""
    freed = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        return Status(503, {"retry-after-ms": "50"}) if number > 20 and not freed.is_set() else None

    async with FakeEndpoint(script) as endpoint:
        child = await start(bench, endpoint.base_url)
        await until(lambda: len(endpoint.bodies) > 24)
        child.send_signal(signal.SIGINT)
        _, said = await child.communicate()
        assert child.returncode == 130
        assert b"Traceback" not in said
        assert b"the same command continues" in said
        assert json.loads((bench.folder / "run/run.json").read_text())["status"] == "interrupted"
        assert committed(bench) >= 20
        freed.set()
        child = await start(bench, endpoint.base_url)
        await child.communicate()
    assert child.returncode == 0
    assert bench.scores() == await truth(bench)


async def interrupted_twice(child: asyncio.subprocess.Process) -> bytes:
    """Interrupt it, and again once it has said that it heard; what it said after that."""
    assert child.stderr is not None
    child.send_signal(signal.SIGINT)
    while b"Stopping" not in await child.stderr.readline():
        pass
    child.send_signal(signal.SIGINT)
    return (await child.communicate())[1]


async def test_ctrl_c_twice(bench: Bench) -> None:
    """Ctrl-C twice drops what is in flight and ends at once with 130, without a traceback."""
    async with FakeEndpoint(lambda number, body: Hang() if number > 20 else None) as endpoint:
        child = await start(bench, endpoint.base_url)
        await until(lambda: len(endpoint.bodies) == 20 + WORKERS)
        said = await interrupted_twice(child)
        assert child.returncode == 130
        assert b"Traceback" not in said
        assert committed(bench) == 20


async def from_python(bench: Bench, url: str) -> asyncio.subprocess.Process:
    """The same run by `evaluate`, in a process of its own."""
    program = (
        "import sys; from harness import evaluate\n"
        "evaluate(f'it={sys.argv[1]}', tasks='hellaswag,mmlu', tokenizer=sys.argv[2], data_dir=sys.argv[3],"
        " out=sys.argv[4], concurrency=8, probe=False)"
    )
    given = map(str, (url, bench.tokenizer, bench.data, bench.folder / "run"))
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *given), stderr=pipe, cwd=ROOT, preexec_fn=_interruptible
    )


def _interruptible() -> None:
    """What a shell starts in the background ignores interrupts, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_ctrl_c_from_python(bench: Bench) -> None:
    """An interrupt of `evaluate` keeps what was in flight, writes the tables, and is then raised."""

    def script(number: int, body: Body) -> Fault | None:
        return Status(503, {"retry-after-ms": "50"}) if number > 20 else None

    async with FakeEndpoint(script) as endpoint:
        child = await from_python(bench, endpoint.base_url)
        await until(lambda: len(endpoint.bodies) > 24)
        child.send_signal(signal.SIGINT)
        _, said = await child.communicate()
    assert child.returncode == -signal.SIGINT
    assert said.rstrip().endswith(b"KeyboardInterrupt")
    assert bench.manifest()["status"] == "interrupted"
    assert committed(bench) >= 20


async def test_ctrl_c_twice_from_python(bench: Bench) -> None:
    """A second interrupt drops what is in flight; nothing is left running."""
    async with FakeEndpoint(lambda number, body: Hang() if number > 20 else None) as endpoint:
        child = await from_python(bench, endpoint.base_url)
        await until(lambda: len(endpoint.bodies) == 20 + WORKERS)
        said = await interrupted_twice(child)
    assert child.returncode == -signal.SIGINT
    assert said.rstrip().endswith(b"KeyboardInterrupt")
    assert committed(bench) == 20


async def test_two_at_once(bench: Bench) -> None:
    """A second process on the same folder is refused while the first works, and disturbs nothing."""
    async with FakeEndpoint(lambda number, body: Hang() if number > 10 else None) as endpoint:
        one = await start(bench, endpoint.base_url)
        await until(lambda: len(endpoint.bodies) > 10)
        two = await start(bench, endpoint.base_url)
        _, said = await two.communicate()
        assert two.returncode == 2
        assert b"another run is working in this folder" in said
        one.kill()
        await one.communicate()


async def test_exit_codes_and_what_is_printed(bench: Bench) -> None:
    """A refusal exits 4 with one line on stderr; the table is on stdout all the same."""
    async with FakeEndpoint(token="another") as endpoint:
        child = await start(bench, endpoint.base_url)
        out, said = await child.communicate()
    assert child.returncode == 4
    assert b"hellaswag" in out
    assert sum(b"401" in line for line in said.splitlines()) == 1
    assert b"Traceback" not in said
