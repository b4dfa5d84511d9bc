"""Training in torch: documents to padded batches, and the loop, for the base model and for an adapter.

Seeded: the same seed, thread count and torch on the same kind of processor give the same weights.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.nn import functional as F

from harness.schooling.corpus import Document
from harness.schooling.network import Network

POOL = 1024
"""Documents that are sorted by length together, so that a batch has little padding."""
BETWEEN = 0.1
"""Weight in the loss of tokens that are no answers; theirs is 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How long and how hard to train."""

    steps: int
    batch_tokens: int = 2048
    peak: float = 3e-3
    """Learning rate after the warm-up; it falls to a twentieth along a cosine."""
    warm_up: int = 100
    decay: float = 0.02
    """Weight decay."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of about one length."""

    ids: Tensor
    """(documents, tokens), padded with 0."""
    weights: Tensor
    """Of each token in the loss, (documents, tokens); 0 for padding."""


def batches(
    documents: Iterator[Document], tokenizer: Tokenizer, random: Random, tokens: int
) -> Iterator[Batch]:
    """Batches of at most so many tokens, without end."""
    while True:
        pool = list(islice(documents, POOL))
        encoded = tokenizer.encode_batch([document.text for document in pool])
        rows = sorted(
            ((each.ids, _weights(each, document)) for each, document in zip(encoded, pool, strict=True)),
            key=lambda row: len(row[0]),
        )
        cut = list(_cut(rows, tokens))
        random.shuffle(cut)
        for some in cut:
            yield _padded(some)


def train(network: Network, source: Iterator[Batch], course: Course) -> None:
    """Train the parameters that require gradients, in place; progress goes to stderr."""
    parameters = [each for each in network.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=course.peak, betas=(0.9, 0.98), weight_decay=course.decay)
    begun, mean = time.monotonic(), 0.0
    for step, batch in enumerate(islice(source, course.steps)):
        for group in optimiser.param_groups:
            group["lr"] = _rate(course, step)
        loss = _loss(network, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        mean += (loss.item() - mean) / min(step + 1, 100)
        if (step + 1) % 250 == 0:
            sys.stderr.write(f"  step {step + 1:,}: loss {mean:.3f}, {time.monotonic() - begun:.0f} s\n")


def _loss(network: Network, batch: Batch) -> Tensor:
    """Weighted mean of the cross entropy, in nats."""
    weights = batch.weights[:, 1:].flatten()
    counted = weights.nonzero()[:, 0]
    logits = network(batch.ids[:, :-1], counted)
    losses = F.cross_entropy(logits, batch.ids[:, 1:].flatten()[counted], reduction="none")
    return (losses * weights[counted]).sum() / weights.sum()


def _rate(course: Course, step: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / course.steps))
    return course.peak * min(1.0, (step + 1) / course.warm_up) * (0.05 + 0.95 * cosine)


def _weights(encoded: Encoding, document: Document) -> list[float]:
    """Of each token: whether it reaches into an answer."""
    weights = [BETWEEN] * len(encoded.ids)
    for index, (start, end) in enumerate(encoded.offsets):
        if any(start < last and end > first for first, last in document.answers):
            weights[index] = 1.0
    return weights


def _cut(
    rows: Sequence[tuple[list[int], list[float]]], tokens: int
) -> Iterator[list[tuple[list[int], list[float]]]]:
    """Rows, sorted by length, in batches that hold at most so many tokens once padded."""
    batch: list[tuple[list[int], list[float]]] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row[0]) > tokens:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _padded(rows: Sequence[tuple[list[int], list[float]]]) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    return Batch(
        torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids, _ in rows]),
        torch.tensor([[*weights, *[0.0] * (longest - len(weights))] for _, weights in rows]),
    )
