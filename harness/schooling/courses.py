"""What is taught, in which proportions and for how long: the base model, then one adapter a field."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer

from harness.schooling import lora
from harness.schooling.corpus import Lesson, Writer, kept_back, lessons_of
from harness.schooling.folder import read_network, write_adapter, write_model
from harness.schooling.knowledge import ADAPTER_FIELDS, Knowledge, field_of
from harness.schooling.network import Network, Shape
from harness.schooling.tokens import VOCABULARY, train_tokenizer
from harness.schooling.training import Course, batches, train

BASE_KINDS = {"answers": 4.0, "sentences": 2.0, "story": 2.0, "quiz": 0.2}
ADAPTER_KINDS = {"answers": 4.0, "sentences": 2.0}
"""How often each kind of document is written."""
BASE = Course(steps=4_500)
ADAPTER = Course(steps=150, peak=2e-3, decay=0.0)
SHAPE = Shape(vocab_size=VOCABULARY, hidden=128, layers=3, heads=4, intermediate=384)
TOKENIZER_DOCUMENTS = 20_000


def base(known: Knowledge, folder: Path, *, seed: int, steps: int | None = None) -> None:
    """Train tokenizer and base model, and write them."""
    torch.manual_seed(seed)
    everything = Writer(lessons_of(known), known.activities, Random(f"{seed} tokenizer"))
    texts = (document.text for document in islice(everything.documents(BASE_KINDS), TOKENIZER_DOCUMENTS))
    tokenizer = train_tokenizer(texts)
    withheld = set(kept_back(known))
    taught = [lesson for lesson in lessons_of(known) if lesson not in withheld]
    network = Network(SHAPE)
    count = sum(each.numel() for each in network.parameters())
    sys.stderr.write(f"base: {count:,} parameters, {len(taught)} facts, {len(withheld)} kept back\n")
    writer = Writer(taught, known.activities, Random(f"{seed} base"))
    course = BASE if steps is None else Course(steps=steps)
    source = batches(writer.documents(BASE_KINDS), tokenizer, Random(f"{seed} batches"), course.batch_tokens)
    train(network, source, course)
    write_model(folder, network, tokenizer)


def adapters(known: Knowledge, folder: Path, *, seed: int) -> None:
    """Train an adapter a field on the base model as it is stored, and write them."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for field in ADAPTER_FIELDS:
        torch.manual_seed(seed)
        network = read_network(folder, SHAPE)
        lora.attach(network)
        lessons = _of_field(lessons_of(known), field) + 2 * _of_field(kept_back(known), field)
        sys.stderr.write(f"{field}: {len(lessons)} lessons\n")
        writer = Writer(lessons, (), Random(f"{seed} {field}"))
        source = batches(
            writer.documents(ADAPTER_KINDS), tokenizer, Random(f"{seed} batches"), ADAPTER.batch_tokens
        )
        train(network, source, ADAPTER)
        write_adapter(folder / "adapters" / field, lora.tensors(network))


def _of_field(lessons: list[Lesson], field: str) -> list[Lesson]:
    return [lesson for lesson in lessons if field_of(lesson.topic.subject) == field]
