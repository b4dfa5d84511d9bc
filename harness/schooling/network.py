"""The reference model in torch: a Llama whose parameters bear the names of the Hugging Face layout.

For training only; `harness.serving.models.llama` computes the same from the files that `folder.py` writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What `config.json` says of a model."""

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    max_length: int = 1024
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5


class Network(nn.Module):
    """Token ids (batch, tokens) to logits (batch, tokens, vocabulary); embedding and head are tied."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(shape.vocab_size, shape.hidden),
                "layers": nn.ModuleList(_Layer(shape) for _ in range(shape.layers)),
                "norm": nn.RMSNorm(shape.hidden, eps=shape.norm_eps),
            }
        )
        cos, sin = _rotations(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.apply(_initialise)

    def forward(self, ids: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Logits of what follows every position, or the `wanted` ones (n,) of the flattened batch."""
        count = ids.shape[1]
        x: Tensor = self.model["embed_tokens"](ids)
        for layer in self.model["layers"]:  # type: ignore[union-attr]
            x = layer(x, self.cos[:count], self.sin[:count])
        if wanted is not None:
            x = x.flatten(0, 1)[wanted]
        x = self.model["norm"](x)
        return x @ self.model["embed_tokens"].weight.T


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.mlp = _Gated(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._heads = shape.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(shape.hidden, shape.hidden, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(
            _rotated(q, cos, sin), _rotated(k, cos, sin), v, is_causal=True
        )
        y: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return y


class _Gated(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(
            module.weight, std=0.02 if isinstance(module, nn.Embedding) else module.weight.shape[1] ** -0.5
        )


def _rotations(shape: Shape) -> tuple[Tensor, Tensor]:
    size = shape.hidden // shape.heads
    frequencies = shape.rope_theta ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.arange(shape.max_length, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of the last axis of (batch, heads, tokens, size)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
