"""A tiny Llama with random weights, written as a Hugging Face folder, and the plainest way to compute it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

Array = npt.NDArray[np.float64]

BOS, EOS = 0, 1
PIECES = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"Ġ{letter}" for letter in "ABCD")]
"""Every byte is a token, and so are " A" to " D"."""

NEWER: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "vocab_size": len(PIECES),
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "dtype": "float32",
}


def older(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration as files were written before transformers 5."""
    config = dict(config)
    rope = config.pop("rope_parameters")
    kind = rope["rope_type"]
    config["rope_theta"] = rope["rope_theta"]
    scaling = {name: value for name, value in rope.items() if name not in ("rope_theta", "rope_type")}
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **scaling}
    config["torch_dtype"] = config.pop("dtype")
    del config["head_dim"]
    return config


def random_tensors(config: dict[str, Any], *, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Weights that make a lively distribution: logits a few nats apart."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    shared = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}."
        shapes |= {
            f"{at}input_layernorm.weight": (hidden,),
            f"{at}post_attention_layernorm.weight": (hidden,),
        }
        linear = {f"self_attn.{name}_proj": (queries if name == "q" else shared, hidden) for name in "qkv"}
        linear |= {"self_attn.o_proj": (hidden, queries), "mlp.down_proj": (hidden, inner)}
        linear |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden)}
        for name, shape in linear.items():
            shapes[f"{at}{name}.weight"] = shape
            if config["mlp_bias" if name.startswith("mlp") else "attention_bias"]:
                shapes[f"{at}{name}.bias"] = shape[:1]
    random = np.random.default_rng(seed)
    return {
        name: random.normal(1.0 if "norm" in name else 0.0, 0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def tokenizer() -> Tokenizer:
    """Bytes as tokens, `<s>` in front."""
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", letter) for letter in "ABCD"]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return made


def write_model(folder: Path, config: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write configuration, weights and tokenizer; `changes` go over the configuration."""
    config = {**(config or NEWER), **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_tensors({**NEWER, **config}), folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def plain_logits(
    config: dict[str, Any], tensors: dict[str, npt.NDArray[np.float32]], ids: list[int]
) -> Array:
    """Logits after each id, position by position and head by head in float64: slow and easy to believe."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    x = weights["model.embed_tokens.weight"][ids]
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}."
        normed = _norm(x, weights[f"{at}input_layernorm.weight"], config)
        x = x + _project(
            weights, f"{at}self_attn.o_proj", _attend(config, weights, f"{at}self_attn.", normed)
        )
        normed = _norm(x, weights[f"{at}post_attention_layernorm.weight"], config)
        gate, up = (_project(weights, f"{at}mlp.{name}_proj", normed) for name in ("gate", "up"))
        x = x + _project(weights, f"{at}mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    logits: Array = _norm(x, weights["model.norm.weight"], config) @ head.T
    return logits


def _norm(x: Array, weight: Array, config: dict[str, Any]) -> Array:
    normed: Array = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config["rms_norm_eps"]) * weight
    return normed


def _project(weights: dict[str, Array], name: str, x: Array) -> Array:
    y: Array = x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)
    return y


def _attend(config: dict[str, Any], weights: dict[str, Array], at: str, x: Array) -> Array:
    count, size = len(x), config["head_dim"]
    queries, keys, values = (
        _project(weights, f"{at}{name}_proj", x).reshape(count, -1, size) for name in "qkv"
    )
    group = config["num_attention_heads"] // config["num_key_value_heads"]
    out = np.zeros((count, config["num_attention_heads"], size))
    for head in range(config["num_attention_heads"]):
        for here in range(count):
            query = _turn(config, queries[here, head], here)
            scores = np.array(
                [_turn(config, keys[i, head // group], i) @ query for i in range(here + 1)]
            ) / np.sqrt(size)
            shares = np.exp(scores - scores.max())
            out[here, head] = shares / shares.sum() @ values[: here + 1, head // group]
    return out.reshape(count, -1)


def _turn(config: dict[str, Any], vector: Array, position: int) -> Array:
    """Turn the pairs (i, i + half) of a vector by the position times their frequency."""
    rope, half = config["rope_parameters"], len(vector) // 2
    turned = vector.copy()
    for i in range(half):
        frequency = rope["rope_theta"] ** (-i / half)
        if rope["rope_type"] == "linear":
            frequency /= rope["factor"]
        if rope["rope_type"] == "llama3":
            frequency = _llama3(rope, frequency)
        sine, cosine = np.sin(position * frequency), np.cos(position * frequency)
        turned[i] = vector[i] * cosine - vector[i + half] * sine
        turned[i + half] = vector[i + half] * cosine + vector[i] * sine
    return turned


def _llama3(rope: dict[str, Any], frequency: float) -> float:
    wavelength, length = 2 * np.pi / frequency, rope["original_max_position_embeddings"]
    if wavelength < length / rope["high_freq_factor"]:
        return frequency
    slowed = float(frequency / rope["factor"])
    if wavelength > length / rope["low_freq_factor"]:
        return slowed
    share = (length / wavelength - rope["low_freq_factor"]) / (
        rope["high_freq_factor"] - rope["low_freq_factor"]
    )
    return float((1 - share) * slowed + share * frequency)
