"""Completions of the embedded endpoint, field by field, by the model's own numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.serving.app import MAX_BODY, PREFIXES
from harness.serving.asking import MAX_CHOICES
from harness.serving.decoding.job import Job
from harness.serving.server import Options, Served, load
from tests.decoded import run
from tests.tiny_endpoint import Client, client_of, decoded
from tests.tiny_llama import BOS, EOS, PIECES, write_model

SHORT = 64
"""The tiny model's maximum length here."""
BASE = [BOS, 70, 71, 72]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=SHORT)


@pytest.fixture(scope="module")
def served(folder: Path) -> Served[Any]:
    """The tiny model."""
    return load(folder)


@pytest.fixture
async def client(served: Served[Any]) -> AsyncIterator[Client]:
    """A client of the tiny model."""
    async with client_of(served) as client:
        yield client


async def test_forced_completion_has_the_contract_s_shape(client: Client, served: Served[Any]) -> None:
    """Every field of the reply is there, and the numbers are the model's."""
    forced = [PIECES.index("ĠB"), EOS, 80]
    body = {"model": "ep0", "tokens": BASE, "forced_output_tokens": forced, "logprobs": 2, "seed": 7}
    status, reply = await client.post("/dedicated/v1/completions", {**body, "stream": False})
    assert status == 200
    job = Job(context_ids=BASE, max_tokens=3, forced_ids=forced, top=2)
    expected = run(served.model, job).outputs[0].tokens
    (choice,) = reply.pop("choices")
    assert reply.pop("id").startswith("cmpl-")
    assert reply == {
        "object": "text_completion",
        "model": "ep0",
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 3,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    logprobs = choice.pop("logprobs")
    text = " B" + PIECES[80]
    assert choice == {"index": 0, "text": text, "seed": 7, "finish_reason": "length", "tokens": forced}
    assert logprobs["tokens"] == [" B", "</s>", PIECES[80]]
    assert logprobs["text_offset"] == [0, 2, 2]
    assert logprobs["token_logprobs"] == [each.logprob for each in expected]
    for place, found in enumerate(expected):
        top = logprobs["top_logprobs"][place]
        assert found.logprob == top[logprobs["tokens"][place]]
        assert max(top.values()) == found.logprobs[0]
        assert 2 <= len(top) <= 3


async def test_cached_tokens_are_told(client: Client) -> None:
    """The second choice of a context says that the context was cached."""
    seen = []
    for forced in ([5], [6, 7]):
        _, reply = await client.complete(tokens=BASE, forced_output_tokens=forced)
        seen.append(reply["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert reply["choices"][0]["logprobs"] is None
    assert seen == [0, 4]


async def test_generation_follows_temperature_and_seed(client: Client) -> None:
    """Greedy twice is the same; a seed is told, and sent back draws the same text again."""
    greedy = [(await client.complete(prompt="abc", max_tokens=9, temperature=0))[1] for _ in range(2)]
    assert greedy[0]["choices"][0]["tokens"] == greedy[1]["choices"][0]["tokens"]
    _, first = await client.complete(prompt="abc", max_tokens=9)
    choice = first["choices"][0]
    _, second = await client.complete(prompt="abc", max_tokens=9, seed=choice["seed"])
    assert choice == second["choices"][0]
    assert first["model"] == "tiny"


async def test_output_is_bounded_by_the_model(client: Client) -> None:
    """Without `max_tokens` the output ends at the end of text or where the model's length ends."""
    for seed in range(4):
        _, reply = await client.complete(tokens=BASE, seed=seed)
        choice = reply["choices"][0]
        if choice["finish_reason"] == "stop":
            assert choice["tokens"][-1] == EOS
        else:
            assert reply["usage"]["total_tokens"] == SHORT


async def test_log_probabilities_are_taken_before_temperature(client: Client) -> None:
    """The temperature moves what is drawn, not what is reported."""
    _, cold = await client.complete(tokens=BASE, max_tokens=1, logprobs=1, temperature=0)
    tokens = cold["choices"][0]["tokens"]
    _, hot = await client.complete(
        tokens=BASE, max_tokens=1, logprobs=1, temperature=9, forced_output_tokens=tokens
    )
    assert cold["choices"][0]["logprobs"] == hot["choices"][0]["logprobs"]


async def test_fragments_of_a_character_share_its_offset(client: Client) -> None:
    """Bytes that make up one character read as replacement characters alone, and start where it starts."""
    bytes_of_text = [PIECES.index(piece) for piece in ("x", "â", "Ĥ", "¬", "y")]  # x€y
    _, reply = await client.complete(tokens=BASE, forced_output_tokens=bytes_of_text, logprobs=0)
    choice = reply["choices"][0]
    assert choice["text"] == "x€y"
    assert choice["logprobs"]["tokens"] == ["x", "\ufffd", "\ufffd", "\ufffd", "y"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 1, 1, 2]
    assert [len(each) for each in choice["logprobs"]["top_logprobs"]] == [1] * 5


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_text_to_ids_and_back(client: Client, prefix: str) -> None:
    """Tokenize puts `<s>` in front, detokenize drops it, and a prompt is its ids."""
    _, reply = await client.post(f"{prefix}/tokenize", {"model": "any", "prompt": "a b"})
    ids = reply["tokens"]
    assert (ids[0], len(ids)) == (BOS, 4)
    assert await client.post(f"{prefix}/detokenize", {"model": "any", "tokens": ids}) == (
        200,
        {"text": "a b"},
    )
    assert (await client.post(f"{prefix}/tokenize", {"model": "any", "prompt": ""}))[1] == {"tokens": [BOS]}
    forced = {"model": "any", "forced_output_tokens": [9], "logprobs": 1}
    replies = [
        (await client.post(f"{prefix}/completions", {**forced, **source}))[1]["choices"]
        for source in ({"prompt": "a b"}, {"tokens": ids})
    ]
    assert replies[0][0]["logprobs"] == replies[1][0]["logprobs"]


async def test_echo(client: Client) -> None:
    """The echoed prompt's values are those of the same tokens forced; one more token follows."""
    forced = [75, 76, 80, 81, 5]
    _, scored = await client.complete(tokens=BASE, forced_output_tokens=forced, logprobs=2)
    expected = scored["choices"][0]["logprobs"]
    status, reply = await client.complete(
        prompt=[*BASE, *forced], max_tokens=1, temperature=0, logprobs=2, echo=True, seed=1
    )
    assert status == 200
    (choice,) = reply["choices"]
    found = choice["logprobs"]
    assert choice["tokens"][: len(BASE) + len(forced)] == [*BASE, *forced]
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert len(found["token_logprobs"]) == len(BASE) + len(forced) + 1
    cut = slice(len(BASE), -1)
    assert found["token_logprobs"][cut] == pytest.approx(expected["token_logprobs"], abs=1e-5)
    assert found["tokens"][cut] == expected["tokens"]
    assert [list(each) for each in found["top_logprobs"][cut]] == [
        list(each) for each in expected["top_logprobs"]
    ]
    assert reply["usage"]["prompt_tokens"] == len(BASE) + len(forced)
    assert (await client.complete(prompt=[BOS], max_tokens=1, logprobs=1, echo=True))[0] == 200


async def test_several_prompts(client: Client) -> None:
    """A choice each, in their order, the same as each alone; as texts and as ids."""
    alone = []
    for text in ("a b", "B", "a b c"):
        _, reply = await client.complete(
            prompt=text, max_tokens=2, temperature=0, logprobs=1, seed=1, echo=True
        )
        alone.append(reply["choices"][0])
    for prompts in (["a b", "B", "a b c"], [each["tokens"][:-2] for each in alone]):
        _, reply = await client.complete(
            prompt=prompts, max_tokens=2, temperature=0, logprobs=1, seed=1, echo=True
        )
        assert [each["index"] for each in reply["choices"]] == [0, 1, 2]
        assert [{**each, "index": 0} for each in reply["choices"]] == alone
        assert reply["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tokens": None}, "prompt"),
        ({"prompt": "both"}, "prompt"),
        ({"prompt": ["a", 5], "tokens": None}, "prompt"),
        ({"prompt": [5, [5]], "tokens": None}, "prompt"),
        ({"prompt": [], "tokens": None}, "prompt"),
        ({"prompt": [[]], "tokens": None}, "prompt"),
        ({"prompt": [[5, len(PIECES)]], "tokens": None}, "prompt"),
        ({"prompt": [[5], [5] * SHORT], "tokens": None}, "prompt"),
        ({"prompt": [[5]] * (MAX_CHOICES + 1), "tokens": None}, "prompt"),
        ({"prompt": ["a", "b"], "tokens": None, "forced_output_tokens": [5]}, "forced_output_tokens"),
        ({"prompt": "a", "tokens": None, "echo": True, "forced_output_tokens": [5]}, "echo"),
        ({"tokens": "abc"}, "tokens"),
        ({"tokens": []}, "tokens"),
        ({"tokens": [[1, 2]]}, "tokens"),
        ({"tokens": [1.5]}, "tokens"),
        ({"tokens": [True]}, "tokens"),
        ({"tokens": [-1]}, "tokens"),
        ({"tokens": [len(PIECES)]}, "tokens"),
        ({"tokens": [5] * SHORT}, "tokens"),
        ({"tokens": None, "prompt": "x" * SHORT}, "prompt"),
        ({"forced_output_tokens": []}, "forced_output_tokens"),
        ({"forced_output_tokens": [10**9]}, "forced_output_tokens"),
        ({"forced_output_tokens": [5] * (SHORT - len(BASE) + 1)}, "forced_output_tokens"),
        ({"forced_output_tokens": [5, 6], "max_tokens": 1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": SHORT - len(BASE) + 1}, "max_tokens"),
        ({"max_tokens": "3"}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": 101}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"seed": [1, 2]}, "seed"),
        ({"top_k": len(PIECES) + 1}, "top_k"),
        ({"max_total_tokens": len(BASE)}, "max_total_tokens"),
        ({"max_total_tokens": SHORT + 1}, "max_total_tokens"),
        ({"max_total_tokens": len(BASE) + 1, "forced_output_tokens": [5, 6]}, "max_total_tokens"),
        ({"min_tokens": 4, "max_tokens": 3}, "min_tokens"),
        ({"min_total_tokens": SHORT + 1}, "min_total_tokens"),
        ({"bad_word_tokens": [{"tokens": [10**6]}]}, "bad_word_tokens"),
        ({"stop_tokens": [{"tokens": [10**6]}]}, "stop_tokens"),
        ({"eos_token": [10**6]}, "eos_token"),
        ({"token_index_to_replace": [4], "embedding_to_replace": [0.5] * 16}, "token_index_to_replace"),
        ({"token_index_to_replace": [1], "embedding_to_replace": [0.5] * 15}, "embedding_to_replace"),
        ({"tokens": None, "prompt": ["a"] * (MAX_CHOICES // 2 + 1), "n": 2}, "n"),
        ({"tokens": None, "prompt": ["a", "b"], "forced_output_tokens": [5]}, "forced_output_tokens"),
        ({"echo": True}, "echo"),
        ({"model": 3}, "model"),
    ],
    ids=str,
)
async def test_a_wrong_field_is_named(client: Client, change: dict[str, Any], field: str) -> None:
    """422, in the contract's third shape, with the way to the field."""
    status, reply = await client.complete(**{"tokens": BASE, **change})
    assert status == 422
    (problem,) = reply["detail"]
    assert problem["loc"] == ["body", field]
    assert problem["msg"]
    assert problem["type"]


async def test_null_is_a_field_not_given(client: Client) -> None:
    """Nulls change nothing, whether the field is honoured or not."""
    status, _ = await client.complete(
        tokens=BASE, prompt=None, forced_output_tokens=[5], logprobs=None, n=None, top_p=None, stop=None
    )
    assert status == 200


@pytest.mark.parametrize("path", ["/dedicated/v1", "/serverless/v1"])
async def test_the_vendor_s_paths_need_a_model(client: Client, path: str) -> None:
    """There a request without `model` is 422; on the container path it is not."""
    for route, body in (("completions", {"tokens": BASE}), ("tokenize", {"prompt": "a"})):
        status, reply = await client.post(f"{path}/{route}", body)
        assert (status, reply["detail"][0]["loc"]) == (422, ["body", "model"])
    status, reply = await client.post(f"{path}/tokenize", {"model": "any"})
    assert (status, reply["detail"][0]["loc"]) == (422, ["body", "prompt"])


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_an_unknown_adapter_is_404(client: Client, prefix: str) -> None:
    """`ENDPOINT_ID:ROUTE` names an adapter, and there is none."""
    for route, field, value in (
        ("completions", "tokens", BASE),
        ("tokenize", "prompt", "a"),
        ("detokenize", "tokens", BASE),
    ):
        status, reply = await client.post(f"{prefix}/{route}", {"model": "ep0:law", field: value})
        assert (status, reply) == (404, {"message": "no adapter 'law' is served here"})


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"a": "\xff"}', b'{"a": NaN}', b"[" * 100_000, b'{"prompt": "\\ud800"}'],
    ids=lambda body: str(body[:12]),
)
async def test_no_json_is_400(client: Client, body: bytes) -> None:
    """What cannot be decoded gets 400 in the contract's second shape."""
    status, reply = await client.post("/v1/completions", body)
    assert status == 400
    assert list(reply) == ["message"]


async def test_other_errors_have_a_message(client: Client) -> None:
    """No object 422, unknown path 404, wrong method 405 with the right one, too large a body 413."""
    assert (await client.post("/v1/completions", []))[1]["detail"][0]["loc"] == ["body"]
    status, reply = await client.post("/v2/completions", {})
    assert (status, list(reply)) == (404, ["message"])
    async with client.session.get(f"{client.host}/v1/completions") as wrong:
        assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
        assert list(await decoded(wrong)) == ["message"]
    status, reply = await client.post("/v1/completions", b" " * (MAX_BODY + 1))
    assert (status, list(reply)) == (413, ["message"])


async def test_bearer_token(served: Served[Any]) -> None:
    """With a token a missing or wrong bearer is 401 before anything else; the message repeats neither."""
    async with client_of(served, Options(token="flp_right")) as client:
        for given in ({}, {"Authorization": "Bearer flp_wrong"}, {"Authorization": "flp_right"}):
            for path in ("/v1/completions", "/nowhere"):
                status, reply = await client.post(path, {"tokens": BASE}, **given)
                assert (status, list(reply)) == (401, ["message"])
                assert "flp_" not in reply["message"]
        body = {"tokens": BASE, "max_tokens": 1}
        assert (await client.post("/v1/completions", body, Authorization="Bearer flp_right"))[0] == 200
    async with client_of(served) as client:
        assert (await client.post("/v1/completions", body, Authorization="Bearer any"))[0] == 200
