"""A causal language model in torch: loaded, asked for logits, its adapters switched; no pasts, no seam."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from harness.errors import UsageError
from harness.serving.models.config import end_ids
from harness.serving.models.local.adapters import Adapters
from harness.serving.models.local.quiet import first_line, quiet
from harness.serving.models.weights import Floats

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DEFAULT_LENGTH = 2048
"""Tokens of input and output where neither the model nor its tokenizer states a bound."""

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "n_ctx",
    "context_length",
)
"""What configurations call the most tokens they can read, the commonest first."""
_CACHES = ("cache", "past_key_values")
"""What newer and older models call their keys and values."""
_NO_BOUND = 10**9
"""Tokenizers without a bound state a huge one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A batch of tokens to be read, each row right-padded."""

    inputs: Tensor
    """(rows, tokens) of ids, or (rows, tokens, hidden) in their place."""
    mask: Tensor
    """(rows, past and new tokens): 1 where there is a token, 0 where there is padding."""
    keep: Tensor
    """(kept,): the places of `inputs` of which logits are wanted, rising; at least one."""
    positions: Tensor | None = None
    """(rows, tokens); None: as they come."""
    cache: Any = None
    """The keys and values of what was read before, to be added to; None: nothing is kept."""


class Network:
    """A model on its device."""

    def __init__(self, model: Any, folder: Path, device: Any) -> None:
        self.model = model
        self.folder = folder
        self.device = device
        self.dtype = model.dtype
        self.config = model.config.get_text_config(decoder=True)
        self.hidden: int = model.get_input_embeddings().weight.shape[1]
        self.max_length = _max_length(self.config, folder)
        self.eos_ids = end_ids(folder, _eos(model.config, self.config))
        self.adapters = Adapters(model)
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        self._cache = next((name for name in _CACHES if name in self._takes), _CACHES[0])

    def embed(self, ids: Tensor) -> Tensor:
        """What the model reads for some ids: (..., hidden)."""
        return self.model.get_input_embeddings()(ids)

    def __call__(self, asked: Asked) -> Tensor:
        """Logits at the places that are to be kept: (rows, kept, vocabulary)."""
        given: dict[str, Any] = {"attention_mask": asked.mask, "use_cache": asked.cache is not None}
        given["inputs_embeds" if asked.inputs.is_floating_point() else "input_ids"] = asked.inputs
        if asked.cache is not None:
            given[self._cache] = asked.cache
        if asked.positions is not None and "position_ids" in self._takes:
            given["position_ids"] = asked.positions
        if "logits_to_keep" in self._takes:
            return self.model(**given, logits_to_keep=asked.keep).logits
        return self.model(**given).logits[:, asked.keep]

    def cache_of(self, inputs: Tensor) -> Any:
        """The kind of cache that the model makes of its own accord."""
        output = self.model(inputs, use_cache=True)
        return next((output[name] for name in _CACHES if output.get(name) is not None), None)


def to_floats(logits: Tensor) -> Floats:
    """As an array of its own, which does not keep those of the whole batch."""
    floats: Floats = logits.float().cpu().numpy().copy()
    return floats


def load(folder: Path, device: str, dtype: str) -> Network:
    """Load a folder onto a device; see `load_transformers`."""
    if not (folder / "config.json").is_file():
        raise UsageError(f"--model {folder}: no config.json in it")
    place = _device(device)
    kind = _dtype(dtype, place)
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=kind,
                device_map=None if place.type == "cpu" else {"": place},
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,  # other files are pickles
                output_loading_info=True,
            )
    except Exception as error:  # whatever a file, a configuration or a missing library leads to
        raise UsageError(
            f"--model {folder}: cannot be loaded by transformers ({first_line(error)})"
        ) from error
    if info["missing_keys"]:
        raise UsageError(
            f"--model {folder}: its weights hold no tensor {min(info['missing_keys'])!r}:"
            " no whole causal language model"
        )
    return Network(model.eval(), folder, place)


def _device(name: str) -> Any:
    try:
        if name == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # unknown to torch, or not in this machine
        raise UsageError(f"--device {name}: {first_line(error)}") from error
    return place


def _dtype(name: str, device: Any) -> Any:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}: must be auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _eos(*configs: Any) -> Any:
    """What the whole model's configuration says, else what its text model's says."""
    stated = (getattr(config, "eos_token_id", None) for config in configs)
    return next((ids for ids in stated if ids is not None), None)


class _TokenizerFile(msgspec.Struct):
    model_max_length: float | None = None


def _max_length(config: Any, folder: Path) -> int:
    """The model's bound, else its tokenizer's, else a default."""
    bounds: Sequence[Any] = [getattr(config, name, None) for name in _LENGTHS]
    for bound in bounds:
        if isinstance(bound, int) and bound > 0:
            return bound
    try:
        file = (folder / "tokenizer_config.json").read_bytes()
        stated = msgspec.json.decode(file, type=_TokenizerFile).model_max_length
    except (OSError, msgspec.DecodeError):
        stated = None
    return int(stated) if stated and stated < _NO_BOUND else DEFAULT_LENGTH
