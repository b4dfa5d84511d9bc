"""The modules of a Llama with what an adapter changes in them; the rest is shared with the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.serving.models.adapters import Adapter, Change
from harness.serving.models.modules import Embedding, Linear, LowRank
from harness.serving.models.weights import Floats

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


def adapted_norm(weight: Floats, adapter: Adapter, module: str) -> Floats:
    """A norm's weight, the adapter's own where it has one."""
    return _either(weight, _own(adapter, module, weight.shape))


def adapted_linear(base: Linear, adapter: Adapter, outputs: Mapping[str, int]) -> Linear:
    """A projection, or several stacked into one, by their names; `outputs` says how many rows each has."""
    (stack,) = base.weights
    weights: list[Floats] = []
    biases: list[Floats] = []
    changes: list[Change | None] = []
    first = 0
    for module, size in outputs.items():
        rows = slice(first, first + size)
        stored = _own(adapter, module, stack[rows].shape)
        change = adapter.change(module, size, stack.shape[1])
        if change is not None and stored is None:
            change = _taken_out(adapter, change, stack[rows])
        weights.append(_either(stack[rows], stored))
        if base.bias is not None:
            biases.append(_either(base.bias[rows], adapter.base(module, (size,), "bias")))
        changes.append(change)
        first += size
    whole = all(np.shares_memory(weight, stack) for weight in weights)
    return _changed(
        replace(
            base,
            weights=base.weights if whole else tuple(weights),
            bias=np.concatenate(biases) if biases else None,
        ),
        weights,
        changes,
    )


def adapted_ends(embedding: Embedding, head: Linear, adapter: Adapter) -> tuple[Embedding, Linear]:
    """The embedding and the output layer.

    Where they are tied, a base weight that the adapter stores, and the rows that it stores of the embedding,
    are both modules'; all else is the one module's alone that it is named after, as in PEFT.
    """
    table, (matrix,) = embedding.weight, head.weights
    tied = matrix is table
    whole = adapter.whole(EMBEDDING, table.shape), adapter.whole(HEAD, table.shape)
    base = adapter.base(EMBEDDING, table.shape), adapter.base(HEAD, table.shape)
    if tied:
        both = base[0] if base[1] is None else base[1]
        base = both, both
    own = [_either(table if at == 0 else matrix, _either_none(whole[at], base[at])) for at in (0, 1)]
    rows = adapter.rows(EMBEDDING, *table.shape)
    head_rows = adapter.rows(HEAD, *table.shape)
    if head_rows is None and tied:
        head_rows = rows
    change = adapter.change(HEAD, *table.shape)
    if change is not None and base[1] is None and adapter.config.taken_from_base is not None:
        if tied:
            raise adapter.refuse(
                "init_lora_weights", f"is {adapter.config.init_lora_weights!r} on a tied lm_head"
            )
        change = _taken_out(adapter, change, own[1])
    new_head = replace(head, weights=(own[1],), rows=head_rows)
    return (
        _adapted_embedding(replace(embedding, weight=own[0], rows=rows), adapter),
        _changed(new_head, [own[1]], [change]),
    )


def _adapted_embedding(embedding: Embedding, adapter: Adapter) -> Embedding:
    change = adapter.embedding_change(EMBEDDING, *embedding.weight.shape)
    if change is None:
        return embedding
    gain = _gain(embedding.weight.T, change)
    return replace(embedding, low_rank=change.low_rank, gain=gain)


def _own(adapter: Adapter, module: str, shape: tuple[int, ...]) -> Floats | None:
    return _either_none(adapter.whole(module, shape), adapter.base(module, shape))


def _either_none(first: Floats | None, second: Floats | None) -> Floats | None:
    return second if first is None else first


def _either(base: Floats, own: Floats | None) -> Floats:
    """The adapter's own, unless it is the same as the base's."""
    return base if own is None or np.array_equal(own, base) else own


def _changed(linear: Linear, weights: list[Floats], changes: list[Change | None]) -> Linear:
    """A stacked projection with what is added to each part: each reads its own ranks only."""
    sizes = [len(weight) for weight in weights]
    edges = np.cumsum([0, *sizes])
    bias, gain = linear.bias, None
    for at, (weight, change) in enumerate(zip(weights, changes, strict=True)):
        rows = slice(edges[at], edges[at + 1])
        if change is not None and change.bias is not None:
            bias = np.zeros(edges[-1], np.float32) if bias is None else bias.copy()
            bias[rows] += change.bias
        if change is not None and change.magnitude is not None:
            gain = np.ones(edges[-1], np.float32) if gain is None else gain
            gain[rows] = _gain(weight, change)
    return replace(linear, bias=bias, gain=gain, low_rank=_stacked(sizes, changes))


def _stacked(sizes: list[int], changes: list[Change | None]) -> LowRank | None:
    downs = [change.low_rank[0] for change in changes if change is not None]
    if not downs:
        return None
    up = np.zeros((sum(sizes), sum(map(len, downs))), np.float32)
    row = rank = 0
    for size, change in zip(sizes, changes, strict=True):
        if change is not None:
            own = change.low_rank[1]
            up[row : row + size, rank : rank + own.shape[1]] = own
            rank += own.shape[1]
        row += size
    return np.concatenate(downs), up


def _gain(weight: Floats, change: Change) -> Floats | None:
    """DoRA: the norms that the rows should have over those they have, (outputs,)."""
    if change.magnitude is None:
        return None
    down, up = change.low_rank
    gain: Floats = change.magnitude / np.linalg.norm(weight + up @ down, axis=1)
    return gain


def _taken_out(adapter: Adapter, change: Change, weight: Floats) -> Change:
    """The change less what PiSSA or OLoRA took out of the base when training began.

    Sources: Meng et al., "PiSSA", 2024, arXiv:2404.02948; Büyükakyüz, "OLoRA", 2024, arXiv:2406.01775.
    """
    start = adapter.config.taken_from_base
    if start is None:
        return change
    down, up = change.low_rank
    rank = len(down)
    if start == "pissa":
        left, sizes, right = np.linalg.svd(weight, full_matrices=False)
        first, second = left[:, :rank] * sizes[:rank], right[:rank]
    else:
        left, right = np.linalg.qr(weight)
        first, second = left[:, :rank] * change.scale, right[:rank]
    low_rank = np.concatenate([down, second]), np.concatenate([up, -first], axis=1)
    return replace(change, low_rank=low_rank)
