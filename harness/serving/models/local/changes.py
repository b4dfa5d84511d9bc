"""What an adapter changes in the weights of its base: found in its file, put in place, and taken back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.serving.models.adapters import CONFIG, PREFIX, WEIGHTS, AdapterConfig

_TOKENS = ".token_adapter.trainable_tokens_delta"
_WRAPPER = ".base_layer"
"""What PEFT puts between a module's name and its weight's."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to stand in a parameter of a module."""

    module: Any
    kind: str
    """`weight` or `bias`."""
    tensor: Tensor
    """The whole parameter, or some rows of it."""
    rows: Tensor | None = None
    """Which rows, (rows,); None: all. They are written into the parameter itself, wherever else it stands."""


class Owners:
    """The modules of a base that own its parameters, by the names they had before PEFT wrapped them."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self.modules = modules

    @classmethod
    def of(cls, model: Any) -> Owners:
        """Those of a model, adapters left out."""
        named = model.named_modules(remove_duplicate=False)
        return cls({name.replace(_WRAPPER, ""): each for name, each in named if "lora_" not in name})

    def names(self) -> Iterable[tuple[str, str]]:
        """Every module's name with the kind of each of its parameters."""
        for name, module in self.modules.items():
            for kind, parameter in module._parameters.items():
                if parameter is not None:
                    yield name, kind

    def parameter(self, name: str, kind: str) -> Any:
        """The parameter of a module; None where there is none."""
        module = self.modules.get(name)
        return None if module is None else module._parameters.get(kind)

    def sharing(self, parameter: Any) -> list[tuple[Any, str]]:
        """The modules that a parameter stands in, and as what: more than one where they are tied."""
        return [
            (self.modules[name], kind)
            for name, kind in self.names()
            if self.parameter(name, kind) is parameter
        ]


def put(changes: Iterable[Change]) -> list[Change]:
    """Put changes in place; what takes them back."""
    undo: list[Change] = []
    for change in changes:
        module, kind = change.module, change.kind
        if change.rows is None:
            undo.insert(0, Change(module, kind, module._parameters[kind]))
            module._parameters[kind] = torch.nn.Parameter(change.tensor, requires_grad=False)
        else:
            data = module._parameters[kind].data
            undo.insert(0, Change(module, kind, data[change.rows], change.rows))
            data[change.rows] = change.tensor
    return undo


def taken_changes(owners: Owners, tensors: dict[str, Tensor], config: AdapterConfig) -> list[Change]:
    """Take what is stored for the base out of an adapter's tensors.

    Raises:
        ValueError: something that should be there is not, or has another model's shape.
    """
    changes: list[Change] = []
    for name, kind in list(owners.names()):
        key, parameter = f"{PREFIX}{name}.{kind}", owners.parameter(name, kind)
        whole = config.saves(name)
        if whole and key not in tensors:
            raise ValueError(
                f"key 'modules_to_save' of {CONFIG} asks for {name}, which {WEIGHTS} does not hold"
            )
        stored = tensors.pop(key, None)
        stored = tensors.pop(f"{PREFIX}{name}{_WRAPPER}.{kind}", None) if stored is None else stored
        if stored is not None:
            tensor = _fitting(name, stored, parameter)
            # A whole module is this one's alone; a base weight is everybody's who is tied to it.
            places = [(owners.modules[name], kind)] if whole else owners.sharing(parameter)
            if not torch.equal(tensor, parameter.data):
                changes += [Change(*place, tensor) for place in places]
    return changes + _token_changes(owners, tensors, config)


def _token_changes(owners: Owners, tensors: dict[str, Tensor], config: AdapterConfig) -> list[Change]:
    names = [key.removeprefix(PREFIX).removesuffix(_TOKENS) for key in tensors if key.endswith(_TOKENS)]
    changes: list[Change] = []
    for name in names:
        ids, parameter = config.tokens(name), owners.parameter(name, "weight")
        if ids is None or parameter is None:
            continue
        rows = torch.tensor(ids, device=parameter.device)
        tensor = _fitting(name, tensors.pop(f"{PREFIX}{name}{_TOKENS}"), parameter.data[rows])
        module = owners.modules[name]
        tied = len(owners.sharing(parameter)) > 1
        # Tied modules follow the embedding's rows, unless some have rows of their own.
        if tied and (len(names) > 1 or not isinstance(module, torch.nn.Embedding)):
            own = parameter.data.clone()
            own[rows] = tensor
            changes.append(Change(module, "weight", own))
        else:
            changes.append(Change(module, "weight", tensor, rows))
    return changes


def _fitting(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.shape != like.shape:
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, the model's is {tuple(like.shape)}")
    return tensor.to(like.device, like.dtype)
