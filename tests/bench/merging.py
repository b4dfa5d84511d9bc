"""How long `merge` takes over the shards of a run of a million requests, and how much memory.

    python -m tests.bench.merging [--requests 1000000] [--shards 8]

Shards are real runs of the program, but for the network: replies are made up where the client would send.
Merged are shards of a tenth of the requests, then of all of them: the whole command, tables and texts too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

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
    out, questions = scratch / f"run{requests}", scratch / f"questions{requests}.jsonl"
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
                raise Failed(said.decode(errors="replace")[-2000:])
    questions.unlink()
    return out


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
    given = parser.parse_args()
    rows, first = [], {}
    with tempfile.TemporaryDirectory() as name:
        for requests in (given.requests // 10, given.requests):
            out = made(Path(name), requests, given.shards)
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
