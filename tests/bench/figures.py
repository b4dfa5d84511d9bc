"""Figures taken one by one: start, MMLU's requests and sums, and the simulated batching server."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from tests.bench.measuring import PROGRAM, ROOT, Bench, Failed, Figure, Instant, measure, watched

HELP, START = 0.35, 2.5
"""Seconds: of processor time; from the start to the first request."""
REQUESTS, PROMPT_TOKENS, NATS = 14_100, 9_950_000, 1e-3
"""MMLU with five shots, and how far choice sums may lie from those of four forced requests."""
RATIO = 1.08
"""Prompt positions that the simulated server computes, over the least that there are."""


def help_section(bench: Bench) -> list[Figure]:
    """Processor time of `--help`."""
    taken = median(measure([*PROGRAM, "--help"]).processor for _ in range(bench.repeat))
    return [Figure("`--help`, processor time", f"{taken:.2f} s", f"at most {HELP} s", taken <= HELP)]


def start_section(bench: Bench) -> list[Figure]:
    """From the start of the program to its first request, 10,042 rows read and checked on the way."""
    with Instant(bench.tokenizer) as endpoint:
        taken = median(
            watched(bench.run(endpoint.url, "hellaswag"), endpoint, 0.0)[0] for _ in range(bench.repeat)
        )
    name = "start to first request, full HellaSwag from local files"
    return [Figure(name, f"{taken:.2f} s", f"at most {START} s", taken <= START)]


def mmlu_section(bench: Bench) -> list[Figure]:
    """Requests and tokens of MMLU with five shots, and its sums against those of forced choices."""
    read, forced = bench.scratch / "mmlu_read", bench.scratch / "mmlu_forced"
    with Instant(bench.tokenizer, "--whole-context") as endpoint:
        ours = measure(bench.run(endpoint.url, "mmlu", "--shots", "5", out=read), endpoint)
        every = bench.run(endpoint.url, "mmlu", "--shots", "5", "--no-shortcut", out=forced)
        four = measure(every, endpoint)
    apart, items = largest_difference(read / "items.csv", forced / "items.csv")
    bench.say(
        f"  {ours.wall:.1f} s, {ours.processor:.1f} s of processor time;"
        f" {four.wall:.1f} s and {four.processor:.1f} s with each choice forced"
    )
    few = f"{four.requests:,} with each choice forced"
    return [
        Figure(
            f"MMLU 5-shot, requests ({few})",
            f"{ours.requests:,}",
            f"at most {REQUESTS:,}",
            ours.requests <= REQUESTS,
        ),
        Figure(
            f"MMLU 5-shot, prompt tokens ({four.prompt_tokens:,} with each choice forced)",
            f"{ours.prompt_tokens:,}",
            f"at most {PROMPT_TOKENS:,}",
            ours.prompt_tokens <= PROMPT_TOKENS,
        ),
        Figure(
            f"MMLU 5-shot, choice sums of {items:,} items, largest difference from those forced",
            f"{apart:.1g} nats",
            f"at most {NATS:g}",
            apart <= NATS,
        ),
    ]


def largest_difference(one: Path, other: Path) -> tuple[float, int]:
    """Largest difference of choice sums between two runs' `items.csv`, and the number of items.

    Raises:
        Failed: they do not hold the same items, all scored.
    """
    ours, theirs = _sums(one), _sums(other)
    if ours.keys() != theirs.keys() or not ours:
        raise Failed(f"{one} and {other} do not hold the same items")
    pairs = ((a, b) for key, sums in ours.items() for a, b in zip(sums, theirs[key], strict=True))
    return max(abs(a - b) for a, b in pairs), len(ours)


def _sums(file: Path) -> dict[tuple[str, str], list[float]]:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    if unscored := [row["unscored"] for row in rows if row["unscored"]]:
        raise Failed(f"{file}: {len(unscored)} items are unscored: {unscored[0]}")
    return {(row["subject"], row["index"]): json.loads(row["sums"]) for row in rows}


def batching_section(bench: Bench) -> list[Figure]:
    """What a server that batches and keeps prefixes computes; in a process of its own, as it reads rows."""
    command = [sys.executable, "-m", "tests.bench.batching", "--shared", str(bench.shared)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found = []
    for name, seen in json.loads(done.stdout).items():
        said = f"shuffled {seen['ratio_shuffled']:.2f}, as listed {seen['ratio_as_listed']:.2f}"
        tokens = seen["computed"] / seen["token_positions"]
        found.append(
            Figure(
                f"{name}, 2,000 items: prompt positions computed over block positions ({said};"
                f" over token positions {tokens:.2f})",
                f"{seen['ratio']:.3f}",
                f"at most {RATIO}",
                seen["ratio"] <= RATIO < seen["ratio_as_listed"],
            )
        )
    return found
