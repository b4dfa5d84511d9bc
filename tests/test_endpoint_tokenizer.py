"""`--tokenizer endpoint`: texts become ids by the endpoint's own tokenize route, or stay unscored."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tokenizers import Tokenizer as Backend

from harness.client import Client
from harness.dialects import dialect
from harness.encoding import encode_prompts
from harness.endpoint_tokenizer import AT_ONCE, EndpointTokenizer, TokenizeRoute
from harness.errors import EndpointRefused, ReplyError, UsageError
from harness.exchange import ScoreRequest
from harness.manifest import Exit
from harness.modes import Bos
from harness.pacing import Capacity
from harness.pairs import Unencoded
from harness.patience import ClientSettings
from harness.prepare import prepare
from harness.prompts import Prompt
from harness.tokencache import FILE, TokenCache
from harness.tokenizing import load_tokenizer
from tests.fake_endpoint import (
    Altered,
    Body,
    Cut,
    FakeEndpoint,
    Fault,
    Hang,
    Reset,
    Script,
    Status,
    Texts,
    first,
    true_logprobs,
)
from tests.running import Bench, bench
from tests.test_golden import PLAIN, TOKENIZERS, prompts, records

__all__ = ["bench"]

PROBES_A_RUN = 1
"""Texts that are sent again in every run."""
BOS_ID = 1000
QUICK = ClientSettings(backoff_base=0.001, backoff_cap=0.01, probe_wait=0.001)


@asynccontextmanager
async def tokenizer_of(
    endpoint: FakeEndpoint, cache: Path | None = None, *, bos: Bos = "auto"
) -> AsyncIterator[EndpointTokenizer]:
    """The endpoint's own tokenizer, probed."""
    route_format = dialect("friendli").tokenize_route
    assert route_format is not None
    client = Client(
        base_url=endpoint.base_url,
        dialect=route_format,
        model="ep",
        headers={},
        secrets=[],
        settings=QUICK,
        budget=None,
        gate=Capacity(AT_ONCE).gate(),
    )
    with closing(TokenCache(cache)) as kept:
        async with client:
            route = TokenizeRoute(("friendli", endpoint.base_url, "ep"), client.score, kept)
            await route.probe()
            yield EndpointTokenizer(route, bos)


async def encoded(tokenizer: EndpointTokenizer, texts: Sequence[str]) -> list[list[int] | Unencoded]:
    """The ids of texts, asked for from a thread as a run does."""
    return await asyncio.to_thread(tokenizer.encode, texts)


# ---------------------------------------------------------------------------------------------- the wire


def test_the_route() -> None:
    """The body holds model and one text; the reply's ids are taken as they are, and are ids."""
    route = dialect("friendli").tokenize_route
    assert route is not None
    asked = ScoreRequest(b"k", (), (), text=("", "a text"))
    assert route.build(asked, "ep") == b'{"model":"ep","prompt":"a text"}'
    assert route.build(asked, None) == b'{"prompt":"a text"}'
    assert route.parse(b'{"tokens": [1, 2], "count": 2}', asked).token_ids == [1, 2]
    for wrong in (b'{"tokens": [-1]}', b'{"tokens": [4294967296]}', b'{"tokens": ["a"]}', b"{}"):
        with pytest.raises(ReplyError, match="not of the expected form"):
            route.parse(wrong, asked)


# ------------------------------------------------------------------------------------------- same splits


@pytest.mark.parametrize("name", TOKENIZERS)
async def test_golden_splits(shared: Path, name: str) -> None:
    """The ids of every record of the reference, out of the endpoint's tokenize route."""
    texts = Texts(Backend.from_file(str(shared / TOKENIZERS[name] / "tokenizer.json")))
    wanted: list[dict[str, Any]] = []
    asked: list[Prompt] = []
    for (task, subject, shots), record in records(shared / "golden/token_splits.jsonl"):
        if record["tokenizer"] == name:
            wanted.append(record)
            asked.append(prompts(shared, task, shots)[subject, record["doc_id"]])
    async with FakeEndpoint(texts=texts) as endpoint, tokenizer_of(endpoint) as tokenizer:
        items = await asyncio.to_thread(encode_prompts, asked, tokenizer)
    local = load_tokenizer(str(shared / TOKENIZERS[name]))
    assert (tokenizer.leading, tokenizer.start_id) == (local.leading, local.start_id)
    assert {record["task"] for record in wanted} >= {*PLAIN, "mmlu_anatomy"}
    for item, record in zip(items, wanted, strict=True):
        contexts = record["context_ids"] * (len(item.pairs) if len(record["context_ids"]) == 1 else 1)
        assert [pair.context_ids for pair in item.pairs] == contexts
        assert [pair.forced_ids for pair in item.pairs] == record["continuation_ids"]


# --------------------------------------------------------------------------------------------------- BOS


NO_EMPTY: Script = lambda number, body: None if body["prompt"] else Status(422)  # noqa: E731
AS_IT_IS: Script = lambda number, body: None  # noqa: E731


@pytest.mark.parametrize("script", [AS_IT_IS, NO_EMPTY])
@pytest.mark.parametrize(
    ("front", "back", "bos", "leading"),
    [
        ((), (), "auto", []),
        ((), (), "off", []),
        ((1,), (), "auto", [1]),
        ((1,), (), "on", [1]),
        ((1,), (), "off", []),
        ((1,), (2,), "auto", [1]),
        ((), (2,), "off", []),
    ],
)
async def test_bos(
    shared: Path, script: Script, front: tuple[int, ...], back: tuple[int, ...], bos: Bos, leading: list[int]
) -> None:
    """What the endpoint puts around texts is found, also where it takes no empty one; the end is cut off."""
    backend = Backend.from_file(str(shared / "tokenizers/openllama/tokenizer.json"))
    backend.post_processor = None
    texts = Texts(backend, front=front, back=back)
    plain = backend.encode("Some text").ids
    async with (
        FakeEndpoint(texts=texts, tokenizing=script) as endpoint,
        tokenizer_of(endpoint, bos=bos) as tokenizer,
    ):
        assert tokenizer.leading == leading
        assert tokenizer.start_id == 1
        written = backend.encode("<s>Some text").ids  # a start token that the text has is not doubled
        assert await encoded(tokenizer, ["Some text", "<s>Some text"]) == [[*leading, *plain], written]
        assert await asyncio.to_thread(tokenizer.encode_plain, ["Some text"]) == [plain]


async def test_bos_on_by_its_usual_name(shared: Path) -> None:
    """Where the endpoint adds none, `--bos on` takes the usual name that is one token there."""
    backend = Backend.from_file(str(shared / "tokenizers/gpt2/tokenizer.json"))
    async with FakeEndpoint(texts=Texts(backend)) as endpoint, tokenizer_of(endpoint, bos="on") as tokenizer:
        assert (
            tokenizer.leading == [50256] == load_tokenizer(str(shared / "tokenizers/gpt2"), bos="on").leading
        )


async def test_bos_that_nobody_knows() -> None:
    """`--bos on` where no start token can be found is refused, and so is `off` where one may be there."""
    async with FakeEndpoint() as endpoint:
        with pytest.raises(UsageError, match="--bos on: the endpoint puts no start token in front"):
            async with tokenizer_of(endpoint, bos="on"):
                pass
        endpoint.texts = Texts(front=(BOS_ID,))
        async with tokenizer_of(endpoint, bos="off") as tokenizer:
            assert await encoded(tokenizer, ["ab"]) == [[65, 66]]
    async with FakeEndpoint(texts=Texts(front=(BOS_ID,)), tokenizing=NO_EMPTY) as endpoint:
        async with tokenizer_of(endpoint) as tokenizer:
            assert await encoded(tokenizer, ["ab"]) == [[BOS_ID, 65, 66]]
        with pytest.raises(UsageError, match=f"--bos off: every text begins with token {BOS_ID} there"):
            async with tokenizer_of(endpoint, bos="off"):
                pass


# ------------------------------------------------------------------------------------------------- faults


async def test_faults_on_the_way() -> None:
    """Busy replies, resets and cut bodies cost every text an attempt, and change no id."""
    faults: list[Fault] = [Status(429, {"Retry-After": "0"}), Reset(), Reset(after_headers=True), Cut()]
    seen: set[str] = set()

    def script(number: int, body: Body) -> Fault | None:
        if body["prompt"] in seen:
            return None
        seen.add(body["prompt"])
        return faults[number % len(faults)]

    texts = [f"text {n}" for n in range(200)]
    async with FakeEndpoint(tokenizing=script) as endpoint, tokenizer_of(endpoint) as tokenizer:
        found = await encoded(tokenizer, texts)
        assert found == [endpoint.texts.ids(text) for text in texts]
        assert tokenizer.asked == 200


async def test_a_text_that_is_refused_alone() -> None:
    """A text that the endpoint does not take is known by the reason, the others have their ids."""

    def script(number: int, body: Body) -> Fault | None:
        if body["prompt"] == "bad":
            return Status(400, body=b'{"message": "not this one"}')
        return Altered(lambda reply: reply["tokens"].pop(0)) if body["prompt"] == "odd" else None

    texts = Texts(front=(BOS_ID,))
    async with FakeEndpoint(texts=texts, tokenizing=script) as endpoint, tokenizer_of(endpoint) as tokenizer:
        good, bad, odd = await encoded(tokenizer, ["good", "bad", "odd"])
    assert good == texts.ids("good")
    assert bad == Unencoded("the endpoint did not tokenize it: 400: not this one")
    assert isinstance(odd, Unencoded)
    assert "without the special tokens" in odd.why


SAME: Script = lambda number, body: Altered(lambda reply: reply.update(tokens=[7]))  # noqa: E731
NONE: Script = lambda number, body: Altered(lambda reply: reply.update(tokens=[]))  # noqa: E731


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (first(99, Status(404)), "404 from http.*/v1/tokenize.*Without a tokenize route there, give a tok"),
        (first(99, Status(401)), "401 from .*Is FRIENDLI_TOKEN set and valid"),
        (
            first(99, Status(422, body=b'{"message": "no prompt"}')),
            "its tokenize route fails: 422: no prompt",
        ),
        (first(99, Status(405)), "its tokenize route fails: 405"),
        (first(99, Altered(lambda reply: reply.clear())), "its tokenize route fails: protocol"),
        (SAME, "gives no ids of some texts, or all the same"),
        (NONE, "gives no ids of some texts, or all the same"),
    ],
)
async def test_no_tokenize_route(script: Script, says: str) -> None:
    """An endpoint that cannot tokenize is one clear line, which names the way out."""
    async with FakeEndpoint(tokenizing=script) as endpoint:
        with pytest.raises(EndpointRefused, match=says) as caught:
            async with tokenizer_of(endpoint):
                pass
    assert "give a tokenizer file (--tokenizer)" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_encoding_that_is_interrupted() -> None:
    """Whoever waits for the endpoint can be called off, and what it calls for then is not sent."""

    begun = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        if body["prompt"] == "slow 2":
            begun.set()
        return Hang() if body["prompt"].startswith("slow") else None

    async with FakeEndpoint(tokenizing=script) as endpoint, tokenizer_of(endpoint) as tokenizer:
        waiting = asyncio.create_task(encoded(tokenizer, ["slow 1", "slow 2"]))
        await begun.wait()
        sent = len(endpoint.tokenized)
        tokenizer.interrupt()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await encoded(tokenizer, ["more"])
        assert len(endpoint.tokenized) == sent


# -------------------------------------------------------------------------------------------------- cache


async def test_nothing_is_sent_twice(tmp_path: Path) -> None:
    """A second session sends the one probe that shows whether the tokenizer is the same, and no text."""
    texts = [f"text {n}" for n in range(50)]
    async with FakeEndpoint(texts=Texts(front=(BOS_ID,))) as endpoint:
        async with tokenizer_of(endpoint, tmp_path / "t") as tokenizer:
            once = await encoded(tokenizer, [*texts, *texts])
            assert (tokenizer.asked, tokenizer.known) == (50, 0)
        endpoint.tokenized.clear()
        async with tokenizer_of(endpoint, tmp_path / "t") as again:
            assert await encoded(again, [*texts, *texts]) == once
            assert (again.asked, again.known) == (0, 50)
        assert len(endpoint.tokenized) == PROBES_A_RUN
        assert again.sha256 == tokenizer.sha256
        async with tokenizer_of(endpoint, tmp_path / "t", bos="off") as without:
            assert await encoded(without, texts) == [ids[1:] for ids in once[:50] if isinstance(ids, list)]
            assert without.asked == 0
        assert without.sha256 != tokenizer.sha256


async def test_another_tokenizer_behind_the_same_address(tmp_path: Path) -> None:
    """It is noticed: none of the kept ids are taken, and the hash is another."""
    async with FakeEndpoint() as endpoint:
        async with tokenizer_of(endpoint, tmp_path / "t") as before:
            await encoded(before, ["text"])
        endpoint.texts = Texts(front=(BOS_ID,))
        async with tokenizer_of(endpoint, tmp_path / "t") as after:
            assert await encoded(after, ["text"]) == [endpoint.texts.ids("text")]
            assert (after.asked, after.known) == (1, 0)
        assert before.sha256 != after.sha256


# -------------------------------------------------------------------------------------------- whole runs


def environ_of(bench: Bench) -> dict[str, str]:
    """An environment with a cache folder of its own."""
    return {"XDG_CACHE_HOME": str(bench.folder / "cache")}


OWN: dict[str, Any] = {"tokenizer": ("endpoint",)}


async def test_a_run(bench: Bench) -> None:
    """The same items and sums as with the tokenizer's file; the second run tokenizes nothing anew."""
    async with FakeEndpoint() as endpoint:
        spec = f"here={endpoint.base_url}#ep"
        await bench.run(spec, out="file")
        result = await bench.run(spec, out="own", environ=environ_of(bench), **OWN)
        assert result.exit is Exit.DONE
        assert bench.scores("own") == bench.scores("file")
        one, other = (pd.read_parquet(bench.folder / out / "texts.parquet") for out in ("file", "own"))
        for column in ("context_ids", "forced_ids"):
            assert [[list(ids) for ids in row] for row in one[column]] == [
                [list(ids) for ids in row] for row in other[column]
            ]
        assert {body.get("model") for body in endpoint.tokenized} == {"ep"}
        assert "here: 120 texts were tokenized by the endpoint, 0 were known already" in result.remarks
        completions, tokenized = len(endpoint.bodies), len(endpoint.tokenized)
        again = await bench.run(spec, out="own", environ=environ_of(bench), **OWN)
        assert again.exit is Exit.DONE
        assert len(endpoint.bodies) == completions
        assert len(endpoint.tokenized) == tokenized + PROBES_A_RUN
        assert "here: 0 texts were tokenized by the endpoint, 120 were known already" in again.remarks
        assert (bench.folder / "cache" / FILE).is_file()


async def test_adapters_share_it(bench: Bench) -> None:
    """A base and its adapters are one tokenizer: each text is sent once, under the base's name."""
    async with FakeEndpoint() as endpoint:
        specs = (f"base={endpoint.base_url}#ep", f"tuned={endpoint.base_url}#ep:route")
        result = await bench.run(*specs, environ=environ_of(bench), **OWN)
        assert result.exit is Exit.DONE
        sent = [body["prompt"] for body in endpoint.tokenized]
        assert len(sent) == len(set(sent))
        assert {body["model"] for body in endpoint.tokenized} == {"ep"}
        assert {body["model"] for body in endpoint.bodies} == {"ep", "ep:route"}
    hashes = {each["tokenizer_sha256"] for each in bench.manifest()["endpoints"]}
    assert hashes == {bench.manifest()["identity"]["tokenizer"]}


async def test_without_a_place_for_the_cache(bench: Bench) -> None:
    """A run goes on where no cache can be kept, and says so."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, environ={}, limit=1, **OWN)
    assert result.exit is Exit.DONE
    assert any("token ids are not kept" in remark for remark in result.remarks)


async def test_the_folder_is_known_before_the_endpoint_is_asked(bench: Bench) -> None:
    """`prepare` contacts nobody; a tokenizer that has changed since is refused in the same folder."""
    settings = bench.settings("http://127.0.0.1:9/v1#ep", out="x", **OWN)
    folder = prepare(settings, {}).folder
    assert prepare(settings, {}).folder == folder
    async with FakeEndpoint() as endpoint:
        await bench.run(endpoint.base_url, environ=environ_of(bench), limit=1, **OWN)
        endpoint.texts = Texts(front=(BOS_ID,))
        sent = len(endpoint.bodies)
        with pytest.raises(UsageError, match="holds a run of another suite: tokenizer is"):
            await bench.run(endpoint.base_url, environ=environ_of(bench), limit=1, **OWN)
        assert len(endpoint.bodies) == sent


async def test_an_endpoint_without_the_route_stops_only_itself(bench: Bench) -> None:
    """The others finish; alone it ends the run before anything is written."""
    async with FakeEndpoint() as good, FakeEndpoint(tokenizing=first(9, Status(404))) as bad:
        specs = (f"good={good.base_url}#m", f"bad={bad.base_url}#m")
        result = await bench.run(*specs, environ=environ_of(bench), **OWN)
        assert result.exit is Exit.REFUSED
        assert "Without a tokenize route there" in result.parts[1].refused
        assert bad.bodies == []
        scored = result.accuracy.groupby("endpoint")["n"].sum()
        assert scored["good"] > scored["bad"] == 0
        bad.tokenized.clear()
        with pytest.raises(EndpointRefused, match=r"^bad: 404 from .*give a tokenizer file"):
            await bench.run(specs[1], out="alone", environ={}, **OWN)
    assert not (bench.folder / "alone").exists()


async def test_texts_that_are_refused_are_unscored_items(bench: Bench) -> None:
    """An item whose text the endpoint does not take is unscored with the reason, and tried again later."""

    def script(number: int, body: Body) -> Fault | None:
        return Status(400) if "cake number 1. " in body["prompt"] else None

    async with FakeEndpoint(tokenizing=script) as endpoint:
        result = await bench.run(endpoint.base_url, environ=environ_of(bench), tasks="hellaswag", **OWN)
        assert result.exit is Exit.UNSCORED
        items = pd.read_parquet(bench.folder / "run/items.parquet")
        assert list(items.unscored.dropna()) == ["the endpoint did not tokenize it: 400"]
        endpoint._tokenizing = AS_IT_IS
        result = await bench.run(endpoint.base_url, environ=environ_of(bench), tasks="hellaswag", **OWN)
        assert result.exit is Exit.DONE


async def test_a_refusal_in_the_midst(bench: Bench) -> None:
    """A token that expires while texts are sent stops the endpoint; the tables are written."""

    def script(number: int, body: Body) -> Fault | None:
        return Status(401) if number > 40 else None

    async with FakeEndpoint(tokenizing=script) as endpoint:
        result = await bench.run(endpoint.base_url, environ=environ_of(bench), **OWN)
    assert result.exit is Exit.REFUSED
    assert "401 from" in result.parts[0].refused
    assert (bench.folder / "run/scores.csv").exists()


async def test_too_long_items_are_found_before_the_first_request(bench: Bench) -> None:
    """`--on-overflow fail` asks for every length first: no completion is paid for in vain."""
    async with FakeEndpoint() as endpoint:
        with pytest.raises(UsageError, match="--on-overflow fail: hellaswag item"):
            await bench.run(
                endpoint.base_url, environ=environ_of(bench), max_length=79, on_overflow="fail", **OWN
            )
        assert endpoint.bodies == []


async def test_ctrl_c_while_texts_are_sent(bench: Bench) -> None:
    """The first stop lets what is in flight end; the run is interrupted, and the same command goes on."""
    stop = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        if number > 60:
            stop.set()
            return Status(429)
        return None

    async with FakeEndpoint(tokenizing=script) as endpoint:
        result = await bench.run(endpoint.base_url, environ=environ_of(bench), stop=stop, **OWN)
        assert result.exit is Exit.INTERRUPTED
        endpoint._tokenizing = AS_IT_IS
        result = await bench.run(endpoint.base_url, environ=environ_of(bench), **OWN)
        assert result.exit is Exit.DONE


async def test_ctrl_c_while_the_endpoint_is_probed(bench: Bench) -> None:
    """Stopped before anything is known the run ends at once, and has written nothing."""
    stop = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        stop.set()
        return Status(503)

    async with FakeEndpoint(tokenizing=script) as endpoint:
        with pytest.raises(asyncio.CancelledError):
            await bench.run(endpoint.base_url, environ=environ_of(bench), stop=stop, **OWN)
    assert not (bench.folder / "run").exists()


async def test_ctrl_c_twice(bench: Bench) -> None:
    """The second drops what is in flight, texts that the planning thread waits for too: so many at once."""
    full = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        if number == 60 + AT_ONCE:
            full.set()
        return Hang() if number > 60 else None

    async with FakeEndpoint(tokenizing=script) as endpoint:
        running = asyncio.create_task(bench.run(endpoint.base_url, environ=environ_of(bench), **OWN))
        await full.wait()
        running.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await running
        assert endpoint.most_in_flight == AT_ONCE


async def test_sums_are_those_of_the_ids(bench: Bench) -> None:
    """With a start token of the endpoint's own, every sum is that of the ids with it in front."""
    async with FakeEndpoint(texts=Texts(front=(BOS_ID,))) as endpoint:
        result = await bench.run(endpoint.base_url, environ=environ_of(bench), tasks="hellaswag", **OWN)
    assert any(f"each context begins with token {BOS_ID} (--bos auto)" in each for each in result.remarks)
    items = pd.read_parquet(bench.folder / "run/items.parquet").to_dict("records")
    texts = pd.read_parquet(bench.folder / "run/texts.parquet").to_dict("records")
    for item, text in zip(items, texts, strict=True):
        for total, context, forced in zip(item["sums"], text["context_ids"], text["forced_ids"], strict=True):
            assert context[0] == BOS_ID
            assert total == math.fsum(true_logprobs([*map(int, context)], [*map(int, forced)]))


# ----------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("endpoints", "tokenizer", "says"),
    [
        (("x=embedded",), "x=endpoint", "--tokenizer x=endpoint: leave it out, embedded has its own"),
        (("embedded",), "endpoint", "no endpoint is left to use it"),
        (("x=openai+http://h/v1#m",), "endpoint", "x cannot be asked, as openai endpoints have no tokenize"),
        (("x=openai-text+http://h/v1#m",), "x=endpoint", "openai-text endpoints have no tokenize route"),
    ],
)
def test_whom_nobody_can_ask(bench: Bench, endpoints: tuple[str, ...], tokenizer: str, says: str) -> None:
    """Endpoints without a known tokenize route are refused before anything is sent, with the way out."""
    with pytest.raises(UsageError, match=says):
        prepare(bench.settings(*endpoints, tokenizer=(tokenizer,)), {})


def test_one_for_each(bench: Bench) -> None:
    """Endpoints of different bases have different tokenizers; one may have a file, and the rest ask."""
    specs = ("a=http://127.0.0.1:1/v1#m", "b=http://127.0.0.1:1/v1#n", "c=http://127.0.0.1:1/v1#n:x")
    all_ask = prepare(bench.settings(*specs, **OWN), {})
    assert list(all_ask.asked) == ["a", "b", "c"]
    assert all_ask.asked["b"] == all_ask.asked["c"] != all_ask.asked["a"]
    assert all_ask.identity.fields["tokenizer"] == "one for each endpoint"
    mixed = prepare(bench.settings(*specs, tokenizer=(str(bench.tokenizer), "c=endpoint")), {})
    assert list(mixed.asked) == ["c"]
    assert mixed.identity.fields["tokenizer"] == mixed.tokenizers["a"].sha256
