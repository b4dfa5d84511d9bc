"""`config.json` of a Llama-architecture model, in its older and its newer Hugging Face spelling.

Everything that this package cannot compute is refused here, by file and key, before a weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec

from harness.errors import UsageError

RopeKind = Literal["default", "linear", "llama3"]

_THETA = 10_000.0
"""What a file that states no `rope_theta` means."""

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Factor = Annotated[float, msgspec.Meta(gt=0)]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Rope:
    """How positions turn queries and keys."""

    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    """How many times the original length the positions are stretched to (linear, llama3)."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: int = 8192
    """Tokens of context in the first training; llama3 leaves waves well below it as they are."""


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The shape of a Llama-architecture model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_length: int
    """Tokens of input and output together."""
    norm_eps: float
    rope: Rope
    tied: bool
    """The output layer is the embedding."""
    attention_bias: bool
    mlp_bias: bool
    eos_ids: frozenset[int]


class _RopeFile(msgspec.Struct):
    """`rope_parameters` (newer) or `rope_scaling` (older), as it stands in the file."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: _Factor | None = None
    factor: _Factor = 1.0
    low_freq_factor: _Factor = 1.0
    high_freq_factor: _Factor = 4.0
    original_max_position_embeddings: _Count = 8192
    partial_rotary_factor: float | None = None


class _ConfigFile(msgspec.Struct):
    """The keys of `config.json` that matter here; a default is what Hugging Face takes for a missing key."""

    hidden_size: _Count
    intermediate_size: _Count
    num_hidden_layers: _Count
    num_attention_heads: _Count
    vocab_size: _Count
    num_key_value_heads: _Count | None = None
    head_dim: _Count | None = None
    max_position_embeddings: _Count = 2048
    hidden_act: str = "silu"
    rms_norm_eps: _Factor = 1e-6
    rope_theta: _Factor | None = None
    rope_scaling: _RopeFile | None = None
    rope_parameters: _RopeFile | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    eos_token_id: int | list[int] | None = None
    quantization_config: dict[str, Any] | None = None


class _Kind(msgspec.Struct):
    """The key that says which architecture a file describes; read first, for the sake of the error."""

    model_type: str = "llama"


class _GenerationFile(msgspec.Struct):
    eos_token_id: int | list[int] | None = None


def is_plain_llama(folder: Path) -> bool:
    """Whether the model in `folder` is one that `read_config` takes.

    Raises:
        UsageError: no readable `config.json`.
    """
    if read_kind(folder) != "llama":
        return False
    try:
        read_config(folder)
    except UsageError:
        return False
    return True


def read_kind(folder: Path) -> str:
    """The `model_type` of the model in `folder`.

    Raises:
        UsageError: no readable `config.json`.
    """
    return _decode(folder / "config.json", _Kind).model_type


def read_config(folder: Path) -> LlamaConfig:
    """The shape of the model in `folder`.

    Raises:
        UsageError: no readable `config.json`, or one of a model that is no plain Llama.
    """
    file = folder / "config.json"
    _supported(file, "model_type", read_kind(folder), ("llama",))
    raw = _decode(file, _ConfigFile)
    _supported(file, "hidden_act", raw.hidden_act, ("silu",))
    if raw.quantization_config:
        raise UsageError(f"--model: {file}: key 'quantization_config': quantised weights are not supported")
    kv_heads = raw.num_key_value_heads or raw.num_attention_heads
    if raw.num_attention_heads % kv_heads:
        raise UsageError(f"--model: {file}: key 'num_key_value_heads': does not divide num_attention_heads")
    return LlamaConfig(
        layers=raw.num_hidden_layers,
        hidden=raw.hidden_size,
        intermediate=raw.intermediate_size,
        heads=raw.num_attention_heads,
        kv_heads=kv_heads,
        head_dim=_head_dim(file, raw),
        vocab_size=raw.vocab_size,
        max_length=raw.max_position_embeddings,
        norm_eps=raw.rms_norm_eps,
        rope=_rope(file, raw),
        tied=raw.tie_word_embeddings,
        attention_bias=raw.attention_bias,
        mlp_bias=raw.mlp_bias,
        eos_ids=end_ids(folder, raw.eos_token_id),
    )


def end_ids(folder: Path, configured: int | list[int] | None) -> frozenset[int]:
    """Ids that end a generated text: `generation_config.json` is asked first, as in transformers.

    Raises:
        UsageError: that file is there and broken.
    """
    file = folder / "generation_config.json"
    given = _decode(file, _GenerationFile).eos_token_id if file.is_file() else None
    ids = configured if given is None else given
    return frozenset([ids] if isinstance(ids, int) else ids or [])


def _decode(file: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise UsageError(f"--model: {file}: cannot be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"--model: {file}: {error}") from error


def _supported(file: Path, key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"--model: {file}: key {key!r}: {value!r} is not supported, only {', '.join(known)}")


def _head_dim(file: Path, raw: _ConfigFile) -> int:
    size = raw.head_dim or raw.hidden_size // raw.num_attention_heads
    if size % 2 or (raw.head_dim is None and raw.hidden_size % raw.num_attention_heads):
        key = "num_attention_heads" if raw.head_dim is None else "head_dim"
        raise UsageError(f"--model: {file}: key {key!r}: heads must have an even whole number of dimensions")
    return size


def _rope(file: Path, raw: _ConfigFile) -> Rope:
    """Newer files keep theta inside `rope_parameters`; older ones beside an optional `rope_scaling`."""
    key = "rope_parameters" if raw.rope_parameters else "rope_scaling"
    given = raw.rope_parameters or raw.rope_scaling or _RopeFile()
    kind = given.rope_type or given.type or "default"
    _supported(file, f"{key}.rope_type", kind, get_args(RopeKind))
    if given.partial_rotary_factor not in (None, 1.0):
        raise UsageError(f"--model: {file}: key '{key}.partial_rotary_factor': only 1.0 is supported")
    if kind == "llama3" and given.high_freq_factor <= given.low_freq_factor:
        raise UsageError(f"--model: {file}: key '{key}.high_freq_factor': not above low_freq_factor")
    return Rope(
        theta=given.rope_theta or raw.rope_theta or _THETA,
        kind=msgspec.convert(kind, RopeKind),
        factor=given.factor,
        low_freq_factor=given.low_freq_factor,
        high_freq_factor=given.high_freq_factor,
        original_length=given.original_max_position_embeddings,
    )
