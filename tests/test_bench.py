"""The yardstick itself: the instant endpoint tells the truth, the simulated server counts right."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dialects import dialect
from harness.exchange import Reply, ScoreRequest
from harness.sending import BLOCK
from tests.bench.answers import Answers, Asked, texts_of
from tests.bench.bare import ask
from tests.bench.batching import (
    MACHINE,
    Kept,
    Listed,
    Machine,
    Scheduled,
    block_positions,
    simulate,
    token_positions,
)
from tests.bench.figures import largest_difference
from tests.bench.instant import Connection, Endpoint, Limits
from tests.bench.measuring import Failed, table
from tests.running import write_tokenizer

TEXTS = [*(f" w{i}" for i in range(90)), " A", " B", " C", " D", "é", '"', "\n", " w1"]
"""Of a small vocabulary; the last reads like another one, as fragments of characters do."""
LETTERS = range(90, 94)
ANSWERS = Answers(TEXTS)
WHOLE = Answers(TEXTS, whole_context=True)
FRIENDLI, OPENAI = dialect("friendli"), dialect("openai")

token = st.integers(0, len(TEXTS) - 1)
tokens = st.lists(token, min_size=1, max_size=12)


def request(context: Sequence[int], forced: Sequence[int], top: int = 0, key: int = 0) -> ScoreRequest:
    """A request."""
    return ScoreRequest(key.to_bytes(16, "big"), context, forced, top=top)


def said(answers: Answers, question: ScoreRequest) -> bytes:
    """The body of the reply to a request that is sent as the program sends it."""
    endpoint = Endpoint(answers, Limits(), clock=lambda: 0.0)
    status, body = endpoint.reply(b"POST", b"/v1/completions", FRIENDLI.build(question, "model"))
    assert status == 200
    return body


def reply(answers: Answers, question: ScoreRequest) -> Reply:
    """What the program makes of it."""
    return FRIENDLI.parse(said(answers, question), question)


def prompt(value: object) -> Asked:
    """An OpenAI-style body with these ids."""
    return Asked(prompt=msgspec.Raw(json.dumps(value).encode()), echo=True, logprobs=1)


# ------------------------------------------------------------------------------------------- the answers


@given(st.sampled_from([ANSWERS, WHOLE]), tokens, tokens, st.integers(0, 20))
def test_replies_are_believed(answers: Answers, context: list[int], forced: list[int], top: int) -> None:
    """The program's own checks find forced ids, possible values, and alternatives that agree with them."""
    found = reply(answers, request(context, forced, top))
    assert found.token_ids == forced
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(context), len(forced))
    assert found.greedy is not None
    for each, value, others in zip(forced, found.token_logprobs, found.top_logprobs or (), strict=False):
        assert others[TEXTS[each]] >= value  # of two ids that read alike the likelier
        assert top - 1 <= len(others) <= top + 1
        assert sum(map(math.exp, others.values())) < 1


@given(tokens, tokens, token, tokens)
def test_values_depend_on_the_id_before_alone(
    one: list[int], other: list[int], last: int, forced: list[int]
) -> None:
    """Contexts that end alike are answered alike."""
    first, second = (request([*each, last], forced) for each in (one, other))
    assert reply(ANSWERS, first).token_logprobs == reply(ANSWERS, second).token_logprobs


def test_whole_context_tells_items_apart() -> None:
    """Where the endpoint minds all of a context, those that end alike are answered differently."""
    values = {tuple(reply(WHOLE, request([each, 7], [90, 91])).token_logprobs) for each in range(40)}
    assert len(values) > 20


@given(token, st.integers(1, 30))
def test_the_likeliest_are_those_of_all(seed: int, top: int) -> None:
    """They are found without looking at all ids, and are what looking at all would find."""
    every = sorted(((float(ANSWERS.value(seed, each)), each) for each in range(len(TEXTS))), reverse=True)
    assert [(float(value), each) for each, value in ANSWERS.likeliest(seed, top)] == every[:top]
    assert len({value for value, _ in every}) == len(TEXTS)
    assert sum(math.exp(value) for value, _ in every) < 1


@given(st.integers(0, 2**20))
def test_letters_are_among_the_twenty_likeliest(seed: int) -> None:
    """Whatever is before: so MMLU's choices can be read off one reply."""
    assert set(LETTERS) <= {each for each, _ in ANSWERS.likeliest(seed, 20)}


@given(tokens, tokens)
def test_echoed_prompts_say_the_same(context: list[int], forced: list[int]) -> None:
    """An OpenAI-style client reads the same values, and gets one id more than it sent."""
    question = request(context, forced)
    body = ANSWERS.openai(prompt([*context, *forced])).body
    ours, theirs = reply(ANSWERS, question), OPENAI.parse(body, question)
    assert (theirs.token_logprobs, theirs.greedy) == (ours.token_logprobs, ours.greedy)
    assert len(json.loads(body)["choices"][0]["tokens"]) == len(context) + len(forced) + 1


def test_prompts_may_come_in_lists() -> None:
    """lm-evaluation-harness puts the ids of a prompt into a list of prompts; each gets a choice."""
    answer = ANSWERS.openai(prompt([[1, 2], [3, 4, 5]]))
    choices = json.loads(answer.body)["choices"]
    assert [each["tokens"][:-1] for each in choices] == [[1, 2], [3, 4, 5]]
    assert [each["index"] for each in choices] == [0, 1]
    assert (answer.prompt_tokens, answer.forced_tokens) == (5, 2)


def test_offsets_count_characters() -> None:
    """`text_offset` says where each text begins in the generated one."""
    choice = json.loads(said(ANSWERS, request([1], [0, 94, 95, 10])))["choices"][0]
    assert choice["text"] == ' w0é" w10'
    assert choice["logprobs"]["tokens"] == [" w0", "é", '"', " w10"]
    assert choice["logprobs"]["text_offset"] == [0, 3, 4, 5]


def test_texts_of_a_tokenizer_are_in_the_order_of_ids(tmp_path: Path) -> None:
    """An id's text is what it adds behind another one."""
    texts = texts_of(write_tokenizer(tmp_path))
    assert len(texts) == 96
    assert [texts[ord(each) - 32].strip() for each in "A~!"] == ["A", "~", "!"]


def test_texts_keep_their_spaces(shared: Path) -> None:
    """A word that begins with a space is named with it, as endpoints do."""
    assert {" A", " B", " C", " D", "A", " the"} <= set(
        texts_of(shared / "tokenizers/gpt-neox-olmo/tokenizer.json")
    )


# ------------------------------------------------------------------------------------------ the endpoint


class Written(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.wrote = asyncio.Event()

    def write(self, data: Any) -> None:
        self.data += data
        self.wrote.set()

    def is_closing(self) -> bool:
        return False


def connected(endpoint: Endpoint) -> tuple[Connection, Written]:
    """A connection whose replies are kept."""
    connection, transport = Connection(endpoint), Written()
    connection.connection_made(transport)
    return connection, transport


def wire(body: bytes, head: bytes = b"POST /v1/completions HTTP/1.1") -> bytes:
    """A request as bytes."""
    return b"%b\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def statuses(data: bytes) -> list[int]:
    """Of the replies in these bytes."""
    return [int(each[:3]) for each in data.split(b"HTTP/1.1 ")[1:]]


def counts(endpoint: Endpoint) -> dict[str, Any]:
    """What GET /counts says."""
    found: dict[str, Any] = json.loads(endpoint.reply(b"GET", b"/counts", b"")[1])
    return found


@given(st.lists(tokens, min_size=1, max_size=4), st.data())
def test_requests_are_found_however_they_are_cut(several: list[list[int]], data: st.DataObject) -> None:
    """Pieces of requests one behind the other get the same replies as whole ones."""
    bodies = [FRIENDLI.build(request([1, 2], forced), "model") for forced in several]
    sent = b"".join(map(wire, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    endpoint = Endpoint(ANSWERS, Limits(), clock=lambda: 0.0)
    connection, transport = connected(endpoint)
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        connection.data_received(sent[begin:end])
    whole = [said(ANSWERS, request([1, 2], forced)) for forced in several]
    assert [part.partition(b"\r\n\r\n")[2] for part in transport.data.split(b"HTTP/1.1 ")[1:]] == whole


async def test_what_is_no_request_is_refused_and_counted() -> None:
    """Wrong bodies get 422, other paths 404, bodies of unknown length 411; the connection goes on."""
    endpoint = Endpoint(ANSWERS, Limits(), clock=lambda: 0.0)
    connection, transport = connected(endpoint)
    good = FRIENDLI.build(request([1], [2]), "model")
    strange = [b"{", b"{}", b'{"prompt": "a text"}', b'{"tokens": [1], "forced_output_tokens": [98]}']
    connection.data_received(b"".join(map(wire, strange)))
    connection.data_received(wire(b"", b"GET /nothing HTTP/1.1"))
    connection.data_received(b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.data_received(wire(good))
    assert statuses(transport.data) == [422] * 4 + [404, 411, 200]
    assert (counts(endpoint)["requests"], counts(endpoint)["faulty"]) == (1, 4)


def test_counts_begin_anew() -> None:
    """DELETE /counts forgets; tokens and the seconds since the first request are counted."""
    times = iter((10.0, 10.5, 12.0))
    endpoint = Endpoint(ANSWERS, Limits(), clock=lambda: next(times))
    body = FRIENDLI.build(request([1, 2, 3], [4, 5]), "model")
    for _ in range(3):
        endpoint.reply(b"POST", b"/v1/completions", body)
    found = counts(endpoint)
    assert (found["requests"], found["prompt_tokens"], found["forced_tokens"]) == (3, 9, 6)
    assert (found["first"], found["seconds"]) == (10.0, [2, 0, 1])
    endpoint.reply(b"DELETE", b"/counts", b"")
    assert (counts(endpoint)["requests"], counts(endpoint)["first"]) == (0, None)


def test_a_window_slides() -> None:
    """So many in any minute: one more is taken when the first is a minute old."""
    limits = Limits(rpm=2)
    assert [limits.admit(now) for now in (0.0, 30.0, 59.9, 60.0, 61.0, 90.0)] == [
        *(True, True, False, True, False, True)
    ]


def test_every_so_manieth_goes_wrong() -> None:
    """With --faulty the second, fourth, ... completion is refused, dropped, cut short or broken, in turn; the
    others are as ever, and the counts say how many."""
    endpoint = Endpoint(ANSWERS, Limits(), faulty=2, clock=lambda: 0.0)
    body = wire(FRIENDLI.build(request([1], [2]), "model"))
    ended: list[str] = []
    came: list[bytes] = []
    for _ in range(8):
        connection, transport = connected(endpoint)
        transport.close = lambda: ended.append("closed")  # type: ignore[method-assign]
        transport.abort = lambda: ended.append("dropped")  # type: ignore[method-assign]
        connection.data_received(body)
        came.append(transport.data)
    assert [statuses(each) for each in came] == [[200], [], [200], [200], [200], [500], [200], [429]]
    assert ended == ["dropped", "closed"]
    assert len(came[3].partition(b"\r\n\r\n")[2]) == 100
    assert b"Content-Length: 400" in came[3]
    assert (counts(endpoint)["requests"], counts(endpoint)["faulty"]) == (4, 4)


async def test_a_capacity_refuses_what_is_more() -> None:
    """While a request is worked on, the next gets 429; afterwards there is room, and replies keep order."""
    endpoint = Endpoint(ANSWERS, Limits(capacity=1), latency=0.001)
    (first, one), (second, other) = connected(endpoint), connected(endpoint)
    body = wire(FRIENDLI.build(request([1], [2]), "model"))
    first.data_received(body + body)
    second.data_received(body)
    assert (statuses(one.data), statuses(other.data)) == ([], [429])
    while len(statuses(one.data)) < 2:
        one.wrote.clear()
        await one.wrote.wait()
    assert statuses(one.data) == [200, 200]
    found = counts(endpoint)
    assert (found["requests"], found["refused"], found["at_once"]) == (2, 1, 1)


@asynccontextmanager
async def listening(endpoint: Endpoint) -> AsyncIterator[str]:
    """The base URL of an endpoint on loopback."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(endpoint), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_the_bare_loop_sends_what_it_is_given() -> None:
    """Every body once, whatever the batches, and it reads what comes back."""
    questions = [request([1, number], [number, number + 1]) for number in range(50)]
    bodies = [FRIENDLI.build(each, "model") for each in questions]
    endpoint = Endpoint(ANSWERS, Limits())
    async with listening(endpoint) as url:
        count, total = await ask(url, iter([bodies[:7], [], bodies[7:]]), 8)
    assert count == counts(endpoint)["requests"] == 50
    assert (counts(endpoint)["prompt_tokens"], counts(endpoint)["forced_tokens"]) == (100, 100)
    assert total == pytest.approx(sum(sum(reply(ANSWERS, each).token_logprobs) for each in questions))


# ----------------------------------------------------------------------------------- the batching server

SHOTS = list(range(1000, 1000 + 2 * BLOCK))


def question(number: int, more: int = 4) -> list[int]:
    """Two blocks of shots, and some tokens of its own."""
    return [*SHOTS, *([number] * more)]


def test_positions_of_the_tree() -> None:
    """Equal beginnings count once; of each request the block that its last token stands in is computed."""
    prompts = [question(1), question(1), question(2)]
    assert token_positions(prompts) == 32 + 4 + 4
    assert block_positions(prompts) == 32 + 4 + 4 + 4
    assert block_positions([SHOTS, SHOTS]) == 32 + 16
    assert block_positions([SHOTS, question(1)]) == block_positions([question(1), SHOTS]) == 32 + 4


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=20), max_size=12), st.integers(1, 4))
def test_blocks_never_spare_more_than_tokens(prompts: list[list[int]], size: int) -> None:
    """The tree of tokens is the least of all, all tokens are the most."""
    least = block_positions(prompts, size)
    assert token_positions(prompts) <= least <= sum(map(len, prompts))


def test_a_prefix_is_kept_once_its_request_has_completed() -> None:
    """Together they compute it both, one after the other only once."""
    both = [request(question(n), [1], key=n) for n in (1, 2)]
    assert simulate(Listed(both), 2).computed == 2 * 36
    assert simulate(Listed(both), 1).computed == 36 + 4


def test_the_schedule_waits_for_a_leader() -> None:
    """What begins alike goes after the first, however many could go at once."""
    several = [request(question(n), [1], key=n) for n in range(8)]
    found = simulate(Scheduled(iter([several[:3], several[3:]])), 8)
    assert (found.requests, found.computed) == (8, 36 + 7 * 4)


def test_time_is_counted_in_steps() -> None:
    """A request takes a step a forced token; more than fit at once wait for one to end."""
    two = Machine(at_once=2, step=1.0)
    lengths = [request([n], [1] * forced, key=n) for n, forced in enumerate((3, 1, 2))]
    found = simulate(Listed(lengths), 3, two)
    assert (found.seconds, found.busy) == (3.0, 1.0)
    assert simulate(Listed([]), 3, two).seconds == 0


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    """The cache holds so many tokens; the end of a prompt goes before its beginning."""
    kept = Kept(Machine(kept=2 * MACHINE.block))
    kept.keep(SHOTS)
    kept.keep([7] * BLOCK)
    assert kept.spared([*SHOTS, 1]) == BLOCK
    kept.keep([8] * BLOCK)
    assert (kept.spared([7] * BLOCK + [1]), kept.spared([*SHOTS, 1])) == (0, BLOCK)


# -------------------------------------------------------------------------------------------- the tables


def test_tables_are_aligned() -> None:
    """The first column to the left, the others to the right, in Markdown."""
    lines = table(("what", "s"), [("a", "1.0"), ("bare loop", "12.5")]).splitlines()
    assert lines == [
        "| what      |    s |",
        "| --------- | ---: |",
        "| a         |  1.0 |",
        "| bare loop | 12.5 |",
    ]


def test_sums_are_compared_item_by_item(tmp_path: Path) -> None:
    """The largest difference counts; other items, or unscored ones, are no comparison."""

    def written(name: str, *rows: tuple[str, str, str]) -> Path:
        lines = [f'"","{index}","{sums}","{unscored}"' for index, sums, unscored in rows]
        (tmp_path / name).write_text("\n".join(["subject,index,sums,unscored", *lines]) + "\n")
        return tmp_path / name

    one = written("one", ("0", "[-1.0, -2.0]", ""), ("1", "[-3.0, -4.0]", ""))
    other = written("other", ("1", "[-3.0, -4.5]", ""), ("0", "[-1.25, -2.0]", ""))
    assert largest_difference(one, other) == (0.5, 2)
    with pytest.raises(Failed, match="same items"):
        largest_difference(one, written("fewer", ("0", "[-1.0, -2.0]", "")))
    with pytest.raises(Failed, match="unscored"):
        largest_difference(one, written("failed", ("0", "[-1.0, -2.0]", "429"), ("1", "[-3.0, -4.0]", "")))
