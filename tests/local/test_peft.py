"""LoRA adapters as PEFT computes them, in numpy and through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("peft")  # which needs torch and transformers

from harness.errors import UsageError
from harness.serving.models.adapters import Adapter
from harness.serving.models.llama import load_llama
from harness.serving.models.seam import Model, Segment, start
from harness.serving.models.transformers_model import load_transformers
from tests.local.adapting import BIASED, FEATURES, IDS, Feature, computed, save
from tests.local.families import KEEPING, REREAD, VOCABULARY, write
from tests.tiny_llama import write_model


def logits(model: Model[Any], *, block: int = 8) -> npt.NDArray[np.float32]:
    """Logits after each of some ids, read block by block."""
    past, ids = start(model), np.asarray(IDS, np.int32)
    blocks = [ids[at : at + block] for at in range(0, len(ids), block)]
    return np.concatenate([model.feed([Segment(past, each, len(each))])[0] for each in blocks])


@pytest.mark.parametrize("name", FEATURES)
def test_numpy_serves_what_peft_saves(tmp_path: Path, name: str) -> None:
    """Whatever PEFT can make of a Llama's LoRA is computed in numpy as PEFT does; the base stays as it is."""
    feature = FEATURES[name]
    folder = write_model(tmp_path / "model", **feature.model)
    adapter = save(tmp_path / "adapter", folder, feature)
    expected = computed(folder, adapter)
    base = load_llama(folder)
    before = logits(base)
    actual = logits(base.adapted(Adapter(adapter)))
    assert np.abs(expected - actual).max() < feature.rounding
    assert np.abs(before - actual).max() > 0.1
    assert np.array_equal(before, logits(base))


@pytest.mark.parametrize("name", FEATURES)
def test_torch_serves_what_peft_saves(tmp_path: Path, name: str) -> None:
    """Switched on in a shared model, an adapter computes as PEFT does; off again, so does the base."""
    feature = FEATURES[name]
    folder = write_model(tmp_path / "model", **feature.model)
    adapter = save(tmp_path / "adapter", folder, feature)
    base = load_transformers(folder)
    before = logits(base)
    adapted = base.adapted(adapter)
    assert np.array_equal(before, logits(base))
    assert np.abs(computed(folder, adapter) - logits(adapted)).max() < feature.rounding
    assert np.array_equal(before, logits(base))


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_of_one_model_do_not_see_each_other(tmp_path: Path, tied: bool) -> None:
    """Adapters that change the base in every way, loaded into one model and used in turn, stay apart."""
    folder = write_model(tmp_path / "model", **BIASED, tie_word_embeddings=tied)
    names = [
        "plain",
        "all biases",
        "some biases",
        "ends",
        "whole ends",
        "whole projections",
        "tokens",
        "pissa",
    ]
    names += ["olora", "dora, ends", "ends stored", "more biases"]
    base = load_transformers(folder)
    before = logits(base)
    folders = {name: save(tmp_path / name, folder, FEATURES[name], seed=at) for at, name in enumerate(names)}
    adapted = {name: base.adapted(each) for name, each in folders.items()}
    expected = {name: computed(folder, each) for name, each in folders.items()}
    plain = {name: logits(load_llama(folder).adapted(Adapter(each))) for name, each in folders.items()}
    for name in [*names, *reversed(names)]:
        found = logits(adapted[name])
        assert np.abs(expected[name] - found).max() < FEATURES[name].rounding
        assert np.abs(plain[name] - found).max() < FEATURES[name].rounding
        assert np.array_equal(before, logits(base))
    assert len({each.network.model for each in adapted.values()}) == 1


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        ("gpt2, learnt positions", "all-linear"),
        ("mamba", ["in_proj", "x_proj"]),
        ("bloom, alibi", "all-linear"),
    ],
)
def test_adapters_of_other_architectures(tmp_path: Path, kind: str, modules: Any) -> None:
    """Whatever PEFT can adapt is served, with keys and values kept or not."""
    folder = write(tmp_path / "model", *(KEEPING | REREAD)[kind])
    adapter = save(tmp_path / "adapter", folder, Feature({"target_modules": modules}))
    base = load_transformers(folder)
    adapted = base.adapted(adapter)
    ids = np.asarray(IDS, np.int32) % VOCABULARY
    both: list[Model[Any]] = [base, adapted]
    read = [model.feed([Segment(start(model), ids, len(ids))])[0] for model in both]
    assert np.abs(computed(folder, adapter, ids.tolist()) - read[1]).max() < 5e-4
    assert np.abs(read[0] - read[1]).max() > 0.1


def refusal(model: Path, adapter: Path) -> str:
    """The one line that both backends say of an adapter that cannot be served."""
    said = []
    with pytest.raises(UsageError) as caught:
        load_llama(model).adapted(Adapter(adapter))
    said.append(str(caught.value))
    with pytest.raises(UsageError) as caught:
        load_transformers(model).adapted(adapter)
    said.append(str(caught.value))
    assert all(each.startswith("--adapters: ") and "\n" not in each for each in said)
    assert all(str(adapter) in each for each in said)
    return " | ".join(said)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"kasa_config": {}}, "key 'kasa_config'"),
        (
            {"use_bdlora": {"target_modules_bd_a": ["q_proj"], "nblocks": 1, "match_strict": False}},
            "'use_bdlora'",
        ),
        ({"layer_replication": [(0, 2), (1, 2)]}, "key 'layer_replication'"),
        ({"init_lora_weights": "pissa_niter_2"}, "save the adapter with path_initial_model_for_weight"),
        ({"alora_invocation_tokens": [5]}, "key 'alora_invocation_tokens'"),
    ],
)
def test_what_is_more_than_a_lora_is_refused(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    """What PEFT can save and neither backend serves is named by file and key."""
    folder = write_model(tmp_path / "model")
    adapter = save(tmp_path / "adapter", folder, Feature(config))
    for said in refusal(folder, adapter).split(" | "):
        assert named in said
        assert "adapter_config.json" in said


def test_adapters_for_another_model_are_refused(tmp_path: Path) -> None:
    """A wider model's adapter, one of more layers, and half a one are refused by folder."""
    folder = write_model(tmp_path / "model")
    wider = save(tmp_path / "wider", write_model(tmp_path / "wide", hidden_size=32), FEATURES["plain"])
    refusal(folder, wider)
    deeper = save(tmp_path / "deeper", write_model(tmp_path / "deep", num_hidden_layers=3), FEATURES["plain"])
    assert "no place for" in refusal(folder, deeper)
    half = save(tmp_path / "half", folder, FEATURES["plain"])
    tensors = load_file(half / "adapter_model.safetensors")
    tensors.pop(min(tensors))
    save_file(tensors, half / "adapter_model.safetensors")
    refusal(folder, half)
    (half / "adapter_model.safetensors").write_bytes(b"{")
    assert "adapter_model.safetensors" in refusal(folder, half)
    (half / "adapter_model.safetensors").unlink()
    assert "cannot be read" in refusal(folder, half)
