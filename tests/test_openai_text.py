"""The OpenAI-style wire format for texts: the continuation is found by offsets that the texts confirm."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from harness.dialects import dialect
from harness.encoding import Bound, encode_prompts
from harness.endpoints import credentials, parse_endpoints
from harness.errors import ReplyError, UsageError
from harness.exchange import ScoreRequest
from harness.manifest import Exit
from harness.plan import KeyMaker, plan_item
from harness.tokenizing import load_tokenizer
from tests.fake_endpoint import (
    Altered,
    Body,
    FakeEndpoint,
    Fault,
    Status,
    Texts,
    characters,
    echo,
    echoed_logprobs,
)
from tests.making import make_prompt
from tests.running import Bench, bench

__all__ = ["bench"]

TEXT = dialect("openai-text")
BOS = 1000
"""An id that texts do not have."""
PLAIN, HIDDEN, COUNTED = Texts(), Texts(front=(BOS,)), Texts(front=(BOS,), counted=True)


def request(context: str = "Q: a\nA:", continuation: str = " xy", **changes: Any) -> ScoreRequest:
    """A question in characters, whose ids are those of the default tokenizer."""
    context_ids, forced_ids = (characters().encode(each).ids for each in (context, continuation))
    return ScoreRequest(b"k" * 16, context_ids, forced_ids, text=(context, continuation), **changes)


REQUEST = request()
PROMPT = "Q: a\nA: xy"
START = len("Q: a\nA:")


def truthful(texts: Texts = PLAIN, asked: ScoreRequest = REQUEST) -> Body:
    """What a good server answers."""
    return echo(json.loads(TEXT.build(asked, "m")), texts)


def parse(reply: object, asked: ScoreRequest = REQUEST) -> Any:
    """What the dialect makes of a reply."""
    return TEXT.parse(json.dumps(reply).encode(), asked)


def test_build() -> None:
    """Context and continuation are one prompt of text; nothing that samples is sent, no empty model."""
    assert json.loads(TEXT.build(REQUEST, "m")) == {
        "model": "m",
        "prompt": PROMPT,
        "max_tokens": 1,
        "logprobs": 1,
        "echo": True,
    }
    assert "model" not in json.loads(TEXT.build(REQUEST, None))
    assert json.loads(TEXT.build(request(top=3), "m"))["logprobs"] == 3


@pytest.mark.parametrize(("texts", "front"), [(PLAIN, []), (HIDDEN, [BOS]), (COUNTED, [BOS])])
def test_the_continuation_is_cut_out(texts: Texts, front: list[int]) -> None:
    """The values are the continuation's, whether the server puts a start token in front, and counts it."""
    reply = parse(truthful(texts))
    ids = [*front, *REQUEST.context_ids, *REQUEST.forced_ids]
    assert reply.token_logprobs == echoed_logprobs(ids)[-3:]
    assert list(reply.token_ids) == list(REQUEST.forced_ids)
    top = parse(truthful(texts, request(top=2)), request(top=2)).top_logprobs
    assert [list(each) for each in top] == [[" "], ["x"], ["y"]]


def test_a_start_token_that_is_counted_and_not_shown() -> None:
    """Some servers leave the start token out of the echo, and count it as part of the prompt."""
    reply = truthful()
    reply["usage"]["prompt_tokens"] += 1
    assert len(parse(reply).token_logprobs) == 3
    reply["usage"]["prompt_tokens"] += 20
    with pytest.raises(ReplyError, match="counted 31 prompt tokens and echoed 10: it scored another prompt"):
        parse(reply)


def lists(change: Callable[[dict[str, Any]], object]) -> Callable[[Body], object]:
    """A change of the lists of log-probabilities."""
    return lambda reply: change(reply["choices"][0]["logprobs"])


def keep(start: int, end: int | None) -> Callable[[Body], object]:
    """Only some positions are left."""

    def cut(found: dict[str, Any]) -> None:
        for name in found:
            found[name] = found[name][start:end]

    return lists(cut)


def entry(position: int, **changes: Any) -> Callable[[Body], object]:
    """One position is changed."""

    def change(found: dict[str, Any]) -> None:
        for name, value in changes.items():
            found[name][position] = value

    return lists(change)


def joined(at: int) -> Callable[[Body], object]:
    """Two tokens of the prompt become one."""

    def change(found: dict[str, Any]) -> None:
        found["tokens"][at] += found["tokens"].pop(at + 1)
        for name in ("text_offset", "token_logprobs", "top_logprobs"):
            del found[name][at + 1]

    return lists(change)


def shifted(by: int, start: int) -> Callable[[Body], object]:
    """Offsets from a position on are others."""

    def change(found: dict[str, Any]) -> None:
        found["text_offset"][start:] = [each + by for each in found["text_offset"][start:]]

    return lists(change)


WRONG: dict[str, tuple[Callable[[Body], object], str]] = {
    "echo is ignored": (keep(-1, None), "ignores 'echo'"),
    "no generated token": (keep(0, -1), "generated token is missing"),
    "no first token": (keep(1, None), "beginning of the prompt is missing"),
    "more is generated": (
        lists(
            lambda found: (
                found["text_offset"].append(found["text_offset"][-1] + 4),
                found["token_logprobs"].append(-0.5),
                found["tokens"].append(" or"),
            )
        ),
        "not the only one behind the prompt",
    ),
    "two at the end": (
        lists(
            lambda found: (
                found["text_offset"].append(found["text_offset"][-1]),
                found["token_logprobs"].append(-0.5),
                found["tokens"].append(""),
            )
        ),
        "not the only one behind the prompt",
    ),
    "no offsets": (lists(lambda found: found.pop("text_offset")), "has no text_offset"),
    "offsets of -1": (
        lists(lambda found: found.update(text_offset=[-1] * len(found["text_offset"]))),
        "text_offset is -1 somewhere",
    ),
    "offsets of 0": (
        lists(lambda found: found.update(text_offset=[0] * len(found["text_offset"]))),
        "generated token is missing, or the offsets do not count characters",
    ),
    "offsets that go back": (entry(4, text_offset=2), "goes back from 3 to 2 at position 4"),
    "offsets that count something else": (shifted(1, 3), "do not count characters"),
    "fewer offsets": (lists(lambda found: found["text_offset"].pop()), "10 offsets of tokens for 11"),
    "fewer texts": (lists(lambda found: found["tokens"].pop()), "10 texts of tokens for 11"),
    "other texts": (entry(4, tokens="z"), "token 4 is 'z' where the prompt has '.n'"),
    "a cut prompt": (
        keep(2, None),
        "beginning of the prompt is missing",
    ),
    "a template in front": (
        lists(
            lambda found: (
                found["tokens"].insert(0, "User: "),
                found["token_logprobs"].insert(1, -0.5),
                found.update(text_offset=[0, *(each + 6 for each in found["text_offset"])]),
            )
        ),
        "do not count characters",
    ),
    "joined across the seam": (joined(START - 1), "no token begins at character 7"),
    "split otherwise": (joined(START), "has 2 tokens there and 3 here: the server's tokenizer splits diff"),
    "a null in the context": (entry(2, token_logprobs=None), "no log-probability at position 2"),
    "a null in the continuation": (entry(8, token_logprobs=None), "no log-probability at position 8"),
    "a positive value": (entry(8, token_logprobs=0.5), "is above 0"),
    "another count": (lambda reply: reply["usage"].update(prompt_tokens=9), "scored another prompt"),
    "no log-probabilities": (lambda reply: reply["choices"][0].update(logprobs=None), "has no log-prob"),
    "two choices": (lambda reply: reply["choices"].append(reply["choices"][0]), "2 choices"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_reply_that_is_not_believed(name: str) -> None:
    """What is no echo of exactly this text and one token more is a named error, never a score."""
    change, says = WRONG[name]
    reply = truthful()
    change(reply)
    with pytest.raises(ReplyError, match=says):
        parse(reply)


@given(
    positions=st.lists(st.integers(0, 10), min_size=1, max_size=3),
    moved=st.sampled_from([-2, -1, 1, 2]),
    texts=st.sampled_from([PLAIN, HIDDEN, COUNTED]),
)
def test_offsets_that_lie(positions: list[int], moved: int, texts: Texts) -> None:
    """Whatever offsets are wrong, the reply is an error or the right values: never others."""
    reply = truthful(texts)
    right = parse(reply).token_logprobs
    offsets = reply["choices"][0]["logprobs"]["text_offset"]
    for position in positions:
        offsets[position] += moved
    try:
        found = parse(reply).token_logprobs
    except ReplyError:
        return
    assert found == right


def test_parts_of_characters() -> None:
    """Tokens that are parts of a character break nothing, however their texts are written."""
    for written in ("\ufffd", "", "bytes:\\xe2\\x80", "<0xE2>"):
        asked = ScoreRequest(b"k" * 16, [1, 2, 3], [4, 5, 6], text=("a\u2019", " \u2019b"))
        body: Body = truthful()
        body["choices"][0]["logprobs"] = {
            "tokens": ["a", written, written, " ", written, "b", "."],
            "text_offset": [0, 1, 1, 2, 3, 4, 5],
            "token_logprobs": [None, -1, -2, -3, -4, -5, -6],
        }
        body["usage"] = None
        assert parse(body, asked).token_logprobs == [-3, -4, -5]


@pytest.mark.parametrize(
    ("tokens", "offsets"),
    [
        (["<s>", "\u2581Q", ":", "\u2581B", "."], [0, 0, 1, 2, 4]),  # raw pieces, counted from the prompt
        (["<s>", "\u2581Q", ":", "\u2581B", "."], [0, 3, 5, 6, 8]),  # raw pieces, counted from the start
        (["<s>", " Q", ":", " B", "."], [0, 3, 5, 6, 8]),
        (["<s>", "Q", ":", "\u0120B", "."], [0, 3, 4, 5, 7]),
        ([" Q", ":", " B", "."], [0, 2, 3, 5]),  # a space in front, no start token
    ],
)
def test_how_servers_write_tokens(tokens: list[str], offsets: list[int]) -> None:
    """Raw vocabulary pieces, and the space that a tokenizer puts before a text, are what they stand for."""
    body = truthful()
    body["choices"][0]["logprobs"] = {
        "tokens": tokens,
        "text_offset": offsets,
        "token_logprobs": [None, *(-float(n) for n in range(1, len(tokens)))],
    }
    body["usage"] = None
    asked = ScoreRequest(b"k" * 16, [1, 2], [3], text=("Q:", " B"))
    assert parse(body, asked).token_logprobs == [-float(len(tokens) - 2)]


def test_without_texts_of_tokens() -> None:
    """A server that gives no texts is believed for offsets that fit, and for no others."""
    reply = truthful(HIDDEN)
    del reply["choices"][0]["logprobs"]["tokens"]
    assert parse(reply).token_logprobs == parse(truthful(HIDDEN)).token_logprobs
    reply = truthful(COUNTED)
    del reply["choices"][0]["logprobs"]["tokens"]
    with pytest.raises(ReplyError, match="do not count characters"):
        parse(reply)


# ---------------------------------------------------------------------------------------------- planning


def test_texts_are_planned_where_they_are_wanted() -> None:
    """Requests bring their two texts, split at the seam, where these are asked for; keys are the same."""
    prompt = make_prompt("Q: a\nA: ", ["x", "y"])
    tokenizer = _Characters()
    (plain,), (texts,) = (encode_prompts([prompt], tokenizer, as_text=as_text) for as_text in (False, True))
    (identity,) = (endpoint.identity for endpoint in parse_endpoints(["openai-text+http://h/v1#m"]))
    without, having = (plan_item(each, 0, KeyMaker(identity)) for each in (plain, texts))
    assert [request.text for request in without.requests] == [None, None]
    assert [request.text for request in having.requests] == [("Q: a\nA:", " x"), ("Q: a\nA:", " y")]
    assert [request.key for request in without.requests] == [request.key for request in having.requests]


def test_what_no_text_can_say() -> None:
    """A context that is cut or empty leaves its item unscored, with the reason: nothing else is sent."""
    tokenizer = _Characters()
    (cut,) = encode_prompts([make_prompt("Q: a\nA:", [" x"])], tokenizer, Bound(5), as_text=True)
    (empty,) = encode_prompts([make_prompt("", ["x"])], tokenizer, as_text=True)
    assert cut.pairs == empty.pairs == ()
    assert cut.problem == "its context is cut to --max-length, and cannot be sent as text then"
    assert empty.problem == "its context is empty, and the start token in its place cannot be sent as text"
    (skipped,) = encode_prompts([make_prompt("Q: a\nA:", [" x"])], tokenizer, Bound(5, "skip"), as_text=True)
    assert skipped.problem == "longer than --max-length (9 tokens)"


class _Characters:
    """The default tokenizer of the fake endpoint, as encoding needs it."""

    start_id = 0
    seams = None

    def encode(self, texts: Any) -> list[list[int]]:
        return [list(each.ids) for each in characters().encode_batch(texts)]

    encode_plain = encode


# -------------------------------------------------------------------------------------------------- SPEC


def test_spec() -> None:
    """The URL behind `openai-text+`; another identity than the same address has in other formats."""
    specs = [f"{prefix}http://Host:8000/v1#org/model:tag" for prefix in ("openai-text+", "openai+", "")]
    text, ids, forced = parse_endpoints(specs)
    assert (text.dialect, text.base_url) == ("openai-text", "http://host:8000/v1")
    assert (text.wire_model, text.adapter) == ("org/model:tag", "")
    assert len({each.identity.digest() for each in (text, ids, forced)}) == 3
    environ = {"FRIENDLI_TOKEN": "flp_abc", "OPENAI_API_KEY": "sk-xyz"}
    (near,) = parse_endpoints(["openai-text+https://host/v1#m"])
    assert credentials(near, environ).headers() == {"Authorization": "Bearer sk-xyz"}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("openai-text+http://host/v2#m", "must end in /v1"),
        ("openai-txt+http://host/v1#m", "Did you mean openai-text"),
        ("openai_text+http://host/v1#m", "Did you mean openai-text"),
    ],
)
def test_malformed_spec(spec: str, says: str) -> None:
    """It is refused as typed, and the form that was meant is named."""
    with pytest.raises(UsageError, match=says) as caught:
        parse_endpoints([spec])
    assert str(caught.value).startswith(f"--endpoint {spec}")


def test_a_format_is_called_as_its_file_with_dashes() -> None:
    """`openai-text` is found in `openai_text.py`; nothing is found by the file's own name."""
    assert TEXT.name == "openai-text"
    with pytest.raises(UsageError, match="Did you mean openai-text"):
        dialect("openai_text")


# -------------------------------------------------------------------------------------------- whole runs


async def test_texts_and_ids_score_alike(bench: Bench) -> None:
    """The same server, asked in text and in ids: exactly the same sums; faults in between change nothing."""

    def script(number: int, body: Body) -> Fault | None:
        return Status(429) if number % 5 == 0 else None

    async with FakeEndpoint(script) as endpoint:
        specs = (f"text=openai-text+{endpoint.base_url}#m", f"ids=openai+{endpoint.base_url}#m")
        result = await bench.run(*specs)
        prompts = [body["prompt"] for body in endpoint.bodies]
    assert result.exit is Exit.DONE
    assert {type(prompt) for prompt in prompts} == {str, list}
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    text, ids = (items[items.endpoint == label].reset_index() for label in ("text", "ids"))
    assert len(text) == 24
    for one, other in zip(text.sums, ids.sums, strict=True):
        assert list(one) == list(other)
    assert any("text: prompts are sent as text" in remark for remark in result.remarks)
    assert any(remark.startswith("ids: no token is put in front") for remark in result.remarks)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("name", ["tokenizers/gpt2", "tokenizers/openllama", "models/stories260k"])
async def test_real_tokenizers(bench: Bench, shared: Path, name: str, counted: bool) -> None:
    """Real tokenizers, with and without a start token, on real items: the sums of the ids that are meant."""
    texts = Texts(Backend.from_file(str(shared / name / "tokenizer.json")), counted=counted)
    settings: dict[str, Any] = {
        "tasks": "hellaswag,mmlu",
        "data_dir": shared / "data",
        "tokenizer": (str(shared / name),),
        "sample": 1,
        "shots": 0,
    }
    async with FakeEndpoint(texts=texts) as endpoint:
        result = await bench.run(f"openai-text+{endpoint.base_url}#m", **settings)
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    rows = pd.read_parquet(bench.folder / "run/texts.parquet")
    assert result.exit is Exit.DONE, list(items.unscored.dropna())
    assert load_tokenizer(str(shared / name)).leading == ([] if "gpt2" in name else [1])
    for item, row in zip(items.to_dict("records"), rows.to_dict("records"), strict=True):
        for total, context, forced in zip(item["sums"], row["context_ids"], row["forced_ids"], strict=True):
            values = echoed_logprobs([*map(int, context), *map(int, forced)])
            assert total == math.fsum(values[len(context) :])


async def test_a_server_without_echo_scores_nothing(bench: Bench) -> None:
    """A server that ignores `echo` leaves every item unscored, with the reason: never chance."""
    async with FakeEndpoint(lambda number, body: Altered(keep(-1, None))) as endpoint:
        result = await bench.run(f"openai-text+{endpoint.base_url}#m", limit=1, attempts=1)
    assert result.exit is not Exit.DONE
    assert result.accuracy["n"].sum() == 0
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert items.unscored.str.contains("ignores 'echo'").any()


async def test_a_context_that_is_cut_is_not_sent(bench: Bench) -> None:
    """`--max-length` leaves the items unscored that text cannot ask faithfully; the others are scored."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(f"openai-text+{endpoint.base_url}#m", tasks="hellaswag", max_length=78)
        longest = max(len(body["prompt"]) for body in endpoint.bodies)
    assert result.exit is Exit.UNSCORED
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert 0 < items.unscored.notna().sum() < len(items)
    assert set(items.unscored.dropna()) == {
        "its context is cut to --max-length, and cannot be sent as text then"
    }
    assert longest <= 78
