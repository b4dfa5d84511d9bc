"""LoRA adapters in the layout of PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.

Knows what PEFT stores under which key and what it means, not how a model computes with it. What is not
served is refused by file and key.

Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685;
Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023, arXiv:2312.03732; Liu et
al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024, arXiv:2402.09353. Keys and rules are PEFT 0.21's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from harness.errors import UsageError
from harness.serving.models.modules import LowRank, Rows
from harness.serving.models.weights import Floats, read_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."

_REFUSED = (
    "alora_invocation_tokens",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "monteclora_config",
    "kasa_config",
)
"""Keys that make something else of a LoRA; fine while they are absent, false or empty."""
_OTHER_BASE = ("pissa", "corda", "loftq", "lora_ga")
"""How `init_lora_weights` begins where the base was changed in a way that cannot be computed anew."""

_Rank = Annotated[int, msgspec.Meta(ge=1)]


class AdapterConfig(msgspec.Struct):
    """The keys of `adapter_config.json` that matter here."""

    peft_type: str
    r: _Rank
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    rank_pattern: dict[str, _Rank] | None = None
    alpha_pattern: dict[str, float] | None = None
    modules_to_save: list[str] | None = None
    target_parameters: list[str] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    init_lora_weights: bool | str = True
    velora_config: Any = None
    alora_invocation_tokens: Any = None
    layer_replication: Any = None
    use_qalora: Any = None
    use_bdlora: Any = None
    arrow_config: Any = None
    monteclora_config: Any = None
    kasa_config: Any = None

    @property
    def taken_from_base(self) -> Literal["pissa", "olora"] | None:
        """The start of training that was taken out of the base: its first ranks in this decomposition."""
        start = str(self.init_lora_weights).lower()
        return "pissa" if start == "pissa" else "olora" if start == "olora" else None

    def rank_and_scale(self, module: str) -> tuple[int, float]:
        """Of a module's matrices."""
        if any(f"{module}.weight".endswith(f".{name}") for name in self.target_parameters or ()):
            module += ".weight"
        rank = _by_pattern(self.rank_pattern, module, self.r)
        alpha = _by_pattern(self.alpha_pattern, module, self.lora_alpha)
        return rank, alpha / rank ** (0.5 if self.use_rslora else 1)

    def saves(self, module: str) -> bool:
        """Whether the module, or one that holds it, is stored as a whole (`modules_to_save`)."""
        parts = module.split(".")
        paths = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        return any(path.endswith(name) for path in paths for name in self.modules_to_save or ())

    def tokens(self, module: str) -> list[int] | None:
        """The ids whose rows of a module are stored; None: of all or of none."""
        given = self.trainable_token_indices
        if isinstance(given, list):
            given = {"embed_tokens": given}
        return next((ids for name, ids in (given or {}).items() if module.endswith(name)), None)


@dataclass(frozen=True, slots=True)
class Change:
    """What is added to a weight of (outputs, inputs), and how the sum is scaled."""

    low_rank: LowRank
    scale: np.float32
    """What the second matrix and the bias were multiplied by."""
    bias: Floats | None = None
    """(outputs,)."""
    magnitude: Floats | None = None
    """(outputs,): the norms that the rows of the sum are to have."""


class Adapter:
    """The tensors of one adapter, taken out module by module."""

    def __init__(self, folder: Path) -> None:
        """Read the folder.

        Raises:
            UsageError: a file is missing or broken, or the adapter is no LoRA that is served.
        """
        self._folder = folder
        self.config = read_adapter_config(folder)
        self._left = read_tensors(folder / WEIGHTS, "--adapters")
        if not self._left:
            raise UsageError(f"--adapters: {folder / WEIGHTS}: holds no tensors")
        if self.config.velora_config:  # a memory of training: what it computes with is a plain LoRA
            self._left = {k: each for k, each in self._left.items() if not k.endswith("lora_velora_embed")}

    def whole(self, module: str, shape: tuple[int, ...]) -> Floats | None:
        """The weight of a module that was trained as a whole.

        Raises:
            UsageError: it should be there and is not, or has another model's shape.
        """
        if not self.config.saves(module):
            return None
        found = self._take(f"{module}.weight", shape)
        if found is None:
            raise UsageError(
                f"--adapters: {self._folder}: key 'modules_to_save' of {CONFIG} asks for {module},"
                f" which {WEIGHTS} does not hold"
            )
        return found

    def base(self, module: str, shape: tuple[int, ...], kind: str = "weight") -> Floats | None:
        """The weight or the bias that the module's base had, where that is stored."""
        found = self._take(f"{module}.base_layer.{kind}", shape)
        return self._take(f"{module}.{kind}", shape) if found is None else found

    def change(self, module: str, outputs: int, inputs: int) -> Change | None:
        """The matrices of a projection; None where it has none.

        Raises:
            UsageError: one of them is missing, or their shapes are another model's.
        """
        down, up = (self._left.pop(f"{PREFIX}{module}.lora_{part}.weight", None) for part in "AB")
        if down is None and up is None:
            return None
        scale, low_rank = self._checked(module, ("lora_A", down), ("lora_B", up), inputs, outputs)
        bias = self._expected(f"{module}.lora_B.bias", outputs) if self.config.lora_bias else None
        magnitude = (
            self._expected(f"{module}.lora_magnitude_vector", outputs) if self.config.use_dora else None
        )
        return Change(low_rank, scale, None if bias is None else bias * scale, magnitude)

    def embedding_change(self, module: str, vocab_size: int, hidden: int) -> Change | None:
        """The matrices of an embedding, to be added to its transposed weight; None where it has none.

        Raises:
            UsageError: one of them is missing, or their shapes are another model's.
        """
        down, up = (self._left.pop(f"{PREFIX}{module}.lora_embedding_{part}", None) for part in "AB")
        if down is None and up is None:
            return None
        names = ("lora_embedding_A", down), ("lora_embedding_B", up)
        scale, low_rank = self._checked(module, *names, vocab_size, hidden)
        magnitude = (
            self._expected(f"{module}.lora_magnitude_vector", hidden) if self.config.use_dora else None
        )
        return Change(low_rank, scale, None, magnitude)

    def rows(self, module: str, vocab_size: int, hidden: int) -> Rows | None:
        """The rows of an embedding, or of an output layer, that were trained one by one.

        Raises:
            UsageError: there are more or fewer than the configuration says, or of another width.
        """
        key = f"{module}.token_adapter.trainable_tokens_delta"
        ids = self.config.tokens(module)
        if ids is None or PREFIX + key not in self._left:
            return None
        if not ids or not 0 <= min(ids) <= max(ids) < vocab_size:
            raise UsageError(
                f"--adapters: {self._folder / CONFIG}: key 'trainable_token_indices' names no tokens of the"
                f" model, whose ids run from 0 to {vocab_size - 1}"
            )
        values = self._expected(key, len(ids), hidden)
        order = np.argsort(ids, kind="stable")
        return Rows(np.asarray(ids, np.int64)[order], values[order])

    def check_used_up(self) -> None:
        """Raise `UsageError` where tensors are left that the model has no place for."""
        if self._left:
            raise UsageError(
                f"--adapters: {self._folder}: the model has no place for {min(self._left)!r};"
                " the adapter is for another model"
            )

    def refuse(self, key: str, reason: str) -> UsageError:
        """The error to be raised where a key of the configuration cannot be served on a model."""
        return UsageError(f"--adapters: {self._folder / CONFIG}: key {key!r} {reason}")

    def _checked(
        self,
        module: str,
        down: tuple[str, Floats | None],
        up: tuple[str, Floats | None],
        inputs: int,
        outputs: int,
    ) -> tuple[np.float32, LowRank]:
        """The scale, and both matrices, scaled by it."""
        (a, first), (b, second) = down, up
        if first is None or second is None:
            raise UsageError(f"--adapters: {self._folder}: {module} has only one of {a} and {b}")
        rank, scale = self.config.rank_and_scale(module)
        if first.shape != (rank, inputs) or second.shape != (outputs, rank):
            raise UsageError(
                f"--adapters: {self._folder}: {module}: {a} and {b} have the shapes {first.shape} and"
                f" {second.shape}; by {CONFIG} and the model they should be {(rank, inputs)} and"
                f" {(outputs, rank)}"
            )
        return np.float32(scale), (first, second * np.float32(scale))

    def _take(self, key: str, shape: tuple[int, ...]) -> Floats | None:
        found = self._left.pop(PREFIX + key, None)
        if found is not None and found.shape != shape:
            raise UsageError(
                f"--adapters: {self._folder}: {key} has the shape {found.shape}, the model's is {shape};"
                " the adapter is for another model"
            )
        return found

    def _expected(self, key: str, *shape: int) -> Floats:
        found = self._take(key, shape)
        if found is None:
            raise UsageError(f"--adapters: {self._folder}: {WEIGHTS} lacks {key}, which {CONFIG} asks for")
        return found


def adapter_folders(folder: Path) -> dict[str, Path]:
    """The adapters below a folder, by route: each folder with an `adapter_config.json` is one, named by it.

    Raises:
        UsageError: there is none.
    """
    found = {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{CONFIG}"))}
    if not found:
        raise UsageError(f"--adapters {folder}: no folder with an {CONFIG} in it")
    return found


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The configuration in an adapter's folder.

    Raises:
        UsageError: it is missing or broken, or asks for what is not served.
    """
    file = folder / CONFIG
    try:
        config = msgspec.json.decode(file.read_bytes(), type=AdapterConfig)
    except OSError as error:
        raise UsageError(f"--adapters: {file}: cannot be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"--adapters: {file}: {error}") from error
    if config.peft_type != "LORA":
        raise UsageError(
            f"--adapters: {file}: key 'peft_type' is {config.peft_type!r}; only 'LORA' is served"
        )
    for key in _REFUSED:
        if getattr(config, key):
            raise UsageError(f"--adapters: {file}: key {key!r} asks for what is not served")
    if config.taken_from_base is None and str(config.init_lora_weights).startswith(_OTHER_BASE):
        raise UsageError(
            f"--adapters: {file}: key 'init_lora_weights' is {config.init_lora_weights!r}, which changed the"
            " base in training; save the adapter with path_initial_model_for_weight_conversion"
        )
    for pattern in (*(config.rank_pattern or ()), *(config.alpha_pattern or ())):
        _check_pattern(file, pattern)
    return config


def _check_pattern(file: Path, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--adapters: {file}: {pattern!r} is no regular expression ({error})") from error


def _by_pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that is the module's name, or its end from a dot on."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
