"""Whatever is asked of the endpoint, it answers soon, and never with an error of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.serving.asking import CompletionRequest
from harness.serving.server import load
from tests.test_asking import RANGES
from tests.tiny_endpoint import Client, client_of
from tests.tiny_llama import BOS, PIECES, write_model

SHORT = 48
"""The model's length: what bounds the work of a request."""
SECONDS = 30
"""A request that is not answered by then hangs; the longest takes about one."""

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
ids = st.lists(st.integers(0, len(PIECES)), max_size=6)
sequences = st.lists(st.fixed_dictionaries({"tokens": ids | st.none()}), max_size=3)
sensible: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["a", "a:b", ":", ""]),
    "prompt": st.text(max_size=8)
    | ids
    | st.lists(ids, max_size=3)
    | st.lists(st.text(max_size=3), max_size=3),
    "tokens": ids,
    "forced_output_tokens": ids,
    "max_tokens": st.integers(0, SHORT),
    "max_total_tokens": st.integers(1, SHORT),
    "min_tokens": st.integers(0, SHORT),
    "min_total_tokens": st.integers(0, SHORT),
    "n": st.integers(1, 4),
    "seed": st.integers(0, 2**63 - 1) | st.lists(st.integers(0, 9), min_size=1, max_size=4),
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans() | st.none()}),
    "bad_words": st.lists(st.text(max_size=3), max_size=3),
    "bad_word_tokens": sequences,
    "stop": st.lists(st.text(max_size=3), max_size=3),
    "stop_tokens": sequences,
    "eos_token": ids,
    "num_beams": st.integers(1, 8),
    "length_penalty": st.floats(-1e6, 1e6),
    "early_stopping": st.booleans(),
    "beam_compat_pre_normalization": st.booleans(),
    "beam_compat_no_post_normalization": st.booleans(),
    "token_index_to_replace": st.lists(st.integers(0, 9), max_size=2),
    "embedding_to_replace": st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=32)
    | st.sampled_from([[0.5] * 16, [1e6] * 32]),
    "temperature": st.floats(0, 1e300) | st.sampled_from([0.0, 1e-300]),
}
fields = {
    name: st.none()
    | st.sampled_from([*RANGES.get(name, ([None], []))[0], None])
    | sensible.get(name, anything)
    for name in CompletionRequest.__struct_fields__
}
bodies = st.one_of(
    anything,
    st.fixed_dictionaries({}, optional={name: each | anything for name, each in fields.items()}),
    st.fixed_dictionaries(
        {"tokens": st.just([BOS, 70, 71])},
        optional={name: each for name, each in fields.items() if name not in ("prompt", "tokens", "model")},
    ),
    st.fixed_dictionaries(
        {"prompt": sensible["prompt"]},
        optional={
            name: fields[name]
            for name in (
                "echo",
                "logprobs",
                "max_tokens",
                "n",
                "seed",
                "temperature",
                "stream",
                "stop",
                "num_beams",
            )
        },
    ),
)


@pytest.fixture
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A client of the tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    async with client_of(load(write_model(folder, max_position_embeddings=SHORT))) as client:
        yield client


async def answer(client: Client, route: str, body: Any) -> tuple[int, bytes]:
    """Status and body of whatever is asked."""
    async with asyncio.timeout(SECONDS), client.session.post(f"{client.host}/v1/{route}", json=body) as reply:
        return reply.status, await reply.read()


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
async def test_no_completion_is_an_internal_error_or_hangs(client: Client, body: Any) -> None:
    """Any JSON over all fields is answered: a reply, or an error that is the caller's and names a place."""
    status, said = await answer(client, "completions", body)
    assert status in (200, 400, 404, 422, 429), said
    if status == 422:
        assert b'"loc":["body"' in said
    if status == 200 and isinstance(body, dict) and body.get("stream"):
        assert said.endswith(b"data: [DONE]\n\n") or b'"message"' in said


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=anything | st.fixed_dictionaries({"prompt": st.text()}) | st.fixed_dictionaries({"tokens": ids}))
async def test_no_tokenization_is_an_internal_error(client: Client, body: Any) -> None:
    """Likewise for the tokenize routes."""
    for route in ("tokenize", "detokenize"):
        status, said = await answer(client, route, body)
        assert status in (200, 400, 404, 422), said
