"""Which items are asked beside a run, and when; pure.

A few fixed items are *looked at*: asked anew at the start, in the middle and at the end of every session, all
their choices forced. The same look serves both checks: an adapter's is held against its base's, and each
against the one before. What is drawn for `--repeat-sample` is another set, drawn over all items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from heapq import nsmallest

from harness.items import BadItem
from harness.prompts import Prompt, question_of

START, MIDDLE, END = "start", "middle", "end"

MOST_ITEMS = 5
"""Items that are looked at."""
MOST_REQUESTS = 16
"""Choices of them, so that a look costs little whatever the task; one item is looked at all the same."""
ONE_OF = 20
"""At most one of so many items is looked at."""
REQUEST_OF = 10
"""At most one request is made for so many items; lettered ones take but one themselves."""


def look_at(tasks: Sequence[Iterable[Prompt | BadItem]], items: int) -> list[Prompt]:
    """The first distinct items of a run, from one task after another.

    Args:
        tasks: the prompts of each task; no more are taken than are needed.
        items: of the whole run.
    """
    most = min(MOST_ITEMS, max(1, items // ONE_OF))
    room = min(MOST_REQUESTS, items // REQUEST_OF)
    found: list[Prompt] = []
    requests = 0
    for each in _distinct(tasks):
        requests += len(each.item.pairs)
        if found and requests > room:
            break
        found.append(each)
        if len(found) == most:
            break
    return found


def moments(items: int, *, proof: bool, of: int | None = None) -> tuple[str, ...]:
    """When the items are looked at.

    All shards of a run look at the same items, so that what one saw can be held against what another did; so
    each of them looks once less, and one that has few items itself does not look at all.

    Args:
        items: of the run, or of the shard; few are asked so fast that no model changes meanwhile.
        proof: the endpoint is an adapter, or the base that adapters are held against.
        of: where these are a shard's, the items of the whole run.
    """
    if of is None and items >= ONE_OF:
        return START, MIDDLE, END
    if of is not None and items >= max(ONE_OF, REQUEST_OF * min(MOST_REQUESTS, of // REQUEST_OF)):
        return START, END
    return (START, END) if proof and items else ()


def shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many of each task are drawn: as many of each, and what small ones lack of the others."""
    found = [0] * len(sizes)
    left = min(count, sum(sizes))
    while left:
        open_ones = [at for at, size in enumerate(sizes) if found[at] < size]
        each = max(1, left // len(open_ones))
        for at in open_ones[:left]:
            more = min(each, sizes[at] - found[at])
            found[at] += more
            left -= more
    return found


def drawn(task: str, chosen: Mapping[str, Collection[int]], count: int) -> dict[str, Collection[int]]:
    """So many of a task's items, by subject: those with the lowest hashes.

    They are the same in every session, and a larger count draws the same ones and more.
    """
    places = ((subject, index) for subject, indices in chosen.items() for index in indices)
    found: dict[str, set[int]] = {}
    for subject, index in nsmallest(count, places, key=lambda place: _rank(task, *place)):
        found.setdefault(subject, set()).add(index)
    return {subject: frozenset(indices) for subject, indices in found.items()}


def _distinct(tasks: Sequence[Iterable[Prompt | BadItem]]) -> Iterator[Prompt]:
    """The first of each task, then the second of each, and so on; a question once."""
    seen = set()
    streams = [iter(each) for each in tasks]
    while streams:
        for stream in list(streams):
            each = next(stream, None)
            if each is None:
                streams.remove(stream)
            elif isinstance(each, Prompt) and (question := question_of(each.item)) not in seen:
                seen.add(question)
                yield each


def _rank(task: str, subject: str, index: int) -> bytes:
    return blake2b(f"{task}/{subject}/{index}".encode(), digest_size=8).digest()
