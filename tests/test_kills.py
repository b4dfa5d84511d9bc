"""Nothing paid for is lost: runs that are killed, interrupted, told to end or doubled, and given again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.fake_endpoint import FakeEndpoint, Fault, Hang, Script, Status
from tests.ledger import note
from tests.running import REQUESTS, ROOT, Bench, ended, start, until

KILLS = 6
"""Of each run: four runs make 24."""
WORKERS = 8
"""Requests of an endpoint that are in flight at once."""
TABLES = ("scores.csv", "items.csv", "items.parquet", "texts.parquet", "prompts.txt")


class Several:
    """Some endpoints on loopback, and what each of them was sent, session by session."""

    def __init__(self, endpoints: Sequence[FakeEndpoint]) -> None:
        self.endpoints = endpoints
        self._begun = [0] * len(endpoints)

    @property
    def sent(self) -> int:
        """Requests so far, to all of them."""
        return sum(len(each.bodies) for each in self.endpoints)

    async def started(self, bench: Bench, out: str) -> asyncio.subprocess.Process:
        """The run as a child process, a new session of it."""
        self._begun = [len(each.bodies) for each in self.endpoints]
        others = [f"--endpoint=e{n}={each.base_url}" for n, each in enumerate(self.endpoints[1:], 1)]
        return await start(bench, self.endpoints[0].base_url, *others, out=out)

    def known(self) -> list[set[str]]:
        """The different requests that each endpoint was sent."""
        return [{_text(body) for body in each.bodies} for each in self.endpoints]

    def again(self, known: Sequence[set[str]]) -> list[int]:
        """How many requests of this session each endpoint was sent that it had been sent before it."""
        found = []
        for each, begun, before in zip(self.endpoints, self._begun, known, strict=True):
            counted = Counter(_text(body) for body in each.bodies[begun:])
            assert max(counted.values(), default=1) == 1, "a session sent the same twice"
            found.append(len(before & counted.keys()))
        return found

    def committed(self, folder: Path) -> list[int]:
        """The replies that the journal of each endpoint holds."""
        files = {_replies(file)[0]: _replies(file)[1] for file in (folder / "journal").glob("*.sqlite")}
        return [next((n for url, n in files.items() if each.base_url in url), 0) for each in self.endpoints]


def _text(body: object) -> str:
    return json.dumps(body, sort_keys=True)


def _replies(file: Path) -> tuple[str, int]:
    """Identity and number of replies of a journal; what a kill left in its log counts."""
    with closing(sqlite3.connect(file)) as journal:
        try:
            identity = journal.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
            return str(identity), int(journal.execute("SELECT count(sum) FROM replies").fetchone()[0])
        except sqlite3.OperationalError:  # the tables are not there yet
            return "", 0


@asynccontextmanager
async def several(script: Script = lambda number, body: None, count: int = 3) -> AsyncIterator[Several]:
    """So many endpoints."""
    async with AsyncExitStack() as opened:
        yield Several([await opened.enter_async_context(FakeEndpoint(script)) for _ in range(count)])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench for child processes."""
    return Bench(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def undisturbed(bench: Bench) -> dict[str, bytes]:
    """The tables of a run that is left alone."""

    async def run() -> None:
        async with several() as three:
            child = await three.started(bench, "undisturbed")
            _, said = await ended(child)
            assert (child.returncode, three.sent) == (0, 3 * REQUESTS), said.decode()

    asyncio.run(run())
    return tables(bench, "undisturbed")


def tables(bench: Bench, out: str) -> dict[str, bytes]:
    """The bytes of a run's tables."""
    return {name: (bench.folder / out / name).read_bytes() for name in TABLES}


async def dies(child: asyncio.subprocess.Process, three: Several, chance: random.Random) -> bool:
    """Kill the child at a random moment, at some request or some time after its start; whether it still ran.

    A session lasts a second until its first request, and hardly longer from there to its end.
    """
    moment, begun = three.sent + chance.randrange(1, 80), asyncio.get_running_loop().time()
    late = chance.uniform(0.1, 2.5) if chance.random() < 0.4 else 60.0

    def now() -> bool:
        ran = asyncio.get_running_loop().time() - begun
        return three.sent >= moment or ran > late or child.returncode is not None

    await until(now)
    ran = child.returncode is None
    if ran:
        child.kill()
    await ended(child)
    return ran


@pytest.mark.parametrize("seed", range(4))
async def test_sigkill_at_random_moments(seed: int, bench: Bench, undisturbed: dict[str, bytes]) -> None:
    """Killed again and again, then left alone: same tables, nothing sent twice but what was in flight."""
    chance, out, kills = random.Random(seed), f"run{seed}", 0
    async with several() as three:
        kept, open_ones = [0, 0, 0], [0, 0, 0]
        while kills < KILLS:
            known = three.known()
            child = await three.started(bench, out)
            kills += await dies(child, three, chance)
            again = three.again(known)
            assert all(n <= most for n, most in zip(again, open_ones, strict=True)), (again, open_ones)
            committed = three.committed(bench.folder / out)
            assert all(now >= before for now, before in zip(committed, kept, strict=True))
            kept, open_ones = committed, [len(k) - n for k, n in zip(three.known(), committed, strict=True)]
        known = three.known()
        child = await three.started(bench, out)
        _, said = await ended(child)
        assert child.returncode == 0, said.decode()
        again = three.again(known)
        assert all(n <= most for n, most in zip(again, open_ones, strict=True)), (again, open_ones)
        assert [len(each) for each in three.known()] == [REQUESTS] * 3
    lost = sum(tables(bench, out)[name] != undisturbed[name] for name in TABLES)
    note("kills (SIGKILL) of runs of three endpoints", tried=kills, lost=lost, unit="kills")
    assert tables(bench, out) == undisturbed


async def test_sigkill_half_way(bench: Bench, undisturbed: dict[str, bytes]) -> None:
    """Killed while so many are in flight and all others committed: exactly these are sent again."""
    half, out, freed = REQUESTS // 2, "half", asyncio.Event()

    def script(number: int, body: object) -> Fault | None:
        return Hang() if number > half and not freed.is_set() else None

    async with several(script) as three:
        child = await three.started(bench, out)
        await until(lambda: three.committed(bench.folder / out) == [half] * 3)
        await until(lambda: three.sent == 3 * (half + WORKERS))
        known = three.known()
        child.kill()
        await ended(child)
        assert child.returncode == -signal.SIGKILL
        freed.set()
        child = await three.started(bench, out)
        await ended(child)
        assert child.returncode == 0
        assert three.again(known) == [WORKERS] * 3
        assert three.sent == 3 * (REQUESTS + WORKERS)
    assert tables(bench, out) == undisturbed
    note("kills (SIGKILL) of runs of three endpoints", tried=1, lost=0, unit="kills")


TOLD = pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)


@TOLD
async def test_told_to_end(how: signal.Signals, bench: Bench, undisturbed: dict[str, bytes]) -> None:
    """Told to end (as containers are, or by Ctrl-C) it keeps what is in flight, and says how it goes on."""
    freed, out = asyncio.Event(), f"told {how.name}"

    async with several(lambda number, body: None if freed.is_set() else busy(number, body)) as three:
        child = await three.started(bench, out)
        await until(lambda: all(len(each.bodies) > 24 for each in three.endpoints))
        known = three.known()
        child.send_signal(how)
        _, said = await ended(child)
        assert child.returncode == 130
        assert b"Traceback" not in said
        assert b"the same command continues" in said
        assert bench.manifest(out)["status"] == "interrupted"
        committed = three.committed(bench.folder / out)
        assert min(committed) >= 20
        freed.set()
        child = await three.started(bench, out)
        await ended(child)
        assert child.returncode == 0
        again = three.again(known)
        assert all(n + kept <= len(k) for n, kept, k in zip(again, committed, known, strict=True))
    assert tables(bench, out) == undisturbed
    note("runs told to end (SIGTERM, Ctrl-C)", tried=1, lost=0, unit="runs")


@TOLD
async def test_told_twice(how: signal.Signals, bench: Bench) -> None:
    """Told again, it drops what is in flight, and ends at once."""
    out = f"told twice {how.name}"
    async with several(hanging) as three:
        child = await three.started(bench, out)
        await until(lambda: three.sent == 3 * (20 + WORKERS))
        said = await told_twice(child, how)
        assert child.returncode == 130
        assert b"Traceback" not in said
        assert three.committed(bench.folder / out) == [20, 20, 20]


def busy(number: int, body: object) -> Fault | None:
    """Of an endpoint that answers twenty requests, and then is down."""
    return Status(503, {"retry-after-ms": "50"}) if number > 20 else None


def hanging(number: int, body: object) -> Fault | None:
    """Of one that answers twenty, and no other."""
    return Hang() if number > 20 else None


async def told_twice(child: asyncio.subprocess.Process, how: signal.Signals) -> bytes:
    """Tell it to end, and again once it has said that it heard; what it said after that."""
    assert child.stderr is not None
    child.send_signal(how)
    async with asyncio.timeout(30):
        while b"Stopping" not in (line := await child.stderr.readline()):
            assert line, "it ended without a word"
    child.send_signal(how)
    return (await ended(child))[1]


async def from_python(bench: Bench, url: str, out: str) -> asyncio.subprocess.Process:
    """The run of one endpoint by `evaluate`, in a process of its own."""
    program = (
        "import sys; from harness import evaluate\n"
        "evaluate(f'it={sys.argv[1]}', tasks='hellaswag,mmlu', tokenizer=sys.argv[2], data_dir=sys.argv[3],"
        " out=sys.argv[4], concurrency=8, probe=False)"
    )
    given = map(str, (url, bench.tokenizer, bench.data, bench.folder / out))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *given), stderr=PIPE, cwd=ROOT, preexec_fn=_interruptible
    )


def _interruptible() -> None:
    """What a shell starts in the background ignores interrupts, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_ctrl_c_from_python(bench: Bench) -> None:
    """An interrupt of `evaluate` keeps what was in flight, writes the tables, and is then raised."""
    async with several(busy, 1) as one:
        child = await from_python(bench, one.endpoints[0].base_url, "python")
        await until(lambda: one.sent > 24)
        child.send_signal(signal.SIGINT)
        _, said = await ended(child)
        assert min(one.committed(bench.folder / "python")) >= 20
    assert child.returncode == -signal.SIGINT
    assert said.rstrip().endswith(b"KeyboardInterrupt")
    assert bench.manifest("python")["status"] == "interrupted"


async def test_ctrl_c_twice_from_python(bench: Bench) -> None:
    """A second interrupt drops what is in flight; nothing is left running."""
    async with several(hanging, 1) as one:
        child = await from_python(bench, one.endpoints[0].base_url, "python twice")
        await until(lambda: one.sent == 20 + WORKERS)
        said = await told_twice(child, signal.SIGINT)
        assert one.committed(bench.folder / "python twice") == [20]
    assert child.returncode == -signal.SIGINT
    assert said.rstrip().endswith(b"KeyboardInterrupt")


async def test_a_second_run_is_refused(bench: Bench) -> None:
    """While a run works in a folder no other does, whatever it is for; once it is killed one may."""
    async with several(lambda number, body: Hang() if number > 10 else None) as three:
        one = await three.started(bench, "shared")
        await until(lambda: three.sent == 3 * 18)
        two = await start(bench, three.endpoints[1].base_url, out="shared")
        _, said = await ended(two)
        assert two.returncode == 2
        assert said.count(b"another run is working in this folder") == 1
        assert three.sent == 3 * 18
        one.kill()
        await ended(one)
        later = await start(bench, three.endpoints[0].base_url, "--max-requests=1", out="shared")
        _, said = await ended(later)
        assert later.returncode == 3, said.decode()
    note("second runs on a folder", tried=1, lost=0, unit="runs")


async def test_exit_codes_and_what_is_printed(bench: Bench) -> None:
    """A refusal exits 4 with one line on stderr; the table is on stdout all the same."""
    async with FakeEndpoint(token="another") as endpoint:
        child = await start(bench, endpoint.base_url, out="refused")
        out, said = await ended(child)
    assert child.returncode == 4
    assert b"hellaswag" in out
    assert sum(b"401" in line for line in said.splitlines()) == 1
    assert b"Traceback" not in said
