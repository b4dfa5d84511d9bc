"""The seam's models in torch: one that keeps keys and values, one that reads all again where that would err.

Which of the two serves a network is found out by trying: reading on after pasts of different lengths, in one
padded batch, must give what reading each sequence alone gives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from harness.serving.models.local.batches import MAX_POSITIONS, Read, batches, kept_places, padded
from harness.serving.models.local.network import Asked, Network, to_floats
from harness.serving.models.local.pasts import KeptPast, Layout, ReadPast
from harness.serving.models.local.quiet import quiet
from harness.serving.models.local.trying import keeps_rightly, probe
from harness.serving.models.seam import Segment, Span
from harness.serving.models.weights import Floats

logger = logging.getLogger(__name__)

BLOCK = 64
"""Tokens of a segment, as in numpy: what a step of the scheduler reads is then shared by several requests."""
REREAD_BLOCK = 512
"""Tokens of a segment where everything before it is read again: a step of the scheduler, so that a prompt is
read again as seldom as may be."""

M = TypeVar("M", bound="TorchModel")


class TorchModel:
    """What both kinds of models have in common: a network, and which of its adapters is switched on."""

    block: int

    def __init__(self, network: Network, vocab_size: int) -> None:
        self.network = network
        self.vocab_size = vocab_size
        self.hidden = network.hidden
        self.max_length = network.max_length
        self.eos_ids = network.eos_ids
        self._adapter: str | None = None

    def adapted(self: M, folder: Path) -> M:
        """This model with the LoRA adapter of a folder; both share the weights.

        Raises:
            UsageError: the folder holds no LoRA adapter of this model.
        """
        model = copy(self)
        model._adapter = self.network.adapters.load(folder)
        return model


class CachedModel(TorchModel):
    """A `seam.Model` that keeps keys and values."""

    block = BLOCK

    def __init__(self, network: Network, vocab_size: int, layout: Layout) -> None:
        super().__init__(network, vocab_size)
        self._layout = layout

    def join(self, spans: Sequence[Span[KeptPast]], room: int) -> KeptPast:
        """A past made of spans of others, copied, with room for more tokens."""
        return self._layout.join(spans, room)

    def feed(self, segments: Sequence[Segment[KeptPast]]) -> list[Floats]:
        """Read each segment after its past; logits after its last tokens, (rows, vocabulary) each."""
        logits: dict[int, Floats] = {}
        self.network.adapters.use(self._adapter)
        with torch.inference_mode():
            for batch in batches(segments):
                logits |= zip(batch, self._read([segments[at] for at in batch]), strict=True)
        return [logits[at] for at in range(len(segments))]

    def _read(self, segments: Sequence[Segment[KeptPast]]) -> list[Floats]:
        """One forward pass: pasts padded on the left, new tokens on the right, so that they meet."""
        pasts, counts = [each.past for each in segments], [len(each.ids) for each in segments]
        longest, most = max(past.length for past in pasts), max(counts)
        mask = np.zeros((len(segments), longest + most), np.int64)
        positions = np.zeros((len(segments), most), np.int64)
        for row, (past, count) in enumerate(zip(pasts, counts, strict=True)):
            mask[row, longest - past.length : longest + count] = 1
            # Padding must not be beyond the last position that was learnt.
            positions[row] = past.length + np.minimum(np.arange(most), count - 1)
        keep, own = kept_places(
            [range(len(s.ids) - s.rows, len(s.ids)) for s in segments], self.network.device
        )
        cache = self._layout.cache(pasts)
        logits = self.network(
            Asked(
                padded(self.network, [(each.ids, each.vectors) for each in segments]),
                torch.from_numpy(mask).to(self.network.device),
                keep,
                torch.from_numpy(positions).to(self.network.device),
                cache,
            )
        )
        self._layout.extend(pasts, counts, cache)
        return [to_floats(logits[row, rows]) for row, rows in enumerate(own)]


class RereadingModel(TorchModel):
    """A `seam.Model` that keeps the tokens alone, and reads all of them again each time, never padded."""

    block = REREAD_BLOCK

    def join(self, spans: Sequence[Span[ReadPast]], room: int) -> ReadPast:
        """A past made of spans of others."""
        return ReadPast.join(spans)

    def feed(self, segments: Sequence[Segment[ReadPast]]) -> list[Floats]:
        """Read each segment after its past; logits after its last tokens, (rows, vocabulary) each."""
        by_length: dict[int, list[int]] = {}
        for at, segment in enumerate(segments):
            if segment.rows:  # else there is nothing to compute yet
                by_length.setdefault(segment.past.length + len(segment.ids), []).append(at)
        logits: dict[int, Floats] = {}
        self.network.adapters.use(self._adapter)
        with torch.inference_mode():
            for length, places in by_length.items():
                rows = max(1, MAX_POSITIONS // length)
                for first in range(0, len(places), rows):
                    batch = places[first : first + rows]
                    logits |= zip(batch, self._read([segments[at] for at in batch]), strict=True)
        for segment in segments:
            segment.past.extend(segment.ids, segment.vectors)
        none = np.empty((0, self.vocab_size), np.float32)
        return [logits.get(at, none) for at in range(len(segments))]

    def _read(self, segments: Sequence[Segment[ReadPast]]) -> list[Floats]:
        reads: list[Read] = []
        for segment in segments:
            whole = ReadPast(segment.past.ids, dict(segment.past.vectors))
            whole.extend(segment.ids, segment.vectors)
            reads.append((whole.ids, whole.vectors))
        length = len(reads[0][0])
        keep, own = kept_places([range(length - each.rows, length) for each in segments], self.network.device)
        mask = torch.ones((len(reads), length), dtype=torch.int64, device=self.network.device)
        logits = self.network(Asked(padded(self.network, reads), mask, keep))
        return [to_floats(logits[row, rows]) for row, rows in enumerate(own)]


def served(network: Network) -> CachedModel | RereadingModel:
    """A network behind the seam.

    Raises:
        UsageError: it is no causal language model.
    """
    with quiet():
        found = probe(network)
        if found.layout is not None:
            cached = CachedModel(network, found.vocab_size, found.layout)
            if keeps_rightly(network, cached, found.ids):
                return cached
    logger.warning(
        "%s keeps more than keys and values of what it reads: every step reads the whole text again",
        network.folder,
    )
    return RereadingModel(network, found.vocab_size)
