"""Rows read and made into texts by the plainest rule, with nothing of the program: what the bare loop uses.

HellaSwag without shots, MMLU with five.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import parquet
from tokenizers import Tokenizer

LETTERS = "ABCD"


class Text(NamedTuple):
    """One question: its context, and the continuations that are scored behind it."""

    context: str
    continuations: tuple[str, ...]


class Ids(NamedTuple):
    """The same as token ids."""

    context: list[int]
    forced: list[list[int]]


def hellaswag(folder: Path, items: int | None = None) -> Iterator[Text]:
    """HellaSwag's validation split, or so many items spread over it; `folder` holds it as Parquet."""
    for row in _rows(folder / "validation.parquet", items):
        about = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        yield Text(_clean(about), tuple(f" {_clean(ending)}" for ending in row["endings"]))


def mmlu(folder: Path, items: int | None = None, shots: int = 5) -> Iterator[Text]:
    """MMLU's test split, or so many items spread over it, behind the first rows of `dev` of their subject."""
    solved: dict[str, list[str]] = defaultdict(list)
    for row in _rows(folder / "dev.parquet"):
        solved[row["subject"]].append(f"{_question(row)} {LETTERS[row['answer']]}\n\n")
    for row in _rows(folder / "test.parquet", items):
        about = row["subject"].replace("_", " ")
        first = f"The following are multiple choice questions (with answers) about {about}.\n\n"
        before = "".join(solved[row["subject"]][:shots])
        yield Text(f"{first}{before}{_question(row)}", tuple(f" {each}" for each in LETTERS))


def encoded(texts: Sequence[Text], tokenizer: Tokenizer) -> Iterator[Ids]:
    """Ids: a continuation's are those of the whole text behind the context's. Batched, in order."""
    flat = [each.context for each in texts]
    flat += [each.context + rest for each in texts for rest in each.continuations]
    ids = [each.ids for each in tokenizer.encode_batch_fast(flat, add_special_tokens=False)]
    at = len(texts)
    for number, text in enumerate(texts):
        context, end = ids[number], at + len(text.continuations)
        yield Ids(context, [whole[len(context) :] for whole in ids[at:end]])
        at = end


def _rows(file: Path, items: int | None = None) -> Iterator[dict[str, Any]]:
    """All rows, or so many in even steps; read in batches, so that a long file is never whole in memory."""
    table = parquet.ParquetFile(file)
    rows = table.metadata.num_rows
    kept = rows if items is None else min(items, rows)
    number = 0
    for batch in table.iter_batches(1024):
        for row in batch.to_pylist():
            if number * kept % rows < kept:
                yield row
            number += 1


def _clean(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _question(row: dict[str, Any]) -> str:
    answers = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question'].strip()}{answers}\nAnswer:"
