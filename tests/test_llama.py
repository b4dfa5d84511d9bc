"""The Llama model in numpy: equal to a plain computation, in blocks, with a past, within its memory."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from harness.errors import UsageError
from harness.serving.decoding.job import Job
from harness.serving.models.config import read_config
from harness.serving.models.llama import BLOCK, KeysValues, LlamaModel, load_llama
from harness.serving.models.seam import Ids, Segment, Span, fork, start
from harness.serving.models.weights import Floats, Tensors
from harness.serving.prefixes import PrefixCache
from harness.serving.server import load
from tests.decoded import run
from tests.tiny_llama import NEWER, older, plain_logits, random_tensors, write_model

IDS = np.random.default_rng(7).integers(0, NEWER["vocab_size"], 20).astype(np.int32)

ROUNDING = 1e-4
"""What float32 may move a logit of a few nats; a wrong position or head moves it by tenths."""

VARIANTS: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "one key head": {"num_key_value_heads": 1},
    "own head size": {"head_dim": 6},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaModel:
    """The tiny model in its newer spelling."""
    return load_llama(write_model(tmp_path_factory.mktemp("model")))


def feed(model: LlamaModel, past: KeysValues, ids: Ids, rows: int | None = None) -> Floats:
    """Logits after the last `rows` of some ids, after all of them by default."""
    return model.feed([Segment(past, ids, len(ids) if rows is None else rows)])[0]


def read(model: LlamaModel, ids: Ids, *, block: int) -> tuple[Floats, KeysValues]:
    """Logits after each id, read in blocks of this many tokens, and the past."""
    past = start(model)
    blocks = range(0, len(ids), block)
    return np.concatenate([feed(model, past, ids[i : i + block]) for i in blocks]), past


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_logits_equal_the_plain_computation(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Grouped, fused and blocked computation gives what head-by-head float64 gives."""
    config = {**NEWER, **changes}
    logits, _ = read(load_llama(write_model(tmp_path, config)), IDS, block=len(IDS))
    assert np.abs(plain_logits(config, random_tensors(config), IDS.tolist()) - logits).max() < ROUNDING


@pytest.mark.parametrize("rope", ["untied", "linear", "llama3"])
def test_older_spelling_is_the_same_model(tmp_path: Path, rope: str) -> None:
    """`rope_theta`, `rope_scaling` and a missing `head_dim` mean what the newer keys mean."""
    config = {**NEWER, **VARIANTS[rope]}
    newer_folder = write_model(tmp_path / "newer", config)
    older_folder = write_model(tmp_path / "older", older(config))
    assert read_config(newer_folder) == read_config(older_folder)
    expected, _ = read(load_llama(newer_folder), IDS, block=8)
    actual, _ = read(load_llama(older_folder), IDS, block=8)
    assert np.array_equal(expected, actual)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 19), unique=True).map(sorted))
def test_blocks_and_kept_keys_change_nothing(model: LlamaModel, cuts: list[int]) -> None:
    """However a sequence is cut into blocks over kept keys and values, its logits are those of one pass."""
    whole, _ = read(model, IDS, block=len(IDS))
    past = start(model)
    edges = [0, *cuts, len(IDS)]
    parts = [feed(model, past, IDS[a:b]) for a, b in pairwise(edges)]
    assert past.length == len(IDS)
    assert np.abs(whole - np.concatenate(parts)).max() < ROUNDING


def test_only_the_logits_that_are_asked_for(model: LlamaModel) -> None:
    """A segment says of how many of its last tokens it wants logits; the past grows by all of them."""
    whole, _ = read(model, IDS, block=len(IDS))
    for rows in (0, 1, 7, len(IDS)):
        past = start(model, len(IDS))
        last = feed(model, past, IDS, rows)
        assert last.shape == (rows, model.vocab_size)
        assert past.length == len(IDS)
        assert np.allclose(whole[len(IDS) - rows :], last, rtol=0, atol=ROUNDING)


def test_a_copy_leaves_its_origin_alone(model: LlamaModel) -> None:
    """What is read on a copy of part of a past is not seen by the past."""
    whole, past = read(model, IDS, block=5)
    kept = past.keys[:, :, : past.length].copy()
    copy = model.join([Span(past, 0, 10)], 3)
    feed(model, copy, IDS[::-1], 1)
    assert (past.length, copy.length) == (20, 30)
    assert np.array_equal(kept, past.keys[:, :, : past.length])
    again = feed(model, model.join([Span(past, 0, 10)], 10), IDS[10:])
    assert np.abs(whole[10:] - again).max() < ROUNDING


def test_spans_are_joined_in_their_order(model: LlamaModel) -> None:
    """A past made of pieces of others is that of the tokens of the pieces."""
    whole, past = read(model, IDS, block=len(IDS))
    joined = model.join([Span(past, 0, 4), Span(past, 4, 5), Span(past, 5, 12)], 0)
    assert joined.length == 12
    assert np.abs(whole[12:] - feed(model, joined, IDS[12:])).max() < ROUNDING
    whole_again, origin = fork(model, past), fork(model, past)
    for each in (whole_again, origin):
        feed(model, each, IDS[:3])
    assert np.array_equal(whole_again.keys[:, :, :23], origin.keys[:, :, :23])


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 15), st.integers(1, 5)), min_size=2, max_size=6))
def test_a_batch_changes_nothing_to_the_bit(model: LlamaModel, cuts: list[tuple[int, int]]) -> None:
    """Segments read together get the very numbers that each gets by itself."""
    pasts = [read(model, IDS[:known], block=8)[1] if known else start(model) for known, _ in cuts]
    copies = [fork(model, past) for past in pasts]
    parts = [IDS[known : known + count] for known, count in cuts]
    batch = model.feed([Segment(past, ids, len(ids)) for past, ids in zip(pasts, parts, strict=True)])
    for past, ids, logits in zip(copies, parts, batch, strict=True):
        assert np.array_equal(feed(model, past, ids), logits)


def test_vectors_stand_in_for_tokens(model: LlamaModel) -> None:
    """The embedding of another token, given as a vector, reads as that token in any batch."""
    whole, _ = read(model, IDS, block=len(IDS))
    blank = IDS.copy()
    blank[[3, 9]] = 2
    vectors = {int(at): model._embedding.weight[IDS[at]] for at in (3, 9)}
    segments = [Segment(start(model), IDS[::-1], 1), Segment(start(model), blank, len(IDS), vectors)]
    assert np.abs(whole - model.feed(segments)[1]).max() < ROUNDING
    assert np.abs(whole - read(model, blank, block=len(IDS))[0]).max() > 0.1


def test_a_long_prompt_stays_small(tmp_path: Path) -> None:
    """3,000 tokens take a few MB beside their keys and values; all scores at once would take 144 MB."""
    model = load_llama(write_model(tmp_path, max_position_embeddings=4096))
    ids = np.random.default_rng(1).integers(0, model.vocab_size, 3000).tolist()
    cache = PrefixCache[KeysValues]()
    tracemalloc.start()
    try:
        run(model, Job(context_ids=ids, max_tokens=1, forced_ids=[5]), cache)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    scores_of_a_block = 4 * 3000 * BLOCK * NEWER["num_attention_heads"]
    assert peak < cache.nbytes + 3 * scores_of_a_block


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_half_precision_is_read_exactly(tmp_path: Path, stored: str) -> None:
    """A 16-bit weight becomes the float32 of the same value."""
    values = np.array([[1.0, -2.5, 0.15625], [3.0e-5, 0.0, -65280.0]], np.float32)
    if stored == "float16":
        save_file({"w": values.astype(np.float16)}, tmp_path / "model.safetensors")
        expected = values.astype(np.float16).astype(np.float32)
    else:
        bits = (values.view(np.uint32) >> 16).astype("<u2")
        header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
        content = len(header).to_bytes(8, "little") + header + bits.tobytes()
        (tmp_path / "model.safetensors").write_bytes(content)
        expected = (bits.astype(np.uint32) << 16).view(np.float32)
    taken = Tensors(tmp_path).take("w", 2, 3)
    assert taken.dtype == np.float32
    assert np.array_equal(expected, taken)


def test_weights_in_several_files(tmp_path: Path) -> None:
    """A model whose tensors are spread by an index is the model in one file."""
    whole = write_model(tmp_path / "whole")
    spread = write_model(tmp_path / "spread")
    tensors = load_file(spread / "model.safetensors")
    (spread / "model.safetensors").unlink()
    places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, spread / file)
    (spread / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    expected, _ = read(load_llama(whole), IDS, block=8)
    actual, _ = read(load_llama(spread), IDS, block=8)
    assert np.array_equal(expected, actual)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gpt2"}, "'model_type': 'gpt2'"),
        ({"hidden_act": "gelu"}, "'hidden_act': 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "'rope_parameters.rope_type': 'yarn'"),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "dynamic"}},
            "'rope_scaling.rope_type': 'dynamic'",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": {"rope_type": "llama3", "high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 3}, "head_dim"),
        ({"head_dim": None, "hidden_size": 18}, "num_attention_heads"),
        ({"hidden_size": "16"}, "hidden_size"),
        ({"vocab_size": 0}, "vocab_size"),
    ],
)
def test_unsupported_config_is_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    """What cannot be computed is refused by file and key."""
    (tmp_path / "config.json").write_text(json.dumps({**NEWER, **changes}))
    with pytest.raises(UsageError) as caught:
        read_config(tmp_path)
    assert "config.json" in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_missing_or_broken_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A file of the folder that is not there, or not whole, is named."""
    folder = write_model(tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        load(folder)


def test_misshapen_and_missing_tensors_are_named(tmp_path: Path) -> None:
    """A tensor that does not fit config.json, is missing, or holds integers is named."""
    folder = write_model(tmp_path, intermediate_size=24)
    (folder / "config.json").write_text(json.dumps({**NEWER, "intermediate_size": 20}))
    with pytest.raises(UsageError, match=r"mlp\.gate_proj\.weight.*\(24, 16\).*\(20, 16\)"):
        load_llama(folder)
    (folder / "config.json").write_text(json.dumps({**NEWER, "num_hidden_layers": 3}))
    with pytest.raises(UsageError, match=r"no tensor 'model\.layers\.2\."):
        load_llama(folder)
    save_file({"w": np.zeros(3, np.int8)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match="'w' is stored as I8"):
        load_llama(folder)


def test_end_of_text_comes_from_the_generation_config_first(tmp_path: Path) -> None:
    """`generation_config.json` overrules `config.json`; either may list several ids, or none."""
    folder = write_model(tmp_path, eos_token_id=[3, 4])
    assert read_config(folder).eos_ids == {3, 4}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 5}))
    assert read_config(folder).eos_ids == {5}
