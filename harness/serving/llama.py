"""A Llama-architecture language model in numpy: float32, keys and values kept, grouped queries.

It knows arrays only: no text, no HTTP, no cache. An adapter is a model of its own that shares all weights
but the adapter's with its base. The tokens of one `feed` are one block of queries, and
memory grows with a block times what was read before it, never with the square of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.serving.adapters import Adapter
from harness.serving.config import LlamaConfig, Rope, read_config
from harness.serving.model import Ids
from harness.serving.weights import Floats, Tensors

BLOCK = 64
"""Tokens a `feed`. Measured on a 450-token prompt of a 260k-parameter model: 64 and 128 are equally fast, 32
and 256 slower by a fifth; the smaller of the two shares shorter prefixes."""


@dataclass(slots=True)
class KeysValues:
    """Keys and values of the tokens read so far; see `model.Past`."""

    keys: Floats
    """(layers, key-value heads, capacity, head dimension); what lies beyond `length` is no data."""
    values: Floats
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.keys.nbytes + self.values.nbytes

    def branch(self, length: int, room: int) -> KeysValues:
        """A copy of the first `length` tokens with room for more."""
        return KeysValues(_resized(self.keys, length, room), _resized(self.values, length, room), length)

    def reserve(self, room: int) -> None:
        """Make sure that `room` more tokens fit; capacity doubles, so that single tokens are cheap."""
        needed, capacity = self.length + room, self.keys.shape[2]
        if needed > capacity:
            room = max(needed, 2 * capacity) - self.length
            self.keys = _resized(self.keys, self.length, room)
            self.values = _resized(self.values, self.length, room)


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: Floats
    """(outputs, inputs), as it is stored."""
    bias: Floats | None
    low_rank: tuple[Floats, Floats] | None = None
    """An adapter's (rank, inputs) and (outputs, rank), whose product is added to the weight."""

    def __call__(self, x: Floats) -> Floats:
        y: Floats = x @ self.weight.T
        if self.low_rank is not None:
            down, up = self.low_rank
            y += (x @ down.T) @ up.T
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Floats
    query_key_value: _Linear
    output: _Linear
    mlp_norm: Floats
    gate_up: _Linear
    down: _Linear


@dataclass(frozen=True, slots=True)
class _Block:
    """What every layer needs to know of the tokens being read."""

    cos: Floats
    """(tokens, 1, half a head's dimensions), like `sin`."""
    sin: Floats
    mask: Floats
    """(tokens, tokens): minus infinity where a key comes after the query."""


class LlamaModel:
    """A `model.Model` whose weights are numpy arrays."""

    def __init__(self, config: LlamaConfig, tensors: Tensors, *, block: int = BLOCK) -> None:
        """Take the weights out of `tensors`; a missing or misshapen one is a UsageError."""
        self._config = config
        self._embedding = tensors.take("model.embed_tokens.weight", config.vocab_size, config.hidden)
        self._layers = [_layer(config, tensors, index) for index in range(config.layers)]
        self._norm = tensors.take("model.norm.weight", config.hidden)
        self._head = (
            self._embedding
            if config.tied
            else tensors.take("lm_head.weight", config.vocab_size, config.hidden)
        )
        self._frequencies = frequencies(config.rope, config.head_dim)
        self._block = block

    def adapted(self, adapter: Adapter) -> LlamaModel:
        """This model with an adapter; it shares the weights.

        Raises:
            UsageError: the adapter is for another model.
        """
        model = copy(self)
        model._layers = [
            replace(
                layer,
                **{
                    field: replace(getattr(layer, field), low_rank=_low_rank(adapter, index, inputs, outputs))
                    for field, (inputs, outputs) in _projections(self._config).items()
                },
            )
            for index, layer in enumerate(self._layers)
        ]
        adapter.check_used_up()
        return model

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self._config.vocab_size

    @property
    def max_length(self) -> int:
        """`max_position_embeddings`."""
        return self._config.max_length

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a generated text."""
        return self._config.eos_ids

    @property
    def block(self) -> int:
        """Tokens that one `feed` should bring at most."""
        return self._block

    def start(self, room: int) -> KeysValues:
        """An empty past with room for some tokens."""
        shape = (self._config.layers, self._config.kv_heads, room, self._config.head_dim)
        return KeysValues(np.empty(shape, np.float32), np.empty(shape, np.float32), 0)

    def feed(self, past: KeysValues, ids: Sequence[int] | Ids, *, last_only: bool) -> Floats:
        """Read `ids` after `past`; logits of what follows, (ids or 1, vocabulary)."""
        x: Floats = self._embedding[np.asarray(ids)]
        block = self._begin(past.length, len(x))
        past.reserve(len(x))
        with np.errstate(over="ignore"):  # exp of a very negative gate: its sigmoid is 0, as it should be
            for index, layer in enumerate(self._layers):
                x = x + self._attend(index, layer, x, past, block)
                x = x + self._transform(layer, x)
        past.length += len(x)
        if last_only:
            x = x[-1:]
        logits: Floats = self._normed(x, self._norm) @ self._head.T
        return logits

    def _begin(self, start: int, count: int) -> _Block:
        positions = np.arange(start, start + count, dtype=np.float32)
        angles = positions[:, None, None] * self._frequencies
        mask = np.triu(np.full((count, count), -np.inf, np.float32), k=1)
        return _Block(np.cos(angles), np.sin(angles), mask)

    def _attend(self, index: int, layer: _Layer, x: Floats, past: KeysValues, block: _Block) -> Floats:
        config, count = self._config, len(x)
        heads, kv_heads, size = config.heads, config.kv_heads, config.head_dim
        fused = layer.query_key_value(self._normed(x, layer.attention_norm))
        fused = fused.reshape(count, heads + 2 * kv_heads, size)
        turned = _rotated(fused[:, : heads + kv_heads], block)
        end = past.length + count
        past.keys[index, :, past.length : end] = turned[:, heads:].swapaxes(0, 1)
        past.values[index, :, past.length : end] = fused[:, heads + kv_heads :].swapaxes(0, 1)
        queries = turned[:, :heads] * np.float32(size**-0.5)
        # All query heads that share a key head become rows of one matrix: (kv_heads, group * count, size).
        queries = queries.reshape(count, kv_heads, -1, size).transpose(1, 2, 0, 3)
        queries = queries.reshape(kv_heads, -1, size)
        mixed = _attention(queries, past.keys[index, :, :end], past.values[index, :, :end], block.mask)
        mixed = mixed.reshape(kv_heads, -1, count, size).transpose(2, 0, 1, 3)
        return layer.output(mixed.reshape(count, heads * size))

    def _transform(self, layer: _Layer, x: Floats) -> Floats:
        both = layer.gate_up(self._normed(x, layer.mlp_norm))
        gate, up = both[:, : self._config.intermediate], both[:, self._config.intermediate :]
        return layer.down(gate / (1 + np.exp(-gate)) * up)

    def _normed(self, x: Floats, weight: Floats) -> Floats:
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self._config.norm_eps))
        normed: Floats = x / scale * weight
        return normed


def load_llama(folder: Path) -> LlamaModel:
    """The model of a Hugging Face folder.

    Raises:
        UsageError: a file is missing or broken, or the model is no plain Llama; names file and key.
    """
    return LlamaModel(read_config(folder), Tensors(folder))


def frequencies(rope: Rope, head_dim: int) -> Floats:
    """Radians a position by which each pair of dimensions turns: (head_dim / 2,)."""
    plain = 1 / np.float32(rope.theta) ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    if rope.kind == "default":
        return np.asarray(plain, np.float32)
    slowed = plain / np.float32(rope.factor)
    if rope.kind == "linear":
        return np.asarray(slowed, np.float32)
    # llama3: waves that fit the original length often stay, those that hardly fit it are slowed, and
    # between the two the share that stays falls linearly.
    turns = rope.original_length * plain / (2 * np.pi)
    stays = np.clip((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0, 1)
    return np.asarray(stays * plain + (1 - stays) * slowed, np.float32)


def _attention(queries: Floats, keys: Floats, values: Floats, mask: Floats) -> Floats:
    """Causal attention of the last tokens.

    Queries and result are (kv_heads, group * tokens, size), keys and values (kv_heads, all tokens, size).
    """
    count = len(mask)
    scores: Floats = queries @ keys.swapaxes(1, 2)
    # Only the block's own keys can come after a query; the view writes into `scores`.
    scores.reshape(len(keys), -1, count, keys.shape[1])[..., -count:] += mask
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    mixed: Floats = scores @ values
    mixed /= scores.sum(axis=-1, keepdims=True)
    return mixed


def _rotated(x: Floats, block: _Block) -> Floats:
    """Turn each pair (i, i + half) of the last axis; x is (tokens, heads, head_dim)."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    turned = first * block.cos - second * block.sin, second * block.cos + first * block.sin
    return np.concatenate(turned, axis=-1)


def _resized(array: Floats, length: int, room: int) -> Floats:
    layers, heads, _, size = array.shape
    copy = np.empty((layers, heads, length + room, size), np.float32)
    copy[:, :, :length] = array[:, :, :length]
    return copy


def _projections(config: LlamaConfig) -> Mapping[str, tuple[int, Mapping[str, int]]]:
    """Inputs of each stacked projection of a layer, and the outputs of each part by its name in the files."""
    queries, shared = config.heads * config.head_dim, config.kv_heads * config.head_dim
    inner = config.intermediate
    attention = {"self_attn.q_proj": queries, "self_attn.k_proj": shared, "self_attn.v_proj": shared}
    return {
        "query_key_value": (config.hidden, attention),
        "output": (queries, {"self_attn.o_proj": config.hidden}),
        "gate_up": (config.hidden, {"mlp.gate_proj": inner, "mlp.up_proj": inner}),
        "down": (inner, {"mlp.down_proj": config.hidden}),
    }


def _layer(config: LlamaConfig, tensors: Tensors, index: int) -> _Layer:
    at = f"model.layers.{index}."

    def linear(field: str, *, bias: bool) -> _Linear:
        """Projections of one input, stacked into one."""
        inputs, outputs = _projections(config)[field]
        weights = [tensors.take(f"{at}{name}.weight", size, inputs) for name, size in outputs.items()]
        biases = [tensors.take(f"{at}{name}.bias", size) for name, size in outputs.items() if bias]
        return _Linear(np.concatenate(weights), np.concatenate(biases) if biases else None)

    return _Layer(
        attention_norm=tensors.take(f"{at}input_layernorm.weight", config.hidden),
        query_key_value=linear("query_key_value", bias=config.attention_bias),
        output=linear("output", bias=config.attention_bias),
        mlp_norm=tensors.take(f"{at}post_attention_layernorm.weight", config.hidden),
        gate_up=linear("gate_up", bias=config.mlp_bias),
        down=linear("down", bias=config.mlp_bias),
    )


def _low_rank(
    adapter: Adapter, layer: int, inputs: int, outputs: Mapping[str, int]
) -> tuple[Floats, Floats] | None:
    """An adapter's matrices for one stacked projection: each part reads its own ranks only."""
    downs: list[Floats] = []
    ups: list[tuple[int, int, Floats]] = []
    row = rank = 0
    for name, size in outputs.items():
        found = adapter.take(f"model.layers.{layer}.{name}", inputs, size)
        if found is not None:
            downs.append(found[0])
            ups.append((row, rank, found[1]))
            rank += len(found[0])
        row += size
    if not downs:
        return None
    up = np.zeros((row, rank), np.float32)
    for first_row, first_rank, matrix in ups:
        up[first_row : first_row + matrix.shape[0], first_rank : first_rank + matrix.shape[1]] = matrix
    return np.concatenate(downs), up
