"""What PEFT can save beside two matrices a module, against weights merged in float64; torch is not needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

from harness.serving.models.adapters import Adapter, AdapterConfig
from harness.serving.models.llama import load_llama
from harness.serving.models.seam import Segment, fork, start
from tests.test_adapters import ALPHA, IDS, PREFIX, RANK, logits, write_adapter
from tests.tiny_llama import NEWER, plain_logits, write_model

Array = npt.NDArray[np.float64]

ROUNDING = 2e-4
"""What float32 may move logits of up to 15 nats; a part left out moves them by tenths."""
LAYER, TABLE, HEAD = "model.layers.0.", "model.embed_tokens", "lm_head"
QUERY, VALUE, DOWN = (f"{LAYER}{name}_proj" for name in ("self_attn.q", "self_attn.v", "mlp.down"))


@dataclass
class Made:
    """An adapter on its way: what its file holds, and the weights that it stands for."""

    weights: dict[str, Array]
    """Of the base at first, `lm_head.weight` always among them."""
    tied: bool
    tensors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def store(self, key: str, *shape: int, mean: float = 0.0) -> Array:
        """Random numbers, put into the adapter's file under this key."""
        tensor = self.random.normal(mean, 0.5, shape).astype(np.float32)
        self.tensors[PREFIX + key] = tensor
        return tensor.astype(np.float64)

    def product(self, module: str, *, rank: int = RANK, scale: float = ALPHA / RANK) -> Array:
        """The scaled product of two matrices, (outputs, inputs)."""
        outputs, inputs = self.weights[f"{module}.weight"].shape
        down = self.store(f"{module}.lora_A.weight", rank, inputs)
        return scale * self.store(f"{module}.lora_B.weight", outputs, rank) @ down

    def add(self, module: str, **arguments: Any) -> None:
        """A plain pair of matrices."""
        self.weights[f"{module}.weight"] += self.product(module, **arguments)

    def replace(self, key: str, stored: str | None = None, *, mean: float = 0.0) -> Array:
        """A whole tensor."""
        self.weights[key] = self.store(stored or key, *self.weights[key].shape, mean=mean)
        return self.weights[key]


Feature = Callable[[Made], dict[str, Any]]
"""Puts something into an adapter, and says what its configuration says of it."""


def plain(made: Made) -> dict[str, Any]:
    """A pair of matrices."""
    made.add(QUERY)
    return {}


def patterns(made: Made) -> dict[str, Any]:
    """The first pattern that ends a name counts, from a dot on; a longer name is another one."""
    made.add(QUERY, rank=5, scale=7 / 5)
    made.add(VALUE, rank=2, scale=ALPHA / 2)
    made.add(DOWN, scale=9 / RANK)
    ranks = {"roj": 9, "q_proj": 5, r"layers\.0\.self_attn\..": 9, r"self_attn\.[qv]_proj": 2}
    return {
        "rank_pattern": ranks,
        "alpha_pattern": {"^model.layers.0.mlp.down_proj": 9, ".*q_proj": 7, "q_proj": 1},
    }


def roots(made: Made) -> dict[str, Any]:
    """`use_rslora` goes by the module's own rank."""
    made.add(QUERY, rank=4, scale=ALPHA / 2)
    return {"use_rslora": True, "rank_pattern": {"q_proj": 4}}


def fan_in(made: Made) -> dict[str, Any]:
    """PEFT, too, takes no notice of it where the module is no transposed one."""
    made.add(QUERY)
    return {"fan_in_fan_out": True}


def dora(made: Made) -> dict[str, Any]:
    """Rows of the sum are scaled to the stored magnitudes."""
    for module in (QUERY, DOWN):
        whole = made.weights[f"{module}.weight"] + made.product(module)
        magnitude = made.store(f"{module}.lora_magnitude_vector", len(whole), mean=2.0)
        made.weights[f"{module}.weight"] = whole / norms(whole) * magnitude[:, None]
    return {"use_dora": True}


def norms(matrix: Array) -> Array:
    """Of its rows, as a column."""
    column: Array = np.sqrt((matrix**2).sum(axis=1, keepdims=True))
    return column


def matrix_biases(made: Made) -> dict[str, Any]:
    """A bias of the second matrix is scaled like the matrix."""
    made.add(VALUE)
    bias = made.store(f"{VALUE}.lora_B.bias", 8)
    made.weights[f"{VALUE}.bias"] = made.weights.get(f"{VALUE}.bias", 0.0) + ALPHA / RANK * bias
    return {"lora_bias": True}


def biases(made: Made) -> dict[str, Any]:
    """Stored biases take the place of the base's, of modules with matrices and of others."""
    made.add(QUERY)
    made.replace(f"{QUERY}.bias", f"{QUERY}.base_layer.bias")
    made.replace(f"{DOWN}.bias")
    return {"bias": "all"}


def whole_modules(made: Made) -> dict[str, Any]:
    """Norms, ends and projections, each as a whole."""
    made.add(QUERY)
    for key in ("model.norm.weight", f"{LAYER}input_layernorm.weight"):
        made.replace(key, mean=1.0)
    for module in (TABLE, HEAD, f"{LAYER}self_attn.k_proj", f"{LAYER}mlp.gate_proj"):
        made.replace(f"{module}.weight")
    names = ["model.norm", "0.input_layernorm", TABLE, HEAD, "0.self_attn.k_proj", "0.mlp.gate_proj"]
    return {"modules_to_save": names}


def whole_embedding(made: Made) -> dict[str, Any]:
    """A tied output layer keeps the base's."""
    made.replace(f"{TABLE}.weight")
    return {"modules_to_save": ["embed_tokens"]}


def stored_embedding(made: Made) -> dict[str, Any]:
    """The base that an embedding's matrices are for: a tied output layer's, too."""
    table = made.replace(f"{TABLE}.weight", f"{TABLE}.base_layer.weight")
    if made.tied:
        made.weights[f"{HEAD}.weight"] = table.copy()
    made.weights[f"{TABLE}.weight"] = table + embedding_product(made)
    return {}


def embedding_product(made: Made) -> Array:
    """The scaled product of an embedding's matrices, (vocabulary, hidden)."""
    down = made.store(f"{TABLE}.lora_embedding_A", RANK, NEWER["vocab_size"])
    up = made.store(f"{TABLE}.lora_embedding_B", NEWER["hidden_size"], RANK)
    return ALPHA / RANK * (up @ down).T


def both_ends(made: Made) -> dict[str, Any]:
    """Matrices of the embedding do not change a tied output layer, nor the other way round."""
    made.weights[f"{TABLE}.weight"] = made.weights[f"{TABLE}.weight"] + embedding_product(made)
    made.add(HEAD)
    return {}


def dora_embedding(made: Made) -> dict[str, Any]:
    """Its magnitudes are those of the dimensions over the whole vocabulary."""
    whole = made.weights[f"{TABLE}.weight"] + embedding_product(made)
    magnitude = made.store(f"{TABLE}.lora_magnitude_vector", NEWER["hidden_size"], mean=8.0)
    made.weights[f"{TABLE}.weight"] = whole / norms(whole.T).T * magnitude
    return {"use_dora": True}


def tokens(made: Made) -> dict[str, Any]:
    """Rows by id, in the configuration's order; a tied output layer has them, too."""
    ids = [int(IDS[3]), 5, int(IDS[0])]
    rows = made.store(f"{TABLE}.token_adapter.trainable_tokens_delta", 3, NEWER["hidden_size"])
    made.weights[f"{TABLE}.weight"][ids] = rows
    if made.tied:
        made.weights[f"{HEAD}.weight"][ids] = rows
    return {"trainable_token_indices": ids}


def tokens_of_both(made: Made) -> dict[str, Any]:
    """Rows of each end are its own where both have some."""
    rows = made.store(f"{TABLE}.token_adapter.trainable_tokens_delta", 1, NEWER["hidden_size"])
    head_rows = made.store(f"{HEAD}.token_adapter.trainable_tokens_delta", 2, NEWER["hidden_size"])
    made.weights[f"{TABLE}.weight"][[int(IDS[2])]] = rows
    made.weights[f"{HEAD}.weight"][[7, 4]] = head_rows
    return {"trainable_token_indices": {"embed_tokens": [int(IDS[2])], "lm_head": [7, 4]}}


def pissa(made: Made) -> dict[str, Any]:
    """The base without its first singular values."""
    left, sizes, right = np.linalg.svd(made.weights[f"{VALUE}.weight"], full_matrices=False)
    rest = (left[:, RANK:] * sizes[RANK:]) @ right[RANK:]
    made.weights[f"{VALUE}.weight"] = rest + made.product(VALUE)
    return {"init_lora_weights": "pissa"}


def olora(made: Made) -> dict[str, Any]:
    """The base without the first columns of its QR decomposition, scaled."""
    left, right = np.linalg.qr(made.weights[f"{VALUE}.weight"])
    taken = ALPHA / RANK * left[:, :RANK] @ right[:RANK]
    made.weights[f"{VALUE}.weight"] = made.weights[f"{VALUE}.weight"] - taken + made.product(VALUE)
    return {"init_lora_weights": "olora"}


FEATURES: list[Feature] = [
    plain,
    patterns,
    roots,
    fan_in,
    dora,
    matrix_biases,
    whole_modules,
    whole_embedding,
    stored_embedding,
    both_ends,
    dora_embedding,
    tokens,
    tokens_of_both,
    pissa,
    olora,
]
BIASED = {"attention_bias": True, "mlp_bias": True}
CASES = [
    *((feature, {"tie_word_embeddings": tied}) for feature in FEATURES for tied in (False, True)),
    *((feature, BIASED) for feature in (biases, matrix_biases, dora)),
]


def make(feature: Feature, folder: Path, changes: dict[str, Any]) -> tuple[Made, Path, Path]:
    """A model and an adapter that has the feature."""
    model = write_model(folder / "model", **changes)
    weights = {name: each.astype(np.float64) for name, each in load_file(model / "model.safetensors").items()}
    tied = f"{HEAD}.weight" not in weights
    weights.setdefault(f"{HEAD}.weight", weights[f"{TABLE}.weight"].copy())
    made = Made(weights, tied)
    config = feature(made)
    return made, model, write_adapter(folder / "adapter", made.tensors, **config)


@pytest.mark.parametrize(("feature", "changes"), CASES)
def test_a_feature_is_served(tmp_path: Path, feature: Feature, changes: dict[str, Any]) -> None:
    """Logits are those of the weights that the adapter stands for, computed plainly in float64."""
    made, model, adapter = make(feature, tmp_path, changes)
    base = load_llama(model)
    before = logits(base)
    adapted = logits(base.adapted(Adapter(adapter)))
    weights: Any = made.weights
    expected = plain_logits({**NEWER, **changes}, weights, IDS.tolist())
    assert np.abs(expected - adapted).max() < ROUNDING
    assert np.abs(before - adapted).max() > 0.1
    assert np.array_equal(before, logits(base))


@pytest.mark.parametrize("feature", FEATURES)
def test_a_batch_changes_nothing_to_the_bit(tmp_path: Path, feature: Feature) -> None:
    """With any feature, segments read together get the very numbers that each gets by itself."""
    _, model, adapter = make(feature, tmp_path, {})
    adapted = load_llama(model).adapted(Adapter(adapter))
    parts = [IDS[:7], IDS[3:4], IDS[5:19]]
    batch = adapted.feed([Segment(start(adapted), ids, len(ids)) for ids in parts])
    alone = [adapted.feed([Segment(start(adapted), ids, len(ids))])[0] for ids in parts]
    assert all(np.array_equal(one, other) for one, other in zip(batch, alone, strict=True))


def test_an_adapter_s_past_is_its_own(tmp_path: Path) -> None:
    """A past that an adapter read is read on by it as if it had read all at once."""
    _, model, adapter = make(both_ends, tmp_path, {})
    adapted = load_llama(model).adapted(Adapter(adapter))
    past = start(adapted)
    adapted.feed([Segment(past, IDS[:11], 0)])
    rest = adapted.feed([Segment(fork(adapted, past), IDS[11:], 9)])[0]
    assert np.abs(logits(adapted)[11:] - rest).max() < ROUNDING


@pytest.mark.parametrize(
    ("names", "module", "expected"),
    [
        (["lm_head"], "lm_head", True),
        (["mlp"], "model.layers.1.mlp.up_proj", True),
        (["norm"], "model.layers.1.input_layernorm", True),
        (["0.mlp"], "model.layers.1.mlp.up_proj", False),
        (["head"], "lm_head.of.another", True),
        (["proj"], "model.layers.1.mlp", False),
        ([], "lm_head", False),
    ],
)
def test_names_of_whole_modules_are_ends(names: list[str], module: str, expected: bool) -> None:
    """A name of `modules_to_save` is the end of a module's path, or of one that holds it, as in PEFT."""
    config = AdapterConfig(peft_type="LORA", r=1, lora_alpha=1, modules_to_save=names)
    assert config.saves(module) is expected
