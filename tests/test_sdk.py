"""The vendor's own Python client talks to the endpoint, its types accepting every reply."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from friendli.core.models import SDKError
from friendli.core.utils import BackoffStrategy, RetryConfig
from friendli.friendli import AsyncFriendli
from httpx import AsyncClient

from harness.serving.server import Options, load
from tests.tiny_endpoint import Client, client_of
from tests.tiny_llama import BOS, PIECES, write_model

BASE = [BOS, 70, 71, 72]
TOKEN = "flp_rehearsal"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[Client]:
    """The endpoint, which wants a token and a team."""
    async with client_of(load(folder), Options(token=TOKEN, team="mine")) as client:
        yield client


@pytest.fixture
async def asked(client: Client) -> AsyncIterator[Any]:
    """The vendor's client, sent to the endpoint; on its own it would try again for an hour."""
    async with AsyncClient() as connections:
        yield AsyncFriendli(
            token=TOKEN,
            server_url=client.host,
            async_client=connections,
            retry_config=RetryConfig("none", BackoffStrategy(0, 0, 0, 0), False),
        )


FORCED = {"tokens": BASE, "forced_output_tokens": [5, 6], "logprobs": 2, "seed": 3}


async def test_completions(client: Client, asked: Any) -> None:
    """A forced completion on each of the three paths: every field is read, log-probabilities among them."""
    replies = [
        await asked.dedicated.completions.complete(
            dedicated_completions_body={"model": "ep0", **FORCED}, x_friendli_team="mine"
        ),
        await asked.serverless.completions.complete(
            serverless_completions_body={"model": "ep0", **FORCED}, x_friendli_team="mine"
        ),
        await asked.container.completions.complete(
            request=FORCED, http_headers={"X-Friendli-Team": "mine"}, server_url=client.host
        ),
    ]
    for reply in replies:
        (choice,) = reply.choices
        assert (choice.tokens, choice.seed, choice.finish_reason) == ([5, 6], 3, "length")
        assert len(choice.logprobs.token_logprobs) == 2
        assert choice.logprobs == replies[0].choices[0].logprobs
        assert all(isinstance(value, float) for value in choice.logprobs.token_logprobs)
        assert all(2 <= len(top) <= 3 for top in choice.logprobs.top_logprobs)
        assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (4, 6)
    assert [reply.model for reply in replies] == ["ep0", "ep0", "tiny"]
    assert replies[1].usage.prompt_tokens_details.cached_tokens == 4


async def test_every_field_the_client_knows(asked: Any) -> None:
    """Fields of the client's schema are sent, and honoured or refused by name."""
    reply = await asked.dedicated.completions.complete(
        dedicated_completions_body={
            "model": "ep0",
            "prompt": "a b",
            "bad_words": ["q"],
            "bad_word_tokens": [{"tokens": [9]}],
            "eos_token": [],
            "frequency_penalty": 0.5,
            "presence_penalty": 0.5,
            "repetition_penalty": 1.2,
            "max_tokens": 6,
            "min_tokens": 2,
            "min_p": 0.01,
            "n": 2,
            "no_repeat_ngram": 2,
            "seed": [3, 4],
            "stop": ["zzz"],
            "stop_tokens": [{"tokens": [8]}],
            "temperature": 0.9,
            "top_k": 50,
            "top_p": 0.9,
            "xtc_threshold": 0.4,
            "xtc_probability": 0.1,
        },
        x_friendli_team="mine",
    )
    assert [choice.seed for choice in reply.choices] == [3, 4]
    assert all(len(choice.tokens) <= 6 for choice in reply.choices)
    with pytest.raises(SDKError, match="response_format"):
        await asked.dedicated.completions.complete(
            dedicated_completions_body={
                "model": "ep0",
                "prompt": "a",
                "response_format": {"type": "json_object"},
            },
            x_friendli_team="mine",
        )


async def test_a_stream(asked: Any) -> None:
    """Chunk by chunk the client reads tokens, texts and the end, and the usage last."""
    body: dict[str, Any] = {
        "model": "ep0",
        "prompt": "a b",
        "max_tokens": 5,
        "eos_token": [],
        "logprobs": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    stream = await asked.dedicated.completions.complete(
        dedicated_completions_body=body, x_friendli_team="mine"
    )
    chunks = [chunk.data if hasattr(chunk, "data") else chunk async for chunk in stream]
    *tokens, end, usage = chunks
    assert [len(chunk.choices[0].logprobs.token_logprobs) for chunk in tokens] == [1] * 5
    assert all(0 <= chunk.choices[0].token < len(PIECES) for chunk in tokens)
    assert (end.choices[0].text, end.choices[0].finish_reason) == ("", "length")
    assert (usage.choices, usage.usage.completion_tokens) == ([], 5)


async def test_tokenize_and_back(asked: Any) -> None:
    """Text to ids with the beginning-of-text token, and back without it."""
    ids = (await asked.dedicated.token.tokenize(model="ep0", prompt="a b", x_friendli_team="mine")).tokens
    assert ids[0] == BOS
    text = await asked.dedicated.token.detokenize(model="ep0", tokens=ids, x_friendli_team="mine")
    assert text.text == "a b"


async def test_the_life_of_an_endpoint(asked: Any) -> None:
    """Status, sleep and wake, and what the endpoint states of itself."""
    endpoint = asked.dedicated.endpoint
    who = {"endpoint_id": "ep0", "x_friendli_team": "mine"}
    assert (await endpoint.get_status(**who)).status == "RUNNING"
    assert (await endpoint.sleep(**who)).status == "SLEEPING"
    assert (await endpoint.wake(**who)).status == "RUNNING"
    assert (await endpoint.get_spec(**who)).max_context_length == 512


async def test_a_wrong_token_is_refused(asked: Any) -> None:
    """401 reaches the client as its own error, which repeats no token."""
    with pytest.raises(SDKError) as caught:
        await asked.dedicated.token.tokenize(
            model="ep0",
            prompt="a",
            x_friendli_team="mine",
            http_headers={"Authorization": "Bearer flp_wrong"},
        )
    assert caught.value.raw_response.status_code == 401
    assert "flp_" not in caught.value.body
