"""Files in the layouts of Hugging Face (a model) and PEFT (an adapter)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from harness.schooling.lora import ALPHA, RANK, TARGETS
from harness.schooling.network import Network, Shape
from harness.schooling.tokens import BOS, EOS


def write_model(folder: Path, network: Network, tokenizer: Tokenizer) -> None:
    """Write config.json, tokenizer.json and the weights, as float16."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config(network.shape, tokenizer))
    tokenizer.save(str(folder / "tokenizer.json"))
    _save(folder / "model.safetensors", network.state_dict())


def write_adapter(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write adapter_config.json and the adapter's weights, as float16."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "reference",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": sorted(TARGETS),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
    _write_json(folder / "adapter_config.json", config)
    _save(folder / "adapter_model.safetensors", tensors)


def read_network(folder: Path, shape: Shape) -> Network:
    """The network as it was stored, in float32: adapters are trained on what is served."""
    network = Network(shape)
    stored = load_file(folder / "model.safetensors")
    network.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    return network


def _config(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": shape.max_length,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(EOS),
        "torch_dtype": "float16",
    }


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


def _save(file: Path, tensors: Mapping[str, Tensor]) -> None:
    stored = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(stored, file, metadata={"format": "pt"})
    file.chmod(0o644)  # it is written for its owner alone
