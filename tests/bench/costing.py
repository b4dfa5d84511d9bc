"""Measures what `costs` says: the real parts of the program, each by the processor time that it takes.

Of two sizes the difference is taken, so that what is done once does not count. The machine should be quiet;
ratios of figures that were taken one after another hold anyway.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from socket import socketpair
from threading import Event

from harness.exchange import Outcome, Reply, ScoreRequest, Usage
from harness.journal import Journal, Rows
from harness.layout import item_row, reply_row
from harness.pacing.budget import Budget
from harness.pacing.lending import ROUND, Ask
from harness.pacing.lessor import Lessor
from harness.planning import BATCH
from harness.prepare import Prepared, prepare
from harness.scoring.scores import ItemRecord
from harness.settings import RunSettings
from harness.sharding import Piece
from harness.shards import PieceReader
from harness.workers.channel import SocketChannel, connected
from harness.workers.ledger import Ledger
from harness.workers.messages import Answer, Call, Keep
from harness.workers.wire import encoded, to_run, to_worker
from tests.bench.costs import Costs
from tests.bench.measuring import PROGRAM, Instant, measure
from tests.bench.memory import write_questions
from tests.running import write_tokenizer

TOKENS = 25
"""Forced tokens of a row."""
FEW, MANY = 5_000, 25_000
"""Items of the runs whose difference is taken."""
CHOICES = 4
SMALL, LARGE = 50, 500
"""Rows of a group."""
ROWS = 20_000
DEEP = 1_000_000
"""Rows of a journal that is no longer small."""
AT_ONCE = 32
SLOTS = 32
"""Of a lease, at most (`pacing.lessor.BUNDLES`)."""


def measured(scratch: Path, *, say: Callable[[str], object] = print) -> Costs:
    """All costs but those that `Costs` has from elsewhere (`merge`); takes some minutes.

    Args:
        scratch: an empty folder, with room for a gigabyte.
        say: told how far it is.
    """
    say("journal ...")
    group, row, commit, shallow, deep = journal(scratch)
    say("messages ...")
    call = group + asyncio.run(messages(3_000))
    say("leases ...")
    one, many = (asyncio.run(leases(*each)) for each in ((1000, 2e3), (10, 2e4)))
    slot = (many - one) / (SLOTS - 1)
    say("rows ...")
    survey, skip = rows(scratch)
    say("whole runs ...")
    start, plain, table = runs(scratch)
    ask = (plain - survey - table) / CHOICES - shallow - commit / AT_ONCE
    return Costs(
        ask=ask,
        start=start,
        survey=survey,
        skip=skip,
        call=call,
        row=row,
        commit=commit,
        shallow=shallow,
        deep=deep,
        take=2 * call + ledger(),
        lease=one + call,
        slot=slot,
        table=table,
    )


def outcomes(number: int) -> list[Outcome]:
    """Replies like HellaSwag's."""
    ids = list(range(TOKENS))
    values = [-0.01 - 0.1 * i for i in ids]
    reply = Reply(ids, values, usage=Usage(100, TOKENS), greedy=False)
    return [Outcome(ScoreRequest(os.urandom(16), [1] * 75, ids), reply, None, 0.1) for _ in range(number)]


def journal(scratch: Path) -> tuple[float, float, float, float, float]:
    """The interpreter's part of a group and of a row; outside of it a commit, and a row in a small and in a
    large file."""
    bound = binding()
    file = Journal(scratch / "costs.sqlite", meta={"identity": "it"})
    try:
        small, large = (_kept(file, size, ROWS) for size in (SMALL, LARGE))
        apart = 1 / SMALL - 1 / LARGE
        group, per_commit = (small[0] - large[0]) / apart, (small[1] - large[1]) / apart
        shallow = large[1] - per_commit / LARGE
        _kept(file, 2 * LARGE, DEEP - 2 * ROWS)
        deep = _kept(file, LARGE, ROWS)[1] - per_commit / LARGE
        known = lookup(file)
    finally:
        file.close()
    return group, large[0] - group / LARGE + bound + known, per_commit, shallow - bound, deep - bound


def _kept(file: Journal, size: int, number: int) -> tuple[float, float]:
    """A row's costs, of groups of so many: of the thread that takes messages, and of the one that commits.
    With its part of the item that comes along, as it was planned."""
    here = there = 0.0
    for group in range(number // size):
        message = _keep(outcomes(size), items(size // CHOICES, group))
        on_disk = Event()
        begun, begun_here = time.process_time(), time.thread_time()
        said = to_run(message)
        assert isinstance(said, Call)
        assert isinstance(said.what, Keep)
        file.put_rows(Rows(said.what.replies, said.what.items, on_disk.set))
        on_disk.wait()
        own = time.thread_time() - begun_here
        here += own
        there += time.process_time() - begun - own
    return here / number, there / number


def lookup(file: Journal, number: int = CHOICES * BATCH) -> float:
    """What it takes to see that there is no reply yet: a row's part, of those that are planned at a time."""
    keys = [each.request.key for each in outcomes(number)]
    return _least(lambda: file.answered(keys), 10) / number


def _keep(came: Sequence[Outcome], records: Sequence[ItemRecord]) -> bytes:
    """The message that brings them."""
    return encoded(Call(1, Keep("it", [*map(reply_row, came)], [*map(item_row, records)])))


def items(number: int, group: int) -> list[ItemRecord]:
    """Items like HellaSwag's, as they are planned."""
    counts, prompt = (TOKENS,) * CHOICES, "00" * 32
    return [
        ItemRecord(
            ordinal=group * number + at,
            task="hellaswag",
            subject="",
            shots=0,
            index=group * number + at,
            id=str(group * number + at),
            gold=(0,),
            cluster="",
            n_chars=counts,
            n_bytes=counts,
            prompt_hash=prompt,
            context_sha256=(prompt,) * CHOICES,
            keys=tuple(os.urandom(16) for _ in range(CHOICES)),
            n_tokens=counts,
        )
        for at in range(number)
    ]


def binding(rows: int = 250) -> float:
    """What it takes to hand a row's values to SQLite, which holds the interpreter up."""
    given = [reply_row(each) for each in outcomes(rows)]
    statement = f"SELECT 1 WHERE 0 AND 1 IN ({', '.join('?' * sum(map(len, given)))})"
    connection = sqlite3.connect(":memory:")

    def bind() -> None:
        connection.execute(statement, list(chain.from_iterable(given))).fetchall()

    return _least(bind, 20) / rows


async def messages(number: int) -> float:
    """One end's part of a message and its answer over a socket."""
    ours, theirs = socketpair()
    one, other = await connected(ours), await connected(theirs)

    async def answering(channel: SocketChannel) -> None:
        outgoing: asyncio.Queue[Answer] = asyncio.Queue()

        async def send() -> None:
            while True:
                await channel.send(encoded(await outgoing.get()))

        sending = asyncio.create_task(send())
        for _ in range(number):
            said = to_run(await channel.receive())
            assert isinstance(said, Call)
            outgoing.put_nowait(Answer(said.call))
        await asyncio.sleep(0.01)
        sending.cancel()

    begun = time.process_time()
    task = asyncio.create_task(answering(other))
    for call in range(number):
        await one.send(encoded(Call(call, Keep("it", [], []))))
        to_worker(await one.receive())
    taken = time.process_time() - begun
    await task
    await one.close()
    await other.close()
    return taken / number / 2


async def leases(holders: int, a_second: float, seconds: float = 3.0) -> float:
    """The keeper's part of a lease, where so many holders ask without end, and share the allowance."""
    lessor = Lessor(Budget(rpm=60 * a_second))
    own = max(1, int(ROUND * a_second / holders))
    count = 0
    end = time.monotonic() + seconds

    async def hold(name: str) -> None:
        nonlocal count
        while time.monotonic() < end:
            grant = await lessor.lease(name, "it", Ask(more=own, typical=TOKENS))
            count += 1
            await asyncio.sleep(max(0.0, grant.until - time.monotonic()))

    begun = time.process_time()
    await asyncio.gather(*(hold(str(number)) for number in range(holders)))
    return (time.process_time() - begun) / count


def ledger() -> float:
    """A piece that is taken and done."""
    pieces = [Piece(0, 64 * each, 64 * each + 64) for each in range(16_000)]
    found = Ledger(pieces, ["it"])
    begun = time.process_time()
    for at in range(len(pieces)):
        piece = found.take(str(at % 1000), "it")
        assert piece is not None
        found.done(str(at % 1000), "it", piece)
    return (time.process_time() - begun) / len(pieces)


def rows(scratch: Path) -> tuple[float, float]:
    """A row that is checked before the first request, and one that is passed over."""
    checked, passed = [], []
    for items in (FEW, MANY):
        settings = _settings(scratch, items)
        found: list[Prepared] = []
        checked.append(_least(lambda s=settings, f=found: f.append(prepare(s, {})), 3))  # type: ignore[misc]
        suite = found[-1].suite
        last = Piece(0, items - 1, items)
        passed.append(_least(lambda s=suite, p=last: list(PieceReader(s).prompts(p)), 3))  # type: ignore[misc]
    few_to_many = MANY - FEW
    return (checked[1] - checked[0]) / few_to_many, (passed[1] - passed[0]) / few_to_many


def _settings(scratch: Path, items: int) -> RunSettings:
    file = scratch / f"questions_{items}.jsonl"
    if not file.exists():
        write_questions(file, items)
    tokenizer = str(write_tokenizer(scratch))
    return RunSettings(
        endpoint=("http://127.0.0.1:1/v1",), tasks=f"file:{file}", tokenizer=(tokenizer,), out=scratch / "out"
    )


def runs(scratch: Path) -> tuple[float, float, float]:
    """A start; an item of a plain run from the first row to the last table; its part for the tables."""
    start = measure([sys.executable, "-c", "import harness.runner, harness.workers.worker"]).processor
    whole: list[float] = []
    tables: list[float] = []
    with Instant(write_tokenizer(scratch)) as endpoint:
        for items in (FEW, FEW, MANY):  # the first teaches the endpoint, and warms the files
            settings = _settings(scratch, items)
            out = scratch / f"run_{len(whole)}"
            command = [*PROGRAM, "run", "--endpoint", f"it={endpoint.url}", "--tasks", settings.tasks]
            command += ["--tokenizer", *settings.tokenizer, "--out", str(out), "--no-probe"]
            whole.append(measure([*command, "--concurrency", str(AT_ONCE)], endpoint).processor)
            tables.append(measure([*PROGRAM, "rescore", str(out)]).processor)
    an_item, its_tables = ((each[2] - each[1]) / (MANY - FEW) for each in (whole, tables))
    return start, an_item, its_tables


def of_workers(scratch: Path, workers: int) -> tuple[float, float]:
    """Processor time of a request in a real run over so many workers: of the run's process, and of theirs.

    Of two sizes the difference, so that what the run reads before and writes after counts as well.
    """
    found: list[tuple[float, float]] = []
    with Instant(write_tokenizer(scratch)) as endpoint:
        for items in (FEW, FEW, MANY):
            own = 0.0

            def watch(pid: int) -> None:
                nonlocal own
                own = _own(pid) or own

            settings = _settings(scratch, items)
            command = [*PROGRAM, "run", "--endpoint", f"it={endpoint.url}", "--tasks", settings.tasks]
            command += ["--tokenizer", *settings.tokenizer, "--no-probe", "--concurrency", str(AT_ONCE)]
            command += ["--out", str(scratch / f"workers_{workers}_{len(found)}"), "--workers", str(workers)]
            whole = measure(command, endpoint, watch=watch).processor
            found.append((own, whole - own))
    requests = CHOICES * (MANY - FEW)
    run, theirs = ((many - few) / requests for few, many in zip(*found[1:], strict=True))
    return run, theirs


def _own(pid: int) -> float:
    """Processor time of a process without its children; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _least(what: Callable[[], object], times: int) -> float:
    """Processor time of one call, the least of some."""
    found = []
    for _ in range(times):
        gc.collect()
        begun = time.process_time()
        what()
        found.append(time.process_time() - begun)
    return min(found)
