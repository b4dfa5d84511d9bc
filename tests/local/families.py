"""Tiny models of many architectures, made at random by transformers itself; nothing is downloaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

VOCABULARY = 97
LENGTH = 128

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_OLD_SHAPE = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": LENGTH}
_HEAD = {"head_dim": 8}
_WINDOW = {"sliding_window": 4}
_LAYERS = ["sliding_attention", "full_attention", "full_attention"]

KEEPING: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "gpt2, learnt positions": ("gpt2", _OLD_SHAPE),
    "gpt_neox": ("gpt_neox", {}),
    "gptj": ("gptj", {**_OLD_SHAPE, "rotary_dim": 4}),
    "opt, narrow embedding": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 16, "pad_token_id": 1}),
    "bloom, alibi": ("bloom", {"n_layer": 3, "n_head": 4}),
    "mpt, alibi": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": LENGTH}),
    "qwen2": ("qwen2", {}),
    "qwen2, window": ("qwen2", {**_WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen3": ("qwen3", _HEAD),
    "gemma": ("gemma", _HEAD),
    "gemma2, window": ("gemma2", {**_HEAD, **_WINDOW}),
    "gemma3, window": ("gemma3_text", {**_HEAD, **_WINDOW}),
    "mistral, window": ("mistral", _WINDOW),
    "phi": ("phi", {}),
    "mixtral, experts": ("mixtral", {"num_local_experts": 4}),
    "decoding bert": ("bert", {"is_decoder": True}),
}
"""Kind of configuration and its changes; those whose keys and values are kept."""

REREAD: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("mamba", {"state_size": 8}),
    "lfm2, hybrid": ("lfm2", {"layer_types": ["conv", "full_attention", "conv"]}),
    "jamba, hybrid": ("jamba", {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1}),
    "openai-gpt, no cache": ("openai-gpt", _OLD_SHAPE),
    "llama4, chunks": (
        "llama4_text",
        {"attention_chunk_size": 8, "num_local_experts": 2, "intermediate_size_mlp": 48, **_HEAD},
    ),
}
"""Those that keep something else."""

REFUSED: dict[str, tuple[str, dict[str, Any]]] = {"bert": ("bert", {})}
"""Those that see what follows."""


def write(folder: Path, kind: str, changes: dict[str, Any], *, seed: int = 0) -> Path:
    """Write a model of this kind, its weights at random."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = CONFIG_MAPPING[kind](**{**_SHAPE, **changes})
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
