"""Prompts, continuations and token splits against records made by running the reference."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.choosing.registry import task_names
from harness.encoding import encode_prompts
from harness.items import BadItem, Item
from harness.prompts import Prompt, Selection
from harness.suite import prepare_suite
from harness.tokenizing import load_tokenizer

TOKENIZERS = {
    "gpt2": "tokenizers/gpt2",
    "openllama": "tokenizers/openllama",
    "stories260k": "models/stories260k",
}
PLAIN = (
    "arc_challenge",
    "arc_easy",
    "boolq",
    "commonsense_qa",
    "copa",
    "hellaswag",
    "lambada_openai",
    "openbookqa",
    "piqa",
    "social_iqa",
    "truthfulqa_mc1",
    "truthfulqa_mc2",
    "winogrande",
)
"""Tasks without subjects that the golden records have."""
ITEMS_OF_EACH = 25
"""At most so many items of a task (or of a subject) stand in the golden records."""


def records(file: Path) -> Iterator[tuple[tuple[str, str, int], dict[str, Any]]]:
    """The records of a golden file whose tasks there are, with task, subject and shots."""
    for line in file.read_text().splitlines():
        record = json.loads(line)
        name = record["task"]
        task, subject = ("mmlu", name.removeprefix("mmlu_")) if name.startswith("mmlu_") else (name, "")
        if task in task_names():
            yield (task, subject, record.get("shots", 0)), record


@cache
def prompts(shared: Path, task: str, shots: int) -> dict[tuple[str, int], Prompt]:
    """Our prompts of the first items of a task, by subject and index."""
    suite = prepare_suite(
        [task],
        shots=shots,
        data_dir=shared / "data",
        selection=Selection(limit=ITEMS_OF_EACH),
        skip_bad_rows=False,
    )
    made = (prompt for _, prompt in suite.prompts())
    return {(p.item.subject, p.item.index): p for p in made if not isinstance(p, BadItem)}


def test_contexts_and_continuations(shared: Path) -> None:
    """Every record: the same contexts, continuations and gold, character by character."""
    compared: Counter[str] = Counter()
    for (task, subject, shots), record in records(shared / "golden/requests.jsonl"):
        prompt = prompts(shared, task, shots)[subject, record["doc_id"]]
        assert list(prompt.contexts()) == record["contexts"]
        assert [pair.continuation for pair in prompt.item.pairs] == record["continuations"]
        assert is_gold(prompt.item, record["gold"])
        compared[task] += 1
    assert compared == {**dict.fromkeys(PLAIN, 25), "arc_challenge": 25 + 10, "mmlu": 2 * 171}


def is_gold(item: Item, gold: int | str) -> bool:
    """Whether what a record calls its target is right: an index, or the text of a choice."""
    if isinstance(gold, int):
        return gold in item.gold
    right = [item.pairs[each] for each in item.gold]
    return any(gold.strip() in (pair.choice.strip(), pair.continuation.strip()) for pair in right)


def test_gold(shared: Path) -> None:
    """Every scored record: the same choices are right, of TruthfulQA's mc2 all of them."""
    compared: Counter[str] = Counter()
    for (task, subject, _), record in records(shared / "golden/scores_stories260k.jsonl"):
        item = prompts(shared, task, 0)[subject, record["doc_id"]].item
        gold = record["gold_index"]
        assert item.gold == (tuple(gold) if isinstance(gold, list) else (gold,))
        assert len(item.pairs) == len(record["sums"])
        compared[task] += 1
    assert compared == {**dict.fromkeys(PLAIN, 25), "mmlu": 171}


def test_no_record_is_left_out(shared: Path) -> None:
    """Of every golden file all lines are compared: each is of a task that there is."""
    for file in (shared / "golden").glob("*.jsonl"):
        assert len(list(records(file))) == len(file.read_text().splitlines())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_token_splits(shared: Path, name: str) -> None:
    """Every record: the same ids of context and continuations, for each tokenizer."""
    tokenizer = load_tokenizer(str(shared / TOKENIZERS[name]))
    compared: Counter[str] = Counter()
    for (task, subject, shots), record in records(shared / "golden/token_splits.jsonl"):
        if record["tokenizer"] != name:
            continue
        prompt = prompts(shared, task, shots)[subject, record["doc_id"]]
        (item,) = encode_prompts([prompt], tokenizer)
        contexts = (
            record["context_ids"] * len(item.pairs)
            if len(record["context_ids"]) == 1
            else record["context_ids"]
        )
        assert [pair.context_ids for pair in item.pairs] == contexts
        assert [pair.forced_ids for pair in item.pairs] == record["continuation_ids"]
        assert not item.shifted
        compared[task] += 1
    assert set(compared) == {*PLAIN, "mmlu"}
    assert (compared["hellaswag"], compared["mmlu"]) == (8, 2 * 57)
