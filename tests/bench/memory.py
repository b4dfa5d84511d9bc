"""Whether memory follows the number of items: private memory of a run over ten times as many."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import rmtree

from tests.bench.measuring import Bench, Figure, Instant, measure

FEW, MANY = 100_000, 1_000_000
GROWTH = 60.0
"""Megabytes (10^6)."""


def section(bench: Bench) -> list[Figure]:
    """Largest private memory with few items and with many."""
    with Instant(bench.tokenizer) as endpoint:
        few, many = (private_peak(bench, endpoint, items) for items in (FEW, MANY))
    return [
        Figure(
            f"private memory (RssAnon): from {few:.0f} MB at {FEW:,} items to {many:.0f} MB at {MANY:,}",
            f"{many - few:+.0f} MB",
            f"at most {GROWTH:.0f} MB",
            many - few <= GROWTH,
        )
    ]


def private_peak(bench: Bench, endpoint: Instant, items: int) -> float:
    """Most private memory of a run over so many synthetic items, in megabytes."""
    file = bench.scratch / f"synthetic_{items}.jsonl"
    write_questions(file, items)
    most = 0.0

    def watch(pid: int) -> None:
        nonlocal most
        most = max(most, private(pid))

    out = bench.scratch / f"synthetic_{items}"
    taken = measure(bench.run(endpoint.url, f"file:{file}", out=out), endpoint, watch=watch)
    file.unlink()
    rmtree(out)
    bench.say(f"  {items:,} items: {most:.0f} MB, {taken.wall:.0f} s, {taken.requests:,} requests")
    return most


def write_questions(file: Path, items: int) -> None:
    """Questions that are all different, in the form of one's own sets."""
    with file.open("w") as lines:
        for number in range(items):
            choices = [f"{number + step} and no other" for step in (1, 2, 3, 4)]
            row = {"question": f"Which number follows {number}?", "choices": choices, "answer": 0}
            lines.write(json.dumps(row) + "\n")


def private(pid: int) -> float:
    """Private memory of a process in megabytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
    return sum(kibibytes) * 1024 / 1e6
