"""LoRA adapters of a torch model through PEFT: one model, in which one adapter at most is switched on.

PEFT is given the low-rank matrices alone. What an adapter changes in the base itself (whole modules, biases,
rows of tokens, what its initialisation took out) is kept beside the model and put in place while the adapter
is on, so that neither the base nor another adapter sees it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from harness.errors import UsageError
from harness.serving.models.adapters import CONFIG, WEIGHTS, AdapterConfig, read_adapter_config
from harness.serving.models.local.changes import Change, Owners, put, taken_changes
from harness.serving.models.local.quiet import first_line, quiet


class Adapters:
    """The adapters of one model, which they share."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._peft: Any = None
        self._changes: dict[str, list[Change]] = {}
        """By adapter."""
        self._undo: list[Change] = []
        """What switches the adapter off that is on."""
        self._on: str | None = None

    def load(self, folder: Path) -> str:
        """Add an adapter; the name by which it is switched on.

        Raises:
            UsageError: a file is missing or broken, the adapter is no LoRA that is served, or it is for
                another model.
        """
        config = read_adapter_config(folder)
        tensors = _read(folder / WEIGHTS)
        self.use(None)
        name = f"adapter{len(self._changes)}"
        try:
            with quiet():
                changes = self._add(name, folder, config)
                changes += taken_changes(Owners.of(self._model), tensors, config)
                found = set_peft_model_state_dict(self._peft, tensors, adapter_name=name)
        except Exception as error:  # whatever a shape, a key or a pattern leads to
            raise UsageError(f"--adapters: {folder}: does not fit the model ({first_line(error)})") from error
        _check(folder, name, found)
        self._peft.eval()  # what was added would drop out at random
        self._peft.base_model.disable_adapter_layers()
        self._changes[name] = changes
        return name

    def use(self, name: str | None) -> None:
        """Switch an adapter on, and the one before it off; None: the base alone."""
        if name == self._on:
            return
        put(self._undo)
        self._undo = []
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(name)
            self._undo = put(self._changes[name])
        self._on = name

    def _add(self, name: str, folder: Path, config: AdapterConfig) -> list[Change]:
        """Make room for an adapter; what its initialisation took out of the base, which is put back."""
        asked = LoraConfig.from_pretrained(str(folder))
        asked.inference_mode = True
        asked.bias, asked.modules_to_save, asked.trainable_token_indices = "none", None, None
        parameters = list(self._model.parameters()) if config.taken_from_base else []
        before = [each.data.clone() for each in parameters]
        if self._peft is None:
            self._peft = PeftModel(self._model, asked, adapter_name=name)
        else:
            self._peft.add_adapter(name, asked)
        owners = Owners.of(self._model)
        changes: list[Change] = []
        for parameter, kept in zip(parameters, before, strict=True):
            if not torch.equal(parameter.data, kept):
                changes += [Change(*owner, parameter.data) for owner in owners.sharing(parameter)]
            parameter.data = kept
        return changes


def _check(folder: Path, name: str, found: Any) -> None:
    """Every tensor has a place, and every place of a matrix a tensor."""
    if found.unexpected_keys:
        raise UsageError(
            f"--adapters: {folder}: the model has no place for {min(found.unexpected_keys)!r};"
            " the adapter is for another model"
        )
    missing = [key for key in found.missing_keys if f".{name}" in key]
    if missing:
        raise UsageError(f"--adapters: {folder}: {WEIGHTS} lacks {min(missing)!r}, which {CONFIG} asks for")


def _read(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except OSError as error:
        raise UsageError(
            f"--adapters: {file}: cannot be read ({error.strerror or first_line(error)})"
        ) from error
    except SafetensorError as error:
        raise UsageError(f"--adapters: {file}: no whole safetensors file ({error})") from error
    if not tensors:
        raise UsageError(f"--adapters: {file}: holds no tensors")
    return tensors
