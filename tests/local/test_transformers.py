"""Models through transformers: the same numbers as the library's own, and as the reference's records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from harness.errors import UsageError
from harness.serving.models.llama import load_llama
from harness.serving.models.local import batches, models, network
from harness.serving.models.local.models import CachedModel, RereadingModel
from harness.serving.models.seam import Ids, Model, Segment, Span, fork, start
from harness.serving.models.transformers_model import load_transformers
from harness.tokenizing import Tokenizer, load_tokenizer
from tests.local.families import KEEPING, LENGTH, REFUSED, REREAD, VOCABULARY, write
from tests.tiny_llama import write_model

Logits = npt.NDArray[np.float32]
Served = CachedModel | RereadingModel

ROUNDING = 1e-4
"""What float32 may move logits of a few nats."""


def golden_items(shared: Path) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """The 0-shot HellaSwag and MMLU records with the reference's sums."""
    lines = (shared / "golden/scores_stories260k.jsonl").read_text().splitlines()
    sums = {(each["task"], each["doc_id"]): each["sums"] for each in map(json.loads, lines)}
    for line in (shared / "golden/requests.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["shots"] == 0 and record["task"].split("_")[0] in ("hellaswag", "mmlu"):
            yield record, sums[record["task"], record["doc_id"]]


def split(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Context and continuation ids: trailing spaces move over, the whole is encoded, split by count."""
    stripped = context.rstrip()
    whole, first = tokenizer.encode([context + continuation, stripped])
    return first, whole[len(first) :]


def some(count: int, *, seed: int = 0) -> Ids:
    """Some ids."""
    return np.random.default_rng(seed).integers(3, VOCABULARY, count).astype(np.int32)


def alone(model: Served, ids: Ids) -> Logits:
    """Logits after each id as transformers itself gives them: one sequence, no cache, no padding."""
    with torch.inference_mode():
        logits: Logits = model.network.model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0].numpy()
    return logits


def together(model: Model[Any], sequences: Sequence[Ids], steps: Sequence[Sequence[int]]) -> list[Logits]:
    """Logits after each id of some sequences, all read at once; each step says how many ids of each."""
    pasts, at = [start(model) for _ in sequences], [0] * len(sequences)
    found: list[list[Logits]] = [[] for _ in sequences]
    for step in steps:
        live = [row for row, count in enumerate(step) if count]
        parts = {row: sequences[row][at[row] : at[row] + step[row]] for row in live}
        fed = model.feed([Segment(pasts[row], part, len(part)) for row, part in parts.items()])
        for row, logits in zip(live, fed, strict=True):
            found[row].append(logits)
            at[row] += step[row]
    assert [past.length for past in pasts] == [len(ids) for ids in sequences]
    return [np.concatenate(parts) for parts in found]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> CachedModel:
    """A tiny llama."""
    model = load_transformers(write(tmp_path_factory.mktemp("models") / "tiny", *KEEPING["llama"]))
    assert isinstance(model, CachedModel)
    return model


# ------------------------------------------------------------------------------------------ right numbers


@pytest.mark.parametrize("name", [*KEEPING, *REREAD])
def test_batches_equal_reading_alone(tmp_path: Path, name: str) -> None:
    """Sequences of all lengths, begun, read on and ended side by side, get what each gets alone."""
    model = load_transformers(write(tmp_path, *(KEEPING | REREAD)[name]))
    assert isinstance(model, CachedModel if name in KEEPING else RereadingModel)
    sequences = [some(count, seed=count) for count in (40, 7, 23, 1, 64)]
    steps = [[9, 0, 20, 1, 1], [1, 4, 1, 0, 1], [29, 1, 2, 0, 40], [1, 2, 0, 0, 22]]
    for ids, logits in zip(sequences, together(model, sequences, steps), strict=True):
        assert logits.dtype == np.float32
        assert np.abs(alone(model, ids) - logits).max() < ROUNDING


def test_the_trial_finds_out_who_cannot_be_padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose positions are counted over the padding is served all the same, by reading all again."""
    folder = write(tmp_path, *KEEPING["gpt2, learnt positions"])
    called = network.Network.__call__

    def without(self: network.Network, asked: network.Asked) -> Any:
        return called(self, replace(asked, positions=None))

    monkeypatch.setattr(network.Network, "__call__", without)
    model = load_transformers(folder)
    assert isinstance(model, RereadingModel)
    sequences = [some(20), some(9)]
    for ids, logits in zip(sequences, together(model, sequences, [[5, 8], [15, 1]]), strict=True):
        assert np.abs(alone(model, ids) - logits).max() < ROUNDING


@pytest.mark.parametrize("name", ["llama", "mistral, window", "lfm2, hybrid"])
def test_pasts_are_cut_and_joined(tmp_path: Path, name: str) -> None:
    """A past made of spans of others reads on like the tokens of those spans, and leaves them alone."""
    model: Any = load_transformers(write(tmp_path, *(KEEPING | REREAD)[name]))
    ids, other = some(30), some(12, seed=1)
    past, own = start(model), start(model)
    model.feed([Segment(past, ids[:20], 0), Segment(own, other, 0)])
    joined = model.join([Span(past, 0, 8), Span(past, 8, 14)], 5)
    forked = fork(model, past)
    read = model.feed(
        [Segment(joined, ids[14:], 16), Segment(own, other[:1], 1), Segment(forked, ids[20:], 10)]
    )
    assert (past.length, joined.length, forked.length, own.length) == (20, 30, 30, 13)
    assert past.nbytes > 0
    assert np.abs(alone(model, ids)[14:] - read[0]).max() < ROUNDING
    assert np.abs(alone(model, ids)[20:] - read[2]).max() < ROUNDING
    again = model.feed([Segment(past, ids[20:], 10)])[0]
    assert np.abs(read[2] - again).max() < ROUNDING


@pytest.mark.parametrize("name", ["llama", "gemma", "opt, narrow embedding", "lfm2, hybrid"])
def test_vectors_stand_in_for_tokens(tmp_path: Path, name: str) -> None:
    """The embedding of another token, given as a vector, reads as that token, then and later on."""
    model: Any = load_transformers(write(tmp_path, *(KEEPING | REREAD)[name]))
    ids = some(12)
    table = model.network.model.get_input_embeddings()
    with torch.inference_mode():
        vector = table(torch.tensor([int(ids[5])]))[0].numpy()
    assert vector.shape == (model.hidden,)
    blank = ids.copy()
    blank[5] = 2
    past, plain = start(model), start(model)
    first = model.feed([Segment(plain, ids[:7], 7), Segment(past, blank[:7], 7, {5: vector})])
    last = model.feed([Segment(past, ids[7:], 5)])[0]
    assert np.abs(alone(model, ids)[:7] - first[1]).max() < ROUNDING
    assert np.abs(alone(model, ids)[7:] - last).max() < ROUNDING
    assert np.abs(alone(model, blank)[6] - first[1][6]).max() > 0.1


def test_only_the_rows_that_are_asked_for(tiny: CachedModel) -> None:
    """Each segment gets the logits of its last tokens, as many as it asks for, none included."""
    sequences = [some(12), some(5, seed=1), some(9, seed=2)]
    rows = (3, 0, 9)
    segments = [Segment(start(tiny), ids, count) for ids, count in zip(sequences, rows, strict=True)]
    for ids, count, logits in zip(sequences, rows, tiny.feed(segments), strict=True):
        assert logits.shape == (count, VOCABULARY)
        assert np.allclose(alone(tiny, ids)[len(ids) - count :], logits, rtol=0, atol=ROUNDING)
    assert tiny.feed([Segment(start(tiny), some(4), 0)])[0].shape == (0, VOCABULARY)


def test_what_is_read_again_waits_for_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all is read again, blocks of which no logits are wanted cost no pass at all."""
    model = load_transformers(write(tmp_path, *REREAD["mamba"]))
    assert isinstance(model, RereadingModel)
    past, ids, passes = start(model), some(30), []
    called = network.Network.__call__

    def counting(self: network.Network, asked: network.Asked) -> Any:
        passes.append(asked.inputs.shape)
        return called(self, asked)

    monkeypatch.setattr(network.Network, "__call__", counting)
    assert model.feed([Segment(past, ids[:10], 0)])[0].shape == (0, VOCABULARY)
    model.feed([Segment(past, ids[10:20], 0)])
    last = model.feed([Segment(past, ids[20:], 3)])[0]
    assert passes == [(1, 30)]
    assert np.abs(alone(model, ids)[-3:] - last).max() < ROUNDING


def test_many_long_sequences_are_read_in_several_passes(
    tiny: CachedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows times the longest of them stay within bounds; answers come in the order of the questions."""
    monkeypatch.setattr(batches, "MAX_POSITIONS", 200)
    sequences = [some(count, seed=count) for count in (60, 3, 100, 50, 2, 64)]
    segments = [Segment(start(tiny), ids, 1) for ids in sequences]
    parted = list(batches.batches(segments))
    assert len(parted) > 1
    assert sorted(at for batch in parted for at in batch) == list(range(6))
    for batch in parted:
        assert len(batch) * max(len(sequences[at]) for at in batch) <= 200
    for ids, logits in zip(sequences, tiny.feed(segments), strict=True):
        assert np.abs(alone(tiny, ids)[-1] - logits[0]).max() < ROUNDING


def test_long_and_short_are_not_padded_to_each_other(tiny: CachedModel) -> None:
    """A block of a context and many single tokens are two passes: in one, nearly all would be padding."""
    segments = [Segment(start(tiny), some(count), 1) for count in (1, 64, 1, *[1] * 20)]
    first, second = batches.batches(segments)
    assert first[0] == 1
    assert len(first) * 64 <= batches.CHEAP
    assert len(first) + len(second) == 23


def test_numpy_and_transformers_are_the_same_model(shared: Path) -> None:
    """The golden sums are met within 1e-3 nats, and numpy's log-probabilities token by token."""
    folder = shared / "models/stories260k"
    model, plain = load_transformers(folder), load_llama(folder)
    assert (model.vocab_size, model.hidden, model.max_length, model.eos_ids) == (
        plain.vocab_size,
        plain.hidden,
        plain.max_length,
        plain.eos_ids,
    )
    tokenizer = load_tokenizer(str(folder))
    for record, sums in list(golden_items(shared))[::12]:
        pairs = zip(record["contexts"], record["continuations"], strict=True)
        texts = [split(tokenizer, context, continuation) for context, continuation in pairs]
        scores = [scored(each, texts) for each in (model, plain)]
        for (_, forced), one, other, expected in zip(texts, *scores, sums, strict=True):
            assert abs(float(one.sum()) - expected) < 1e-3
            assert len(forced) == len(one)
            assert np.abs(one - other).max() < 1e-3


def scored(model: Model[Any], texts: Sequence[tuple[list[int], list[int]]]) -> list[Logits]:
    """Log-probabilities of the second ids of each text, after the first."""
    segments = [
        Segment(start(model), np.asarray([*context, *forced][:-1], np.int32), len(forced))
        for context, forced in texts
    ]
    found = []
    for (_, forced), logits in zip(texts, model.feed(segments), strict=True):
        shifted = logits - logits.max(axis=1, keepdims=True)
        found.append(shifted[range(len(forced)), forced] - np.log(np.exp(shifted).sum(axis=1)))
    return found


# -------------------------------------------------------------------------------------- what it is said to be


def test_half_precision_gives_float32_logits(tmp_path: Path) -> None:
    """Weights in 16 bits are computed in 16 bits, near enough to the same model in 32; logits are float32."""
    folder = write(tmp_path, *KEEPING["llama"])
    model = load_transformers(folder, dtype="bfloat16")
    assert isinstance(model, CachedModel)
    assert model.network.model.dtype == torch.bfloat16
    logits = model.feed([Segment(start(model), some(20), 20)])[0]
    whole = alone(load_transformers(folder), some(20))
    assert logits.dtype == np.float32
    assert 0 < np.abs(whole - logits).mean() < 0.1


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("generation_config.json", {"eos_token_id": [5, 6]}, {5, 6}),
        ("generation_config.json", None, {1}),
    ],
)
def test_end_of_text(tmp_path: Path, file: str, content: Any, expected: set[int]) -> None:
    """`generation_config.json` says which ids end a text, else the configuration."""
    folder = write(tmp_path, *KEEPING["llama"])
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(json.dumps(content))
    assert load_transformers(folder).eos_ids == expected


@pytest.mark.parametrize(
    ("name", "tokenizer", "expected"),
    [
        ("llama", None, LENGTH),
        ("gpt2, learnt positions", None, LENGTH),
        ("mpt, alibi", None, LENGTH),
        ("bloom, alibi", {"model_max_length": 77}, 77),
        ("bloom, alibi", {"model_max_length": 1e30}, network.DEFAULT_LENGTH),
        ("bloom, alibi", None, network.DEFAULT_LENGTH),
    ],
)
def test_the_longest_text(tmp_path: Path, name: str, tokenizer: Any, expected: int) -> None:
    """The configuration's bound under any of its names, else the tokenizer's, else the default."""
    kind, changes = KEEPING[name]
    folder = write(tmp_path, kind, changes)
    if kind == "bloom":
        config = json.loads((folder / "config.json").read_text())
        config.pop("max_position_embeddings")
        (folder / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert load_transformers(folder).max_length == expected


def test_threads_are_left_alone(tmp_path: Path) -> None:
    """Loading and reading change neither torch's threads nor whether it keeps track of gradients."""
    before = torch.get_num_threads(), torch.is_grad_enabled()
    model = load_transformers(write(tmp_path, *KEEPING["llama"]))
    assert isinstance(model, CachedModel)
    model.feed([Segment(start(model), some(3), 1)])
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == before


# --------------------------------------------------------------------------------------------- refusals


def refusal(folder: Path, **arguments: str) -> str:
    """The one line that is said of a folder that cannot be served."""
    with pytest.raises(UsageError) as caught:
        load_transformers(folder, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_sees_what_follows_is_refused(tmp_path: Path, name: str) -> None:
    """A model whose logits depend on later tokens would give scores that mean nothing."""
    said = refusal(write(tmp_path, *REFUSED[name]))
    assert said == f"--model {tmp_path}: what follows a token changes its logits: no causal language model"


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """No folder, no weights, half of them, and an architecture that is unknown: one line with the folder."""
    assert refusal(tmp_path / "nowhere") == f"--model {tmp_path / 'nowhere'}: no config.json in it"
    folder = write(tmp_path / "model", *KEEPING["llama"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    said = refusal(folder)
    assert said.startswith(f"--model {folder}: its weights hold no tensor 'model.layers.3.")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llamma"}))
    assert refusal(folder).startswith(f"--model {folder}: cannot be loaded by transformers (")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    assert refusal(folder).startswith(f"--model {folder}: cannot be loaded by transformers (")
    shutil.rmtree(folder)


def test_code_in_the_folder_is_never_run(tmp_path: Path) -> None:
    """A model that brings its own code is refused, and the code does not run."""
    folder = write(tmp_path, *KEEPING["llama"])
    config = json.loads((folder / "config.json").read_text())
    mapped = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config = {**config, "model_type": "own", "auto_map": mapped}
    (folder / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')")
    assert refusal(folder).startswith(f"--model {folder}: cannot be loaded by transformers (")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        ({"device": "abacus"}, "--device abacus: "),
        ({"dtype": "float8"}, "--dtype float8: must be auto, float32, float16, bfloat16"),
    ],
)
def test_unknown_devices_and_types_are_named(tmp_path: Path, arguments: dict[str, str], begins: str) -> None:
    """What torch does not know is refused by its flag."""
    assert refusal(write_model(tmp_path), **arguments).startswith(begins)


def test_who_reads_all_again_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model that keeps no keys and values is slow, and the log says why, by folder."""
    load_transformers(write(tmp_path, *REREAD["mamba"]))
    (record,) = (each for each in caplog.records if each.name == models.__name__)
    assert record.getMessage().startswith(f"{tmp_path} keeps more than keys and values")
