"""A Llama-architecture language model in numpy: float32, keys and values kept, grouped queries.

It knows arrays only: no text, no HTTP, no cache. An adapter is a model of its own that shares with its base
all weights that it does not replace. The tokens of one `feed` are one block of queries, and memory grows with
a block times what was read before it, never with the square of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from harness.serving.models.adapters import Adapter
from harness.serving.models.adapting import adapted_ends, adapted_linear, adapted_norm
from harness.serving.models.config import LlamaConfig, Rope, read_config
from harness.serving.models.modules import Embedding, Linear
from harness.serving.models.seam import Segment, Span
from harness.serving.models.weights import Floats, Tensors

BLOCK = 64
"""Tokens a `feed`. Measured on a 450-token prompt of a 260k-parameter model: 64 and 128 are equally fast, 32
and 256 slower by a fifth; the smaller of the two shares shorter prefixes."""


@dataclass(slots=True)
class KeysValues:
    """Keys and values of the tokens read so far; see `seam.Past`."""

    keys: Floats
    """(layers, key-value heads, capacity, head dimension); what lies beyond `length` is no data."""
    values: Floats
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.keys.nbytes + self.values.nbytes

    def reserve(self, room: int) -> None:
        """Make sure that `room` more tokens fit; capacity doubles, so that single tokens are cheap."""
        needed, capacity = self.length + room, self.keys.shape[2]
        if needed > capacity:
            self.keys = _resized(self.keys, self.length, max(needed, 2 * capacity))
            self.values = _resized(self.values, self.length, max(needed, 2 * capacity))


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Floats
    query_key_value: Linear
    output: Linear
    mlp_norm: Floats
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class _Batch:
    """What every layer needs to know of the tokens being read, those of all segments in one row."""

    pasts: Sequence[KeysValues]
    parts: Sequence[slice]
    """The tokens of each past."""
    cos: Floats
    """(tokens, 1, half a head's dimensions), like `sin`."""
    sin: Floats


class LlamaModel:
    """A `seam.Model` whose weights are numpy arrays."""

    def __init__(self, config: LlamaConfig, tensors: Tensors, *, block: int = BLOCK) -> None:
        """Take the weights out of `tensors`; a missing or misshapen one is a UsageError."""
        self._config = config
        table = tensors.take("model.embed_tokens.weight", config.vocab_size, config.hidden)
        self._embedding = Embedding(table)
        self._layers = [_layer(config, tensors, index) for index in range(config.layers)]
        self._norm = tensors.take("model.norm.weight", config.hidden)
        own = None if config.tied else tensors.take("lm_head.weight", config.vocab_size, config.hidden)
        self._head = Linear((table if own is None else own,))
        self._frequencies = frequencies(config.rope, config.head_dim)
        self._block = block

    def adapted(self, adapter: Adapter) -> LlamaModel:
        """This model with an adapter; it shares the weights.

        Raises:
            UsageError: the adapter is for another model.
        """
        model = copy(self)
        model._embedding, model._head = adapted_ends(self._embedding, self._head, adapter)
        model._layers = [
            _adapted(layer, adapter, index, self._config) for index, layer in enumerate(self._layers)
        ]
        model._norm = adapted_norm(self._norm, adapter, "model.norm")
        adapter.check_used_up()
        return model

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self._config.vocab_size

    @property
    def hidden(self) -> int:
        """Columns of the embedding."""
        return self._config.hidden

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
        """Tokens that a segment should bring at most."""
        return self._block

    def join(self, spans: Sequence[Span[KeysValues]], room: int) -> KeysValues:
        """A past made of spans of others, copied, with room for more tokens."""
        config, length = self._config, sum(span.stop - span.start for span in spans)
        shape = (config.layers, config.kv_heads, length + room, config.head_dim)
        past = KeysValues(np.empty(shape, np.float32), np.empty(shape, np.float32), length)
        at = 0
        for span in spans:
            end = at + span.stop - span.start
            past.keys[:, :, at:end] = span.past.keys[:, :, span.start : span.stop]
            past.values[:, :, at:end] = span.past.values[:, :, span.start : span.stop]
            at = end
        return past

    def feed(self, segments: Sequence[Segment[KeysValues]]) -> list[Floats]:
        """Read each segment after its past; logits after its last tokens, (rows, vocabulary) each.

        The numbers of a segment are the same to the bit whatever else is read with it.
        """
        x, batch = self._begin(segments)
        with np.errstate(over="ignore"):  # exp of a very negative gate: its sigmoid is 0, as it should be
            for index, layer in enumerate(self._layers):
                x = x + self._attend(index, layer, x, batch)
                x = x + self._transform(layer, x, batch)
        logits: list[Floats] = []
        for segment, part in zip(segments, batch.parts, strict=True):
            segment.past.length += len(segment.ids)
            last = x[part.stop - segment.rows : part.stop]
            # The last row by itself: it is kept, and must not depend on how many rows were asked for.
            apart = max(0, len(last) - 1)
            rows = [each for each in (slice(0, apart), slice(apart, len(last))) if each.stop > each.start]
            logits.append(self._head(self._normed(last, self._norm), rows))
        return logits

    def _begin(self, segments: Sequence[Segment[KeysValues]]) -> tuple[Floats, _Batch]:
        """The embeddings of all tokens, (tokens, hidden), and where they stand."""
        ids = np.concatenate([segment.ids for segment in segments])
        parts, positions, at = [], [], 0
        for segment in segments:
            count = len(segment.ids)
            segment.past.reserve(count)
            positions.append(np.arange(segment.past.length, segment.past.length + count, dtype=np.float32))
            parts.append(slice(at, at + count))
            at += count
        x = self._embedding(ids, parts)
        for segment, part in zip(segments, parts, strict=True):
            for place, vector in segment.vectors.items():
                x[part.start + place] = vector
        angles = np.concatenate(positions)[:, None, None] * self._frequencies
        return x, _Batch([segment.past for segment in segments], parts, np.cos(angles), np.sin(angles))

    def _attend(self, index: int, layer: _Layer, x: Floats, batch: _Batch) -> Floats:
        config = self._config
        heads, kv_heads, size = config.heads, config.kv_heads, config.head_dim
        fused = layer.query_key_value(self._normed(x, layer.attention_norm), batch.parts)
        fused = fused.reshape(len(x), heads + 2 * kv_heads, size)
        turned = _rotated(fused[:, : heads + kv_heads], batch)
        queries = turned[:, :heads] * np.float32(size**-0.5)
        mixed = np.empty((len(x), heads * size), np.float32)
        for past, part in zip(batch.pasts, batch.parts, strict=True):
            end = past.length + part.stop - part.start
            past.keys[index, :, past.length : end] = turned[part, heads:].swapaxes(0, 1)
            past.values[index, :, past.length : end] = fused[part, heads + kv_heads :].swapaxes(0, 1)
            mixed[part] = _attention(queries[part], past.keys[index, :, :end], past.values[index, :, :end])
        return layer.output(mixed, batch.parts)

    def _transform(self, layer: _Layer, x: Floats, batch: _Batch) -> Floats:
        both = layer.gate_up(self._normed(x, layer.mlp_norm), batch.parts)
        gate, up = both[:, : self._config.intermediate], both[:, self._config.intermediate :]
        return layer.down(gate / (1 + np.exp(-gate)) * up, batch.parts)

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


def _attention(queries: Floats, keys: Floats, values: Floats) -> Floats:
    """Causal attention of the last tokens: (tokens, heads * size).

    Queries are (tokens, heads, size), scaled; keys and values (kv_heads, all tokens, size). All query heads
    that share a key head become rows of one matrix.
    """
    count, _, size = queries.shape
    kv_heads, length, _ = keys.shape
    rows = queries.reshape(count, kv_heads, -1, size).transpose(1, 2, 0, 3).reshape(kv_heads, -1, size)
    scores: Floats = rows @ keys.swapaxes(1, 2)
    if count > 1:  # only the segment's own keys can come after a query; the view writes into `scores`
        scores.reshape(kv_heads, -1, count, length)[..., -count:] += _mask(count)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    mixed: Floats = scores @ values
    mixed /= scores.sum(axis=-1, keepdims=True)
    mixed = mixed.reshape(kv_heads, -1, count, size).transpose(2, 0, 1, 3)
    return mixed.reshape(count, -1)


@lru_cache(maxsize=BLOCK)
def _mask(count: int) -> Floats:
    """(count, count): minus infinity where a key comes after the query."""
    return np.triu(np.full((count, count), -np.inf, np.float32), k=1)


def _rotated(x: Floats, batch: _Batch) -> Floats:
    """Turn each pair (i, i + half) of the last axis; x is (tokens, heads, head_dim)."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    turned = first * batch.cos - second * batch.sin, second * batch.cos + first * batch.sin
    return np.concatenate(turned, axis=-1)


def _resized(array: Floats, length: int, capacity: int) -> Floats:
    layers, heads, _, size = array.shape
    copy = np.empty((layers, heads, capacity, size), np.float32)
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

    def linear(field: str, *, bias: bool) -> Linear:
        """Projections of one input, stacked into one."""
        inputs, outputs = _projections(config)[field]
        weights = [tensors.take(f"{at}{name}.weight", size, inputs) for name, size in outputs.items()]
        biases = [tensors.take(f"{at}{name}.bias", size) for name, size in outputs.items() if bias]
        return Linear((np.concatenate(weights),), np.concatenate(biases) if biases else None)

    return _Layer(
        attention_norm=tensors.take(f"{at}input_layernorm.weight", config.hidden),
        query_key_value=linear("query_key_value", bias=config.attention_bias),
        output=linear("output", bias=config.attention_bias),
        mlp_norm=tensors.take(f"{at}post_attention_layernorm.weight", config.hidden),
        gate_up=linear("gate_up", bias=config.mlp_bias),
        down=linear("down", bias=config.mlp_bias),
    )


def _adapted(layer: _Layer, adapter: Adapter, index: int, config: LlamaConfig) -> _Layer:
    at = f"model.layers.{index}."

    def linear(field: str) -> Linear:
        outputs = {at + name: size for name, size in _projections(config)[field][1].items()}
        base: Linear = getattr(layer, field)
        return adapted_linear(base, adapter, outputs)

    return _Layer(
        attention_norm=adapted_norm(layer.attention_norm, adapter, f"{at}input_layernorm"),
        query_key_value=linear("query_key_value"),
        output=linear("output"),
        mlp_norm=adapted_norm(layer.mlp_norm, adapter, f"{at}post_attention_layernorm"),
        gate_up=linear("gate_up"),
        down=linear("down"),
    )
