"""The least that asking an endpoint costs: aiohttp, uvloop and msgspec, and nothing else.

    python -m tests.bench.bare URL --bodies FILE
    python -m tests.bench.bare URL --rows FOLDER --tokenizer DIR/tokenizer.json

The first sends bodies that were encoded before, a line each. The second reads HellaSwag's rows, makes texts
of them and encodes these, whole and context, batch by batch ahead of sending. Both read the log-probabilities
and sum them; nothing is checked, tried again or kept. `--write FILE` only writes the bodies of the second.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec
from aiohttp import ClientSession, TCPConnector
from yarl import URL

WORKERS = 32
BATCH = 128
"""Items encoded at a time."""

_JSON = {"Content-Type": "application/json"}


class _Body(msgspec.Struct):
    tokens: list[int]
    forced_output_tokens: list[int]
    logprobs: int
    max_tokens: int


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float]


class _Choice(msgspec.Struct):
    logprobs: _Logprobs


class _Completion(msgspec.Struct):
    choices: list[_Choice]


_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(_Completion).decode


class Bodies:
    """Bodies made batch by batch in a thread, one batch ahead of those that are handed out."""

    def __init__(self, batches: Iterator[list[bytes]]) -> None:
        """Begin with the first batch; needs a running loop."""
        self._batches = batches
        self._filling = asyncio.Lock()
        self._coming = self._next()
        self.ready: deque[bytes] = deque()

    async def fill(self) -> bool:
        """Wait until bodies are ready; False: there are no more."""
        async with self._filling:
            while not self.ready:
                batch = await self._coming
                if batch is None:
                    return False
                self.ready.extend(batch)
                self._coming = self._next()
            return True

    def _next(self) -> asyncio.Future[list[bytes] | None]:
        return asyncio.get_running_loop().run_in_executor(None, next, self._batches, None)


def stored(file: Path) -> Iterator[list[bytes]]:
    """Bodies that were written before."""
    yield file.read_bytes().splitlines()


def made(rows: Path, tokenizer: Path) -> Iterator[list[bytes]]:
    """Bodies made from rows, a batch of items at a time."""
    from tokenizers import Tokenizer

    from tests.bench.texts import encoded, hellaswag

    backend = Tokenizer.from_file(str(tokenizer))
    texts = hellaswag(rows)
    while batch := list(islice(texts, BATCH)):
        yield [
            _ENCODE(_Body(ids.context, forced, 1, len(forced)))
            for ids in encoded(batch, backend)
            for forced in ids.forced
        ]


async def ask(url: str, batches: Iterator[list[bytes]], workers: int) -> tuple[int, float]:
    """Send all bodies; how many replies came, and the sum of their log-probabilities."""
    bodies = Bodies(batches)
    target = URL(f"{url}/completions")
    count, total = 0, 0.0

    async def worker(session: ClientSession) -> None:
        nonlocal count, total
        while bodies.ready or await bodies.fill():
            async with session.post(target, data=bodies.ready.popleft(), headers=_JSON) as reply:
                said = await reply.read()
            total += sum(_DECODE(said).choices[0].logprobs.token_logprobs)
            count += 1

    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(workers)))
    return count, total


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", help="base URL of an instant endpoint")
    parser.add_argument("--bodies", type=Path, help="send these, a line each")
    parser.add_argument("--rows", type=Path, help="a folder that holds HellaSwag's validation.parquet")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--write", type=Path, help="write the bodies instead of sending them")
    given = parser.parse_args()
    batches = stored(given.bodies) if given.bodies else made(given.rows, given.tokenizer)
    if given.write:
        given.write.write_bytes(b"".join(body + b"\n" for batch in batches for body in batch))
        return
    run = asyncio.run
    with suppress(ImportError):
        import uvloop

        run = uvloop.run
    count, total = run(ask(given.url, batches, given.workers))
    print(f"{count} replies, {total:.3f} nats")


if __name__ == "__main__":
    main()
