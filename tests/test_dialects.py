"""The wire formats: what a request's body holds, and which replies are believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dialects import dialect
from harness.errors import ReplyError, TruncatedReply, UsageError
from harness.exchange import Reply, ScoreRequest, check_reply, is_greedy
from tests.fake_endpoint import completion, true_logprobs

FRIENDLI = dialect("friendli")
REQUEST = ScoreRequest(b"k" * 16, [1, 2, 3], [40, 50])
WITH_TOP = ScoreRequest(b"k" * 16, [1, 2, 3], [40, 50], top=3)


def reply_to(request: ScoreRequest, **changes: Any) -> dict[str, Any]:
    """The truthful reply, with changes to its only choice."""
    reply = completion(json.loads(FRIENDLI.build(request, "ep")))
    reply["choices"][0].update(changes)
    return reply


def parse(reply: object, request: ScoreRequest = REQUEST) -> Any:
    """What the dialect makes of a reply."""
    return FRIENDLI.parse(json.dumps(reply).encode(), request)


def test_build_is_flat_and_samples_nothing() -> None:
    """The body has ids, forced ids, their number, and no field that could change the distribution."""
    assert json.loads(FRIENDLI.build(REQUEST, "ep:route")) == {
        "model": "ep:route",
        "tokens": [1, 2, 3],
        "forced_output_tokens": [40, 50],
        "logprobs": 1,
        "max_tokens": 2,
    }


@pytest.mark.parametrize("model", [None, ""])
def test_build_leaves_an_empty_model_out(model: str | None) -> None:
    """Containers take no model: none is sent, not an empty one."""
    assert "model" not in json.loads(FRIENDLI.build(REQUEST, model))


def test_build_asks_for_the_alternatives_that_are_read() -> None:
    """`logprobs` is what the scoring reads, at least 1."""
    assert json.loads(FRIENDLI.build(WITH_TOP, None))["logprobs"] == 3


def test_parse_gives_ids_values_and_usage() -> None:
    """A truthful reply is read as it stands; alternatives nobody asked for are not kept."""
    reply = parse(reply_to(REQUEST))
    assert reply.token_ids == [40, 50]
    assert reply.token_logprobs == true_logprobs([1, 2, 3], [40, 50])
    assert reply.top_logprobs is None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.cached_tokens) == (
        3,
        2,
        None,
    )


def test_parse_gives_alternatives_where_asked_for() -> None:
    """With `top` the alternatives of each position are there, by text."""
    reply = parse(reply_to(WITH_TOP), WITH_TOP)
    assert [len(each) for each in reply.top_logprobs] == [3, 3]
    assert reply.top_logprobs[0][" t40"] == reply.token_logprobs[0]


@pytest.mark.parametrize(
    ("top", "greedy"),
    [
        ([{"a": None}, {"b": None}], None),
        ([{"a": -0.1}, {"b": -0.2}], False),
        ([{"a": -5.0}, {"b": -9.0, "c": -7.5}], True),
        ([{"a": -5.0}, {"b": -0.1}], False),
        ([{"a": -5.0}, {}], None),
        ([{"a": -5.0}], None),
        ("none", None),
        (None, None),
    ],
)
def test_greediness_is_read_where_it_can_be(top: Any, greedy: bool | None) -> None:
    """Greedy if no alternative is likelier at any position; else unknown, never an error."""
    values = true_logprobs([1, 2, 3], [40, 50])
    assert values[0] > -5.0
    assert values[1] > -7.5
    reply = reply_to(REQUEST)
    reply["choices"][0]["logprobs"]["top_logprobs"] = top
    assert parse(reply).greedy is greedy
    del reply["choices"][0]["logprobs"]["top_logprobs"]
    assert parse(reply).greedy is None


def test_of_level_tokens_each_is_greedy() -> None:
    """As likely as the likeliest is greedy, as the reference has it for endpoints."""
    assert is_greedy([-1.0, -2.0], [{"x": -1.0}, {"y": -2.0}])
    assert not is_greedy([-1.0, -2.0], [{"x": -1.0}, {"y": -1.9}])


def test_what_is_certain_has_no_likely_alternative() -> None:
    """A token of probability 1 beside another likely one is not believed, whoever reads the alternatives."""
    reply = reply_to(REQUEST)
    logprobs = reply["choices"][0]["logprobs"]
    logprobs["token_logprobs"] = [0.0, 0.0]
    logprobs["top_logprobs"] = [{"x": 0.0}, {"y": 0.0, "z": -14.0}]
    assert parse(reply).greedy is True  # so an honest endpoint says it, to rounding
    logprobs["top_logprobs"] = [{"x": 0.0}, {"y": 0.0, "z": 0.0}]
    for top in (0, 2):
        with pytest.raises(ReplyError, match="position 1 is certain, and alternatives to it are likely"):
            parse(reply, ScoreRequest(REQUEST.key, REQUEST.context_ids, REQUEST.forced_ids, top))


def test_a_long_flat_output_is_not_believed() -> None:
    """Six tokens equally likely to the last bit are no reading of a text; five may be, and certain ones."""
    for count, value in ((5, -2.5), (6, 0.0), (7, -1e-5)):
        check_reply(ScoreRequest(b"", [1], [9] * count), Reply([9] * count, [value] * count))
    with pytest.raises(ReplyError, match=r"all 6 log-probabilities are -2\.5"):
        check_reply(ScoreRequest(b"", [1], [9] * 6), Reply([9] * 6, [-2.5] * 6))


def test_parse_reads_cached_tokens_and_does_without_usage() -> None:
    """Usage is kept where the endpoint tells it, and nothing depends on it."""
    told = reply_to(REQUEST)
    told["usage"]["prompt_tokens_details"] = {"cached_tokens": 2}
    assert parse(told).usage.cached_tokens == 2
    del told["usage"]
    assert parse(told).usage.prompt_tokens is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokens": [40, 51]}, "[40, 51]"),
        ({"tokens": [40]}, "[40]"),
        ({"tokens": None}, "tokens"),
        ({"logprobs": None}, "no log-probabilities"),
        ({"logprobs": [-1.0, -2.0]}, "logprobs"),
        ({"logprobs": {"token_logprobs": [-1.0]}}, "1 log-probabilities for 2"),
        ({"logprobs": {"token_logprobs": [-1.0, None]}}, "token_logprobs[1]"),
        ({"logprobs": {"token_logprobs": [-1.0, "-2"]}}, "token_logprobs[1]"),
        ({"logprobs": {"token_logprobs": [-1.0, float("nan")]}}, "NaN"),
        ({"logprobs": {"token_logprobs": [-1.0, float("-inf")]}}, "Infinity"),
        ({"logprobs": {"token_logprobs": [-1.0, 0.5]}}, "above 0"),
        ({"logprobs": {"tokens": [" t40"]}}, "token_logprobs"),
    ],
)
def test_parse_refuses(changes: dict[str, Any], named: str) -> None:
    """What does not answer the request is a protocol error that names what is wrong, never a score."""
    with pytest.raises(ReplyError) as caught:
        parse(reply_to(REQUEST, **changes))
    assert named in str(caught.value)
    assert not isinstance(caught.value, TruncatedReply)


@pytest.mark.parametrize("choices", [[], [{"tokens": [40, 50]}] * 2])
def test_parse_wants_exactly_one_choice(choices: list[Any]) -> None:
    """Which of several choices was meant is not guessed."""
    with pytest.raises(ReplyError, match=f"{len(choices)} choices"):
        parse({"choices": choices})


@pytest.mark.parametrize(
    ("top", "named"),
    [
        ([{}], "1 positions for 2"),
        ([{"a": -1.0}, {"a": 1.0}], "above 0"),
        ([{"a": -1.0}, None], "top_logprobs[1]"),
    ],
)
def test_parse_checks_alternatives(top: list[Any], named: str) -> None:
    """Alternatives that scores are read from are believed no sooner than the chosen values."""
    reply = reply_to(WITH_TOP)
    reply["choices"][0]["logprobs"]["top_logprobs"] = top
    with pytest.raises(ReplyError) as caught:
        parse(reply, WITH_TOP)
    assert named in str(caught.value)


@given(st.integers(min_value=0, max_value=10_000))
def test_a_cut_body_is_told_apart(at: int) -> None:
    """Wherever a reply is cut, the error says that it is cut, so that it is asked for again."""
    whole = json.dumps(reply_to(REQUEST)).encode()
    with pytest.raises(TruncatedReply):
        FRIENDLI.parse(whole[: at % len(whole)], REQUEST)


@given(st.binary())
def test_parse_raises_nothing_but_reply_errors(body: bytes) -> None:
    """No body, however odd, breaks the reader."""
    with pytest.raises(ReplyError):
        FRIENDLI.parse(body, REQUEST)


def test_deep_nesting_is_refused() -> None:
    """A body nested beyond any sense is an error of the reply, in results and in error bodies."""
    deep = b'{"choices":' + b"[" * 100_000
    with pytest.raises(ReplyError):
        FRIENDLI.parse(deep, REQUEST)
    assert FRIENDLI.error_message(deep).startswith('{"choices":[[[')


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "too long", "type": "invalid"}}, "too long"),
        ({"message": "no such endpoint", "error": {"code": 7}}, "no such endpoint"),
        (
            {
                "detail": [
                    {"loc": ["body", "tokens", 0], "msg": "not an integer", "type": "int"},
                    {"msg": "second"},
                ]
            },
            "body.tokens.0: not an integer; second",
        ),
        ({"detail": "Not Found"}, "Not Found"),
        ({"error": "invalid_grant", "error_description": "expired"}, "expired"),
        ({"error": "overloaded"}, "overloaded"),
        (
            {"type": "error", "error": {"type": "busy", "message": "come later"}, "request_id": "r"},
            "come later",
        ),
        ({"odd": 1}, '{"odd": 1}'),
        ({"detail": [7]}, "7"),
    ],
)
def test_error_message_knows_the_shapes(body: object, message: str) -> None:
    """Each shape of error body gives its message; an unknown one is shown as it is."""
    assert FRIENDLI.error_message(json.dumps(body).encode()) == message


@pytest.mark.parametrize(
    ("body", "message"), [(b"", ""), (b"<h1>\n502 Bad\tGateway</h1>", "<h1> 502 Bad Gateway</h1>")]
)
def test_error_message_of_no_json(body: bytes, message: str) -> None:
    """A body that is no JSON is shown in one line."""
    assert FRIENDLI.error_message(body) == message


@given(st.binary(max_size=2000) | st.text().map(lambda text: json.dumps({"message": text}).encode()))
def test_error_message_is_short_and_inert(body: bytes) -> None:
    """Whatever a server says is one short line that no terminal acts upon."""
    message = FRIENDLI.error_message(body)
    assert len(message) <= 300
    assert message.isprintable()


def test_unknown_wire_format() -> None:
    """An unknown name is refused with the nearest known one."""
    with pytest.raises(UsageError, match="Did you mean friendli"):
        dialect("frendli")
