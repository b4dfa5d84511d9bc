"""What each field of a completion does, over HTTP: outputs, streams, time limits, the life of an endpoint."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientPayloadError, web

from harness.serving.app import PREFIXES, Service, create_app
from harness.serving.faults.plan import read_faults
from harness.serving.jobs import MAX_IDS, MAX_TEXT
from harness.serving.lifecycle import Lifecycle
from harness.serving.models.config import read_config
from harness.serving.models.llama import KeysValues, LlamaModel
from harness.serving.models.seam import Segment
from harness.serving.models.weights import Floats, Tensors
from harness.serving.prefixes import PrefixCache
from harness.serving.server import Options, Served, load
from tests.tiny_endpoint import Client, client_of, client_of_app, events
from tests.tiny_llama import BOS, EOS, NEWER, PIECES, random_tensors, write_model

SHORT = 64
BASE = [BOS, 70, 71, 72]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served[Any]:
    """The tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return load(write_model(folder, max_position_embeddings=SHORT))


@pytest.fixture
async def client(served: Served[Any]) -> AsyncIterator[Client]:
    """A client of the tiny model."""
    async with client_of(served) as client:
        yield client


async def choices(client: Client, **body: Any) -> list[dict[str, Any]]:
    """The choices of a completion."""
    status, reply = await client.complete(**{"tokens": BASE, **body})
    assert status == 200, reply
    found: list[dict[str, Any]] = reply["choices"]
    return found


async def tokens(client: Client, **body: Any) -> list[int]:
    """The ids of a greedy output that nothing but its length ends."""
    greedy = {"temperature": 0, "eos_token": [], "max_tokens": 8}
    (choice,) = await choices(client, **{**greedy, **body})
    found: list[int] = choice["tokens"]
    return found


# ----------------------------------------------------------------------------------------------- outputs


async def test_several_outputs(client: Client) -> None:
    """Output j has seed + j or the j-th listed, and is what that seed gives alone; prompts come in order."""
    several = await choices(client, n=3, seed=5, max_tokens=6)
    assert [(each["index"], each["seed"]) for each in several] == [(0, 5), (1, 6), (2, 7)]
    listed = await choices(client, n=3, seed=[7, 5, 5], max_tokens=6)
    assert [each["tokens"] for each in listed] == [several[place]["tokens"] for place in (2, 0, 0)]
    (alone,) = await choices(client, seed=6, max_tokens=6)
    assert alone["tokens"] == several[1]["tokens"]
    both = await choices(client, tokens=None, prompt=["a b", "B"], n=2, seed=1, max_tokens=3)
    (second,) = await choices(client, tokens=None, prompt="B", seed=2, max_tokens=3)
    assert [each["index"] for each in both] == [0, 1, 2, 3]
    assert both[3]["tokens"] == second["tokens"]


async def test_lengths(client: Client) -> None:
    """The total counts the input; before the least length nothing ends the output."""
    assert len(await tokens(client, max_tokens=None, max_total_tokens=9)) == 9 - len(BASE)
    plain = await tokens(client)
    (ended,) = await choices(client, temperature=0, eos_token=[plain[1]], max_tokens=8)
    assert (ended["tokens"], ended["finish_reason"]) == (plain[: plain.index(plain[1]) + 1], "stop")
    for least in ({"min_tokens": 5}, {"min_total_tokens": 5 + len(BASE)}):
        (longer,) = await choices(client, temperature=0, eos_token=[plain[1]], max_tokens=8, **least)
        assert plain[1] not in longer["tokens"][:5]
        assert len(longer["tokens"]) >= 5


async def test_what_ends_an_output(client: Client) -> None:
    """A stop phrase is cut off, with the tokens behind it; a stop token is the last token."""
    plain = (await choices(client, temperature=0, eos_token=[], max_tokens=8))[0]
    phrase = plain["text"][2:4]
    (cut,) = await choices(client, temperature=0, eos_token=[], max_tokens=8, stop=["nowhere", phrase])
    assert cut["text"] == plain["text"][: plain["text"].index(phrase)]
    assert cut["finish_reason"] == "stop"
    assert plain["tokens"][: len(cut["tokens"])] == cut["tokens"]
    stopping = [{"tokens": [plain["tokens"][3], 99]}, {"tokens": None}]
    stopped = await tokens(client, stop_tokens=stopping)
    assert stopped == plain["tokens"][: plain["tokens"].index(plain["tokens"][3]) + 1]


async def test_what_steers_an_output(client: Client) -> None:
    """Banned and penalised tokens stay away; phrases are banned as their ids."""
    plain = await tokens(client)
    banned = await tokens(client, bad_word_tokens=[{"tokens": [plain[0]]}, {"tokens": plain[1:3]}])
    assert plain[0] not in banned
    letter = PIECES.index("b")
    assert letter not in await tokens(client, bad_words=["b"])
    pairs = list(zip(many := await tokens(client, no_repeat_ngram=2, max_tokens=40), many[1:], strict=False))
    assert len(set(pairs)) == len(pairs)
    once = await tokens(client, presence_penalty=2, frequency_penalty=2, max_tokens=40)
    assert len(set(once)) > len(set(await tokens(client, max_tokens=40)))
    assert len(set(await tokens(client, repetition_penalty=50, max_tokens=40))) == 40
    assert await tokens(client, temperature=5, top_k=1, seed=3) == plain
    assert await tokens(client, temperature=5, top_p=1e-9, seed=3) == plain
    assert await tokens(client, temperature=5, min_p=1, seed=3) == plain
    assert await tokens(client, temperature=1, xtc_probability=1, xtc_threshold=0, seed=3) != plain
    everything = [{"tokens": [each]} for each in range(len(PIECES))]
    (nothing,) = await choices(client, bad_word_tokens=everything, max_tokens=8, logprobs=1)
    assert (nothing["tokens"], nothing["text"], nothing["finish_reason"]) == ([], "", "stop")


@pytest.mark.parametrize("kind", ["DETERMINISTIC", "NAIVE_SAMPLING", "STOCHASTIC"])
async def test_beams(client: Client, kind: str) -> None:
    """A search gives one output; the deterministic one is no less likely than the greedy one."""
    body = {"max_tokens": 6, "logprobs": 1, "eos_token": []}
    (found,) = await choices(client, num_beams=4, beam_search_type=kind, seed=1, length_penalty=0.0, **body)
    assert len(found["tokens"]) == 6
    (again,) = await choices(client, num_beams=4, beam_search_type=kind, seed=1, length_penalty=0.0, **body)
    assert found == again
    if kind == "DETERMINISTIC":
        (greedy,) = await choices(client, temperature=0, **body)
        likeliest, other = (sum(each["logprobs"]["token_logprobs"]) for each in (found, greedy))
        assert likeliest >= other - 1e-5


async def test_replaced_embeddings(client: Client) -> None:
    """Vectors move the scores of what follows them; the tokens' own vectors leave them as they are."""
    forced = {"forced_output_tokens": [5, 6], "logprobs": 0}
    (plain,) = await choices(client, **forced)
    own = random_tensors(NEWER)["model.embed_tokens.weight"][BASE[2]].tolist()
    (same,) = await choices(client, token_index_to_replace=[2], embedding_to_replace=own, **forced)
    (other,) = await choices(client, token_index_to_replace=[2], embedding_to_replace=[0.5] * 16, **forced)
    assert same["logprobs"] == plain["logprobs"]
    assert other["logprobs"] != plain["logprobs"]


# ----------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": 9, "seed": 1},
        {"max_tokens": 9, "seed": 1, "n": 3, "logprobs": 2},
        {"max_tokens": 20, "temperature": 0, "stop": ["q", "ab"], "logprobs": 0},
        {"forced_output_tokens": [PIECES.index(piece) for piece in ("x", "â", "Ĥ", "¬", "y")], "logprobs": 1},
        {"forced_output_tokens": [PIECES.index(piece) for piece in "âxĤ¬âĤâ¬yâ"], "logprobs": 1},
    ],
    ids=["drawn", "several", "stopped", "forced", "broken characters"],
)
async def test_a_stream_says_what_the_reply_says(client: Client, body: dict[str, Any]) -> None:
    """Chunk by chunk the same tokens, texts and log-probabilities; then each end, the usage, and [DONE]."""
    seed = {"seed": body.get("seed", 0)}
    _, whole = await client.complete(tokens=BASE, **{**body, **seed})
    said = await events(client, tokens=BASE, stream_options={"include_usage": True}, **{**body, **seed})
    assert said.pop() == "[DONE]"
    usage = said.pop()
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert {each["object"] for each in said} == {"text_completion"}
    assert len({each["id"] for each in said}) == 1
    assert all(each["created"] > 1.7e9 for each in said)
    for choice in whole["choices"]:
        chunks = [c for each in said for c in each["choices"] if c["index"] == choice["index"]]
        end = chunks.pop()
        assert (end["text"], end["finish_reason"]) == ("", choice["finish_reason"])
        assert "token" not in end
        assert [each["token"] for each in chunks] == choice["tokens"]
        assert "".join(each["text"] for each in chunks) == choice["text"]
        if choice["logprobs"] is None:
            assert all("logprobs" not in each for each in chunks)
        else:
            for field, values in choice["logprobs"].items():
                assert [each["logprobs"][field] for each in chunks] == [[value] for value in values]


async def test_a_stream_without_usage_has_none(client: Client) -> None:
    """The usage chunk comes only where it was asked for."""
    asked: list[dict[str, Any]] = [{}, {"stream_options": {"include_usage": False}}, {"stream_options": {}}]
    for options in asked:
        said = await events(client, tokens=BASE, max_tokens=2, eos_token=[], **options)
        assert [len(each["choices"]) for each in said[:-1]] == [1, 1, 1]


async def test_a_stream_that_cannot_begin_is_an_error(client: Client) -> None:
    """What is wrong with a request is told by its status, not by an event."""
    for body, status in (({"n": 0}, 422), ({"timeout_microseconds": 1}, 429)):
        assert (await client.complete(tokens=BASE, stream=True, **body))[0] == status


async def test_tokens_are_streamed_as_they_come(client: Client) -> None:
    """The first token is there while the output goes on; who leaves stops it, and others are served."""
    body = {"tokens": BASE, "stream": True, "eos_token": []}
    async with client.session.post(f"{client.host}/v1/completions", json=body) as reply:
        assert (await reply.content.readline()).startswith(b"data: ")
    assert (await client.complete(tokens=BASE, max_tokens=1))[0] == 200


# --------------------------------------------------------------------------------------------- the service


async def test_the_time_of_a_request(client: Client) -> None:
    """Once `timeout_microseconds` are over the answer is 429; with time enough they change nothing."""
    status, reply = await client.complete(tokens=BASE, n=64, eos_token=[], timeout_microseconds=1)
    assert (status, reply) == (429, {"message": "timeout_microseconds elapsed"})
    assert (await client.complete(tokens=BASE, max_tokens=1, timeout_microseconds=60_000_000))[0] == 200


async def test_the_team(served: Served[Any]) -> None:
    """With a team, requests of another or of none are 403; without one any or none will do."""
    body = {"tokens": BASE, "max_tokens": 1}
    async with client_of(served, Options(team="mine")) as client:
        assert (await client.post("/v1/completions", body))[0] == 403
        assert (await client.post("/v1/completions", body, **{"X-Friendli-Team": "other"}))[0] == 403
        assert (await client.post("/v1/completions", body, **{"X-Friendli-Team": "mine"}))[0] == 200
    async with client_of(served) as client:
        assert (await client.post("/v1/completions", body, **{"X-Friendli-Team": "any"}))[0] == 200


async def test_counts(served: Served[Any]) -> None:
    """The admin path tells positions computed and cached; without a cache all are computed."""
    asked = [[BOS, 70, 71], [BOS, 70, 72], [BOS, 70, 71], [BOS, 70]]
    for options, computed in ((Options(), 4), (Options(cache_tokens=0), 11), (Options(cache_bytes=0), 11)):
        async with client_of(served, options) as client:
            for context in asked:
                await client.complete(tokens=context, forced_output_tokens=[5])
            async with client.session.get(f"{client.host}/admin") as reply:
                counts = await reply.json()
        assert counts["counts"]["prompt_computed"] == computed
        assert counts["counts"]["prompt_cached"] == 11 - computed
        assert counts["counts"]["completions"] == 4
        assert (counts["cache"] is None) == (computed == 11)
        assert counts["faults"] == {}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_endpoint_that_sleeps(served: Served[Any]) -> None:
    """On the dedicated path a request wakes it and gets 503, phase by phase, until it is up."""
    clock = Clock()
    life = Lifecycle(clock(), startup=30, sleep_after=100, asleep=True)
    service = Service(
        model=served.model, tokenizer=served.tokenizer, name="tiny", lifecycle=life, clock=clock
    )
    body = {"model": "ep0", "tokens": BASE, "max_tokens": 1}
    async with client_of_app(create_app(service)) as client:

        async def status() -> tuple[str, str | None]:
            url = f"{client.host}/dedicated/beta/endpoint/ep0/status"
            async with client.session.get(url) as reply:
                said = await reply.json()
            assert set(said) == {"status", "createdAt", "updatedAt", "errorCode", "phase"}
            return said["status"], said["phase"]

        async def put(what: str) -> str:
            url = f"{client.host}/dedicated/beta/endpoint/ep0/{what}"
            async with client.session.put(url) as reply:
                return str((await reply.json())["status"])

        assert await status() == ("SLEEPING", None)
        assert (await client.post("/v1/completions", body))[0] == 200, "a container knows no sleep"
        refusal = await client.post("/dedicated/v1/completions", body)
        assert refusal == (503, {"message": "the endpoint is AWAKING (REQUESTING_VIRTUAL_MACHINE)"})
        for seconds, phase in ((11, "DOWNLOADING_MODEL"), (10, "ENGINE_INITIALIZING")):
            clock.now += seconds
            assert await status() == ("AWAKING", phase)
            assert (await client.post("/dedicated/v1/tokenize", {"model": "ep0", "prompt": "a"}))[0] == 503
        clock.now += 9
        assert await status() == ("RUNNING", None)
        assert (await client.post("/dedicated/v1/completions", body))[0] == 200
        clock.now += 99
        assert (await client.post("/dedicated/v1/completions", body))[0] == 200
        clock.now += 100
        assert await status() == ("SLEEPING", None)
        assert await put("wake") == "AWAKING"
        clock.now += 30
        assert await put("wake") == "RUNNING"
        assert await put("sleep") == "SLEEPING"
        async with client.session.get(f"{client.host}/dedicated/beta/endpoint/ep0") as reply:
            assert (await reply.json())["maxContextLength"] == SHORT


async def test_who_hangs_up_stops_the_work(client: Client) -> None:
    """A client that leaves ends its completion; the endpoint has nothing left to do soon after."""
    body = {"tokens": BASE, "n": 128, "eos_token": [], "logprobs": 0}
    sent = asyncio.create_task(client.complete(**body))
    while (await admin(client))["counts"]["steps"] == 0:
        assert not sent.done()
    sent.cancel()
    with pytest.raises((asyncio.CancelledError, ClientPayloadError)):
        await sent
    assert (await client.complete(tokens=BASE, max_tokens=1))[0] == 200
    assert (await admin(client))["counts"]["completions"] == 1


async def admin(client: Client) -> Any:
    """What the admin path says."""
    async with client.session.get(f"{client.host}/admin") as reply:
        return await reply.json()


async def test_an_end_of_text_has_no_text(client: Client) -> None:
    """The ending id is the last token, and adds nothing to the text."""
    (choice,) = await choices(client, temperature=0, max_tokens=3, forced_output_tokens=[70, EOS])
    assert (choice["tokens"], choice["text"]) == ([70, EOS], PIECES[70])


# ------------------------------------------------------------------------- faults of the model's own side


def faulty(*texts: str) -> Options:
    """The endpoint with faults."""
    return Options(faults=read_faults(texts))


async def test_a_smaller_context_than_stated(served: Served[Any]) -> None:
    """`context=N` refuses what the stated length has room for, and counts that alone."""
    async with client_of(served, faulty("context=10")) as client:
        assert (await client.complete(tokens=BASE, forced_output_tokens=[5] * 6))[0] == 200
        status, reply = await client.complete(tokens=BASE, forced_output_tokens=[5] * 7)
        assert (status, reply["detail"][0]["loc"][1]) == (422, "forced_output_tokens")
        assert (await client.complete(tokens=BASE, max_tokens=SHORT))[0] == 422
        assert (await admin(client))["faults"] == {"context": 1}
        async with client.session.get(f"{client.host}/dedicated/beta/endpoint/ep0") as spec:
            assert (await spec.json())["maxContextLength"] == SHORT


async def test_scores_that_sampling_moves(served: Served[Any]) -> None:
    """`moved_by_sampling` reports what temperature and top-k leave; without such fields all is well."""
    forced = {"tokens": BASE, "forced_output_tokens": [5, 6], "logprobs": 100}
    async with client_of(served) as honest, client_of(served, faulty("moved_by_sampling")) as moved:

        async def values(client: Client, **fields: Any) -> list[dict[str, float]]:
            _, reply = await client.complete(**forced, **fields)
            found: list[dict[str, float]] = reply["choices"][0]["logprobs"]["top_logprobs"]
            return found

        plain = await values(honest)
        assert await values(honest, temperature=2, top_k=3) == plain
        assert await values(moved) == plain
        assert await values(moved, temperature=0) == plain
        assert (await admin(moved))["faults"] == {"moved_by_sampling": 0}
        hot = await values(moved, temperature=2)
        for before, after in zip(plain, hot, strict=True):
            a, b = sorted(before, key=lambda each: before[each])[-2:]
            assert after[b] - after[a] == pytest.approx((before[b] - before[a]) / 2, abs=1e-4)
        assert (await admin(moved))["faults"] == {"moved_by_sampling": 1}


async def test_faults_reach_the_whole_service(served: Served[Any]) -> None:
    """Faults strike on every path, and are told at the admin path, which they leave alone."""
    async with client_of(served, faulty("503,rpm=6")) as client:
        for path in [f"{prefix}/{route}" for prefix in PREFIXES for route in ("completions", "tokenize")]:
            body = {"prompt": "a", "model": "ep0"}
            async with client.session.post(client.host + path, json=body) as reply:
                assert (reply.status, reply.headers["X-RateLimit-Limit-Requests"]) == (503, "6")
        assert (await client.complete(prompt="a"))[0] == 429
        assert (await admin(client))["faults"] == {"rpm": 1, "503": 6}
    async with client_of(served, faulty("tokenizer")) as client:
        _, reply = await client.post("/v1/tokenize", {"prompt": "a b"})
        ids = reply["tokens"]
        assert (await client.post("/v1/detokenize", {"tokens": ids}))[1] == {"text": "a b"}
    async with client_of(served) as client:
        assert (await client.post("/v1/tokenize", {"prompt": "a b"}))[1]["tokens"] != ids


# --------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("penalty", [-40.0, 40.0])
async def test_beams_at_the_ends_of_their_penalty(client: Client, penalty: float) -> None:
    """The strongest length penalties that are taken are computed, however long the output."""
    for compat in ({}, {"beam_compat_pre_normalization": True}):
        (choice,) = await choices(
            client, num_beams=3, length_penalty=penalty, max_tokens=SHORT - len(BASE), **compat
        )
        assert choice["tokens"]


async def test_a_phrase_leaves_the_least_length_alone(client: Client) -> None:
    """A stop phrase that would cut the output below `min_tokens` ends nothing; a later one does."""
    plain = (await choices(client, temperature=0, eos_token=[], max_tokens=12))[0]
    for least in range(1, 12):
        (cut,) = await choices(
            client, temperature=0, eos_token=[], max_tokens=12, min_tokens=least, stop=[plain["text"][3]]
        )
        assert len(cut["tokens"]) >= least


class Unwell(LlamaModel):
    """The tiny model, whose logits are no numbers, or whose memory ends after some batches."""

    sound = 0
    """Batches that it reads well."""
    error: type[Exception] | None = None

    def feed(self, segments: Sequence[Segment[KeysValues]]) -> list[Floats]:
        """Read, and be unwell."""
        logits = super().feed(segments)
        self.sound -= 1
        if self.sound < 0 and self.error is not None:
            raise self.error("unwell")
        return logits if self.sound >= 0 else [np.full_like(each, np.nan) for each in logits]


def unwell(
    folder: Path, served: Served[Any], sound: int, error: type[Exception] | None = None
) -> web.Application:
    """An application with such a model."""
    model = Unwell(read_config(folder), Tensors(folder))
    model.sound, model.error = sound, error
    service = Service(model=model, tokenizer=served.tokenizer, name="unwell", cache=PrefixCache())
    return create_app(service)


@pytest.mark.parametrize(
    "body", [{}, {"temperature": 0}, {"num_beams": 2}, {"forced_output_tokens": [5]}, {"n": 3}], ids=str
)
@pytest.mark.parametrize("sound", [0, 2])
async def test_broken_logits_are_an_error(
    tmp_path: Path, served: Served[Any], caplog: pytest.LogCaptureFixture, body: dict[str, Any], sound: int
) -> None:
    """Logits that are no numbers are 500, at once or later, never an output; no context of theirs is kept."""
    async with client_of_app(unwell(write_model(tmp_path), served, sound)) as client:
        for _ in range(2):
            status, reply = await client.complete(tokens=BASE, **{"max_tokens": 9, "eos_token": [], **body})
            if sound and "forced_output_tokens" in body:
                assert status == 200
            else:
                assert (status, "not finite" in reply["message"]) == (500, True)
        kept = (await admin(client))["cache"]["tokens"]
        assert kept == (len(BASE) if sound else 0)


async def test_a_stream_that_breaks_says_so_and_has_no_done(
    tmp_path: Path, served: Served[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """An error in mid-stream is the last event of a well-formed stream."""
    app = unwell(write_model(tmp_path), served, 4, MemoryError)
    async with client_of_app(app) as client:
        body = {"tokens": BASE, "stream": True, "eos_token": [], "max_tokens": 40}
        async with client.session.post(f"{client.host}/v1/completions", json=body) as reply:
            said = (await reply.read()).decode().strip().split("\n\n")
        assert reply.status == 200
        assert all(line.startswith('data: {"id"') for line in said[:-1])
        assert said[-1] == 'data: {"message":"internal error (MemoryError: unwell)"}'
        assert "a stream failed" in caplog.text


async def test_the_time_of_a_stream(client: Client) -> None:
    """A stream whose time is over in the middle ends with the refusal, and without [DONE]."""
    body = {"tokens": BASE, "stream": True, "eos_token": [], "n": 64, "timeout_microseconds": 60_000}
    async with client.session.post(f"{client.host}/v1/completions", json=body) as reply:
        said = (await reply.read()).decode().strip().split("\n\n")
    if reply.status == 200:  # a fast machine, or a slow one
        assert said[-1] in ('data: {"message":"timeout_microseconds elapsed"}', "data: [DONE]")
    else:
        assert reply.status == 429


async def test_a_client_that_does_not_read_is_given_up(
    served: Served[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever leaves a stream unread is cut off after a while, with no word in the log; others are served."""
    monkeypatch.setattr("harness.serving.streaming.PATIENCE", 0.05)
    async with client_of(served) as client:
        host, port = client.host.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**10)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**10)
        asked = {"tokens": BASE, "stream": True, "eos_token": [], "n": 128, "logprobs": 100}
        body = json.dumps(asked).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        while (await admin(client))["counts"]["completions"] == 0:
            assert (await client.complete(tokens=BASE, max_tokens=1))[0] == 200
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            while not writer.transport.is_closing():
                await asyncio.sleep(0.01)
                writer.write(b" ")
        writer.close()
        assert (await client.complete(tokens=BASE, max_tokens=1))[0] == 200
    assert caplog.text == ""


async def test_a_body_that_is_not_compressed_as_it_says(client: Client) -> None:
    """A wrong Content-Encoding is the caller's mistake: 400."""
    body = {"tokens": BASE, "max_tokens": 1}
    status, reply = await client.post("/v1/completions", body, **{"Content-Encoding": "gzip"})
    assert (status, list(reply)) == (400, ["message"])


async def test_texts_and_ids_without_end_are_refused(client: Client) -> None:
    """What could hold up everybody is refused by name before it is looked at."""
    for field, value in (
        ("prompt", "a" * (MAX_TEXT + 1)),
        ("prompt", [[1]] * 10_000),
        ("stop", ["a"] * 129),
        ("bad_words", ["a"] * 129),
        ("bad_word_tokens", [{"tokens": [1]}] * 1025),
        ("stop_tokens", [{"tokens": [1] * 1025}]),
    ):
        tokens = {} if field == "prompt" else {"tokens": BASE}
        status, reply = await client.complete(**{**tokens, field: value})
        assert (status, reply["detail"][0]["loc"][1]) == (422, field)
    status, reply = await client.post("/v1/detokenize", {"tokens": [1] * (MAX_IDS + 1)})
    assert (status, reply["detail"][0]["loc"][1]) == (422, "tokens")


async def test_an_endpoint_does_not_fall_asleep_at_work(served: Served[Any]) -> None:
    """Who is answering is not idle, however long it takes; what is no route wakes nobody."""
    clock = Clock()
    life = Lifecycle(clock(), startup=5, sleep_after=10)
    assert life.come(clock())[0] == "RUNNING"
    clock.now += 100
    assert life.status(clock())[0] == "RUNNING"
    life.leave(clock())
    clock.now += 9
    assert life.status(clock())[0] == "RUNNING"
    clock.now += 1
    assert life.status(clock())[0] == "SLEEPING"
    service = Service(
        model=served.model, tokenizer=served.tokenizer, name="tiny", lifecycle=life, clock=clock
    )
    async with client_of_app(create_app(service)) as client:
        assert (await client.post("/dedicated/v1/nowhere", {}))[0] == 404
        assert life.status(clock())[0] == "SLEEPING"
