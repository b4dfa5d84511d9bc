"""A server that batches and keeps prefixes, simulated: how much of the prompts an order of requests spares.

    python -m tests.bench.batching --shared ../shared

No time passes and nothing is computed. So many requests are worked on at once; a step takes all of them one
token further, prompts whole in their first step. Of a prompt the server computes what it has not kept, always
the block that the last position stands in, as the first answer comes from there. It keeps whole blocks, and
only once their request has completed; what was not used for longest goes first. So it is with vLLM.

Two measures of the least that can be computed:

* *token positions*: the nodes of the prefix tree of all prompts, token by token. No cache of blocks reaches
  it: each of four requests behind one context computes the rest of its last block anew.
* *block positions*: what a cache of blocks without bound computes if requests come one by one, short ones
  before those that go on from them: each distinct block once, and each request's own last block. Orders are
  held against this one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from harness.exchange import ScoreRequest
from harness.feed import ROOM
from harness.planning import BATCH
from harness.sending import Schedule
from tests.bench.texts import Text, encoded, hellaswag, mmlu

ITEMS = 2000
"""Spread over the whole of a split: the first would fit into the cache, and no order would matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is simulated."""

    at_once: int = 32
    """Requests worked on together."""
    step: float = 0.020
    """Seconds."""
    block: int = 16
    """Tokens that are kept or forgotten together."""
    kept: int = 65_536
    """Tokens."""


MACHINE = Machine()


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of an order of requests."""

    requests: int
    computed: int
    """Prompt positions."""
    seconds: float
    busy: float
    """Share of the places that were taken, on average over the steps."""


class Source(Protocol):
    """Where requests come from, in the order they are sent."""

    def next(self) -> ScoreRequest | None:
        """The one to send now; None: nothing may go before another returns."""

    def returned(self, request: ScoreRequest) -> object:
        """One has come back."""


class Listed:
    """Requests in a given order, whatever comes back."""

    def __init__(self, requests: Iterable[ScoreRequest]) -> None:
        """Keep them."""
        self._requests = deque(requests)

    def next(self) -> ScoreRequest | None:
        """The first that is left."""
        return self._requests.popleft() if self._requests else None

    def returned(self, request: ScoreRequest) -> None:
        """Nothing follows from it."""


class Scheduled:
    """The program's own order: planned by the batch, as far ahead as its feed takes them."""

    def __init__(self, batches: Iterator[list[ScoreRequest]]) -> None:
        """Plan nothing yet."""
        self._batches = batches
        self._schedule = Schedule()
        self.returned = self._schedule.returned

    def next(self) -> ScoreRequest | None:
        """What the schedule lets go."""
        while self._schedule.coming <= ROOM and (batch := next(self._batches, None)) is not None:
            self._schedule.add(batch)
        return self._schedule.next()


class Kept:
    """Blocks of completed prompts, those used last at the end."""

    def __init__(self, machine: Machine) -> None:
        """Start empty."""
        self._block = machine.block
        self._most = machine.kept // machine.block
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def spared(self, ids: Sequence[int]) -> int:
        """Positions that need not be computed; their blocks count as used."""
        found = []
        for each in islice(blocks(ids, self._block), (len(ids) - 1) // self._block):
            if each not in self._blocks:
                break
            found.append(each)
        self._use(found)
        return len(found) * self._block

    def keep(self, ids: Sequence[int]) -> None:
        """Keep the whole blocks of a prompt."""
        self._use(list(blocks(ids, self._block)))
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)

    def _use(self, found: Sequence[int]) -> None:
        """The first of a prompt is used last: without it, those behind are worth nothing."""
        for each in reversed(found):
            self._blocks[each] = None
            self._blocks.move_to_end(each)


def blocks(ids: Sequence[int], size: int) -> Iterator[int]:
    """A number for each whole block, which stands for all before it too."""
    last = 0
    for end in range(size, len(ids) + 1, size):
        last = hash((last, *ids[end - size : end]))
        yield last


def simulate(source: Source, in_flight: int, machine: Machine = MACHINE) -> Seen:
    """Send everything, as soon as it may go; `in_flight` requests at most wait or are worked on."""
    kept = Kept(machine)
    waiting: deque[ScoreRequest] = deque()
    working: list[tuple[ScoreRequest, int]] = []  # and the steps that are left to it
    requests = computed = steps = taken = 0
    while True:
        while len(waiting) + len(working) < in_flight and (request := source.next()) is not None:
            waiting.append(request)
        while waiting and len(working) < machine.at_once:
            request = waiting.popleft()
            computed += len(request.context_ids) - kept.spared(request.context_ids)
            working.append((request, len(request.forced_ids)))
        if not working:
            return Seen(requests, computed, steps * machine.step, taken / max(1, steps * machine.at_once))
        steps += 1
        taken += len(working)
        ended = [request for request, left in working if left <= 1]
        working = [(request, left - 1) for request, left in working if left > 1]
        for request in ended:
            requests += 1
            kept.keep(request.context_ids)
            source.returned(request)


def token_positions(prompts: Iterable[list[int]]) -> int:
    """Nodes of the prefix tree, token by token."""
    nodes = 0
    before: Sequence[int] = ()
    for ids in sorted(prompts):
        shared = 0
        for one, other in zip(ids, before, strict=False):
            if one != other:
                break
            shared += 1
        nodes += len(ids) - shared
        before = ids
    return nodes


def block_positions(prompts: Iterable[list[int]], size: int = MACHINE.block) -> int:
    """The least that a cache of blocks computes (see above)."""
    kept = Kept(Machine(block=size, kept=2**62))
    computed = 0
    for ids in sorted(prompts):
        computed += len(ids) - kept.spared(ids)
        kept.keep(ids)
    return computed


# ----------------------------------------------------------------------------------------- real requests


def batched(texts: Iterable[Text], tokenizer: Tokenizer, *, single: bool) -> Iterator[list[ScoreRequest]]:
    """The requests of a batch of items at a time, as the program plans them.

    Args:
        texts: the items.
        tokenizer: makes ids of them.
        single: ask for the first choice only: the others are read off its reply.
    """
    items = iter(texts)
    keys = (number.to_bytes(16, "big") for number in count())
    while batch := list(islice(items, BATCH)):
        yield [
            ScoreRequest(next(keys), each.context, forced)
            for each in encoded(batch, tokenizer)
            for forced in each.forced[: 1 if single else None]
        ]


def compared(batches: Sequence[list[ScoreRequest]], in_flight: int) -> dict[str, float]:
    """The program's order and a shuffled one against the least that can be computed."""
    requests = [each for batch in batches for each in batch]
    prompts = [list(each.context_ids) for each in requests]
    shuffled = random.Random(0).sample(requests, len(requests))
    least = block_positions(prompts)
    ours = simulate(Scheduled(iter(batches)), in_flight)
    listed = simulate(Listed(requests), in_flight)
    mixed = simulate(Listed(shuffled), in_flight)
    return {
        "requests": len(requests),
        "prompt_tokens": sum(map(len, prompts)),
        "token_positions": token_positions(prompts),
        "block_positions": least,
        "computed": ours.computed,
        "ratio": ours.computed / least,
        "ratio_as_listed": listed.computed / least,
        "ratio_shuffled": mixed.computed / least,
        "seconds": ours.seconds,
        "seconds_as_listed": listed.seconds,
        "seconds_shuffled": mixed.seconds,
        "busy": ours.busy,
    }


def main() -> None:
    """Print what became of the program's order and of others, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="the shared test material")
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--in-flight", type=int, default=MACHINE.at_once, help="the client's concurrency")
    given = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(given.shared / "tokenizers/gpt-neox-olmo/tokenizer.json"))
    data = given.shared / "data"
    sets = {
        "MMLU 5-shot": batched(mmlu(data / "mmlu", given.items), tokenizer, single=True),
        "MMLU 5-shot, each choice forced": batched(mmlu(data / "mmlu", given.items), tokenizer, single=False),
        "HellaSwag 0-shot": batched(hellaswag(data / "hellaswag_full", given.items), tokenizer, single=False),
    }
    print(json.dumps({name: compared(list(each), given.in_flight) for name, each in sets.items()}))


if __name__ == "__main__":
    main()
