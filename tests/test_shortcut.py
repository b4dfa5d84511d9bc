"""Several choices out of one reply: what tokens are called, what is believed, what is forced all the same."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compared import compare
from harness.endpoint_settings import EndpointSettings
from harness.errors import UsageError
from harness.exchange import Failure, Outcome, Reply, ScoreRequest
from harness.manifest import Exit
from harness.merging.whole import merge
from harness.outlook import foreseen
from harness.prepare import prepare
from harness.shortcut import Names, Seen, Shortcut, learn, merged, read_off, seen_in
from harness.tokenizing import load_tokenizer
from tests.fake_endpoint import Altered, FakeEndpoint, Fault, Script, Status, true_logprobs
from tests.running import Bench, bench  # noqa: F401

KEY = b"k" * 16
VOCABULARY = {1: "A", 2: "B", 3: "C", 4: "A", 5: " A", 6: ""}


class Words:
    """A vocabulary of a few words; ids 1 and 4 are written alike."""

    id_limit = 7

    def piece(self, token_id: int) -> str | None:
        """The raw piece: a number before it makes all differ."""
        return f"{token_id}{VOCABULARY[token_id]}" if token_id in VOCABULARY else None

    def decode_each(self, texts: Sequence[Sequence[int]]) -> list[str]:
        """Texts put together."""
        return ["".join(VOCABULARY.get(each, "?") for each in ids) for ids in texts]

    def encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """An anchor that is a word."""
        return [[3] for _ in texts]


def seen(token_id: int, text: str, value: float, **alternatives: float) -> Seen:
    """A forced token and its alternatives."""
    return Seen(token_id, text, value, alternatives)


# ------------------------------------------------------------------------------------------------- names


def test_rules_are_ruled_out_by_what_is_seen() -> None:
    """Only the rules that give the texts that were seen are left."""
    names = Names(Words()).narrowed({5: " A"})
    assert set(names.rules) == {"text with its space", "text"}
    assert Names(Words()).narrowed({5: "A"}).rules == ("text without spaces",)
    assert Names(Words()).narrowed({2: "token_id:2"}).rules == ("id",)
    assert Names(Words()).narrowed({2: "Z"}).rules == ()


def test_a_text_of_several_ids_names_none_of_them() -> None:
    """Ids 1 and 4 read "A", and by text without spaces id 5 does too: none of them is named by it."""
    names = Names(Words(), ["text"])
    assert (names.name(1), names.name(4)) == (None, None)
    assert (names.name(2), names.name(5)) == ("B", " A")
    assert Names(Words(), ["text without spaces"]).name(5) is None
    assert Names(Words(), ["piece"]).name(1) == "1A"


def test_rules_that_disagree_name_nothing() -> None:
    """Where two rules are left and call an id differently, it has no name."""
    names = Names(Words(), ["text", "text without spaces"])
    assert names.name(2) == "B"
    assert names.name(5) is None


@pytest.mark.parametrize("folder", ["tokenizers/gpt2", "tokenizers/openllama", "models/stories260k"])
def test_letters_of_real_tokenizers_have_names(shared: Path, folder: str) -> None:
    """By piece and by text with its space, the letters that MMLU forces are called by names of their own."""
    tokenizer = load_tokenizer(str(shared / folder))
    context, *wholes = tokenizer.encode(["Answer:", *(f"Answer: {letter}" for letter in "ABCD")])
    ids = [each[len(context)] for each in wholes if len(each) == len(context) + 1]
    for rule in ("piece", "text with its space"):
        names = [Names(tokenizer, [rule]).name(each) for each in ids]
        assert None not in names
        assert len(set(names)) == len(ids)


# ---------------------------------------------------------------------------------------------- learning


def test_alternatives_are_learnt_where_they_are_what_forcing_gives() -> None:
    """Two tokens forced, each among the other's alternatives with the value it has when forced."""
    found = learn(
        [seen(2, "B", -1.0, B=-1.0, C=-2.0), seen(3, "C", -2.0005, B=-1.0, C=-2.0005)], Names(Words()), 20
    )
    assert isinstance(found, Shortcut)
    assert (found.top, found.checked) == (20, 2)
    assert found.largest == pytest.approx(0.0005)
    assert json.loads(found.evidence())["checked"] == 2


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ([seen(2, "?!", -1.0), seen(3, "C", -2.0)], "by other names"),
        ([seen(2, "B", -1.0, B=-1.0), seen(3, "C", -2.0, C=-2.0)], "none of the choices"),
        ([seen(2, "B", -1.0, C=-2.1), seen(3, "C", -2.0)], "differ by up to 0.1 nats"),
        ([seen(2, "B", -1.0, C=math.nan), seen(3, "C", -2.0)], "differ by up to nan"),
        ([seen(1, "A", -1.0, B=-2.0), seen(4, "A", -2.0)], "calls other tokens too"),
    ],
)
def test_what_cannot_be_learnt(replies: Sequence[Seen], why: str) -> None:
    """Unknown names, no alternative to compare, another value than forcing gives: nothing is read off."""
    found = learn(replies, Names(Words()), 20)
    assert isinstance(found, str)
    assert why in found


# ----------------------------------------------------------------------------------------------- reading


def request(token_id: int, *also: int) -> ScoreRequest:
    """A forced token that asks for others too."""
    others = tuple(ScoreRequest(bytes([each]) * 16, [9], [each], 20) for each in also)
    return ScoreRequest(KEY, [9], [token_id], 20, also=others)


def outcome(asked: ScoreRequest, text: str, value: float, top: Mapping[str, float]) -> Outcome:
    """What came back."""
    return Outcome(asked, Reply(asked.forced_ids, [value], [top], token_texts=[text]), latency=0.5)


BY_TEXT = Shortcut(20, Names(Words(), ["text"]), 3, 0.0)


def test_choices_are_read_by_name() -> None:
    """Values, keys, where they were read, and greediness; what is not named is left to be forced."""
    asked = request(2, 3, 5, 1)
    read = read_off(outcome(asked, "B", -1.0, {"B": -1.0, "C": -0.5, "A": -3.0}), BY_TEXT)
    assert [(each.request.key, each.reply and each.reply.token_logprobs) for each in read] == [
        (bytes([3]) * 16, (-0.5,))
    ]
    [one] = read
    assert one.reply
    assert (one.attempts, one.read_from, one.latency, one.reply.greedy) == (0, KEY, 0.5, True)


@pytest.mark.parametrize(
    ("text", "top"),
    [
        ("b", {"C": -0.5}),
        ("B", {"B": -1.5, "C": -0.5}),
        ("B", {"B": math.nan, "C": -0.5}),
        ("", {"C": -0.5}),
    ],
)
def test_a_reply_that_contradicts_itself_is_not_read(text: str, top: Mapping[str, float]) -> None:
    """Its own token called otherwise, or given two values: nothing is read off it."""
    assert read_off(outcome(request(2, 3), text, -1.0, top), BY_TEXT) == []


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0.5])
def test_impossible_alternatives_are_not_read(value: float) -> None:
    """What would not be believed of a forced token is not believed of an alternative."""
    assert read_off(outcome(request(2, 3), "B", -1.0, {"C": value}), BY_TEXT) == []


def test_failures_and_bare_replies_are_not_read() -> None:
    """No reply, or one without names, has nothing to read."""
    asked = request(2, 3)
    assert read_off(Outcome(asked, failure=Failure("500")), BY_TEXT) == []
    assert read_off(Outcome(asked, Reply([2], [-1.0], [{"C": -1.0}])), BY_TEXT) == []
    assert seen_in(asked, Reply([2], [-1.0], None, token_texts=["B"])) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 20]), st.integers(0, 2), st.integers(0, 5)), max_size=20, unique=True
    )
)
def test_merging_loses_and_repeats_nothing(parts: Sequence[tuple[int, int, int]]) -> None:
    """Each request is sent or asked for by one that is, of the same context; forced ones stay as they are."""
    requests = [
        ScoreRequest(bytes([at]) * 16, [context], [token], top)
        for at, (top, context, token) in enumerate(parts)
    ]
    sent = merged(requests)
    assert [each.key for one in sent for each in (one, *one.also)] == [each.key for each in requests]
    assert all(each.context_ids == one.context_ids and each.top for one in sent for each in one.also)


# ------------------------------------------------------------------------------------------- end to end

TASK = """
from harness import Dataset, Item, Row, Shots, Task


def item(row: Row) -> Item:
    letters = ["A", "B", "C", "D"]
    return row.item(
        context=row.text("question") + "|",
        choices=letters,
        continuations=letters,
        gold=row.integer("answer"),
        gold_field="answer",
    )


TASK = Task(
    name="lettered",
    version="1",
    dataset=Dataset(hub="none/lettered", folder="lettered", columns=("question", "answer")),
    split="test",
    item=item,
    metrics=("acc", "greedy"),
    shots=Shots(split="test", draw="first_n"),
    example={"question": "Which?", "answer": 0},
)
"""
CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n"]


def named(
    name: Callable[[int], str] = lambda each: CHARACTERS[each],
    *,
    hidden: Sequence[str] = (),
    shift: float = 0.0,
    after: int = 0,
) -> Script:
    """An endpoint that names tokens and true alternatives.

    Args:
        name: what it calls an id.
        hidden: characters that are never among the alternatives.
        shift: added to every alternative but the forced token, from request number `after` on.
        after: see there.
    """

    def script(number: int, body: dict[str, Any]) -> Altered:
        def change(reply: dict[str, Any]) -> None:
            logprobs = reply["choices"][0]["logprobs"]
            context, forced = body["tokens"], body["forced_output_tokens"]
            logprobs["tokens"] = [name(each) for each in forced]
            if len(forced) != 1:
                return
            moved = shift if number > after else 0.0
            every = {each: true_logprobs(context, [each])[0] + moved for each in range(96)}
            every[forced[0]] -= moved
            best = sorted(every, key=lambda each: -every[each])
            letters = [CHARACTERS.index(each) for each in "ABCD"] if body["logprobs"] > 1 else []
            kept = [*best[: body["logprobs"]], *letters]
            gone = {CHARACTERS.index(each) for each in hidden if letters}.difference(forced)
            shown = [each for each in kept if each not in gone]
            logprobs["top_logprobs"] = [{name(each): every[each] for each in shown}]

        return Altered(change)

    return script


@pytest.fixture
def lettered(bench: Bench) -> Callable[..., Any]:  # noqa: F811
    """Runs the lettered task of twelve items."""
    (bench.folder / "lettered.py").write_text(TASK)
    rows = bench.data / "lettered/test.jsonl"
    rows.parent.mkdir()
    rows.write_text(
        "".join(json.dumps({"question": f"Which is number {n}?", "answer": n % 4}) + "\n" for n in range(12))
    )

    def run(script: Script, out: str = "run", **changes: Any) -> tuple[FakeEndpoint, Any]:
        async def work() -> tuple[FakeEndpoint, Any]:
            async with FakeEndpoint(script) as endpoint:
                one = EndpointSettings(spec=f"{endpoint.base_url}#m", name="it", identity="it")
                tasks = f"{bench.folder / 'lettered.py'}:TASK"
                return endpoint, await bench.run(endpoint=(one,), tasks=tasks, out=out, **changes)

        return asyncio.run(work())

    return run


def items(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's item table."""
    with (folder / "items.csv").open() as file:
        return list(csv.DictReader(file))


def truth(n: int) -> list[float]:
    """What the endpoint says of the four letters of an item."""
    context = [CHARACTERS.index(each) for each in f"Which is number {n}?|"]
    return [true_logprobs(context, [CHARACTERS.index(each)])[0] for each in "ABCD"]


def test_one_request_an_item(bench: Bench, lettered: Callable[..., Any]) -> None:  # noqa: F811
    """Twelve items of four letters take twelve requests and three to learn; every sum is that of forcing."""
    endpoint, result = lettered(named())
    assert result.exit is Exit.DONE
    assert len(endpoint.bodies) == 12 + 3
    found = items(result.folder)
    assert [json.loads(each["sums"]) for each in found] == [truth(n) for n in range(12)]
    assert {each["mode"] for each in found} == {"single"}
    counts = bench.manifest()["counts"]["it"]
    assert counts["shortcut"].pop("names")[:2] == ["piece", "text"]  # all that would call the letters so
    assert counts["shortcut"] == {
        "used": True,
        "logprobs": 20,
        "checked": 12,
        "largest_difference": 0.0,
    }
    assert counts["choices_read"] == 33
    assert (counts["requests_sent"], counts["requests_from_journal"]) == (15, 0)
    assert (counts["journal"]["replies"], counts["journal"]["read"]) == (15, 33)
    assert any("33 choices were read off" in remark for remark in result.remarks)


def test_tables_are_those_of_forcing(bench: Bench, lettered: Callable[..., Any]) -> None:  # noqa: F811
    """With and without the shortcut: the same accuracy table, byte for byte; only the requests are more."""
    lettered(named())
    endpoint, _ = lettered(named(), out="forced", shortcut=False)
    assert len(endpoint.bodies) == 48
    assert bench.scores() == bench.scores("forced")
    counts = bench.manifest("forced")["counts"]["it"]
    assert counts["shortcut"] == {"used": False, "why": "--no-shortcut"}
    assert {each["mode"] for each in items(bench.folder / "forced")} == {"forced"}


def test_nothing_is_asked_again(bench: Bench, lettered: Callable[..., Any]) -> None:  # noqa: F811
    """The same command once more sends nothing, not even to learn, and still says what was read off."""
    lettered(named())
    before, said = bench.scores(), bench.manifest()["counts"]["it"]["shortcut"]
    endpoint, result = lettered(named())
    assert endpoint.bodies == []
    assert result.exit is Exit.DONE
    assert bench.scores() == before
    assert bench.manifest()["counts"]["it"]["shortcut"] == said


def test_hidden_choices_are_forced(lettered: Callable[..., Any]) -> None:
    """A letter that is never among the alternatives is forced on its own, in the same mode."""
    endpoint, result = lettered(named(hidden="C"))
    assert len(endpoint.bodies) == 12 + 3 + 11
    assert [json.loads(each["sums"]) for each in items(result.folder)] == [truth(n) for n in range(12)]
    forced = [body["forced_output_tokens"] for body in endpoint.bodies[4:]]
    assert sum(each == [CHARACTERS.index("C")] for each in forced) == 11


def ending(*numbers: int) -> Callable[[dict[str, Any]], bool]:
    """Whether a request is about one of these items."""
    ends = [[CHARACTERS.index(each) for each in f" {n}?|"] for n in numbers]
    return lambda body: any(body["tokens"][-len(end) :] == end for end in ends)


def test_failing_items_do_not_use_up_the_tries(bench: Bench, lettered: Callable[..., Any]) -> None:  # noqa: F811
    """Items that fail by themselves say nothing about alternatives; later sessions ask for them alone."""
    bad = ending(0, 1, 2, 3)

    def script(number: int, body: dict[str, Any]) -> Any:
        return Status(400) if bad(body) else named()(number, body)

    endpoint, result = lettered(script)
    assert result.exit is Exit.UNSCORED
    assert [each["mode"] for each in items(result.folder)] == 4 * ["forced"] + 8 * ["single"]
    assert len(endpoint.bodies) == 4 * (2 + 4) + 8 + 3
    again, _ = lettered(script)
    assert all(bad(body) for body in again.bodies)
    final, done = lettered(named())
    assert all(bad(body) for body in final.bodies)
    assert done.exit is Exit.DONE
    assert [json.loads(each["sums"]) for each in items(done.folder)] == [truth(n) for n in range(12)]


@pytest.mark.parametrize("first", [{"shortcut": False}, {}])
@pytest.mark.parametrize("script", [named(), named(shift=-0.5), named(hidden="ABCD")])
def test_what_is_answered_stays_as_it_was_asked(
    lettered: Callable[..., Any], script: Script, first: dict[str, Any]
) -> None:
    """A complete run given again with the shortcut sends nothing, however its choices were asked."""
    _, before = lettered(script, **first)
    modes = [each["mode"] for each in items(before.folder)]
    endpoint, after = lettered(script)
    assert endpoint.bodies == []
    assert [each["mode"] for each in items(after.folder)] == modes


def test_one_context_two_items_one_failure(bench: Bench, lettered: Callable[..., Any]) -> None:  # noqa: F811
    """Choices that were to be read off a request that failed are unscored by its reason, in any item."""
    rows = bench.data / "lettered/test.jsonl"
    row = json.dumps({"question": "Which is number 7?", "answer": 1}) + "\n"
    rows.write_text(2 * row + rows.read_text())
    bad = ending(7)

    def script(number: int, body: dict[str, Any]) -> Any:
        return Status(400) if bad(body) else named()(number, body)

    _, result = lettered(script)
    reasons = {each["unscored"].split(":")[0] for each in items(result.folder) if each["unscored"]}
    assert reasons == {"400"}


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (named(shift=-0.5), "differ by up to 0.5 nats"),
        (named(lambda each: "?"), "by other names"),
        (named(hidden="ABCD"), "none of the choices"),
        (lambda number, body: None, "by other names"),
    ],
)
def test_what_was_not_shown_is_not_used(lettered: Callable[..., Any], script: Script, why: str) -> None:
    """An endpoint whose alternatives are something else: every choice is forced, and the run says why."""
    endpoint, result = lettered(script)
    assert result.exit is Exit.DONE
    found = items(result.folder)
    assert [json.loads(each["sums"]) for each in found] == [truth(n) for n in range(12)]
    assert {each["mode"] for each in found} == {"forced"}
    forced = [body for body in endpoint.bodies if body["logprobs"] == 1]
    assert len(forced) == 48
    assert any(why in remark for remark in result.remarks)


def test_names_of_others_tell_which_rule_is_meant() -> None:
    """ "B" alone could be text with or without its space; that " A" is a name too rules the latter out."""
    assert "text without spaces" in Names(Words()).narrowed({2: "B"}).rules
    assert set(Names(Words()).narrowed({2: "B"}, [" A", "C"]).rules) == {"text with its space", "text"}


def test_alternatives_that_change_are_found_out(
    bench: Bench,  # noqa: F811
    lettered: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another engine in the middle of a run: the next check finds it, and no sum of it is left standing."""
    monkeypatch.setattr("harness.reading.EVERY", 3)
    _, result = lettered(named(shift=-0.5, after=8), concurrency=1)
    assert result.exit is Exit.DONE
    assert [json.loads(each["sums"]) for each in items(result.folder)] == [truth(n) for n in range(12)]
    assert any("no longer what forcing gives (by 0.5 nats)" in remark for remark in result.remarks)
    shortcut = bench.manifest()["counts"]["it"]["shortcut"]
    assert (shortcut["used"], shortcut["largest_difference"]) == (False, pytest.approx(0.5))
    again, later = lettered(named(shift=-0.5, after=8))
    assert again.bodies == []
    assert bench.manifest()["counts"]["it"]["shortcut"] == shortcut
    assert any("no longer what forcing gives (by 0.5 nats)" in remark for remark in later.remarks)
    one = EndpointSettings(spec="http://127.0.0.1:1/v1#m", name="it", identity="it")
    tasks = f"{bench.folder / 'lettered.py'}:TASK"
    foreseen(prepare(bench.settings(endpoint=(one,), tasks=tasks), {}))  # reads the same note


def test_checks_that_agree_cost_one_request_each(
    lettered: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven items are read; every third of them one choice is forced too, and nothing else happens."""
    monkeypatch.setattr("harness.reading.EVERY", 3)
    endpoint, result = lettered(named())
    assert len(endpoint.bodies) == 12 + 3 + 3
    assert any("33 choices were read off" in remark for remark in result.remarks)


def test_alternatives_that_go_missing_cost_requests_only(lettered: Callable[..., Any]) -> None:
    """Without alternatives the forced token is still believed, and the other choices are forced."""

    def script(number: int, body: dict[str, Any]) -> Altered:
        def change(reply: dict[str, Any]) -> None:
            right = named()(number, body)
            assert isinstance(right, Altered)
            right.change(reply)
            if number > 6:
                reply["choices"][0]["logprobs"]["top_logprobs"] = None

        return Altered(change)

    _, result = lettered(script)
    found = items(result.folder)
    assert [json.loads(each["sums"]) for each in found] == [truth(n) for n in range(12)]
    assert not any(each["unscored"] for each in found)


def test_lies_are_seen_reply_by_reply(lettered: Callable[..., Any]) -> None:
    """Names that change in the middle of a run: from then on choices are forced; no sum is wrong."""

    def script(number: int, body: dict[str, Any]) -> Altered | None:
        return named()(number, body) if number <= 8 else None  # type: ignore[return-value]

    endpoint, result = lettered(script, concurrency=1)
    assert [json.loads(each["sums"]) for each in items(result.folder)] == [truth(n) for n in range(12)]
    assert len(endpoint.bodies) == 4 + 4 + 7 * 4


def test_fewer_alternatives_are_taken(bench: Bench, lettered: Callable[..., Any]) -> None:  # noqa: F811
    """Where 20 are refused, and none is not, 10 are asked for; the refusal is no failure of the run."""

    def script(number: int, body: dict[str, Any]) -> Any:
        return Status(422) if body["logprobs"] > 10 else named()(number, body)

    endpoint, result = lettered(script)
    assert result.exit is Exit.DONE
    assert len(endpoint.bodies) == 2 + 12 + 3
    assert bench.manifest()["counts"]["it"]["shortcut"]["logprobs"] == 10
    assert bench.manifest()["counts"]["it"]["journal"]["failures"] == {}


def test_a_failed_leader_leaves_its_item_unscored(lettered: Callable[..., Any]) -> None:
    """Where the one request of an item fails for good the item is unscored by that reason; others stand."""

    def script(number: int, body: dict[str, Any]) -> Any:
        broken = body["tokens"][-4:] == [CHARACTERS.index(each) for each in " 7?|"]
        return Status(400) if broken else named()(number, body)

    _, result = lettered(script)
    assert result.exit is Exit.UNSCORED
    unscored = {n: each["unscored"] for n, each in enumerate(items(result.folder)) if each["unscored"]}
    assert list(unscored) == [7]
    assert unscored[7].startswith("400")
    _, again = lettered(named())
    assert again.exit is Exit.DONE
    assert [json.loads(each["sums"]) for each in items(again.folder)] == [truth(n) for n in range(12)]


def test_read_choices_say_where_they_come_from(lettered: Callable[..., Any]) -> None:
    """In the journal each has the key of the request it was read from, and no attempt of its own."""
    _, result = lettered(named())
    [path] = (result.folder / "journal").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as journal:
        rows = journal.execute("SELECT key, read_from, attempts, top_logprobs FROM replies").fetchall()
    sent = {key for key, read_from, _, top in rows if read_from is None and top is not None}
    assert len(sent) == 15
    assert all(
        read_from in sent and attempts == 0 for _, read_from, attempts, _ in rows if read_from is not None
    )


def test_comparing_with_forced_choices(bench: Bench, lettered: Callable[..., Any]) -> None:  # noqa: F811
    """Both ways are compared where they were shown to be equal, and refused where nothing shows it."""
    lettered(named())
    lettered(named(), out="forced", shortcut=False)
    both = [str(bench.folder / "run"), str(bench.folder / "forced")]
    findings = compare(*both).findings
    assert not findings.mismatches
    [path] = (bench.folder / "run/journal").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as journal, journal:
        journal.execute("DELETE FROM meta WHERE name = 'shortcut'")
    with pytest.raises(UsageError, match="read off alternatives"):
        compare(*both)


def test_a_refusal_while_learning_ends_the_endpoint(lettered: Callable[..., Any]) -> None:
    """401 to the very first request: the endpoint is given up as ever, its items not tried."""
    endpoint, result = lettered(lambda number, body: Status(401))
    assert result.exit is Exit.REFUSED
    assert len(endpoint.bodies) == 1
    assert {each["unscored"] for each in items(result.folder)} == {"not tried"}


def test_stopping_while_learning_does_not_wait(lettered: Callable[..., Any]) -> None:
    """Ctrl-C while the learner backs off for minutes ends the run at once."""
    stop = asyncio.Event()

    def script(number: int, body: dict[str, Any]) -> Status:
        stop.set()
        return Status(429, {"Retry-After": "200"})

    endpoint, result = lettered(script, stop=stop)
    assert result.exit is Exit.INTERRUPTED
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("shards", [2, 5])
def test_shards_learn_what_the_whole_learns(
    bench: Bench,  # noqa: F811
    lettered: Callable[..., Any],
    shards: int,
) -> None:
    """Which item shows how alternatives are read is a matter of the whole run: each shard asks its own items
    as that would, whatever its first one shows."""

    def script(number: int, body: dict[str, Any]) -> Fault | None:
        asked = "".join(CHARACTERS[each] for each in body["tokens"])
        mute = any(f"number {n}?" in asked for n in (0, 1, 6, 7))
        return named(hidden="ABCD" if mute else "")(number, body)

    lettered(script)
    assert [each["mode"] for each in items(bench.folder / "run")] == ["forced"] * 2 + ["single"] * 10
    for number in range(1, shards + 1):
        lettered(script, out="shards", shard=f"{number}/{shards}")
    merge(bench.folder / "shards")
    for name in ("scores.csv", "items.csv"):
        assert (bench.folder / "run" / name).read_bytes() == (bench.folder / "shards" / name).read_bytes()
    endpoint, _ = lettered(script, out="shards")
    assert not endpoint.bodies
