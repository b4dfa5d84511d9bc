"""How long the pages of `view` take over a run of many items on two endpoints, and how much memory.

    python -m tests.bench.viewing [--items 1000000]

Half of the items are like HellaSwag's, half like MMLU's with 57 subjects. The tables are laid out as the
program lays them out; there is no journal, so an item that is opened has no tokens. `view` runs as a process
of its own, and is left alone for some seconds first, as by who opens a browser. Every answer has a bar, but
the first of `/facts`, which reads all items once, and searches of texts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from aiohttp import ClientSession, ClientTimeout
from pyarrow import parquet

from harness.files import ParquetFile
from harness.scoring.metrics import METRICS
from harness.tables import TaskTable, item_types
from harness.texts import TEXT_TYPES
from harness.viewing.folders import Folders
from tests.reporting import manifest

LABELS = ("base", "tuned")
GROUP = 4096
SECONDS = 0.5
"""In which a page of items is there."""
ALONE = 5.0
"""Seconds until the first page is asked for."""
ASKED = {
    "all, from the middle": "&start=500000",
    "wrong": "&show=wrong",
    "flipped": "&show=flipped",
    "flipped, by margin": "&show=flipped&sort=1&down=1",
    "by task": "&sort=task&down=1",
    "right, of a subject": "&task=mmlu&subject=subject_3&show=right",
}
SEARCH = "&search=person+31415"


def places(start: int, count: int, items: int) -> dict[str, list[Any]]:
    """Which items these are."""
    index = range(start, start + count)
    scene = [at < items // 2 for at in index]
    return {
        "task": ["hellaswag" if each else "mmlu" for each in scene],
        "subject": [
            "" if each else f"subject_{at // 500 % 57}" for each, at in zip(scene, index, strict=True)
        ],
        "index": list(index),
    }


def write_items(path: Path, items: int) -> None:
    """`items.parquet`: random sums, one item in a thousand unscored."""
    types = item_types([METRICS["acc"], METRICS["acc_norm"]])
    ParquetFile(path, types, GROUP).close()  # for its schema
    schema = parquet.read_schema(path)
    generator = np.random.default_rng(0)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for label in LABELS:
            for start in range(0, items, GROUP):
                count = min(GROUP, items - start)
                columns = _rows(label, start, count, items, generator)
                arrays = [pa.array(columns[each.name], each.type) for each in schema]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _rows(label: str, start: int, count: int, items: int, generator: np.random.Generator) -> dict[str, Any]:
    sums = -40 * generator.random((count, 4))
    gold = generator.integers(0, 4, count)
    predicted = sums.argmax(1)
    scored = [at % 1000 != 999 for at in range(start, start + count)]

    def told(values: Any) -> list[Any]:
        return [value if each else None for value, each in zip(values, scored, strict=True)]

    same = {name: [[9, 10, 11, 12]] * count for name in ("n_tokens", "n_chars", "n_bytes", "n_words")}
    judged = {
        "prediction": told(predicted.tolist()),
        "correct": told((predicted == gold).astype(int).tolist()),
    }
    return {
        **places(start, count, items),
        **same,
        "endpoint": [label] * count,
        "shots": [5] * count,
        "id": [f"activitynet~v_{at:09x}" for at in range(start, start + count)],
        "cluster": [""] * count,
        "gold": gold.reshape(-1, 1).tolist(),
        "prompt_hash": [f"{at:064x}" for at in range(start, start + count)],
        "context_sha256": [[f"{at:064x}"] * 4 for at in range(start, start + count)],
        "sums": told(sums.tolist()),
        "greedy": [[None] * 4] * count,
        "mode": ["forced"] * count,
        "unscored": [None if each else "timeout" for each in scored],
        **{f"{kind}_{metric}": cells for kind, cells in judged.items() for metric in ("acc", "acc_norm")},
    }


def write_texts(path: Path, items: int) -> None:
    """`texts.parquet`: some hundred characters of context."""
    file = ParquetFile(path, TEXT_TYPES, 1024, recurring=("task", "subject", "tokenizer"))
    for start in range(0, items, GROUP):
        found = places(start, min(GROUP, items - start), items)
        for task, subject, index in zip(found["task"], found["subject"], found["index"], strict=True):
            context = f"{'lorem ipsum dolor sit amet ' * 10}\n\nWhat does person {index} do next?"
            choices = [f"goes {index}", f"stays {index}", "eats", "sleeps"]
            file.add([task, subject, index, [context] * 4, choices, [[1, 2]] * 4, [[7, 8]] * 4, "a" * 64])
    file.close()


def write_run(folder: Path, items: int) -> None:
    """A run, but for its journal and its accuracy table."""
    folder.mkdir(parents=True)
    tasks = [TaskTable("hellaswag", 5, ("acc_norm", "acc")), TaskTable("mmlu", 5, ("acc",))]
    (folder / "run.json").write_text(json.dumps(manifest(tasks, LABELS)))
    write_items(folder / "items.parquet", items)
    write_texts(folder / "texts.parquet", items)


async def timed(session: ClientSession, address: str, rounds: int = 3) -> float:
    """Seconds of an answer, the median of some rounds."""
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        async with session.get(address) as reply:
            await reply.read()
            reply.raise_for_status()
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


async def measure(address: str, key: str) -> float:
    """Ask for pages and print what they took; the longest of those that have a bar, seconds."""
    items = f"{address}items?with={key}"
    await asyncio.sleep(ALONE)
    async with ClientSession(timeout=ClientTimeout(600)) as session:
        bars = {"the first page": await timed(session, items, 1)}
        whole = await timed(session, f"{address}facts?with={key}", 1)
        for name, query in ASKED.items():
            bars[name] = await timed(session, items + query)
        bars["one item"] = await timed(session, f"{address}item?with={key}&at=765")
        searched = await timed(session, items + SEARCH, 1)
    for name, seconds in {**bars, "all items read once": whole, "words of all questions": searched}.items():
        print(f"{name}: {seconds:.2f} s")
    return max(bars.values())


def peak(pid: int) -> float:
    """The most memory a process has had, mebibytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> int:
    """Make the run, look at it, and say what it took; 1 where a page took longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    items: int = parser.parse_args().items
    with tempfile.TemporaryDirectory() as scratch:
        print(f"writing {items:,} items on {len(LABELS)} endpoints ...", flush=True)
        write_run(Path(scratch) / "run", items)
        key = next(iter(Folders(Path(scratch)).found()))
        command = [sys.executable, "-m", "harness", "view", scratch, "--no-open"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = server.stdout.readline().strip()
                longest = asyncio.run(measure(address, key))
                print(f"peak memory: {peak(server.pid):.0f} MiB")
            finally:
                server.terminate()
    return int(longest > SECONDS)


if __name__ == "__main__":
    sys.exit(main())
