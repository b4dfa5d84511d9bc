"""LoRA adapters in the layout of PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685. What cannot
be computed here is refused by file and key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from harness.errors import UsageError
from harness.serving.weights import Floats, read_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_REFUSED = (
    "use_dora",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "alora_invocation_tokens",
)
"""Keys whose meaning is not computed here; fine while they are absent, false or empty."""


class _ConfigFile(msgspec.Struct):
    """The keys of `adapter_config.json` that matter here."""

    peft_type: str
    r: Annotated[int, msgspec.Meta(ge=1)]
    lora_alpha: float
    use_rslora: bool = False
    bias: str = "none"
    use_dora: bool = False
    fan_in_fan_out: bool = False
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, Any] | None = None
    alpha_pattern: dict[str, Any] | None = None
    alora_invocation_tokens: list[int] | None = None


class Adapter:
    """The matrices of one adapter, taken out one pair at a time."""

    def __init__(self, folder: Path) -> None:
        """Read the folder.

        Raises:
            UsageError: a file is missing or broken, or the adapter is no plain LoRA.
        """
        self._folder = folder
        config = _config(folder / CONFIG)
        self._rank = config.r
        self._scale = np.float32(config.lora_alpha / config.r ** (0.5 if config.use_rslora else 1))
        self._left = read_tensors(folder / WEIGHTS, "--adapters")
        if not self._left:
            raise UsageError(f"--adapters: {folder / WEIGHTS}: holds no tensors")

    def take(self, module: str, inputs: int, outputs: int) -> tuple[Floats, Floats] | None:
        """The (rank, inputs) and the scaled (outputs, rank) matrix of a module; None where it has none.

        Raises:
            UsageError: one of the two is missing, or their shapes are another model's.
        """
        down = self._left.pop(f"{_PREFIX}{module}.lora_A.weight", None)
        up = self._left.pop(f"{_PREFIX}{module}.lora_B.weight", None)
        if down is None and up is None:
            return None
        if down is None or up is None:
            raise UsageError(f"--adapters: {self._folder}: {module} has only one of lora_A and lora_B")
        if down.shape != (self._rank, inputs) or up.shape != (outputs, self._rank):
            raise UsageError(
                f"--adapters: {self._folder}: {module}: lora_A and lora_B have the shapes {down.shape} and"
                f" {up.shape}; by {CONFIG} and the model they should be {(self._rank, inputs)} and"
                f" {(outputs, self._rank)}"
            )
        return down, up * self._scale

    def check_used_up(self) -> None:
        """Raise `UsageError` where matrices are left that the model has no place for."""
        if self._left:
            raise UsageError(
                f"--adapters: {self._folder}: the model has no place for {min(self._left)!r};"
                " the adapter is for another model"
            )


def adapter_folders(folder: Path) -> dict[str, Path]:
    """The adapters below a folder, by route: each folder with an `adapter_config.json` is one, named by it.

    Raises:
        UsageError: there is none.
    """
    found = {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{CONFIG}"))}
    if not found:
        raise UsageError(f"--adapters {folder}: no folder with an {CONFIG} in it")
    return found


def _config(file: Path) -> _ConfigFile:
    try:
        config = msgspec.json.decode(file.read_bytes(), type=_ConfigFile)
    except OSError as error:
        raise UsageError(f"--adapters: {file}: cannot be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"--adapters: {file}: {error}") from error
    if config.peft_type != "LORA":
        raise UsageError(
            f"--adapters: {file}: key 'peft_type' is {config.peft_type!r}; only 'LORA' is served"
        )
    refused = [key for key in _REFUSED if getattr(config, key)]
    if config.bias != "none":
        refused.append("bias")
    if refused:
        raise UsageError(f"--adapters: {file}: key {refused[0]!r} asks for what is not served")
    return config
