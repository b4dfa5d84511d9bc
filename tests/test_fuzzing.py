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
from tests.tiny_llama import BOS, NEWER, PIECES, write_model

SHORT = 48
"""The model's length: what bounds the work of a request."""
SECONDS = 30
"""A request that is not answered by then hangs; the longest takes about one."""
CONTEXT = [BOS, 70, 71]
ROOM = SHORT - len(CONTEXT)

Strategies = dict[str, st.SearchStrategy[Any]]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
ids = st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=6)
sequences = st.lists(st.fixed_dictionaries({"tokens": ids | st.none()}), max_size=3)

# ------------------------------------------------------------------- what is right by construction

anyone: Strategies = {
    "logprobs": st.integers(0, 100),
    "model": st.sampled_from(["a", "tiny"]),
    "timeout_microseconds": st.integers(10**8, 2**63 - 1),
}
ended: Strategies = {
    "min_tokens": st.integers(0, 3),
    "max_tokens": st.integers(3, ROOM),
    "stop_tokens": sequences,
    "eos_token": st.lists(st.integers(0, len(PIECES) - 1), max_size=4),
}
steered: Strategies = {
    "frequency_penalty": st.floats(-2, 2),
    "presence_penalty": st.floats(-2, 2),
    "repetition_penalty": st.floats(1, 1e300),
    "no_repeat_ngram": st.integers(1, 10**30),
    "bad_words": st.lists(st.text(min_size=1, max_size=3), max_size=3),
    "bad_word_tokens": sequences,
}
drawn: Strategies = {
    "temperature": st.floats(0, 1e300) | st.sampled_from([1e-300, 1.0]),
    "top_k": st.integers(0, len(PIECES)),
    "top_p": st.floats(1e-300, 1),
    "min_p": st.floats(0, 1),
    "xtc_threshold": st.floats(0, 1),
    "xtc_probability": st.floats(0, 1),
}
embedded = st.lists(st.integers(0, len(CONTEXT) - 1), unique=True, max_size=3).flatmap(
    lambda places: st.fixed_dictionaries(
        {
            "token_index_to_replace": st.just(places),
            "embedding_to_replace": st.lists(
                st.floats(-1e6, 1e6), min_size=16 * len(places), max_size=16 * len(places)
            ),
        }
    )
)
forcing = st.fixed_dictionaries(
    {"tokens": st.just(CONTEXT), "forced_output_tokens": ids}, optional={**anyone, **drawn}
)
sampling = st.fixed_dictionaries(
    {"tokens": st.just(CONTEXT)},
    optional={
        **anyone,
        **ended,
        **steered,
        **drawn,
        "stop": st.lists(st.text(min_size=1, max_size=3), max_size=3),
        "n": st.integers(1, 4),
        "seed": st.integers(0, 2**63 - 1),
        "stream": st.booleans(),
    },
)
searching = st.fixed_dictionaries(
    {
        "tokens": st.just(CONTEXT),
        "num_beams": st.integers(1, 31),
        "beam_search_type": st.sampled_from(["NAIVE_SAMPLING", "STOCHASTIC"]),
    },
    optional={
        **anyone,
        **ended,
        **steered,
        **drawn,
        "temperature": st.floats(0.01, 1e300),
        "length_penalty": st.floats(-40, 40),
        "early_stopping": st.booleans(),
        "beam_compat_pre_normalization": st.booleans(),
        "beam_compat_no_post_normalization": st.booleans(),
    },
)
echoing = st.fixed_dictionaries(
    {
        "prompt": ids | st.lists(ids, min_size=1, max_size=3) | st.text(min_size=1, max_size=8),
        "echo": st.just(True),
    },
    optional={**anyone, "max_tokens": st.integers(0, 3), "n": st.integers(1, 2)},
)
replacing = st.tuples(forcing | sampling, embedded).map(lambda both: {**both[0], **both[1]})
right = forcing | sampling | searching | echoing | replacing

# --------------------------------------------------------------------------------------- and what is not

fields: Strategies = {
    name: st.sampled_from([None, *RANGES[name][0], *RANGES[name][1]]) | anything
    for name in CompletionRequest.__struct_fields__
    if name in RANGES
} | {"model": anything, "stream_options": anything}
spoilt = st.tuples(right, st.fixed_dictionaries({}, optional=fields)).map(lambda both: {**both[0], **both[1]})
bodies = anything | st.fixed_dictionaries({}, optional=fields) | spoilt


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


many = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@settings(many, max_examples=400)
@given(body=right)
async def test_what_is_right_is_answered(client: Client, body: dict[str, Any]) -> None:
    """Every combination of fields that goes together has its output: forced, drawn, searched for, echoed."""
    assert NEWER["hidden_size"] == 16, "the vectors here have that many numbers"
    status, said = await answer(client, "completions", body)
    assert status == 200, said
    if body.get("stream"):
        assert said.endswith(b"data: [DONE]\n\n"), said[-200:]


@settings(many, max_examples=400)
@given(body=bodies)
async def test_what_is_wrong_is_the_callers_error(client: Client, body: Any) -> None:
    """Any JSON over all fields is answered: a reply, or an error that is the caller's and names a place."""
    status, said = await answer(client, "completions", body)
    assert status in (200, 400, 404, 422, 429), said
    if status == 422:
        assert b'"loc":["body"' in said


@settings(many, max_examples=60)
@given(body=anything | st.fixed_dictionaries({"prompt": st.text()}) | st.fixed_dictionaries({"tokens": ids}))
async def test_no_tokenization_is_an_internal_error(client: Client, body: Any) -> None:
    """Likewise for the tokenize routes."""
    for route in ("tokenize", "detokenize"):
        status, said = await answer(client, route, body)
        assert status in (200, 400, 404, 422), said
