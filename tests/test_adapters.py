"""LoRA adapters: the product added to the weights, by route over HTTP, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from harness.errors import UsageError
from harness.serving.app import PREFIXES
from harness.serving.decoding.job import Job
from harness.serving.models.adapters import Adapter
from harness.serving.models.llama import LlamaModel, load_llama
from harness.serving.models.seam import Model, Segment, start
from harness.serving.server import Served, load
from tests.decoded import run
from tests.tiny_endpoint import Client, client_of
from tests.tiny_llama import BOS, NEWER, write_model

Matrices = dict[str, npt.NDArray[np.float32]]

RANK, ALPHA = 3, 4.0
PREFIX = "base_model.model."
MODULES = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.v_proj",
    "model.layers.0.mlp.up_proj",
    "model.layers.1.self_attn.k_proj",
    "model.layers.1.self_attn.o_proj",
    "model.layers.1.mlp.down_proj",
)
"""Some of the modules: of the stacked ones never all that are stacked together."""
IDS = np.random.default_rng(7).integers(0, NEWER["vocab_size"], 20).astype(np.int32)
ROUNDING = 1e-4
CONTEXT, FORCED = [BOS, *range(60, 130)], [70, 71]
"""A context of more than one block, so that its first block could be shared."""


def random_adapter(model: Path, modules: tuple[str, ...] = MODULES, *, seed: int = 0) -> Matrices:
    """Matrices of rank 3 for some modules of a model, named as PEFT stores them."""
    weights, random = load_file(model / "model.safetensors"), np.random.default_rng(seed)
    found: Matrices = {}
    for module in modules:
        outputs, inputs = weights[f"{module}.weight"].shape
        for part, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK))):
            matrix = random.normal(0.0, 0.5, shape).astype(np.float32)
            found[f"{PREFIX}{module}.lora_{part}.weight"] = matrix
    return found


def write_adapter(folder: Path, matrices: Mapping[str, npt.NDArray[Any]], **changes: Any) -> Path:
    """Write an adapter as PEFT does; `changes` go over its configuration."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "somewhere/tiny",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_dora": False,
        "use_rslora": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    save_file(dict(matrices), folder / "adapter_model.safetensors")
    return folder


def merged(model: Path, matrices: Matrices, folder: Path, *, scale: float) -> Path:
    """A copy of a model whose weights have an adapter's products added."""
    shutil.copytree(model, folder)
    weights = load_file(model / "model.safetensors")
    for name in matrices:
        module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        if module != name.removeprefix(PREFIX):
            product = matrices[f"{PREFIX}{module}.lora_B.weight"] @ matrices[name]
            weights[f"{module}.weight"] += scale * product
    save_file(weights, folder / "model.safetensors")
    return folder


def logits(model: LlamaModel, *, block: int = 8) -> npt.NDArray[np.float32]:
    """Logits after each of some ids, read block by block."""
    past = start(model)
    blocks = [IDS[at : at + block] for at in range(0, len(IDS), block)]
    return np.concatenate([model.feed([Segment(past, ids, len(ids))])[0] for ids in blocks])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Served[Any]:
    """The tiny model with two adapters, `geo` and `law`."""
    adapters = tmp_path_factory.mktemp("adapters")
    write_adapter(adapters / "geo", random_adapter(model, seed=1))
    write_adapter(adapters / "law", random_adapter(model, MODULES[:1], seed=2))
    (adapters / "no adapter").mkdir()
    return load(model, adapters)


@pytest.fixture
async def client(served: Served[Any]) -> AsyncIterator[Client]:
    """A client of the tiny model and its adapters."""
    async with client_of(served) as client:
        yield client


# --------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("changes", "scale"),
    [({}, ALPHA / RANK), ({"use_rslora": True}, ALPHA / RANK**0.5), ({"lora_alpha": 1}, 1 / RANK)],
    ids=["alpha over rank", "alpha over its root", "whole number"],
)
def test_an_adapter_adds_its_product(
    model: Path, tmp_path: Path, changes: dict[str, Any], scale: float
) -> None:
    """Served logits are those of a model whose weights have the scaled product merged in."""
    matrices = random_adapter(model)
    adapted = load_llama(model).adapted(
        Adapter(write_adapter(tmp_path / "adapters/geo", matrices, **changes))
    )
    whole = load_llama(merged(model, matrices, tmp_path / "merged", scale=scale))
    assert np.allclose(logits(whole), logits(adapted), rtol=0, atol=ROUNDING)
    assert not np.allclose(logits(load_llama(model)), logits(adapted), rtol=0, atol=0.1)


def test_every_module_may_have_an_adapter(tmp_path: Path) -> None:
    """Adapters on all projections, biases or not, are those of the merged model."""
    biased = write_model(tmp_path / "biased", attention_bias=True, mlp_bias=True)
    names = [name.removesuffix(".weight") for name in load_file(biased / "model.safetensors")]
    matrices = random_adapter(biased, tuple(name for name in names if name.endswith("_proj")))
    assert len(matrices) == 2 * 7 * NEWER["num_hidden_layers"]
    adapted = load_llama(biased).adapted(Adapter(write_adapter(tmp_path / "geo", matrices)))
    whole = load_llama(merged(biased, matrices, tmp_path / "merged", scale=ALPHA / RANK))
    assert np.allclose(logits(whole), logits(adapted), rtol=0, atol=ROUNDING)


def test_half_precision(model: Path, tmp_path: Path) -> None:
    """An adapter stored as float16 is that of the same values in float32."""
    halves = {name: each.astype(np.float16) for name, each in random_adapter(model).items()}
    singles = {name: each.astype(np.float32) for name, each in halves.items()}
    expected = load_llama(model).adapted(Adapter(write_adapter(tmp_path / "singles", singles)))
    actual = load_llama(model).adapted(Adapter(write_adapter(tmp_path / "halves", halves)))
    assert np.array_equal(logits(expected), logits(actual))


def test_the_base_is_left_alone_and_shared(model: Path, tmp_path: Path) -> None:
    """An adapter changes nothing in its base, whose weights it uses without a copy of them."""
    base = load_llama(model)
    before = logits(base)
    adapted = base.adapted(Adapter(write_adapter(tmp_path / "geo", random_adapter(model))))
    logits(adapted)
    assert np.array_equal(before, logits(base))
    assert adapted._embedding.weight is base._embedding.weight
    assert adapted._head.weights[0] is base._head.weights[0]
    for own, shared in zip(adapted._layers, base._layers, strict=True):
        for field in ("query_key_value", "output", "gate_up", "down"):
            assert getattr(own, field).weights[0] is getattr(shared, field).weights[0]
            assert getattr(shared, field).low_rank is None


def test_a_module_that_is_replaced_leaves_its_neighbours_shared(model: Path, tmp_path: Path) -> None:
    """Of projections that are stacked into one, those that an adapter leaves alone are still the base's."""
    base = load_llama(model)
    module = "model.layers.0.self_attn.k_proj"
    whole = {f"{PREFIX}{module}.weight": load_file(model / "model.safetensors")[f"{module}.weight"] + 1}
    same = {f"{PREFIX}lm_head.base_layer.weight": base._head.weights[0].copy()}
    tensors = {**random_adapter(model, MODULES[3:4]), **whole, **same}
    folder = write_adapter(tmp_path / "geo", tensors, modules_to_save=["layers.0.self_attn.k_proj"])
    adapted = base.adapted(Adapter(folder))
    stack = base._layers[0].query_key_value.weights[0]
    query, key, value = adapted._layers[0].query_key_value.weights
    assert np.shares_memory(query, stack)
    assert np.shares_memory(value, stack)
    assert not np.shares_memory(key, stack)
    assert adapted._layers[1].query_key_value.weights[0] is base._layers[1].query_key_value.weights[0]
    assert adapted._head.weights[0] is base._head.weights[0]


def test_folders_are_routes(served: Served[Any]) -> None:
    """Each folder with an `adapter_config.json` is an adapter of its name; others are none."""
    assert sorted(served.adapters) == ["geo", "law"]


# -------------------------------------------------------------------------------------------- refusals


def lacks_b(matrices: Matrices) -> Matrices:
    """Without one lora_B."""
    return {name: each for name, each in matrices.items() if name != f"{PREFIX}{MODULES[0]}.lora_B.weight"}


def lacks_a(matrices: Matrices) -> Matrices:
    """Without one lora_A."""
    return {name: each for name, each in matrices.items() if name != f"{PREFIX}{MODULES[0]}.lora_A.weight"}


def too_wide(matrices: Matrices) -> Matrices:
    """With one lora_A for a wider model."""
    name = f"{PREFIX}{MODULES[0]}.lora_A.weight"
    return {**matrices, name: np.zeros((RANK, 17), np.float32)}


def other_rank(matrices: Matrices) -> Matrices:
    """With a lora_B of another rank than its lora_A."""
    name = f"{PREFIX}{MODULES[0]}.lora_B.weight"
    return {**matrices, name: np.zeros((len(matrices[name]), RANK + 1), np.float32)}


def for_another_layer(matrices: Matrices) -> Matrices:
    """With matrices for a layer that is not there."""
    name = f"{PREFIX}model.layers.2.self_attn.q_proj.lora_A.weight"
    return {**matrices, name: np.zeros((RANK, 16), np.float32)}


def for_the_embedding(matrices: Matrices) -> Matrices:
    """With matrices for a module that is not served."""
    name = f"{PREFIX}model.embed_tokens.lora_embedding_A"
    return {**matrices, name: np.zeros((RANK, 16), np.float32)}


def for_a_norm(matrices: Matrices) -> Matrices:
    """With matrices for what is no matrix."""
    return {**matrices, f"{PREFIX}model.norm.lora_A.weight": np.zeros((RANK, 16), np.float32)}


def with_a_bias(matrices: Matrices) -> Matrices:
    """With a bias that the model's projections do not have."""
    return {**matrices, f"{PREFIX}{MODULES[0]}.bias": np.zeros(16, np.float32)}


def too_many_ids(matrices: Matrices) -> Matrices:
    """With the embedding of a model whose vocabulary was extended."""
    return {**matrices, f"{PREFIX}model.embed_tokens.weight": np.zeros((300, 16), np.float32)}


def with_a_magnitude(matrices: Matrices) -> Matrices:
    """With DoRA's magnitudes, of which the configuration says nothing."""
    return {**matrices, f"{PREFIX}{MODULES[0]}.lora_magnitude_vector": np.zeros(16, np.float32)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lacks_b, f"{MODULES[0]} has only one of lora_A and lora_B"),
        (lacks_a, f"{MODULES[0]} has only one of lora_A and lora_B"),
        (too_wide, f"{MODULES[0]}: lora_A and lora_B have the shapes (3, 17) and (16, 3)"),
        (other_rank, MODULES[0]),
        (for_another_layer, f"no place for '{PREFIX}model.layers.2.self_attn.q_proj.lora_A.weight'"),
        (for_the_embedding, "model.embed_tokens has only one of lora_embedding_A and lora_embedding_B"),
        (for_a_norm, f"no place for '{PREFIX}model.norm.lora_A.weight'"),
        (with_a_bias, f"no place for '{PREFIX}{MODULES[0]}.bias'"),
        (too_many_ids, "model.embed_tokens.weight has the shape (300, 16), the model's is (262, 16)"),
        (with_a_magnitude, f"no place for '{PREFIX}{MODULES[0]}.lora_magnitude_vector'"),
    ],
)
def test_matrices_that_do_not_fit_are_named(
    model: Path, tmp_path: Path, change: Callable[[Matrices], Matrices], named: str
) -> None:
    """Half a pair, another model's shape, and a module that is not there: one line with folder and module."""
    write_adapter(tmp_path / "geo", change(random_adapter(model)))
    assert named in refusal(model, tmp_path)
    assert str(tmp_path / "geo") in refusal(model, tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"peft_type": "IA3"}, "key 'peft_type' is 'IA3'; only 'LORA' is served"),
        ({"alora_invocation_tokens": [5, 6]}, "key 'alora_invocation_tokens' asks for what is not served"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "key 'layer_replication'"),
        ({"use_qalora": True}, "key 'use_qalora'"),
        ({"use_bdlora": {"nblocks": 2}}, "key 'use_bdlora'"),
        ({"kasa_config": {"beta": 1}}, "key 'kasa_config'"),
        ({"init_lora_weights": "loftq"}, "key 'init_lora_weights' is 'loftq', which changed the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
        ({"rank_pattern": {"q_proj": 0}}, "`$.rank_pattern[...]`"),
        ({"rank_pattern": {"q_(": 2}}, "'q_(' is no regular expression"),
        ({"trainable_token_indices": ["a"]}, "`$.trainable_token_indices"),
        ({"r": 0}, "`$.r`"),
        ({"lora_alpha": "much"}, "`$.lora_alpha`"),
        ({"peft_type": None}, "`$.peft_type`"),
    ],
)
def test_configurations_that_are_not_served_are_named(
    model: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    """What is more than a LoRA, and what means nothing, is refused by file and key."""
    write_adapter(tmp_path / "geo", random_adapter(model), **changes)
    assert named in refusal(model, tmp_path)
    assert str(tmp_path / "geo/adapter_config.json") in refusal(model, tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"use_dora": True}, f"lacks {MODULES[0]}.lora_magnitude_vector, which adapter_config.json asks for"),
        ({"lora_bias": True}, f"lacks {MODULES[0]}.lora_B.bias, which adapter_config.json asks for"),
        (
            {"rank_pattern": {"q_proj": 2}},
            f"{MODULES[0]}: lora_A and lora_B have the shapes (3, 16) and (16, 3)",
        ),
        ({"modules_to_save": ["lm_head"]}, "key 'modules_to_save' of adapter_config.json asks for lm_head"),
    ],
)
def test_what_the_configuration_asks_for_must_be_there(
    model: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    """A configuration that says more than the file holds is refused by folder and tensor."""
    write_adapter(tmp_path / "geo", random_adapter(model), **changes)
    assert named in refusal(model, tmp_path)
    assert str(tmp_path / "geo") in refusal(model, tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{"])
def test_a_broken_file_is_named(model: Path, tmp_path: Path, name: str, content: bytes) -> None:
    """A file of an adapter that is not whole is named."""
    folder = write_adapter(tmp_path / "geo", random_adapter(model))
    (folder / name).write_bytes(content)
    assert str(folder / name) in refusal(model, tmp_path)


def test_an_adapter_without_weights_is_named(model: Path, tmp_path: Path) -> None:
    """A folder with a configuration alone says which file it lacks."""
    folder = write_adapter(tmp_path / "geo", random_adapter(model))
    (folder / "adapter_model.safetensors").unlink()
    assert str(folder / "adapter_model.safetensors") in refusal(model, tmp_path)


def test_a_folder_without_adapters_is_refused(model: Path, tmp_path: Path) -> None:
    """No `adapter_config.json` below the folder, or no folder at all, is an error that says so."""
    write_adapter(tmp_path, random_adapter(model))
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert refusal(model, folder) == (f"--adapters {folder}: no folder with an adapter_config.json in it")


def refusal(model: Path, adapters: Path) -> str:
    """The one line that is said of adapters which cannot be served."""
    with pytest.raises(UsageError) as caught:
        load(model, adapters)
    assert str(caught.value).startswith("--adapters")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- over HTTP


def alone(model: Model[Any]) -> list[float]:
    """The forced output's log-probabilities, computed without HTTP or anything kept."""
    (output,) = run(model, Job(context_ids=CONTEXT, max_tokens=len(FORCED), forced_ids=FORCED)).outputs
    return [each.logprob for each in output.tokens]


async def ask(client: Client, path: str, **body: Any) -> tuple[list[float], dict[str, Any]]:
    """The forced output's log-probabilities over HTTP, and the whole reply."""
    asked = {"tokens": CONTEXT, "forced_output_tokens": FORCED, "logprobs": 0, **body}
    status, reply = await client.post(f"{path}/completions", asked)
    assert status == 200, reply
    found: list[float] = reply["choices"][0]["logprobs"]["token_logprobs"]
    return found, reply


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_route_picks_its_adapter(client: Client, served: Served[Any], prefix: str) -> None:
    """`ENDPOINT_ID:ROUTE` is the adapter, the id alone the base, on each path; the reply names the id."""
    base, _ = await ask(client, prefix, model="ep0")
    assert base == alone(served.model)
    for route, adapted in served.adapters.items():
        found, reply = await ask(client, prefix, model=f"ep0:{route}")
        assert found == alone(adapted) != base
        assert reply["model"] == "ep0"


async def test_a_bare_route_is_one_on_the_container_s_path(client: Client, served: Served[Any]) -> None:
    """On `/v1`, which knows no endpoint id, the route alone picks the adapter; elsewhere it is an id."""
    found, reply = await ask(client, "/v1", model="geo")
    assert (found, reply["model"]) == (alone(served.adapters["geo"]), "tiny")
    for path in PREFIXES[1:]:
        found, reply = await ask(client, path, model="geo")
        assert (found, reply["model"]) == (alone(served.model), "geo")
    found, _ = await ask(client, "/v1")
    assert found == alone(served.model)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("route", ["art", "", "geo:law", "Geo"])
async def test_an_unknown_route_is_404(client: Client, prefix: str, route: str) -> None:
    """The message names the adapters that are there, on the routes of the tokenizer too."""
    for path, field, value in (
        ("completions", "tokens", CONTEXT),
        ("tokenize", "prompt", "a"),
        ("detokenize", "tokens", CONTEXT),
    ):
        reply = await client.post(f"{prefix}/{path}", {"model": f"ep0:{route}", field: value})
        assert reply == (404, {"message": f"no adapter {route!r} is served here; there are geo, law"})


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_text_to_ids_and_back_by_route(client: Client, prefix: str) -> None:
    """An adapter has its base's tokenizer."""
    for model in ("ep0", "ep0:geo", "ep0:law"):
        _, reply = await client.post(f"{prefix}/tokenize", {"model": model, "prompt": "a b"})
        asked = {"model": model, "tokens": reply["tokens"]}
        assert await client.post(f"{prefix}/detokenize", asked) == (200, {"text": "a b"})


async def test_adapters_keep_their_own_contexts(client: Client, served: Served[Any]) -> None:
    """A context read by the base is read anew by an adapter, and kept for each: none is given to another."""
    models = {"ep0": served.model, **{f"ep0:{route}": each for route, each in served.adapters.items()}}
    for cached in (0, len(CONTEXT)):
        for name, model in models.items():
            found, reply = await ask(client, "/v1", model=name)
            assert found == alone(model)
            assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == cached
