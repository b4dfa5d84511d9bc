"""What was asked of single items, and what came back, token by token: `texts.parquet` and the journals.

A report holds such documents of the items that went wrong, a local page asks for any of them. Endpoints may
have different tokenizers, and come from several runs: an item has a document for each tokenizer.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.comparison.columns import Columns, Place
from harness.comparison.ragged import Ragged
from harness.reports.records import Document
from harness.reports.wording import Words, unknown
from harness.stored import Run, StoredText

QUESTION = 160
"""Characters of a question that stand in the table of items."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What an endpoint said of the forced tokens of all items."""

    label: str
    tokenizer: str
    """Its hash."""
    logprobs: Ragged[np.float64] | None
    """Nats, a list a choice; None where the journal is gone."""
    first: Mapping[Place, tuple[int, int]]
    """Of each scored item: where its first choice stands in `logprobs`, and how many it has."""

    def of(self, place: Place) -> tuple[tuple[float, ...], ...]:
        """One item's, choice by choice; nothing where it is unscored."""
        found = self.first.get(place)
        if found is None or self.logprobs is None:
            return ()
        return tuple(self.logprobs.take(np.arange(found[0], sum(found))).lists())


@dataclass(frozen=True, slots=True)
class Shelf:
    """One run's texts."""

    run: Run
    places: Mapping[tuple[str, str, int], Place]
    """The run's items, by task, subject and index."""
    words: Mapping[str, Words]
    """By the hash of a tokenizer: what its ids are."""


def spoken(columns: Columns, tokenizer: str) -> Spoken:
    """What an endpoint said, out of its columns."""
    lengths = columns.sums.lengths
    named = zip(columns.places, columns.sums.starts.tolist(), lengths.tolist(), strict=True)
    first = {place: (at, count) for place, at, count in named if count}
    return Spoken(columns.label, tokenizer, columns.tokens.logprobs if columns.tokens else None, first)


def documents(
    shelves: Sequence[Shelf], said: Sequence[Spoken], wanted: Container[Place]
) -> Iterator[tuple[Place, Document]]:
    """The documents of some items, in the order of the files; none of runs that stored no texts."""
    contexts: dict[Place, int] = {}
    shown: set[tuple[Place, str]] = set()
    for shelf in shelves:
        keys = {key for key, place in shelf.places.items() if place in wanted}
        for text in shelf.run.stored_texts(keys):
            place = shelf.places[text.key]
            if (place, text.tokenizer) in shown:
                continue
            shown.add((place, text.tokenizer))
            same = hash((text.contexts, text.choices))
            repeats = contexts.setdefault(place, same) == same and (place, "") in shown
            shown.add((place, ""))
            yield place, _document(text, place, shelf.words, said, repeats=repeats)


def last_paragraph(context: str) -> str:
    """What stands behind a prompt's description and shots, which end with empty lines."""
    paragraphs = [part for part in context.split("\n\n") if part.strip()]
    return paragraphs[-1].strip() if paragraphs else ""


def question(document: Document) -> str:
    """What an item asks, in one short line."""
    return asked(document.contexts[0])


def asked(context: str) -> str:
    """What a context asks, in one short line: the beginning of its last paragraph."""
    line = " ".join(last_paragraph(context).split())
    return line if len(line) <= QUESTION else f"{line[: QUESTION - 1]}…"


def plain(document: Document) -> dict[str, object]:
    """A document as JSON has it: what the page's script reads."""
    return {
        "tokenizer": document.tokenizer,
        "contexts": document.contexts,
        "choices": document.choices,
        "tokens": document.tokens,
        "logprobs": {
            label: [[round(each, 3) for each in choice] for choice in choices]
            for label, choices in document.logprobs.items()
        },
    }


def _document(
    text: StoredText, place: Place, words: Mapping[str, Words], said: Sequence[Spoken], *, repeats: bool
) -> Document:
    name = words.get(text.tokenizer, unknown)
    one = len(set(text.contexts)) == 1
    found = {each.label: each.of(place) for each in said if each.tokenizer in (text.tokenizer, "")}
    return Document(
        tokenizer=text.tokenizer,
        contexts=() if repeats else text.contexts[:1] if one else text.contexts,
        choices=() if repeats else text.choices,
        tokens=tuple(tuple(map(name, ids)) for ids in text.forced_ids),
        logprobs={label: logprobs for label, logprobs in found.items() if logprobs},
    )
