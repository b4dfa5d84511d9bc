"""Whether a long run stays as it is: sockets, tasks, threads, open files and memory over a million requests.

    python -m tests.bench.flat [--requests 1000000] [--faulty 200] [--ledger]

The program itself asks an instant endpoint that drops connections, cuts replies short and refuses now and
then. What the process holds it says in its log file; memory and open files are looked at from outside too. A
part of `make soak`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests import ledger
from tests.bench.measuring import ROOT, Failed, Figure, Instant, machine, measure, table
from tests.bench.memory import private, write_questions
from tests.bench.speed import bars
from tests.ledger import note
from tests.running import write_tokenizer

CHOICES = 4
"""Requests an item: none of them equal, none read off another."""
AT_ONCE = 32
FEWEST = 20
"""Samples that a run should give at least."""
QUICKEST = 0.25
"""Seconds between two samples."""
GROWTH = 40.0
"""Megabytes (10^6) of private memory, from early to late."""
EARLY, LATE = (0.25, 0.5), (0.75, 0.97)
"""Shares of the requests that are compared; at the very end workers go home."""
SLACK = {"tasks": 8, "threads": 0, "files": 4}
"""By how much what is held at least may be more late than early. Each request is a task while it is written,
so the most says little, and on a busy machine some always are; connections that were dropped are opened again
when they are needed. What is left behind once in a hundred faults is more than that."""


class Sample(NamedTuple):
    """What the process said of itself at one moment."""

    seconds: float
    """Since the run began."""
    requests: int
    """Answered or failed for good by then."""
    held: dict[str, float]
    """Tasks, threads, files, memory_mb."""


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of a run."""

    wanted: int
    """Requests that were to be answered."""
    answered: int
    """Of them, with a reply in the journal."""
    unscored: int
    """Items."""
    wrong: int
    """Requests that went wrong at first."""
    samples: Sequence[Sample]
    outside: Sequence[tuple[float, int]] = field(repr=False)
    """Private memory (MB) and open files, as the system counts them."""

    @property
    def lost(self) -> int:
        """Requests without a reply."""
        return self.wanted - self.answered + self.unscored

    def held(self, name: str, part: tuple[float, float]) -> list[float]:
        """What was held in a part of the requests."""
        begin, end = part
        within = [each.held[name] for each in self.samples if begin <= each.requests / self.wanted <= end]
        if not within:
            raise Failed(
                f"no sample between {begin:.0%} and {end:.0%} of the requests: too few, or too quick"
            )
        return within


def soaked(scratch: Path, requests: int, *, faulty: int, every: float) -> Soaked:
    """Run the program over so many requests.

    Args:
        scratch: an empty folder.
        requests: of them four an item.
        faulty: every so-manieth goes wrong at first; 0: none.
        every: seconds between two samples.

    Raises:
        Failed: the run did not end as it should.
    """
    questions, log, out = scratch / "questions.jsonl", scratch / "log.jsonl", scratch / "run"
    write_questions(questions, requests // CHOICES)
    tokenizer = write_tokenizer(scratch)
    outside: list[tuple[float, int]] = []
    last = 0.0

    def watch(pid: int) -> None:
        nonlocal last
        if time.monotonic() >= last + every and (memory := private(pid)):
            last = time.monotonic()
            outside.append((memory, files_of(pid)))

    with Instant(tokenizer, "--faulty", str(faulty)) as endpoint:
        command = [
            *_program(every),
            "run",
            "--endpoint",
            f"it={endpoint.url}",
            "--tasks",
            f"file:{questions}",
        ]
        command += ["--tokenizer", str(tokenizer), "--out", str(out), "--log-file", str(log)]
        command += ["--concurrency", str(AT_ONCE), "--no-probe", "--attempts", "20"]
        measure(command, endpoint, watch=watch)
        wrong = endpoint.counts()["faulty"]
    said = json.loads((out / "run.json").read_text())["counts"]["it"]
    answered, unscored = said["journal"]["replies"], said["items_unscored"]
    return Soaked(requests // CHOICES * CHOICES, answered, unscored, wrong, samples_of(log), outside)


def _program(every: float) -> list[str]:
    """The program, which gives its signs of life more often than people need them."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from harness import heartbeat;"
        f" heartbeat.LOG_SECONDS = {every}; from harness.cli import main; sys.exit(main())"
    )
    return [sys.executable, "-c", code]


def samples_of(log: Path) -> list[Sample]:
    """What the process said of itself, each with how far it was."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    names = ("tasks", "threads", "files", "memory_mb")
    found, held, begun = [], dict[str, Any](), _seconds(lines[0]["time"])
    for line in lines:
        if line["event"] == "process":
            held = {name: line[name] for name in names if name in line}
        elif line["event"] == "heartbeat":
            found.append(Sample(_seconds(line["time"]) - begun, line["requests_done"], held))
    return found


def _seconds(moment: str) -> float:
    return time.mktime(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")) + float(moment[19:23])


def files_of(pid: int) -> int:
    """Open files of a process, sockets too; 0 once it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def figures(run: Soaked) -> list[Figure]:
    """What was held early and late, beside the bars."""
    found = []
    for name, slack in SLACK.items():
        before, after = (int(min(run.held(name, part))) for part in (EARLY, LATE))
        bar = f"no more than {slack} more" if slack else "no more"
        found.append(Figure(f"{name} at least", f"{before} → {after}", bar, after <= before + slack))
    before_mb, after_mb = (max(run.held("memory_mb", part)) for part in (EARLY, LATE))
    growth, bar = after_mb - before_mb, f"at most {GROWTH:+.0f} MB"
    found.append(
        Figure(f"private memory, from {before_mb:.0f} MB", f"{growth:+.1f} MB", bar, growth <= GROWTH)
    )
    return [*found, Figure("requests lost", f"{run.lost:,}", "none", not run.lost)]


def course(run: Soaked) -> str:
    """A table of what was held as time went by."""
    step = max(1, len(run.samples) // FEWEST)
    rows = [
        (f"{each.requests:,}", f"{each.seconds:.0f}", *(f"{value:g}" for value in each.held.values()))
        for each in run.samples[::step]
    ]
    return table(("requests", "seconds", *run.samples[0].held), rows)


def main() -> int:
    """Run, print the tables as Markdown; 1 where something grew or was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--faulty", type=int, default=200, help="every N-th goes wrong at first")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--keep", type=Path, help="keep the log file here")
    parser.add_argument("--ledger", action="store_true", help="renew the table in tests/README.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = soaked(Path(scratch), given.requests, faulty=given.faulty, every=given.every)
        if given.keep:
            shutil.copy(Path(scratch) / "log.jsonl", given.keep)
    print(f"{run.wanted:,} requests, {run.wrong:,} of which went wrong at first; {machine()}.\n")
    print(course(run), "\n")
    peak, files = (max(each) for each in zip(*run.outside, strict=True))
    print(f"Seen from outside: at most {peak:.0f} MB of private memory, {files} open files.\n")
    found = figures(run)
    print(bars(found))
    note("requests of one long run with faults", tried=run.wanted, lost=run.lost, unit="requests")
    held = all(each.holds for each in found)
    if held and given.ledger:
        ledger.write()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
