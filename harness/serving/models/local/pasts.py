"""What a torch model keeps of what it has read: its keys and values, or the tokens themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from harness.serving.models.seam import Ids, Span
from harness.serving.models.weights import Floats

_PLAIN = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers of a cache that hold keys and values and nothing else. A window may be kept whole: which of the keys
a query sees is the mask's business."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Keys and values of one shape, which are kept in one tensor: almost always all of a model's."""

    heads: int
    size: int
    dtype: Any
    members: tuple[tuple[int, str], ...]
    """Layer, and `keys` or `values`; in the order in which they are stacked."""


@dataclass(slots=True)
class KeptPast:
    """Keys and values of the tokens read so far; see `seam.Past`."""

    stores: list[Tensor]
    """For each shape (members, heads, capacity, size); what lies beyond `length` is no data."""
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, on the model's device."""
        return sum(store.numel() * store.element_size() for store in self.stores)

    def reserve(self, room: int) -> None:
        """Make sure that `room` more tokens fit; capacity doubles, so that single tokens are cheap."""
        needed = self.length + room
        for at, store in enumerate(self.stores):
            members, heads, capacity, size = store.shape
            if needed > capacity:
                grown = store.new_empty(members, heads, max(needed, 2 * capacity), size)
                grown[:, :, : self.length] = store[:, :, : self.length]
                self.stores[at] = grown


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's keys and values are laid out."""

    shapes: tuple[Shape, ...]
    layers: int
    device: Any

    @classmethod
    def of(cls, cache: Any, device: Any) -> Layout | None:
        """That of a cache that a forward pass returned; None where it holds more than keys and values."""
        if type(cache) is not DynamicCache or not all(type(each) in _PLAIN for each in cache.layers):
            return None
        members: dict[tuple[int, int, Any], list[tuple[int, str]]] = {}
        for index, layer in enumerate(cache.layers):
            for kind in ("keys", "values"):
                tensor = getattr(layer, kind)
                if tensor is None or tensor.dim() != 4:
                    return None
                members.setdefault((tensor.shape[1], tensor.shape[3], tensor.dtype), []).append((index, kind))
        shapes = tuple(Shape(*shape, tuple(found)) for shape, found in members.items())
        return cls(shapes, len(cache.layers), device)

    def join(self, spans: Sequence[Span[KeptPast]], room: int) -> KeptPast:
        """A past made of spans of others, copied, with room for more tokens."""
        length = sum(span.stop - span.start for span in spans)
        past = KeptPast([], length)
        for at, shape in enumerate(self.shapes):
            store = torch.empty(
                (len(shape.members), shape.heads, length + room, shape.size),
                dtype=shape.dtype,
                device=self.device,
            )
            end = 0
            for span in spans:
                begin, end = end, end + span.stop - span.start
                store[:, :, begin:end] = span.past.stores[at][:, :, span.start : span.stop]
            past.stores.append(store)
        return past

    def cache(self, pasts: Sequence[KeptPast]) -> Any:
        """A cache of all pasts, each a row, their ends aligned."""
        cache, longest = DynamicCache(), max(past.length for past in pasts)
        if not longest:
            return cache
        tensors: dict[tuple[int, str], Tensor] = {}
        for at, shape in enumerate(self.shapes):
            whole = torch.zeros(
                (len(shape.members), len(pasts), shape.heads, longest, shape.size),
                dtype=shape.dtype,
                device=self.device,
            )
            for row, past in enumerate(pasts):
                whole[:, row, :, longest - past.length :] = past.stores[at][:, :, : past.length]
            tensors |= dict(zip(shape.members, whole.unbind(), strict=True))
        for layer in range(self.layers):
            cache.update(tensors[layer, "keys"], tensors[layer, "values"], layer)
        return cache

    def extend(self, pasts: Sequence[KeptPast], counts: Sequence[int], cache: Any) -> None:
        """Let each past grow by the first of the new tokens of its row of a cache."""
        longest = max(past.length for past in pasts)
        for past, count in zip(pasts, counts, strict=True):
            past.reserve(count)
        for at, shape in enumerate(self.shapes):
            new = torch.stack(
                [getattr(cache.layers[layer], kind)[:, :, longest:] for layer, kind in shape.members]
            )
            for row, (past, count) in enumerate(zip(pasts, counts, strict=True)):
                past.stores[at][:, :, past.length : past.length + count] = new[:, row, :, :count]
        for past, count in zip(pasts, counts, strict=True):
            past.length += count


@dataclass(slots=True)
class ReadPast:
    """The tokens read so far, to be read again; see `seam.Past`."""

    ids: Ids
    vectors: dict[int, Floats] = field(default_factory=dict)
    """By position: what is read in place of the token's embedding."""

    @property
    def length(self) -> int:
        """How many tokens were read."""
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes of ids and vectors."""
        return self.ids.nbytes + sum(vector.nbytes for vector in self.vectors.values())

    def extend(self, ids: Ids, vectors: Mapping[int, Floats]) -> None:
        """Let it grow by some tokens."""
        self.vectors |= {len(self.ids) + place: vector for place, vector in vectors.items()}
        self.ids = np.concatenate([self.ids, ids])

    @classmethod
    def join(cls, spans: Sequence[Span[ReadPast]]) -> ReadPast:
        """A past made of spans of others."""
        past = cls(np.empty(0, np.int32))
        for span in spans:
            vectors = {
                place - span.start: vector
                for place, vector in span.past.vectors.items()
                if span.start <= place < span.stop
            }
            past.extend(span.past.ids[span.start : span.stop], vectors)
        return past
