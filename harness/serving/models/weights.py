"""Tensors of a Hugging Face folder as float32 arrays; knows safetensors, not what the tensors are for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from harness.errors import UsageError

Floats = npt.NDArray[np.float32]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_STORED = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class _Index(msgspec.Struct):
    """The index of a model whose tensors are spread over several files."""

    weight_map: dict[str, str]


class Tensors:
    """The tensors of one folder, taken out one by one so that none is kept twice."""

    def __init__(self, folder: Path) -> None:
        """Read every tensor.

        Raises:
            UsageError: a file is missing or broken, or holds something that is no float tensor.
        """
        self._folder = folder
        self._left: dict[str, Floats] = {}
        for file in _files(folder):
            self._left |= read_tensors(file, "--model")

    def take(self, name: str, *shape: int) -> Floats:
        """Hand out the tensor of this name and forget it.

        Raises:
            UsageError: there is none, or it has another shape than the configuration asks for.
        """
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise UsageError(f"--model {self._folder}: its safetensors hold no tensor {name!r}")
        if tensor.shape != shape:
            raise UsageError(
                f"--model {self._folder}: tensor {name!r} has the shape {tensor.shape},"
                f" by config.json it should be {shape}"
            )
        return tensor


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        return [folder / SINGLE]
    try:
        names = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"--model: {index}: {error}") from error
    return [folder / name for name in sorted(set(names))]


def read_tensors(file: Path, flag: str) -> dict[str, Floats]:
    """Every tensor of a safetensors file, by name.

    Raises:
        UsageError: it is missing or broken, or holds something that is no float tensor; begins with the flag.
    """
    try:
        stored = deserialize(file.read_bytes())  # type: ignore[no-untyped-call]  # its stub is bare
    except OSError as error:
        raise UsageError(f"{flag}: {file}: cannot be read ({error.strerror})") from error
    except SafetensorError as error:
        raise UsageError(f"{flag}: {file}: no whole safetensors file ({error})") from error
    tensors = {}
    while stored:  # each is dropped once it is converted, so that the file is not held twice
        name, spec = stored.pop()
        tensors[name] = _to_float32(f"{flag}: {file}", name, spec["dtype"], spec["data"]).reshape(
            spec["shape"]
        )
    return tensors


def _to_float32(place: str, name: str, dtype: str, data: bytearray) -> Floats:
    if dtype not in _STORED:
        raise UsageError(f"{place}: tensor {name!r} is stored as {dtype}, not as floats")
    flat = np.frombuffer(data, dtype=_STORED[dtype])
    if dtype == "BF16":  # the upper half of a float32
        return (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.astype(np.float32, copy=False)
