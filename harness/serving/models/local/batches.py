"""Which segments are read together, and how they are padded to one shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.serving.models.local.network import Network
from harness.serving.models.seam import Ids, P, Segment
from harness.serving.models.weights import Floats

MAX_POSITIONS = 16_384
"""Rows times the longest of them: keys, values and scores of a forward pass grow with it."""
CHEAP = 256
"""New tokens, with their padding, of a batch that is not worth parting."""

Read = tuple[Ids, Mapping[int, Floats]]
"""Ids, and by place what is read instead."""


def batches(segments: Sequence[Segment[P]]) -> Iterator[list[int]]:
    """Places of the segments that are read together: alike in length, so that less than half is padding."""
    order = sorted(
        range(len(segments)), key=lambda at: (len(segments[at].ids), segments[at].past.length), reverse=True
    )
    batch: list[int] = []
    tokens = longest_past = 0
    for at in order:
        segment = segments[at]
        count = len(segments[batch[0]].ids) if batch else len(segment.ids)
        past = max(longest_past, segment.past.length)
        rows, new = len(batch) + 1, tokens + len(segment.ids)
        if batch and (rows * (past + count) > MAX_POSITIONS or rows * count > max(CHEAP, 2 * new)):
            yield batch
            batch, new, past = [], len(segment.ids), segment.past.length
        batch.append(at)
        tokens, longest_past = new, past
    if batch:
        yield batch


def padded(network: Network, reads: Sequence[Read]) -> Tensor:
    """Ids as (rows, tokens), padded on the right; where vectors stand in for some, all as vectors."""
    ids = np.zeros((len(reads), max(len(each) for each, _ in reads)), np.int64)
    for row, (each, _) in enumerate(reads):
        ids[row, : len(each)] = each
    inputs = torch.from_numpy(ids).to(network.device)
    if not any(vectors for _, vectors in reads):
        return inputs
    embedded = network.embed(inputs).clone()
    for row, (_, vectors) in enumerate(reads):
        for place, vector in vectors.items():
            embedded[row, place] = torch.as_tensor(vector, dtype=embedded.dtype, device=network.device)
    return embedded


def kept_places(wanted: Sequence[range], device: Any) -> tuple[Tensor, list[slice]]:
    """Places that some row wants logits of, at least one; for each row, where its own are among them."""
    places = sorted(set().union(*wanted)) or [0]
    where = {place: at for at, place in enumerate(places)}
    own = [slice(where[each[0]], where[each[-1]] + 1) if each else slice(0, 0) for each in wanted]
    return torch.tensor(places, device=device), own
