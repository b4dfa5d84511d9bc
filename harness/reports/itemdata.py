"""All items of a report for the browser: columns that are always there, documents as far as there is room.

A page has at most `LIMIT` bytes. First come the sums of every item; then what it asks, in a line; then whole
documents (prompt, choices, tokens): of items that flipped, of those that are wrong or unscored, and, as long
as the page stays small (`PLENTY`), of those that are right. Tasks get documents in turn. What has no room is
left out and counted. Everything is JSON, compressed, in base64. This module does not know HTML.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from harness.comparison.columns import Place
from harness.inert import inert
from harness.reports.documents import plain, question
from harness.reports.records import Document, Items, Report
from harness.scoring.scores import NOT_ASKED

LIMIT = 25_000_000
"""Bytes of a page, at any number of items."""
PLENTY = 8_000_000
"""Bytes of documents, up to which those of right items are held too."""
BLOCK = 120_000
"""Characters of JSON that are compressed together, and opened together when one of their items is: a block
opens in some milliseconds, and items beside one another share their shots."""
LEVEL = 6
"""Of compression: 9 takes three times as long for a hundredth less."""
FLIPPED, WRONG, RIGHT = range(3)
"""Ranks: whose documents come first."""
HALF = 0.5
"""A value below this counts as wrong, of metrics that have something between."""
_KINDS = ("", "wrong to right", "right to wrong", "wrong to other wrong")

Documents = Callable[[], Iterable[tuple[Place, Document]]]
"""Reads the documents of all items, once each time."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Items as the page holds them."""

    columns: str
    """Base64 of compressed JSON; the page's script says what is in it."""
    blocks: tuple[str, ...]
    """Likewise, documents."""
    items: int
    held: int
    """Items in the columns."""
    documents: Counter[int]
    """Items whose document is held, by rank."""
    ranks: Counter[int]
    """Items, by rank."""
    unstored: Counter[int]
    """Items of which no document is stored, by rank: none was asked, or the run kept no texts."""
    texts: bool
    """Whether there were documents at all."""


@dataclass(slots=True)
class _Block:
    """Documents that are compressed together."""

    rank: int
    task: str
    items: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    size: int = 0
    packed: str = ""

    def add(self, item: int, text: str) -> None:
        self.items.append(item)
        self.texts.append(text)
        self.size += len(text)

    def pack(self) -> None:
        """Compress what is there, and let go of it."""
        self.packed = packed(f"[{','.join(self.texts)}]")
        self.texts = []


def pack(report: Report, documents: Documents, *, room: int, plenty: int = PLENTY) -> Packed:
    """Items and as many documents as there is room for.

    Args:
        report: with all items.
        documents: reads their documents.
        room: bytes that they may take.
        plenty: bytes of documents up to which those of right items are held too.
    """
    items = report.items
    ranks = [rank(items, at) for at in range(len(items))]
    at = {place: position for position, place in enumerate(items.places)}
    lines: dict[int, str] = {}
    stored: set[int] = set()
    blocks = list(_blocks(items, ranks, at, documents, lines, stored, room, plenty))
    columns, held = _columns_within(report, ranks, lines, room)
    chosen = _chosen(blocks, room - len(columns), plenty)
    if held == len(items):
        columns = packed(_columns(report, range(len(items)), lines, chosen))
        # Numbers of documents take room too, so that what fitted without them may not fit now.
        while chosen and (over := len(columns) + sum(len(each.packed) for each in chosen) - room) > 0:
            while chosen and over > 0:
                over -= len(chosen.pop().packed)
            columns = packed(_columns(report, range(len(items)), lines, chosen))
    else:
        chosen = []
    shown = {item for block in chosen for item in block.items}
    return Packed(
        columns,
        tuple(block.packed for block in chosen),
        len(items),
        held,
        Counter(ranks[item] for item in shown),
        Counter(ranks),
        Counter(ranks[item] for item in range(len(items)) if item not in stored),
        bool(lines),
    )


def rank(items: Items, at: int) -> int:
    """How much people want to see an item."""
    if any(at in flips for flips in items.flips):
        return FLIPPED
    fine = all(
        values[at] >= HALF or not _is_asked(reasons[at])
        for values, reasons in zip(items.values, items.unscored, strict=True)
    )
    return RIGHT if fine else WRONG


def _is_asked(reason: str | None) -> TypeGuard[str]:
    """Whether an endpoint was asked an item: what a comparison was decided without is no failure."""
    return reason is not None and reason != NOT_ASKED


def packed(text: str) -> str:
    """Base64 of the compressed text; the same text gives the same bytes."""
    return b64encode(gzip.compress(text.encode("utf-8", "replace"), LEVEL, mtime=0)).decode()


def _blocks(
    items: Items,
    ranks: Sequence[int],
    at: dict[Place, int],
    documents: Documents,
    lines: dict[int, str],
    stored: set[int],
    room: int,
    plenty: int,
) -> Iterator[_Block]:
    """All documents that could have a place, compressed; what each item asks is put into `lines`, and which
    items have a document at all into `stored`."""
    open_blocks: dict[tuple[int, str], _Block] = {}
    taken: Counter[tuple[int, str]] = Counter()
    for place, document in documents():
        item = at[place]
        stored.add(item)
        if document.contexts:
            lines.setdefault(item, inert(question(document)))
        key = ranks[item], place.task
        if taken[key] > (plenty if key[0] == RIGHT else room):
            continue
        block = open_blocks.setdefault(key, _Block(*key))
        block.add(item, inert(_json(plain(document))))
        if block.size >= BLOCK:
            block.pack()
            taken[key] += len(block.packed)
            yield open_blocks.pop(key)
    for block in open_blocks.values():
        block.pack()
        yield block


def _chosen(blocks: Iterable[_Block], room: int, plenty: int) -> list[_Block]:
    """As many blocks as there is room for: by rank, and of one rank each task in turn."""
    turns: Counter[tuple[int, str]] = Counter()
    queue = []
    for number, block in enumerate(blocks):
        queue.append(((block.rank, turns[block.rank, block.task], number), block))
        turns[block.rank, block.task] += 1
    found, size = [], 0
    for _, block in sorted(queue, key=lambda each: each[0]):
        size += len(block.packed)
        if size > (min(plenty, room) if block.rank == RIGHT else room):
            break
        found.append(block)
    return found


def _columns_within(
    report: Report, ranks: Sequence[int], lines: dict[int, str], room: int
) -> tuple[str, int]:
    """The columns, and of how many items: all of them, if need be without what they ask, unless not even
    their sums have room; then those of the first ranks."""
    every = range(len(report.items))
    columns = packed(_columns(report, every, lines, []))
    if len(columns) > room:
        lines.clear()
        columns = packed(_columns(report, every, lines, []))
    held = len(every)
    order = sorted(every, key=lambda item: (ranks[item], item))
    while len(columns) > room and held:
        held = int(held * min(0.9, 0.95 * room / len(columns)))
        columns = packed(_columns(report, sorted(order[:held]), lines, []))
    return columns, held


def _columns(report: Report, shown: Sequence[int], lines: dict[int, str], blocks: Sequence[_Block]) -> str:
    """The columns of some items as JSON; `items.js` says what each is."""
    items = report.items
    places = [items.places[item] for item in shown]
    tasks, subjects = _coded(each.task for each in places), _coded(each.subject for each in places)
    reasons = {"": 0}
    endpoints = [_endpoint(items, number, shown, reasons) for number in range(len(report.labels))]
    written: dict[int, list[tuple[int, int]]] = {}
    for number, block in enumerate(blocks):
        for position, item in enumerate(block.items):
            written.setdefault(item, []).append((number, position))
    return inert(
        _json(
            {
                "labels": report.labels,
                "tokenizers": [each.tokenizer for each in report.endpoints],
                "metrics": report.tasks,
                "tasks": list(tasks),
                "subjects": list(subjects),
                "reasons": list(reasons),
                "task": [tasks[each.task] for each in places],
                "subject": [subjects[each.subject] for each in places],
                "shots": [each.shots for each in places],
                "index": [each.index for each in places],
                "id": [_own_id(items.ids[item], items.places[item].index) for item in shown],
                "choices": [items.choices[item] for item in shown],
                "gold": [gold[0] if len(gold := items.gold[item]) == 1 else gold for item in shown],
                "question": [lines.get(item, "") for item in shown] if lines else [],
                "documents": [written.get(item, 0) for item in shown] if written else [],
                "endpoints": endpoints,
            }
        )
    )


def _endpoint(items: Items, number: int, shown: Sequence[int], reasons: dict[str, int]) -> dict[str, Any]:
    sums, values, flips = items.sums[number], items.values[number], items.flips[number]
    predictions, margins, unscored = items.predictions[number], items.margins[number], items.unscored[number]
    return {
        # One list of all sums, an item after the other: an unscored item has none.
        "sums": [round(each, 4) for item in shown for each in sums[item]],
        "value": [_number(values[item], 4) for item in shown],
        "prediction": [predictions[item] for item in shown],
        "margin": [_number(margins[item], 4) for item in shown],
        "unscored": [
            reasons.setdefault(why, len(reasons)) if _is_asked(why := unscored[item]) else -1
            for item in shown
        ],
        "flip": [_KINDS.index(flips.get(item, "")) for item in shown] if flips else [],
    }


def _number(value: float, digits: int) -> float | int | None:
    """JSON has no NaN; whole numbers are short."""
    if value != value:
        return None
    return int(value) if value == int(value) else round(value, digits)


def _coded(names: Iterable[str]) -> dict[str, int]:
    """A number for each name, in the order in which they come."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _own_id(name: str, index: int) -> str:
    """An item's own id, unless it says no more than its index."""
    return "" if name == str(index) else name


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
