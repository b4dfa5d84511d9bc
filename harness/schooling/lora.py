"""Low-rank adapters of the reference model, named as PEFT names them.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.schooling.network import Network

RANK = 8
ALPHA = 16
TARGETS = ("gate_proj", "up_proj", "down_proj")
"""Where facts are kept, as Geva et al. found ("Transformer Feed-Forward Layers Are Key-Value Memories", 2021,
arXiv:2012.14913). With the attention's projections too, other fields changed more for the same gain."""


class LowRank(nn.Module):
    """A frozen projection and, beside it, one of low rank: W x + (alpha / rank) B A x."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(RANK, base.in_features) * base.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (..., in) to outputs (..., out)."""
        y: Tensor = self.base(x) + (x @ self.a.T) @ self.b.T * (ALPHA / RANK)
        return y


def attach(network: Network) -> None:
    """Freeze the network, and put a low-rank projection beside each of its projections."""
    network.requires_grad_(False)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if name in TARGETS and isinstance(child, nn.Linear):
                setattr(module, name, LowRank(child))


def tensors(network: Network) -> dict[str, Tensor]:
    """The adapter's own tensors, by the names that PEFT stores them under."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, LowRank):
            found[f"base_model.model.{name}.lora_A.weight"] = module.a.detach()
            found[f"base_model.model.{name}.lora_B.weight"] = module.b.detach()
    return found
