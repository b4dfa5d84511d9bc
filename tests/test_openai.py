"""The OpenAI-style wire format: the continuation is cut out of an echoed prompt, or nothing is believed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness import UsageError
from harness.dialects import dialect
from harness.endpoints import credentials, parse_endpoints
from harness.errors import ReplyError, TruncatedReply
from harness.exchange import ScoreRequest
from harness.manifest import Exit
from harness.serving.server import listening, load
from tests.fake_endpoint import Altered, Body, FakeEndpoint, Fault, Status, echo, echoed_logprobs
from tests.running import Bench, bench
from tests.tiny_llama import write_model

__all__ = ["bench"]

OPENAI = dialect("openai")
REQUEST = ScoreRequest(b"k" * 16, [1, 2, 3], [40, 50])
WITH_TOP = ScoreRequest(b"k" * 16, [1, 2, 3], [40, 50], top=3)


def truthful(request: ScoreRequest = REQUEST) -> Body:
    """What a good server answers."""
    return echo(json.loads(OPENAI.build(request, "m")))


def parse(reply: object, request: ScoreRequest = REQUEST) -> Any:
    """What the dialect makes of a reply."""
    return OPENAI.parse(json.dumps(reply).encode(), request)


def test_build() -> None:
    """Context and continuation are one prompt of ids; nothing that samples is sent, no empty model."""
    assert json.loads(OPENAI.build(REQUEST, "m")) == {
        "model": "m",
        "prompt": [1, 2, 3, 40, 50],
        "max_tokens": 1,
        "logprobs": 1,
        "echo": True,
    }
    assert "model" not in json.loads(OPENAI.build(REQUEST, None))
    assert json.loads(OPENAI.build(WITH_TOP, "m"))["logprobs"] == 3


def test_a_start_token_does_not_make_up_for_the_generated_one() -> None:
    """A server that adds a token and generates none has the right count, and is refused all the same."""
    reply = truthful()
    reply["usage"] = {"prompt_tokens": 5, "completion_tokens": 0}
    with pytest.raises(ReplyError, match="generated no token"):
        parse(reply)


def test_the_continuation_is_cut_out() -> None:
    """Values are those of the forced positions: neither the context's nor the generated token's."""
    reply = parse(truthful())
    assert list(reply.token_ids) == [40, 50]
    assert reply.token_logprobs == echoed_logprobs([1, 2, 3, 40, 50])[3:]
    assert reply.top_logprobs is None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 1)
    top = parse(truthful(WITH_TOP), WITH_TOP).top_logprobs
    assert [list(each) for each in top] == [[" t40"], [" t50"]]


def test_a_server_that_does_not_count() -> None:
    """Usage may be missing: positions are still counted."""
    reply = truthful()
    del reply["usage"]
    assert parse(reply).token_logprobs == echoed_logprobs([1, 2, 3, 40, 50])[3:]


def logprobs(change: Callable[[dict[str, Any]], object]) -> Callable[[Body], object]:
    """A change of the lists of log-probabilities."""
    return lambda reply: change(reply["choices"][0]["logprobs"])


def keep(start: int, end: int | None) -> Callable[[Body], object]:
    """Only some positions are left."""

    def cut(lists: dict[str, Any]) -> None:
        for name in lists:
            lists[name] = lists[name][start:end]

    return logprobs(cut)


WRONG: dict[str, tuple[Callable[[Body], object], str]] = {
    "echo is ignored": (keep(-1, None), "ignores 'echo'"),
    "no generated token": (keep(0, -1), "which of them is missing cannot be told"),
    "no first position": (keep(1, None), "which of them is missing cannot be told"),
    "a token too many": (
        logprobs(lambda lists: lists["token_logprobs"].insert(1, -0.5)),
        "does the server add a token of its own",
    ),
    "another count": (lambda reply: reply["usage"].update(prompt_tokens=6), "counted 6 of them"),
    "a null in the context": (
        logprobs(lambda lists: lists["token_logprobs"].__setitem__(2, None)),
        "no log-probability at position 2",
    ),
    "a null in the continuation": (
        logprobs(lambda lists: lists["token_logprobs"].__setitem__(4, None)),
        "no log-probability at position 4",
    ),
    "a positive value": (
        logprobs(lambda lists: lists["token_logprobs"].__setitem__(4, 0.5)),
        "is above 0",
    ),
    "no log-probabilities": (lambda reply: reply["choices"][0].update(logprobs=None), "has no log-prob"),
    "two choices": (lambda reply: reply["choices"].append(reply["choices"][0]), "2 choices"),
    "no choices": (lambda reply: reply.clear(), "not of the expected form"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_reply_that_is_not_believed(name: str) -> None:
    """What is no echo of exactly the prompt and one token more is a named error, never a score."""
    change, says = WRONG[name]
    reply = truthful()
    change(reply)
    with pytest.raises(ReplyError, match=says):
        parse(reply)


def test_alternatives_that_are_missing() -> None:
    """Where the scoring reads alternatives, each forced position must have them."""
    reply = truthful(WITH_TOP)
    reply["choices"][0]["logprobs"]["top_logprobs"][4] = None
    with pytest.raises(ReplyError, match="at 1 positions for 2 forced tokens"):
        parse(reply, WITH_TOP)


def test_nothing_before_the_first_token() -> None:
    """The first token of all has no log-probability: what is forced needs a context."""
    request = ScoreRequest(b"k" * 16, [], [40, 50])
    with pytest.raises(ReplyError, match="a context is needed"):
        parse(truthful(request), request)


def test_a_cut_body() -> None:
    """It may come whole with the next attempt."""
    with pytest.raises(TruncatedReply):
        OPENAI.parse(json.dumps(truthful()).encode()[:-20], REQUEST)


# ------------------------------------------------------------------------------------------------- SPEC


def test_spec() -> None:
    """The URL behind `openai+`; a model's name may hold colons, as those of adapters do not stand apart."""
    (endpoint,) = parse_endpoints(["it=openai+http://Host:8000/v1#org/model:tag"])
    assert (endpoint.dialect, endpoint.base_url) == ("openai", "http://host:8000/v1")
    assert (endpoint.wire_model, endpoint.adapter, endpoint.label) == ("org/model:tag", "", "it")


def test_the_same_address_in_both_forms() -> None:
    """They are different endpoints: replies of one never answer for the other."""
    one, other = parse_endpoints(["http://host/v1#m", "openai+http://host/v1#m"])
    assert one.identity.text() != other.identity.text()
    assert (one.replicate, other.replicate) == (0, 0)


@pytest.mark.parametrize(
    ("spec", "says"),
    [("openai+http://host/v2#m", "must end in /v1"), ("openai+ftp://host/v1#m", "Did you mean openai")],
)
def test_malformed_spec(spec: str, says: str) -> None:
    """It is refused as typed."""
    with pytest.raises(UsageError, match=says) as caught:
        parse_endpoints([spec])
    assert str(caught.value).startswith(f"--endpoint {spec}")


def test_its_own_token() -> None:
    """`OPENAI_API_KEY` goes there, `FRIENDLI_TOKEN` and the team never do; not in the clear off loopback."""
    environ = {"FRIENDLI_TOKEN": "flp_abc", "FRIENDLI_TEAM": "team1", "OPENAI_API_KEY": "sk-xyz"}
    (near,) = parse_endpoints(["openai+http://127.0.0.1:1/v1#m"])
    assert credentials(near, environ).headers() == {"Authorization": "Bearer sk-xyz"}
    del environ["OPENAI_API_KEY"]
    assert credentials(near, environ).headers() == {}
    (far,) = parse_endpoints(["openai+http://10.0.0.1/v1#m"])
    assert credentials(far, environ).headers() == {}
    with pytest.raises(UsageError, match="OPENAI_API_KEY is set") as caught:
        credentials(far, {"OPENAI_API_KEY": "sk-xyz"})
    assert "sk-xyz" not in str(caught.value)


# -------------------------------------------------------------------------------------------- whole runs


async def test_a_run(bench: Bench) -> None:
    """Every sum is that of the forced positions of the echo; faults in between change nothing."""

    def script(number: int, body: Body) -> Fault | None:
        return Status(429) if number % 5 == 0 else None

    async with FakeEndpoint(script) as endpoint:
        result = await bench.run(f"openai+{endpoint.base_url}#m")
    assert result.exit is Exit.DONE
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    texts = pd.read_parquet(bench.folder / "run/texts.parquet")
    for item, text in zip(items.to_dict("records"), texts.to_dict("records"), strict=True):
        for total, context, forced in zip(item["sums"], text["context_ids"], text["forced_ids"], strict=True):
            values = echoed_logprobs([*map(int, context), *map(int, forced)])
            assert total == math.fsum(values[len(context) :])


async def test_both_wire_formats_score_alike(bench: Bench, tmp_path: Path) -> None:
    """The same model over Friendli's form and over this one: the same sums, by real HTTP."""
    model = write_model(tmp_path / "model", max_position_embeddings=512)
    async with listening(load(model).app()) as url:
        tokenizer = (str(model),)
        result = await bench.run(f"forced={url}", f"echoed=openai+{url}", tokenizer=tokenizer, limit=2)
    assert result.exit is Exit.DONE
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    forced, echoed = (items[items.endpoint == label].sums.tolist() for label in ("forced", "echoed"))
    for one, other in zip(forced, echoed, strict=True):
        assert other == pytest.approx(one, abs=1e-4)


async def test_a_server_without_echo_scores_nothing(bench: Bench) -> None:
    """A server that ignores `echo` leaves every item unscored, with the reason: never chance."""
    async with FakeEndpoint(lambda number, body: Altered(keep(-1, None))) as endpoint:
        result = await bench.run(f"openai+{endpoint.base_url}#m", limit=1, attempts=1)
    assert result.exit is not Exit.DONE
    assert result.accuracy["n"].sum() == 0
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert items.unscored.str.contains("ignores 'echo'").any()


async def test_a_refusal_names_its_own_variable(bench: Bench) -> None:
    """A 401 says which variable holds the token of such an endpoint."""
    async with FakeEndpoint(lambda number, body: Status(401)) as endpoint:
        result = await bench.run(f"openai+{endpoint.base_url}#m", limit=1)
    assert result.exit is Exit.REFUSED
    assert "Is OPENAI_API_KEY set and valid?" in result.parts[0].refused
