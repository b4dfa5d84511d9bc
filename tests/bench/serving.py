"""64 clients at once, for two minutes, on the embedded endpoint: `make soak`.

They score, generate, stream and echo over a prefix tree that is larger than the cache. What must hold: no
error; memory grows by no more than the cache and the completions in flight take; the event loop is never
blocked for longer than 50 ms. The endpoint is a process of its own, with a watch on its event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import ClientSession, web

from harness import reference
from harness.serving.models.adapters import adapter_folders
from harness.serving.scheduler import MAX_RUNNING
from harness.serving.server import Options, listening, load

CLIENTS = 64
LONGEST_BLOCK = 0.050
"""Seconds."""
CACHE_MIB = 64
ALLOWANCE_MIB = 48
"""Beside cache and completions in flight: replies being written, threads, the allocator's slack."""
_TICK = 0.005
"""Seconds between two looks at the clock."""


# ------------------------------------------------------------------------------------------- the endpoint


def adapters_of(folder: Path) -> Path | None:
    """The adapters to serve with a model: the shipped one's are at hand."""
    return reference.ADAPTERS if folder == reference.FOLDER else None


async def endpoint(folder: Path) -> None:
    """Serve until standard input ends; first a line with the base URL."""
    served = load(folder, adapters_of(folder))
    app = served.app(Options(cache_bytes=CACHE_MIB * 2**20, cache_tokens=10**9))
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            longest, last = max(longest, now - last - _TICK), now

    async def blocked(_: web.Request) -> web.Response:
        nonlocal longest
        said, longest = longest, 0.0
        return web.json_response(said)

    app.router.add_get("/blocked", blocked)
    async with listening(app) as url:
        print(url, flush=True)
        watching = asyncio.create_task(watch())
        await asyncio.to_thread(sys.stdin.read)
        watching.cancel()


def resident(pid: int) -> float:
    """Mebibytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[tuple[str, int]]:
    """Base URL and process id of the endpoint."""
    command = [sys.executable, "-m", "tests.bench.serving", "--serve", str(folder)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process.pid
    finally:
        process.stdin.close()
        await process.wait()


# -------------------------------------------------------------------------------------------- the clients


def body(chance: random.Random, vocabulary: int, routes: Sequence[str]) -> dict[str, Any]:
    """A request: mostly a choice scored after shots, a subject and a question, each shared by many."""
    shots = random.Random(chance.randrange(12))
    context = [1, 3 + chance.randrange(20), *(shots.randrange(3, vocabulary) for _ in range(200))]
    question = random.Random(chance.randrange(3000))
    context += [question.randrange(3, vocabulary) for _ in range(question.randrange(20, 120))]
    model = {"model": chance.choice(["base", *(f"base:{route}" for route in routes)])}
    kind = chance.random()
    if kind < 0.8:
        forced = [chance.randrange(3, vocabulary) for _ in range(chance.randrange(1, 40))]
        return {
            **model,
            "tokens": context,
            "forced_output_tokens": forced,
            "logprobs": chance.choice([0, 1, 20, 100]),
            "stream": chance.random() < 0.05,
        }
    if kind < 0.92:
        return {
            **model,
            "tokens": context,
            "max_tokens": 40,
            "stream": chance.random() < 0.5,
            "logprobs": chance.choice([None, 5]),
            "n": chance.choice([1, 1, 8]),
            "stop": ["the end", "."],
        }
    if kind < 0.95:
        return {**model, "prompt": "Which of these is true? " * chance.randrange(1, 20), "max_tokens": 5}
    if kind < 0.98:
        return {**model, "prompt": context, "echo": True, "max_tokens": 1, "logprobs": 1}
    return {**model, "tokens": context, "max_tokens": 12, "num_beams": 4}


async def client(
    session: ClientSession,
    url: str,
    seed: int,
    served: tuple[int, Sequence[str]],
    until: float,
    seen: Counter[str],
) -> None:
    """Ask one thing after another, and read every reply to its end."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        asked = body(chance, *served)
        async with session.post(f"{url}/completions", json=asked) as reply:
            said = await reply.read()
        whole = said.endswith(b"data: [DONE]\n\n") if asked.get("stream") else said.endswith(b"}")
        seen["answered" if reply.status == 200 and whole else f"error {reply.status}"] += 1


async def soak(folder: Path, seconds: float) -> bool:
    """Run it; whether everything held."""
    config = json.loads((folder / "config.json").read_text())
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    size = config["hidden_size"] // config["num_attention_heads"]
    token_bytes = 2 * 4 * config["num_hidden_layers"] * heads * size
    running = MAX_RUNNING * config["max_position_embeddings"] * token_bytes / 2**20
    seen: Counter[str] = Counter()
    routes = adapters_of(folder)
    async with started(folder) as (url, pid), ClientSession() as session:
        host = url.removesuffix("/v1")
        of = (config["vocab_size"], () if routes is None else tuple(adapter_folders(routes)))
        await client(session, url, -1, of, time.monotonic() + 2, Counter())
        before = most = resident(pid)
        async with session.get(f"{host}/blocked") as reply:
            await reply.read()
        until = time.monotonic() + seconds
        asking = [asyncio.create_task(client(session, url, seed, of, until, seen)) for seed in range(CLIENTS)]
        while not all(task.done() for task in asking):
            await asyncio.sleep(0.2)
            most = max(most, resident(pid))
        await asyncio.gather(*asking)
        async with session.get(f"{host}/blocked") as reply:
            blocked = float(await reply.json())
        async with session.get(f"{host}/admin") as reply:
            admin = await reply.json()
    bound = CACHE_MIB + running + ALLOWANCE_MIB
    errors = sum(count for what, count in seen.items() if what != "answered")
    counts = admin["counts"]
    print(
        f"{seen['answered']:,} answered in {seconds:.0f} s, {seen['answered'] / seconds:.0f} a second;"
        f" {errors} errors {dict(seen) if errors else ''}"
    )
    print(
        f"positions: {counts['prompt_computed']:,} computed, {counts['prompt_cached']:,} cached;"
        f" cache {admin['cache']}"
    )
    print(f"segments a batch: {counts['segments'] / counts['steps']:.1f}")
    print(
        f"memory: {before:.0f} MiB before, {most - before:.0f} more at most; bound {bound:.0f}:"
        f" cache {CACHE_MIB}, {MAX_RUNNING} contexts at full length {running:.0f}, beside {ALLOWANCE_MIB}"
    )
    print(f"event loop: blocked for {1000 * blocked:.0f} ms at most; bound {1000 * LONGEST_BLOCK:.0f}")
    return not errors and most - before <= bound and blocked <= LONGEST_BLOCK


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path, help="be the endpoint")
    parser.add_argument("--model", type=Path, default=reference.FOLDER)
    parser.add_argument("--seconds", type=float, default=120)
    given = parser.parse_args()
    if given.serve:
        uvloop.run(endpoint(given.serve))  # as `serve` does
        return 0
    return 0 if asyncio.run(soak(given.model, given.seconds)) else 1


if __name__ == "__main__":
    sys.exit(main())
