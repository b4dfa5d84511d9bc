"""How long `merge` takes over the shards of a run of a million requests, and how much memory.

    python -m tests.bench.merging [--requests 1000000] [--shards 8] [--quick]

Shards are real runs of the program, but for the network: replies are made up where the client would send.
With --quick they are such runs of a few items, whose journals are then filled up; they have no texts.
Merged are shards of a tenth of the requests, then of all of them: the whole command, tables and texts too.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import blake2b, sha256
from pathlib import Path

from harness.exchange import Outcome, Reply, ScoreRequest, Usage
from harness.layout import item_row, reply_row
from harness.scoring.scores import ItemRecord
from tests.bench.measuring import PROGRAM, ROOT, Failed, Figure, Measured, machine, measure, table
from tests.bench.memory import private, write_questions
from tests.bench.speed import bars
from tests.running import write_tokenizer

CHOICES = 4
"""Requests an item."""
SECONDS = 60.0
"""In which all is merged."""
GROWTH = 60.0
"""Megabytes (10^6) of private memory, from a tenth of the requests to all."""
AT_ONCE = 2
"""Shards."""
_WITHOUT_NETWORK = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from harness.client import Client
from harness.exchange import Outcome, Reply, Usage

async def score(self, request, delayed=None):
    values = [-0.001 * (1 + (each * 31 + at) % 997) for at, each in enumerate(request.forced_ids)]
    usage = Usage(len(request.context_ids), len(values))
    return Outcome(request, Reply(request.forced_ids, values, None, usage))

Client.score = score
from harness.cli import main
sys.exit(main())
"""


def made(scratch: Path, requests: int, shards: int) -> Path:
    """The folder of a run whose shards have so many requests."""
    scratch.mkdir(parents=True, exist_ok=True)
    out, questions = scratch / "run", scratch / "questions.jsonl"
    write_questions(questions, requests // CHOICES)
    command = [sys.executable, "-c", _WITHOUT_NETWORK, "run", "--endpoint", "it=http://127.0.0.1:9/v1"]
    command += [
        "--tasks",
        f"file:{questions}",
        "--tokenizer",
        str(write_tokenizer(scratch)),
        "--out",
        str(out),
    ]
    command += ["--no-probe", "--concurrency", "64"]
    for first in range(1, shards + 1, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, shards + 1))
        running = [
            subprocess.Popen([*command, "--shard", f"{each}/{shards}"], stdout=-3, stderr=subprocess.PIPE)
            for each in numbers
        ]
        for each in running:
            _, said = each.communicate()
            if each.returncode:
                raise Failed(f"exit {each.returncode}: {said.decode(errors='replace')[-2000:]}")
    questions.unlink()
    return out


def filled(scratch: Path, requests: int, shards: int) -> Path:
    """The same without running so long: shards of a few items, and rows put into their journals."""
    out = made(scratch, shards * CHOICES, shards)
    (listing,) = (out / "shards").glob("items-*.sqlite")
    items = requests // CHOICES
    with closing(sqlite3.connect(listing, isolation_level=None)) as opened:
        _fill(opened, "items", (item_row(_item(each)) for each in range(items)))
    for number in range(1, shards + 1):
        (file,) = (out / "shards" / f"{number}-of-{shards}" / "journal").glob("*.sqlite")
        (file.parents[1] / "texts.parquet").unlink()
        held = range(items * (number - 1) // shards, items * number // shards)
        with closing(sqlite3.connect(file, isolation_level=None)) as opened:
            _fill(opened, "items", (item_row(_planned(each)) for each in held))
            _fill(opened, "replies", (reply_row(reply) for each in held for reply in _replies(each)))
    return out


def _fill(opened: sqlite3.Connection, name: str, rows: Iterable[Sequence[object]]) -> None:
    """Put rows into a table in place of all that it has."""
    opened.execute("PRAGMA synchronous=OFF")
    opened.execute("BEGIN")
    columns = opened.execute(f"SELECT count(*) FROM pragma_table_info('{name}')").fetchone()[0]
    opened.execute(f"DELETE FROM {name}")
    opened.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * columns)})", rows)
    opened.execute("COMMIT")


def _item(ordinal: int) -> ItemRecord:
    """An item as a run lists it."""
    lengths = (len(f"{ordinal} and no other"),) * CHOICES
    return ItemRecord(
        ordinal=ordinal,
        task="questions",
        subject="",
        shots=0,
        index=ordinal,
        id="",
        gold=(0,),
        cluster="",
        n_chars=lengths,
        n_bytes=lengths,
        n_words=(4,) * CHOICES,
    )


def _planned(ordinal: int) -> ItemRecord:
    """The same, planned."""
    text = sha256(b"%d" % ordinal).hexdigest()
    return replace(
        _item(ordinal),
        prompt_hash=text,
        context_sha256=(text,) * CHOICES,
        keys=tuple(_key(ordinal, choice) for choice in range(CHOICES)),
        n_tokens=(20,) * CHOICES,
        mode="forced",
    )


def _replies(ordinal: int) -> Iterator[Outcome]:
    """What came of its requests."""
    for choice in range(CHOICES):
        ids = [(ordinal * 7 + choice * 13 + at) % 90 for at in range(20)]
        values = [-0.001 * (1 + (each * 31 + at) % 997) for at, each in enumerate(ids)]
        request = ScoreRequest(_key(ordinal, choice), range(40), ids)
        yield Outcome(request, Reply(ids, values, None, Usage(40, 20)), latency=0.01)


def _key(ordinal: int, choice: int) -> bytes:
    return blake2b(b"%d %d" % (ordinal, choice), digest_size=16).digest()


def merged(out: Path) -> tuple[Measured, float]:
    """What merging a run's shards takes, and the most private memory, in megabytes."""
    most = 0.0

    def watch(pid: int) -> None:
        nonlocal most
        most = max(most, private(pid))

    taken = measure([*PROGRAM, "merge", str(out)], watch=watch)
    return taken, most


def main() -> int:
    """Run, print the tables as Markdown; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="fill journals instead of running")
    given = parser.parse_args()
    rows, first = [], {}
    with tempfile.TemporaryDirectory() as name:
        for requests in (given.requests // 10, given.requests):
            out = (filled if given.quick else made)(Path(name) / str(requests), requests, given.shards)
            for what in ("first", "again"):
                taken, memory = merged(out)
                if what == "first":
                    first[requests] = taken.wall, memory
                rate = requests / taken.wall
                rows.append(
                    (
                        f"{requests:,}",
                        what,
                        f"{taken.wall:.1f}",
                        f"{taken.processor:.1f}",
                        f"{memory:.0f}",
                        f"{rate:,.0f}",
                    )
                )
            replies = json.loads((out / "run.json").read_text())["counts"]["it"]["journal"]["replies"]
            if replies != requests // CHOICES * CHOICES:
                raise Failed(f"{replies:,} replies were merged")
    print(f"{given.shards} shards; {machine()}.\n")
    head = "requests", "merged", "seconds", "processor, s", "private memory, MB", "requests a second"
    print(table(head, rows), "\n")
    (_, few), (seconds, many) = first.values()
    found = [
        Figure("merge of all, whole command", f"{seconds:.1f} s", f"{SECONDS:.0f} s", seconds <= SECONDS),
        Figure(
            "private memory, from a tenth", f"{many - few:+.0f} MB", f"{GROWTH:+.0f} MB", many - few <= GROWTH
        ),
    ]
    print(bars(found))
    return 0 if all(each.holds for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
