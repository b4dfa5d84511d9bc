"""Adapters as PEFT itself makes, saves and computes them, on a tiny Llama."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from tests.tiny_llama import NEWER

IDS: list[int] = np.random.default_rng(7).integers(0, NEWER["vocab_size"], 20).tolist()


@dataclass(frozen=True)
class Feature:
    """Something that a LoRA can be, as arguments of `LoraConfig`."""

    config: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    """Changes of the tiny Llama's configuration."""
    saving: dict[str, Any] = field(default_factory=dict)
    """Arguments of `save_pretrained`."""
    rounding: float = 5e-4
    """What float32 may move logits of up to 15 nats on weights this lively; more is a fault."""


TIED: dict[str, Any] = {"tie_word_embeddings": True}
BIASED: dict[str, Any] = {"attention_bias": True, "mlp_bias": True}
ENDS = {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}
TWO = {"embed_tokens": [5, 60], "lm_head": [9]}

FEATURES: dict[str, Feature] = {
    "plain": Feature({}),
    "all linear": Feature({"target_modules": "all-linear", "use_rslora": True}),
    "ranks": Feature(
        {
            "rank_pattern": {"q_proj": 5, "layers.1.self_attn.v_proj": 2, "proj": 7},
            "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 9, ".*1.*": 7, "self_attn": 100},
        }
    ),
    "ranks by root": Feature({"use_rslora": True, "rank_pattern": {r"layers\.\d\.self_attn\.q_proj": 1}}),
    "fan in": Feature({"fan_in_fan_out": True}),
    "dora": Feature({"use_dora": True, "target_modules": ["q_proj", "v_proj", "down_proj"]}),
    "dora, biases": Feature({"use_dora": True, "bias": "lora_only"}, BIASED),
    "dora, ends": Feature({"use_dora": True, **ENDS}),
    "dora, tied ends": Feature({"use_dora": True, **ENDS}, TIED),
    "whole ends": Feature({"modules_to_save": ["lm_head", "embed_tokens", "norm"]}),
    "whole embedding, tied": Feature({"modules_to_save": ["embed_tokens"]}, TIED),
    "whole head, tied": Feature({"modules_to_save": ["lm_head"]}, TIED),
    "whole, kept tied": Feature({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, TIED),
    "whole projections": Feature({"modules_to_save": ["mlp", "input_layernorm", "k_proj"]}, BIASED),
    "all biases": Feature({"bias": "all"}, BIASED),
    "some biases": Feature({"bias": "lora_only"}, BIASED),
    "no biases to train": Feature({"bias": "all"}),
    "biases of the matrices": Feature({"lora_bias": True, "target_modules": ["q_proj", "v_proj", "lm_head"]}),
    "more biases": Feature({"lora_bias": True, "bias": "all"}, BIASED),
    "ends": Feature(ENDS),
    "tied ends": Feature(ENDS, TIED),
    "tied embedding": Feature({"target_modules": ["embed_tokens"]}, TIED),
    "ends kept tied": Feature({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, TIED),
    "ends stored": Feature({}, saving={"save_embedding_layers": True}),
    "ends not stored": Feature(ENDS, TIED, {"save_embedding_layers": False}),
    "tokens": Feature({"trainable_token_indices": [60, 5, 7]}),
    "tokens, tied": Feature({"trainable_token_indices": [60, 5, 7]}, TIED),
    "tokens of both ends": Feature({"trainable_token_indices": TWO}),
    "tokens of both ends, tied": Feature({"trainable_token_indices": TWO}, TIED),
    "tokens of the head, tied": Feature({"trainable_token_indices": {"lm_head": [9]}}, TIED),
    "parameters": Feature(
        {
            "target_modules": [],
            "target_parameters": ["mlp.gate_proj.weight"],
            "rank_pattern": {"gate_proj": 2, "gate_proj.weight": 4},
        }
    ),
    "pissa": Feature({"init_lora_weights": "pissa"}, rounding=5e-3),  # its decomposition is off by 2e-5
    "pissa, dora": Feature({"init_lora_weights": "pissa", "use_dora": True, "target_modules": ["o_proj"]}),
    "pissa, tied head": Feature({"init_lora_weights": "pissa", "target_modules": ["lm_head"]}, TIED),
    "pissa, head": Feature(
        {"init_lora_weights": "pissa", "target_modules": ["lm_head"]},
        saving={"save_embedding_layers": False},
    ),
    "olora": Feature({"init_lora_weights": "olora", "use_rslora": True}),
    "mica": Feature({"init_lora_weights": "mica"}),
    "orthogonal": Feature({"init_lora_weights": "orthogonal", "r": 4}),
    "eva": Feature({"init_lora_weights": "eva"}),
    "velora": Feature({"velora_config": {"num_groups": 4}}),
}


def save(folder: Path, model: Path, feature: Feature, *, seed: int = 0) -> Path:
    """Let PEFT save an adapter of a model; every number that could be trained is moved at random."""
    torch.manual_seed(seed)
    config: dict[str, Any] = {"r": 3, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # much of this is unusual, and PEFT says so
        made = get_peft_model(
            AutoModelForCausalLM.from_pretrained(model),
            LoraConfig(task_type="CAUSAL_LM", **{**config, **feature.config}),
        )
        with torch.no_grad():
            for each in made.parameters():
                if each.requires_grad:
                    each.add_(0.4 * torch.randn_like(each))
        made.save_pretrained(folder, **feature.saving)
    return folder


def computed(model: Path, adapter: Path, ids: list[int] = IDS) -> npt.NDArray[np.float32]:
    """PEFT's logits after each id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter).eval()
    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = made(torch.tensor([ids])).logits[0].numpy()
    return logits
