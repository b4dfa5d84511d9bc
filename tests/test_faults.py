"""Faults of the embedded endpoint: their short forms and files, refused by name where none is meant."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from harness.client import Client
from harness.dialects import dialect
from harness.errors import EndpointRefused, UsageError
from harness.exchange import ScoreRequest
from harness.pacing import Capacity
from harness.patience import ClientSettings
from harness.secrets import Secret
from harness.serving.faults import plan, wholes
from harness.serving.faults.asked import Vocabulary
from harness.serving.faults.draws import Draws
from harness.serving.faults.forms import Drift, Span
from harness.serving.faults.limits import Limits, Window
from harness.serving.faults.misbehaving import Misbehaving
from harness.serving.faults.plan import DETAILS, Faults, read_faults, rows, table
from tests.fake_endpoint import FakeClock, completion, true_logprobs

TOKEN = "flp_0123456789abcdefghij"
README = Path(__file__).parents[1] / "harness/serving/README.md"

# ----------------------------------------------------------------------------------- a truthful endpoint


class Stub:
    """A truthful application behind `Misbehaving`, on loopback, with a client of it.

    Attributes:
        bodies: every body that the handlers read.
    """

    def __init__(self, faults: Faults, **details: Any) -> None:
        """`details`: for `Misbehaving`; time is a `FakeClock`."""
        self.clock = FakeClock()
        given: dict[str, Any] = {"clock": self.clock, "sleep": self.clock.sleep, "wall": self.clock}
        self.misbehaving = Misbehaving(faults, **{**given, **details})
        self.bodies: list[Any] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.most = self.now = 0
        self.url = ""
        self.session: aiohttp.ClientSession
        self.runner: web.AppRunner

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.hold.wait()
        self.now -= 1
        if body.get("stream"):
            return await _events(request)
        if "tokens" not in body and "prompt" not in body:
            return web.json_response({"detail": [{"loc": ["body", "prompt"], "msg": "missing"}]}, status=422)
        return web.json_response(answer(body))

    async def tokenize(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        return web.json_response({"tokens": encode([body["prompt"]])[0]})

    async def detokenize(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        return web.json_response({"text": bytes(body["tokens"]).decode("latin-1")})

    async def admin(self, request: web.Request) -> web.Response:
        return web.json_response(self.misbehaving.counts())

    async def _body(self, request: web.Request) -> Any:
        self.bodies.append(json.loads(request.get("body") or await request.read()))
        return self.bodies[-1]

    async def post(self, body: Any, path: str = "/v1/completions", **headers: str) -> Seen:
        """What a client sees of one request."""
        data = json.dumps(body).encode()
        try:
            async with self.session.post(self.url + path, data=data, headers=headers) as reply:
                head = Seen(reply.status, dict(reply.headers))
                try:
                    return Seen(reply.status, dict(reply.headers), await reply.read())
                except (aiohttp.ClientError, ConnectionError) as error:
                    return Seen(head.status, head.headers, error=error)
        except (aiohttp.ClientError, ConnectionError) as error:
            return Seen(0, {}, error=error)

    async def ask(self, bodies: Sequence[Any], at_once: int = 8) -> list[Seen]:
        """What a client sees of each body, some at once."""
        gate = asyncio.Semaphore(at_once)

        async def one(body: Any) -> Seen:
            async with gate:
                return await self.post(body)

        return await asyncio.gather(*map(one, bodies))


class Seen:
    """A reply as a client sees it, or what became of it."""

    def __init__(
        self, status: int, headers: dict[str, str], body: bytes = b"", error: Exception | None = None
    ) -> None:
        self.status, self.headers, self.body, self.error = status, headers, body, error

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def values(self) -> list[float | None]:
        return list(self.json["choices"][0]["logprobs"]["token_logprobs"])

    @property
    def fault(self) -> str:
        """The name of the whole-reply fault that it shows; empty where it is whole."""
        if self.error is not None:
            was_reset = "ConnectionReset" in repr(self.error)
            return "reset_midway" if self.status and was_reset else "cut" if self.status else "reset"
        if self.status == 429:
            asked = self.headers.get("Retry-After", "")
            return "429" if asked.isdigit() else "429_date" if asked else "429_bare"
        if self.status == 200:
            return "" if _is_json(self.body) else "not_json"
        return "leak" if "X-Request-Authorization" in self.headers else str(self.status)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


async def _events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'data: {"choices": []}\n\ndata: [DONE]\n\n')
    await response.write_eof()
    return response


def encode(texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts: 1, then their bytes."""
    return [[1, *text.encode()] for text in texts]


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """The truthful reply, with a choice for each prompt."""
    if body.get("echo"):
        return completion(body)
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    contexts = [body["tokens"]] if "tokens" in body else prompt if several else [prompt]
    asked = {"forced_output_tokens": [7, 8, 9], "logprobs": 2, **body}
    replies = [
        completion({**asked, "tokens": encode([each])[0] if isinstance(each, str) else each})
        for each in contexts or []
    ]
    choices = [{**each["choices"][0], "index": index} for index, each in enumerate(replies)]
    return {**replies[0], "choices": choices}


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on until it holds."""
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


def chance(n: int, share: float) -> tuple[float, float]:
    """Between which numbers so many trials of such a chance end, but for one time in a thousand."""
    return float(binom.ppf(0.0005, n, share)), float(binom.ppf(0.9995, n, share))


def scored(n: int = 0) -> dict[str, Any]:
    """The n-th body that asks for a score."""
    return {"model": "ep", "tokens": [1, 2, n], "forced_output_tokens": [40, 50, 60], "logprobs": 2}


def truth(body: dict[str, Any]) -> list[float]:
    """What the endpoint says of it."""
    return true_logprobs(body["tokens"], body["forced_output_tokens"])


@asynccontextmanager
async def stub(faults: Faults, **details: Any) -> AsyncIterator[Stub]:
    """An endpoint that misbehaves so."""
    it = Stub(faults, **details)
    app = web.Application()
    for prefix in ("/v1", "/dedicated/v1"):
        for name in ("completions", "tokenize", "detokenize"):
            app.router.add_post(f"{prefix}/{name}", getattr(it, name))
    app.router.add_get("/admin", it.admin)
    it.misbehaving.attach(app)
    it.runner = runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=60)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        it.url = f"http://{host}:{port}"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as it.session:
            yield it
    finally:
        await runner.cleanup()


# ------------------------------------------------------------------------------------------------ reading


@given(st.lists(st.text() | st.from_regex(r"[a-z0-9_]{1,9}=[-0-9.@a-z]{0,9}", fullmatch=True), max_size=3))
def test_whatever_is_written_is_faults_or_one_clear_line(texts: list[str]) -> None:
    """No text is a traceback: it is read, or refused in one line that begins with the flag."""
    try:
        assert isinstance(read_faults(texts), Faults)
    except UsageError as error:
        assert str(error).startswith("--faults ")
        assert str(error).isprintable()


@given(content=st.binary() | st.text().map(str.encode) | st.from_regex(rb"[a-z]{1,6} ?= ?[^\n]{0,9}\n"))
def test_whatever_a_file_holds_is_faults_or_one_clear_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nor is any file a traceback."""
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    try:
        assert isinstance(read_faults([str(file)]), Faults)
    except UsageError as error:
        assert str(error).startswith("--faults ")
        assert str(error).isprintable()


_VALUES: dict[str, st.SearchStrategy[str]] = {
    "SHARE": st.floats(0, 1).map(repr),
    "N": st.integers(1, 2**63 - 1).map(str),
    "ID": st.integers(0, 2**31 - 1).map(str),
    "SECONDS": st.integers(1, 86_400).map(str),
    "SECONDS@START": st.tuples(st.integers(1, 99), st.floats(0, 99)).map(
        lambda both: "{}@{!r}".format(*both)
    ),
    "D@N": st.tuples(st.floats(0.001, 9), st.integers(1, 99)).map(lambda both: "{!r}@{}".format(*both)),
    "D": st.floats(0.001, 9).map(repr),
    "": st.sampled_from(["true", "false"]),
}
"""Values of every form."""
_WRITTEN = st.fixed_dictionaries(
    {}, optional={name: _VALUES[form.partition("=")[2]] for name, form, _ in rows()}
)


@given(written=_WRITTEN)
def test_short_forms_and_toml_are_one_vocabulary(
    written: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same names with the same values are the same faults, on the command line and in a file."""
    file = tmp_path_factory.getbasetemp() / "same.toml"
    toml = (f'{name} = "{value}"' if "@" in value else f"{name} = {value}" for name, value in written.items())
    file.write_text("\n".join(toml))
    found = read_faults([",".join(f"{name}={value}" for name, value in written.items())])
    assert found == read_faults([str(file)])
    assert set(found.on()) <= set(written) - DETAILS


def test_short_forms() -> None:
    """Numbers, spans and switches are what they say; a share alone is every request, later texts count."""
    found = read_faults(["429=0.1, reset ,outage=5@20,tokenizer,seed=7", "429=0.5,drift=-0.25@9,blackout=3"])
    assert found == Faults(
        status_429=0.5,
        reset=1.0,
        outage=Span(5, 20),
        tokenizer=True,
        seed=7,
        drift=Drift(-0.25, 9),
        blackout=Span(3, 0),
    )
    assert found.on() == ("blackout", "outage", "429", "reset", "tokenizer", "drift")
    assert read_faults([]) == read_faults([""]) == Faults()
    assert Faults().on() == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resett=0.1", "--faults resett=0.1: no such fault. Did you mean reset or reset_midway?"),
        ("429=1.5", "--faults 429=1.5: must be a share of the requests, from 0 to 1"),
        ("500=nan", "--faults 500=nan: must be a share of the requests, from 0 to 1"),
        ("nan=-0.1", "--faults nan=-0.1: must be a share"),
        ("rpm", "--faults rpm: needs a value: rpm=N"),
        ("rpm=0", "--faults rpm=0: must be a whole number from 1 on"),
        ("context=10.5", "--faults context=10.5: must be a whole number"),
        ("bos=-1", "--faults bos=-1: must be a token id"),
        ("outage=@5", "--faults outage=@5: must be SECONDS, or SECONDS@START"),
        ("outage=5@", "--faults outage=5@: must be SECONDS, or SECONDS@START"),
        ("drift=0@5", "--faults drift=0@5: must be nats D, or D@N"),
        ("slow_seconds=inf", "--faults slow_seconds=inf: must be seconds"),
        ("tokenizer=yes", "--faults tokenizer=yes: must be true or false"),
        ("cut=1,cut=0", "--faults cut=0: cut is given twice"),
        ("no/such.toml", "--faults no/such.toml: No such file or directory"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    """What cannot be meant is refused, naming the place, what it must be, and the nearest name."""
    with pytest.raises(UsageError, match=re.escape(said)):
        read_faults([text])


def test_a_file_is_refused_by_key(tmp_path: Path) -> None:
    """In a file the key is named, be it unknown, out of range or of another type."""
    file = tmp_path / "day.toml"
    for content, said in [
        ("outtage = 1", "outtage: no such fault. Did you mean outage"),
        ("429 = 7", "429: must be a share"),
        ("[outage]\nseconds = 5", "outage: must be SECONDS"),
        ("429 = ", "not a TOML file"),
        (f"seed = 0x{'f' * 5000}", "seed: must be a whole number"),
    ]:
        file.write_text(content)
        with pytest.raises(UsageError, match=re.escape(said)) as caught:
            read_faults([str(file)])
        assert str(caught.value).startswith(f"--faults {file}"[:40])


# ---------------------------------------------------------------------------------------------- documents


def test_the_readme_has_the_table() -> None:
    """The table of the README is that of `Faults`, row by row."""
    text = README.read_text()
    assert "| fault | short form | what happens |" in text, "the README has no table of faults"
    start = text.index("| fault | short form | what happens |")
    assert text[start:].partition("\n\n")[0] + "\n" == table()


def test_the_docstring_names_every_fault() -> None:
    """So does the list at the head of the module."""
    listed = re.findall(r"^    .*$", plan.__doc__ or "", re.MULTILINE)
    names = [name for name, _, _ in rows()]
    assert set(names) <= set(re.findall(r"\w+", " ".join(listed)))


def test_precedence_is_the_order_of_the_table() -> None:
    """What strikes first stands first."""
    names = [name for name, _, _ in rows()]
    assert list(wholes.WHOLE) == [name for name in names if name in wholes.WHOLE]
    assert names[: names.index("429")] == ["blackout", "outage", "rpm", "tpm", "capacity"]


# ------------------------------------------------------------------------------------------------- chance


def test_shares_are_met() -> None:
    """Of many requests a share is struck that chance explains; so are retries of one body."""
    for share in (0.01, 0.1, 0.5, 0.9):
        fresh = sum(Draws(7).of("/v1", b"%d" % n).strikes("429", share) for n in range(20_000))
        draws = Draws(7)
        again = sum(draws.of("/v1", b"same").strikes("429", share) for _ in range(20_000))
        low, high = chance(20_000, share)
        assert low <= fresh <= high
        assert low <= again <= high
    assert all(Draws(n).of("/v1", b"").strikes("429", 1) for n in range(1000))
    assert not any(Draws(n).of("/v1", b"").strikes("429", 0) for n in range(1000))


def test_faults_are_drawn_apart() -> None:
    """One fault's draws say nothing of another's, of another seed's, or of another path's."""

    def struck(seed: int, path: str, name: str) -> list[bool]:
        draws = Draws(seed)
        return [draws.of(path, b"%d" % n).strikes(name, 0.5) for n in range(4000)]

    one = struck(1, "/v1", "429")
    assert one == struck(1, "/v1", "429")
    low, high = chance(4000, 0.5)
    for other in (struck(2, "/v1", "429"), struck(1, "/dedicated/v1", "429"), struck(1, "/v1", "reset")):
        assert low <= sum(a == b for a, b in zip(one, other, strict=True)) <= high


MIXED = Faults(
    status_429=0.1,
    status_429_date=0.1,
    status_429_bare=0.1,
    status_500=0.05,
    status_502=0.05,
    status_503=0.05,
    status_504=0.05,
    leak=0.05,
    not_json=0.1,
    reset=0.1,
    reset_midway=0.1,
    cut=0.1,
    seed=3,
)


async def test_order_and_concurrency_change_no_strike() -> None:
    """The same seed strikes the same requests, one by one or many at once, forwards or backwards."""
    bodies = [scored(n) for n in range(150)]
    async with stub(MIXED) as it:
        one_by_one = [seen.fault for seen in await it.ask(bodies, at_once=1)]
    async with stub(MIXED) as it:
        at_once = [seen.fault for seen in await it.ask(bodies[::-1], at_once=20)]
    assert one_by_one == at_once[::-1]
    async with stub(Faults(**{**_set(MIXED), "seed": 4})) as it:
        assert one_by_one != [seen.fault for seen in await it.ask(bodies)]


def _set(faults: Faults) -> dict[str, Any]:
    return {name: getattr(faults, name) for name in Faults.__slots__}


async def test_counts_are_what_clients_saw() -> None:
    """Every fault that a client sees is counted once under its name, and nothing else is."""
    async with stub(MIXED) as it:
        seen = await it.ask([scored(n % 100) for n in range(400)])
        async with it.session.get(f"{it.url}/admin") as reply:
            counts = await reply.json()
    observed = Counter(each.fault for each in seen)
    assert counts == {name: observed[name] for name in MIXED.on()}
    assert observed[""] == 400 - sum(counts.values())
    assert all(counts.values()), "every fault has been seen"
    low, high = chance(400, 0.1)
    assert low <= counts["429"] <= high
    assert it.misbehaving.requests == 400
    for each, n in zip(seen, range(400), strict=True):
        assert each.fault or each.values == truth(scored(n % 100))


async def test_precedence_over_what_comes_later() -> None:
    """Of two that would strike, the first does; the second gets its share of what is left."""
    async with stub(Faults(status_500=0.5, status_503=1.0)) as it:
        seen = Counter(each.fault for each in await it.ask([scored(n) for n in range(200)]))
    assert set(seen) == {"500", "503"}
    assert it.misbehaving.counts() == dict(seen)


async def test_an_endpoint_without_faults_is_left_alone() -> None:
    """Without faults every reply passes as it is, and nothing is counted but requests."""
    async with stub(Faults()) as it:
        seen = await it.post(scored())
    assert seen.values == truth(scored())
    assert (it.misbehaving.requests, it.misbehaving.counts()) == (1, {})


# ------------------------------------------------------------------------------------------ whole replies


async def test_errors() -> None:
    """A 429 says when to come back, in seconds, as a date, or not; gateways answer with HTML, others JSON."""
    faults = Faults(status_429=1.0, retry_after=7)
    async with stub(faults) as it:
        assert (await it.post(scored())).headers["Retry-After"] == "7"
    async with stub(Faults(status_429_date=1.0, retry_after=7)) as it:
        headers = (await it.post(scored())).headers
        gap = parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])
        assert gap.total_seconds() == 7
    for status in (500, 502, 503, 504):
        async with stub(read_faults([f"{status}=1"])) as it:
            seen = await it.post(scored())
        assert seen.status == status
        if status in (502, 504):
            assert seen.headers["Content-Type"].startswith("text/html")
            assert f"<h1>{status} ".encode() in seen.body
        else:
            assert seen.json["message"]


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_resets_are_resets(loop: Any) -> None:
    """A reset is one on the wire (RST), before the reply or midway, under either event loop."""

    async def end_of(name: str) -> tuple[bytes, Exception | None]:
        async with stub(read_faults([name])) as it:
            host, port = it.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            body = json.dumps(scored()).encode()
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            writer.write(body)
            got = b""
            try:
                while chunk := await reader.read(4096):
                    got += chunk
            except ConnectionResetError as error:
                return got, error
            finally:
                writer.close()
            return got, None

    assert loop(end_of("reset"))[0] == b""
    assert isinstance(loop(end_of("reset"))[1], ConnectionResetError)
    got, error = loop(end_of("blackout=5"))
    assert (got, type(error)) == (b"", ConnectionResetError)
    got, error = loop(end_of("reset_midway"))
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert isinstance(error, ConnectionResetError)
    got, error = loop(end_of("cut"))
    head, _, body = got.partition(b"\r\n\r\n")
    promised = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
    assert (error, len(body)) == (None, promised // 2)


async def test_a_hang_ends_with_the_client() -> None:
    """It is never answered, and forgotten once the client has left."""
    async with stub(Faults(hang=1.0, capacity=1)) as it:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.post(scored()), 0.1)
        assert it.misbehaving.counts() == {"capacity": 0, "hang": 1}
        await until(lambda: it.misbehaving.in_flight == 0)
        assert it.bodies == []


async def test_a_hang_ends_with_the_endpoint() -> None:
    """A stopping endpoint lets go of it at once, without an answer."""
    async with stub(Faults(hang=1.0)) as it:
        asked = asyncio.create_task(it.post(scored()))
        await until(lambda: it.misbehaving.counts()["hang"] == 1)
        await asyncio.wait_for(it.runner.cleanup(), 10)  # which by itself would wait for a minute
        assert (await asked).fault == "reset"


async def test_a_slow_body_is_whole_in_the_end() -> None:
    """It dribbles for as long as is said, in more than one piece, and is right."""
    async with stub(Faults(slow=1.0, slow_seconds=30.0)) as it:
        seen = await it.post(scored())
    assert seen.values == truth(scored())
    assert it.clock.now == pytest.approx(1030)
    assert len(it.clock.slept) == 20


async def test_what_is_no_json() -> None:
    """A 200 is a page, or the first half of the reply; which of them is drawn."""
    async with stub(Faults(not_json=1.0)) as it:
        seen = await it.ask([scored(n) for n in range(60)])
    kinds = Counter(each.headers["Content-Type"].split(";")[0] for each in seen)
    assert set(kinds) == {"text/html", "application/json"}
    assert all(each.status == 200 and not _is_json(each.body) for each in seen)
    assert len(it.bodies) == kinds["application/json"]


async def test_a_leak_repeats_the_token() -> None:
    """Body and headers hold what was sent as Authorization, whatever it was."""
    async with stub(Faults(leak=1.0)) as it:
        seen = await it.post(scored(), Authorization=f"Bearer {TOKEN}")
        without = await it.post(scored())
    assert seen.status == without.status == 500
    assert TOKEN in seen.body.decode()
    assert sum(TOKEN in value for value in seen.headers.values()) >= 2


@pytest.mark.parametrize("name", ["429", "504", "not_json", "reset", "cut", "reset_midway"])
async def test_streams_are_struck_too(name: str) -> None:
    """A stream is refused, reset, or broken off within its first event; it never ends well."""
    async with stub(read_faults([name])) as it:
        seen = await it.post({**scored(), "stream": True})
    assert seen.fault == name
    assert b"[DONE]" not in seen.body
    assert it.misbehaving.counts() == {name: 1}


async def test_streams_that_pass() -> None:
    """No value of a stream is changed, and none is slow; neither is counted."""
    async with stub(read_faults(["slow,null,zero,nan,other_ids,count"])) as it:
        seen = await it.post({**scored(), "stream": True})
    assert seen.body.endswith(b"data: [DONE]\n\n")
    assert not any(it.misbehaving.counts().values())


async def test_the_endpoints_own_errors_pass() -> None:
    """What breaks or changes a good reply leaves an error reply alone, and does not count it."""
    async with stub(read_faults(["cut,zero,null,count,other_ids,positive,nan,order=1,slow"])) as it:
        seen = await it.post({"model": "ep"})
    assert (seen.status, seen.json["detail"][0]["msg"]) == (422, "missing")
    assert not any(it.misbehaving.counts().values())


async def test_only_three_routes_are_struck() -> None:
    """Other paths, other methods and paths that do not exist answer as ever."""
    async with stub(Faults(status_500=1.0)) as it:
        for path, status in (("/admin", 200), ("/v1/completions", 405), ("/v2/completions", 404)):
            async with it.session.get(it.url + path) as reply:
                assert reply.status == status
        assert (await it.post(scored(), "/nowhere/completions")).status == 404
        for path in ("/v1/tokenize", "/dedicated/v1/detokenize"):
            assert (await it.post({"prompt": "a"}, path)).status == 500
    assert (it.misbehaving.requests, it.misbehaving.counts()) == (2, {"500": 2})


# --------------------------------------------------------------------------------------- time and counts


async def test_outages_have_a_beginning_and_an_end() -> None:
    """They begin so long after the first request, and are over so long after that."""
    async with stub(read_faults(["outage=5@20,blackout=2@40"])) as it:
        for at, fault in [(0, ""), (19.9, ""), (20, "503"), (24.9, "503"), (25, ""), (41, "reset"), (42, "")]:
            it.clock.now = 1000 + at
            assert (await it.post(scored())).fault == fault, f"at {at} s"
    assert it.misbehaving.counts() == {"blackout": 1, "outage": 2}


async def test_a_limit_of_requests() -> None:
    """N pass within a minute; the next is told when the oldest leaves it, and passes then, not before."""
    async with stub(Faults(rpm=3)) as it:
        for n in range(3):
            seen = await it.post(scored(n))
            assert seen.status == 200
            assert seen.headers["X-RateLimit-Limit-Requests"] == "3"
            assert seen.headers["X-RateLimit-Remaining-Requests"] == str(2 - n)
            it.clock.now += 10
        seen = await it.post(scored())
        assert (seen.status, seen.headers["Retry-After"]) == (429, "30")
        assert seen.headers["X-RateLimit-Remaining-Requests"] == "0"
        assert seen.headers["X-RateLimit-Reset-Requests"] == "30"
        it.clock.now += 29.9
        assert (await it.post(scored())).headers["Retry-After"] == "1"
        it.clock.now += 0.1
        assert (await it.post({"model": "ep"})).headers["X-RateLimit-Remaining-Requests"] == "0"
    assert it.misbehaving.counts() == {"rpm": 2}


async def test_a_limit_of_tokens() -> None:
    """Tokens of input and of output count; what alone is too much is never let in, and told no time."""
    async with stub(Faults(tpm=10)) as it:
        seen = await it.post(scored())
        assert (seen.status, seen.headers["X-RateLimit-Remaining-Tokens"]) == (200, "4")
        assert (await it.post({"prompt": "twelve bytes", "max_tokens": 1})).status == 200
        seen = await it.post({"prompt": "a"})
        assert (seen.status, seen.headers["Retry-After"]) == (429, "60")
        seen = await it.post({"prompt": [[1, 2], [3]], "max_tokens": 8})
        assert (seen.status, "Retry-After" in seen.headers) == (429, False)
        assert (await it.post({"prompt": "a"}, "/v1/tokenize")).status == 200


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 9)), max_size=60), st.integers(1, 20))
def test_no_minute_holds_more_than_the_window(demand: list[tuple[float, int]], allowed: int) -> None:
    """Whatever comes, no 60 seconds hold more than is allowed, and whoever waits as told is let in."""
    window, now, taken = Window(allowed), 0.0, []
    for gap, amount in demand:
        now += gap
        wait = window.wait(now, amount)
        if math.isinf(wait):
            assert amount > allowed
            continue
        now += math.ceil(wait)
        assert window.wait(now, amount) == 0
        window.take(now, amount)
        taken.append((now, amount))
        assert sum(each for then, each in taken if then + 60 > now) <= allowed


async def test_capacity_is_hidden() -> None:
    """Beyond N in flight there is a 429 that says nothing, and room again once one is done."""
    async with stub(Faults(capacity=2)) as it:
        it.hold.clear()
        held = [asyncio.create_task(it.post(scored(n))) for n in range(2)]
        await until(lambda: it.now == 2)
        assert (await it.post(scored(9))).fault == "429_bare"
        it.hold.set()
        assert [(await each).fault for each in held] == ["", ""]
        assert (await it.post(scored(9))).fault == ""
    assert it.misbehaving.counts() == {"capacity": 1}


async def test_a_queue_lets_wait() -> None:
    """Beyond N the others wait: all are answered, never more than N at once."""
    async with stub(Faults(queue=2)) as it:
        it.hold.clear()
        asked = [asyncio.create_task(it.post(scored(n))) for n in range(6)]
        await until(lambda: it.misbehaving.counts()["queue"] == 4)
        it.hold.set()
        assert [(await each).values for each in asked] == [truth(scored(n)) for n in range(6)]
    assert it.most == 2


def test_limits_come_before_chance() -> None:
    """What an outage turns away uses up no allowance; what a limit turns away is not in flight."""
    limits = Limits(Faults(outage=Span(5), rpm=1, capacity=1))
    met = [limits.meet(now, tokens=1, others=others) for now, others in ((0, 0), (5, 0), (6, 0), (65, 1))]
    assert [each and each.name for each in met] == ["outage", None, "rpm", "capacity"]


async def test_drift_begins_half_way() -> None:
    """From the N-th completion on all values are shifted, alternatives too, and none is above 0."""
    async with stub(read_faults(["drift=3@3"])) as it:
        seen = [await it.post(scored(n)) for n in range(4)]
    for n, each in enumerate(seen):
        shift = 3 if n >= 2 else 0
        assert each.values == [min(0.0, value + shift) for value in truth(scored(n))]
        top = each.json["choices"][0]["logprobs"]["top_logprobs"][0]
        assert top[" other0"] == min(0.0, truth(scored(n))[0] - 1 + shift)
    assert it.misbehaving.counts() == {"drift": 2}


async def test_order_moves_values_a_little() -> None:
    """The same request gets other values each time, all within D, the same in the next run."""
    runs = []
    for _ in range(2):
        async with stub(Faults(order=0.01)) as it:
            runs.append([(await it.post(scored())).values for _ in range(20)])
    assert runs[0] == runs[1]
    assert len({tuple(values) for values in runs[0]}) == 20
    for values in runs[0]:
        for value, right in zip(values, truth(scored()), strict=True):
            assert value is not None and right - 0.01 <= value <= right


# ----------------------------------------------------------------------------------------- other requests


@pytest.mark.parametrize(
    ("path", "model", "left"),
    [
        ("/dedicated/v1/completions", "ep:law", {"model": "ep"}),
        ("/dedicated/v1/completions", "ep", {"model": "ep"}),
        ("/v1/completions", "law", {}),
        ("/v1/completions", "other", {"model": "other"}),
        ("/dedicated/v1/completions", "law", {"model": "law"}),
        ("/v1/completions", ":law", {"model": ":law"}),
        ("/v1/completions", None, {"model": None}),
    ],
)
async def test_an_adapter_is_ignored(path: str, model: str | None, left: dict[str, Any]) -> None:
    """The route is gone before the endpoint reads the request, and counted; what has none stays as it is."""
    async with stub(Faults(ignore_adapter=1.0), routes=frozenset({"law"})) as it:
        await it.post({**scored(), "model": model}, path)
    assert {name: it.bodies[0][name] for name in it.bodies[0] if name == "model"} == left
    assert it.misbehaving.counts() == {"ignore_adapter": int(left != {"model": model})}


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ({"tokens": [5, 6]}, {"tokens": [2, 5, 6]}),
        ({"prompt": [5, 6]}, {"prompt": [2, 5, 6]}),
        ({"prompt": [[5], [6]]}, {"prompt": [[2, 5], [2, 6]]}),
        ({"prompt": "text"}, {"prompt": "text"}),
        ({"prompt": ["a", "b"]}, {"prompt": ["a", "b"]}),
    ],
)
async def test_a_token_in_front(asked: dict[str, Any], read: dict[str, Any]) -> None:
    """Ids get one more in front, texts do not; the forced ones stay."""
    forced = {"forced_output_tokens": [7]}
    async with stub(Faults(bos=2)) as it:
        assert (await it.post({**asked, **forced})).status == 200
    assert it.bodies == [{**read, **forced}]
    assert it.misbehaving.counts() == {"bos": int(read != asked)}


async def test_another_tokenizer() -> None:
    """Texts become other ids, on both routes alike; what it made of a text, it reads back."""
    async with stub(Faults(tokenizer=True), encode=encode, vocab_size=256) as it:
        ids = (await it.post({"prompt": "Hi é"}, "/v1/tokenize")).json["tokens"]
        assert ids != encode(["Hi é"])[0]
        assert sorted(set(ids)) and max(ids) < 256
        await it.post({"prompt": "Hi é"})
        await it.post({"prompt": ["Hi é", "a"]})
        text = (await it.post({"tokens": ids[1:]}, "/v1/detokenize")).json["text"]
        await it.post({"prompt": "\ud800"})
        await it.post(scored())
    assert it.bodies[1]["prompt"] == it.bodies[2]["prompt"][0] == ids
    assert text.encode("latin-1").decode() == "Hi é"
    assert it.bodies[-2:] == [{"prompt": "\ud800"}, scored()]
    assert it.misbehaving.counts() == {"tokenizer": 4}


@given(st.integers(2, 5000), st.integers())
def test_another_vocabulary_is_the_same_ids_in_another_order(size: int, seed: int) -> None:
    """Each id has its place in it, none its own, unless by chance; the way back leads back."""
    there = Vocabulary(size, seed).there(range(size))
    assert sorted(there) == list(range(size)) != there
    assert Vocabulary(size, seed).back(there) == list(range(size))
    assert Vocabulary(size, seed).there([size, -1]) == [size, -1]


def test_another_tokenizer_needs_one() -> None:
    """Without a way to encode it is refused when it is built, not when it is asked."""
    with pytest.raises(ValueError, match="needs encode"):
        Misbehaving(Faults(tokenizer=True))


# ------------------------------------------------------------------------------------------------- values


async def test_impossible_values() -> None:
    """Each value fault shows as it should, and leaves the other values true."""
    body = scored()
    right = truth(body)
    for name in ("zero", "positive", "null", "nan", "count", "other_ids"):
        async with stub(read_faults([name])) as it:
            choice = (seen := await it.post(body)).json["choices"][0]
        got = seen.values
        changed = [n for n, (a, b) in enumerate(zip(got, right, strict=False)) if a != b]
        match name:
            case "zero":
                assert got == [0.0, 0.0, 0.0]
                assert {v for top in choice["logprobs"]["top_logprobs"] for v in top.values()} == {0.0}
            case "positive":
                (place,) = changed
                assert got[place] == 0.1 - right[place]
                assert (
                    choice["logprobs"]["top_logprobs"][place][f" t{body['forced_output_tokens'][place]}"] > 0
                )
            case "null":
                assert [got[place] for place in changed] == [None]
            case "nan":
                assert b"NaN" in seen.body
                assert changed == list(range(changed[0], 3))
                assert all(math.isnan(got[place] or 0.0) for place in changed)
            case "count":
                assert len(got) in (2, 4)
                assert got[:2] == right[:2]
            case "other_ids":
                assert (got, choice["tokens"]) == ([value - 1.0 for value in right], [39, 49, 59])
        assert name == "other_ids" or choice["tokens"] == body["forced_output_tokens"]
        assert it.misbehaving.counts() == {name: 1}


async def test_one_less_and_one_more() -> None:
    """Both come; other faults strike at places that differ, and none undoes another."""
    async with stub(Faults(count=1.0, positive=1.0, null=1.0)) as it:
        seen = [each.values for each in await it.ask([scored(n) for n in range(60)])]
    assert {len(values) for values in seen} == {2, 4}
    assert {values.index(None) for values in seen} == {0, 1, 2, 3}
    assert {values.count(None) for values in seen} == {1}
    assert {sum(value is not None and value > 0 for value in values) for values in seen} == {1}
    assert it.misbehaving.counts() == {"count": 60, "positive": 60, "null": 60}


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [5, 6, 7], "echo": True, "logprobs": 1, "max_tokens": 1},
        {"prompt": [[5], [6, 7]]},
        {"prompt": ["a", "b", "c"]},
        {"tokens": [1], "forced_output_tokens": [0]},
        {"tokens": [1], "logprobs": 1},
    ],
)
async def test_every_kind_of_reply_is_taken(body: dict[str, Any]) -> None:
    """Echoes keep their first null, several choices are all changed, and no fault fails on any of them."""
    every = "order=0.1,drift=-1@1,count,positive,null,nan,other_ids,bos=1,ignore_adapter,tokenizer"
    async with stub(read_faults([every]), encode=encode, vocab_size=256) as it:
        seen = await it.post(body)
    assert seen.status == 200
    for choice in seen.json["choices"]:
        values = choice["logprobs"]["token_logprobs"]
        assert (values[:1] == [None]) or not body.get("echo")
        assert any(value is None or value > 0 or math.isnan(value) for value in values) or len(values) == 0
    assert not {"order", "drift", "count"} & {k for k, v in it.misbehaving.counts().items() if not v}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'"text"', b"\xff", b"[" * 100_000, b'{"prompt": [true]}']
)
async def test_bodies_that_are_none(body: bytes) -> None:
    """What is no request reaches the endpoint as it came, for it to say so."""
    read: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        read.append(request.get("body") or await request.read())
        return web.json_response({"message": "no"}, status=400)

    it = Stub(read_faults(["bos=1,tokenizer,ignore_adapter,tpm=9"]), encode=encode, vocab_size=9)
    app = web.Application()
    app.router.add_post("/v1/completions", handler)
    it.misbehaving.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}/v1/completions".format(*runner.addresses[0][:2])
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as reply:
        assert reply.status == 400
    await runner.cleanup()
    assert read == [body]


@pytest.mark.parametrize(
    ("faults", "path", "body", "status", "said"),
    [
        ("401", "/v1/completions", scored(), 401, "token"),
        ("403", "/v1/completions", scored(), 403, "team"),
        ("no_tokenize", "/v1/tokenize", {"prompt": "a"}, 404, "/v1/tokenize"),
        ("no_tokenize", "/v1/detokenize", {"tokens": [1]}, 404, "/v1/detokenize"),
        ("no_prompt", "/v1/completions", {"prompt": "a"}, 422, "prompt"),
        ("no_prompt", "/v1/completions", {"prompt": ["a", "b"]}, 422, "prompt"),
        ("top=1", "/v1/completions", scored(), 422, "logprobs"),
    ],
)
async def test_what_an_endpoint_lacks(
    faults: str, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    """What it lacks is refused as real endpoints do, is counted, and all else is answered."""
    async with stub(read_faults([faults])) as it:
        seen = await it.post(body, path)
        assert seen.status == status
        assert said in seen.body.decode()
        name = faults.partition("=")[0]
        assert it.misbehaving.counts() == {name: 1}
        if name not in ("401", "403"):
            assert (await it.post({**scored(), "logprobs": 1})).status == 200
    assert len(it.bodies) == (name not in ("401", "403"))


async def test_long_inputs_are_shortened() -> None:
    """Only the last ids are read, without a word; what is no longer stays."""
    async with stub(Faults(shortened=3)) as it:
        long = {**scored(), "tokens": [9, 8, 1, 2, 3]}
        assert (await it.post(long)).values == true_logprobs([1, 2, 3], [40, 50, 60])
        assert (await it.post(scored(4))).values == truth(scored(4))
        assert it.misbehaving.counts() == {"shortened": 1}


async def test_values_that_do_not_hang_together() -> None:
    """`flat` repeats the first value, `chain` lowers those behind it, their alternatives alike."""
    body, right = scored(), truth(scored())
    async with stub(Faults(flat=1.0)) as it:
        assert (await it.post(body)).values == [right[0]] * 3
    async with stub(Faults(chain=2.0)) as it:
        seen = await it.post(body)
        assert seen.values == pytest.approx([right[0], right[1] - 2, right[2] - 2])
        top = seen.json["choices"][0]["logprobs"]["top_logprobs"]
        assert [each[f" t{n}"] for each, n in zip(top, (40, 50, 60), strict=True)] == seen.values
        assert (await it.post({**body, "forced_output_tokens": [40]})).values == right[:1]
        assert it.misbehaving.counts() == {"chain": 1}


async def test_company_lowers_values() -> None:
    """`crowded` strikes replies that are made while others are in flight, and no other."""
    async with stub(Faults(crowded=0.5)) as it:
        assert (await it.post(scored())).values == truth(scored())
        it.hold.clear()
        both = [asyncio.create_task(it.post(scored(n))) for n in range(2)]
        await until(lambda: it.now == 2)
        it.hold.set()
        got = [(await each).values for each in both]
        assert (
            sum(a != truth(scored(n)) for n, a in enumerate(got)) == it.misbehaving.counts()["crowded"] >= 1
        )


# ------------------------------------------------------------------------------------------- our own client


def client(it: Stub) -> Client:
    """The project's client of an endpoint, on the same clock."""
    return Client(
        base_url=f"{it.url}/v1",
        dialect=dialect("friendli"),
        model="ep",
        headers={"Authorization": f"Bearer {TOKEN}"},
        secrets=[Secret(TOKEN)],
        settings=ClientSettings(attempts=20),
        budget=None,
        gate=Capacity(8).gate(),
        clock=it.clock,
        sleep=it.clock.sleep,
        jitter=lambda low, high: high,
        on_event=lambda event: None,
    )


async def test_our_client_gets_through() -> None:
    """Whatever can be tried again leaves true scores behind, and no more attempts than were struck."""
    asked = [ScoreRequest(b"%016d" % n, [1, 2, n], [40, 50, 60]) for n in range(100)]
    async with stub(MIXED) as it, client(it) as ours:
        outcomes = await asyncio.gather(*map(ours.score, asked))
    for outcome in outcomes:
        assert outcome.reply is not None, outcome.failure
        assert outcome.reply.token_logprobs == true_logprobs(outcome.request.context_ids, [40, 50, 60])
    struck = sum(it.misbehaving.counts().values())
    assert sum(each.attempts for each in outcomes) == 100 + struck == it.misbehaving.requests


@pytest.mark.parametrize("name", ["positive", "null", "nan", "count", "other_ids"])
async def test_our_client_believes_no_impossible_value(name: str) -> None:
    """Every reply that was struck is refused, and no other."""
    asked = [ScoreRequest(b"%016d" % n, [1, 2, n], [40, 50, 60]) for n in range(50)]
    async with stub(read_faults([f"{name}=0.4,seed=5"])) as it, client(it) as ours:
        outcomes = [await ours.score(each) for each in asked]
    failures = [each.failure for each in outcomes if each.failure]
    assert 0 < len(failures) == it.misbehaving.counts()[name] < 50
    assert {each.reason for each in failures} == {"protocol"}


async def test_our_client_keeps_its_token_out_of_leaks() -> None:
    """What a leak says reaches people without the token."""
    async with stub(Faults(leak=1.0)) as it, client(it) as ours:
        with pytest.raises(EndpointRefused, match=r"Authorization: Bearer \*\*\*") as caught:
            await ours.score(ScoreRequest(b"%016d" % 0, [1], [2]))
    assert TOKEN not in repr(caught.value)
