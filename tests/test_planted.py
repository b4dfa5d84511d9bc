"""A planted token: servers repeat it wherever they can; then every byte that was written is searched."""

from __future__ import annotations

import asyncio
import base64
import html
import io
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from rich.console import Console
from tokenizers import Tokenizer

from harness.cli import main
from harness.errors import EndpointRefused
from harness.prepare import prepare
from harness.runner import evaluate
from tests.fake_endpoint import completion
from tests.ledger import note
from tests.raw_endpoint import Answer, Asked, RawEndpoint, http
from tests.running import Bench, bench, ended

__all__ = ["bench"]

Write = Callable[[str], str]

FORMS: Mapping[str, Write] = {
    "plain": lambda token: token,
    "upper": str.upper,
    "percent": lambda token: quote(token, safe=""),
    "percent all": lambda token: "".join(f"%{byte:02x}" for byte in token.encode()),
    "percent twice": lambda token: quote(quote(token, safe=""), safe=""),
    "json": lambda token: json.dumps(token)[1:-1],
    "json all": lambda token: "".join(f"\\u{ord(each):04X}" for each in token),
    "json twice": lambda token: json.dumps(json.dumps(token)[1:-1])[1:-1],
    "slashes": lambda token: token.replace("/", "\\/"),
    "repr": lambda token: repr([f"Bearer {token}"]),
    "html": html.escape,
    "html all": lambda token: "".join(f"&#{ord(each)};" for each in token),
    "html hex": lambda token: "".join(f"&#x{ord(each):X};" for each in token),
    "base64": lambda token: base64.b64encode(token.encode()).decode(),
    "base64 later": lambda token: base64.b64encode(f"Bearer {token}".encode()).decode(),
    "base64 url": lambda token: base64.urlsafe_b64encode(f"x:{token}!".encode()).decode(),
    "base64 lines": lambda token: base64.encodebytes(f"{token}:{token}".encode()).decode(),
    "hex": lambda token: token.encode().hex(),
    "hex dump": lambda token: token.encode().hex(" "),
    "far down": lambda token: "no " * 95 + token,
}
"""How a server may write what it was sent."""


def _error(said: str) -> bytes:
    return http({"error": {"message": f"not with {said}!", "headers": [said]}}, status="400 Bad Request")


def _names(asked: Asked, said: str) -> bytes:
    reply = completion(asked.body)
    logprobs = reply["choices"][0]["logprobs"]
    logprobs["tokens"] = [said for _ in logprobs["tokens"]]
    logprobs["top_logprobs"] = [{**each, said: -9.0, f" {said}": -9.5} for each in logprobs["top_logprobs"]]
    return http(reply)


def _beside(asked: Asked, said: str) -> bytes:
    """A truthful reply that repeats it where nobody looks."""
    reply = {**completion(asked.body), "id": said, "model": said, said: said, "usage": {said: 1}}
    return http(reply, **{"X-Request-Id": _header(said), "Set-Cookie": f"a={_header(said)}"})


def _header(said: str) -> str:
    return said.replace("\n", " ").replace("\r", " ")


async def _at_once(content: bytes) -> AsyncIterator[bytes]:
    """These bytes, and the end of the connection."""
    yield content


PLACES: Mapping[str, Callable[[Asked, str], Answer]] = {
    "message": lambda asked, said: _error(said),
    "text": lambda asked, said: http(said.encode(), status="422 Unprocessable", kind="text/plain"),
    "page": lambda asked, said: http(f"<pre>{said}</pre>".encode(), status="418 I", kind="text/html"),
    "reason": lambda asked, said: http(b"", status=f"409 {_header(said)}"),
    "redirect": lambda asked, said: http(b"", status="307 Go", Location=f"http://other/?q={_header(said)}"),
    "detail": lambda asked, said: http({"detail": [{"loc": [said], "msg": said}]}, status="400 Bad"),
    "kind": lambda asked, said: http(b"oops", kind=f"text/x; q={_header(said)}"),
    "no json": lambda asked, said: http(f"{said}".encode()),
    "values": lambda asked, said: http(
        {"choices": [{"tokens": [said], "logprobs": {"token_logprobs": said}}]}
    ),
    "broken": lambda asked, said: _at_once(f"HTTP/1.1 200 {said}\r\n{said}\r\n\r\n".encode()),
    "names": _names,
    "beside": _beside,
}
"""Where it may stand."""
MIXES = [(place, form) for place in PLACES for form in FORMS]

ODD = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "*")
# Not `st.text`, which also tries words that it finds in the program: the files are full of them.
tokens = st.lists(st.sampled_from(ODD), min_size=14, max_size=50, unique=True).map("".join)


TABLES_OF = "SELECT name FROM sqlite_master WHERE type = 'table'"


def needles(token: str) -> tuple[list[bytes], list[bytes]]:
    """What is searched for: whatever the case, and as it is. Halves too: a token may have been cut."""
    halves = (token, token[: len(token) // 2 + 1], token[len(token) // 2 - 1 :])
    written = {write(each) for each in halves for name, write in FORMS.items() if "base64" not in name}
    folded = {each.lower().removeprefix("no " * 95) for each in written}
    cores = set()
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + token.encode()).decode()
        core = encoded[4 : len(encoded) - 4]
        cores |= {core, core.replace("+", "-").replace("/", "_")}
    return [each.encode() for each in folded], [each.encode() for each in cores]


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files below a folder; what is compressed or paged is unpacked besides."""
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        yield str(file), file.read_bytes()
        if file.suffix == ".parquet":
            yield f"{file} unpacked", repr(parquet.read_table(file).to_pydict()).encode()
        if file.suffix == ".sqlite":
            with closing(sqlite3.connect(file)) as connection:
                tables = [name for (name,) in connection.execute(TABLES_OF)]
                rows = [row for name in tables for row in connection.execute(f"SELECT * FROM {name}")]
            cells = [cell for row in rows for cell in row]
            yield (
                f"{file} rows",
                b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells),
            )


def searched(token: str, places: Iterator[tuple[str, bytes]]) -> int:
    """How many bytes hold no trace of a token."""
    folded, exact = needles(token)
    count = 0
    for name, content in places:
        lowered = content.lower()
        found = [each for each in folded if each in lowered] + [each for each in exact if each in content]
        assert not found, f"{name} holds {found[0]!r} of {token!r}"
        count += len(content)
    return count


def lettered(bench: Bench) -> str:
    """A tokenizer to which each letter is one token: then alternatives are asked for, and kept."""
    backend = Tokenizer.from_file(str(bench.tokenizer))
    backend.add_tokens([f" {letter}" for letter in "ABCD"])
    backend.save(str(bench.folder / "lettered.json"))
    return str(bench.folder / "lettered.json")


def repeating(token: str, secret: str, mixes: list[tuple[str, str]]) -> Callable[[Asked], Answer]:
    """A server that gets a token, and repeats a secret, each time in another form or place."""

    def answer(asked: Asked) -> Answer:
        assert asked.headers["authorization"] == f"Bearer {token}"
        place, form = mixes[asked.number % len(mixes)]
        return PLACES[place](asked, FORMS[form](secret))

    return answer


def test_a_needle_is_found_in_each_form() -> None:
    """The search sees a token in every form that a server writes it in: else it would prove nothing."""
    token = 'x&"/k9%Zq~+flA7_w='
    for name, write in FORMS.items():
        with pytest.raises(AssertionError, match="holds"):
            searched(token, iter([(name, b"{..." + write(token).encode())]))


@given(token=tokens, team=tokens, seed=st.randoms(use_true_random=False))
@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.generate],  # each is a whole run, and the first that fails says enough
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_repeated_token_is_written_nowhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, token: str, team: str, seed: Any
) -> None:
    """Wherever and however a server repeats token and team, no file of the run and no line holds them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(bench.folder / "cache"))
    mixes = list(MIXES)
    seed.shuffle(mixes)
    environ = {"FRIENDLI_TOKEN": token, "FRIENDLI_TEAM": team}
    said, out = io.StringIO(), f"run-{abs(hash((token, team))):x}"

    async def run() -> tuple[Any, int]:
        truthful = [(place, form) for place in ("names", "beside") for form in FORMS]
        async with (
            RawEndpoint(repeating(token, token, mixes)) as rude,
            RawEndpoint(repeating(token, team, truthful)) as sly,
        ):
            given = bench.settings(
                rude.url,
                sly.url,
                out=out,
                attempts=2,
                patience=5.0,
                probe=False,
                tokenizer=(lettered(bench),),
                log_file=bench.folder / out / "run.log",
            )
            result = await evaluate(prepare(given, environ), Console(file=said, width=200))
            return result, len(rude.asked) + len(sly.asked)

    result, asked = asyncio.run(run())
    assert asked > len(MIXES) / 2
    assert result.parts[1].lesson.tried
    told = "\n".join([said.getvalue(), repr(result), *result.remarks])
    for secret in (token, team):
        places = [*written(bench.folder / out), *written(bench.folder / "cache"), ("told", told.encode())]
        count = searched(secret, iter(places))
        note("bytes searched for secrets", tried=count, lost=0, unit="bytes")


@pytest.mark.parametrize(("status", "form"), [(401, "json all"), (403, "base64 later"), (404, "far down")])
async def test_a_refusal_that_repeats_the_token(bench: Bench, status: int, form: str) -> None:
    """What ends an endpoint is said without the token, in remarks, counters and files."""
    token = 'x&"/k9%Zq~+flA7_w='
    refuse = lambda asked: http({"message": FORMS[form](token)}, status=f"{status} No")  # noqa: E731
    async with RawEndpoint(refuse) as endpoint:
        result = await bench.run(endpoint.url, environ={"FRIENDLI_TOKEN": token}, probe=False)
    [part] = result.parts
    assert part.refused.startswith(f"{status} from")
    told = "\n".join([part.refused, part.progress.line(), *result.remarks])
    count = searched(token, iter([*written(result.folder), ("told", told.encode())]))
    note("bytes searched for secrets", tried=count, lost=0, unit="bytes")


@pytest.mark.parametrize("form", ["plain", "json all", "base64 later", "far down"])
async def test_a_tokenize_route_that_repeats_the_token(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Why an endpoint cannot tokenize is said without the token; the cache has none either."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(bench.folder / "cache"))
    token = "flp_" + 'x&"/k9%Zq~+flA7_w='
    async with RawEndpoint(lambda asked: http({"detail": FORMS[form](token)}, status="403 No")) as endpoint:
        with pytest.raises(EndpointRefused) as refused:
            await bench.run(
                endpoint.url, environ={"FRIENDLI_TOKEN": token}, tokenizer=("endpoint",), probe=False
            )
    places = [*written(bench.folder), ("told", str(refused.value).encode())]
    note("bytes searched for secrets", tried=searched(token, iter(places)), lost=0, unit="bytes")


def managing(token: str, status: str, said: str) -> Callable[[Asked], Answer]:
    """A dedicated endpoint whose management routes repeat what they were sent."""

    def answer(asked: Asked) -> Answer:
        assert asked.headers["authorization"] == f"Bearer {token}"
        if "/beta/" in asked.line:
            return http({"status": status, "phase": said, "errorCode": said, "name": said})
        return _names(asked, said) if "forced_output_tokens" in asked.body else _error(said)

    return answer


@pytest.mark.parametrize("form", ["plain", "json all", "base64 later"])
async def test_a_status_that_repeats_the_token(bench: Bench, form: str) -> None:
    """A dedicated endpoint's status is told without the token in a run's files, its log, and on screens."""
    token, said = 'A7_w=x&"/k9%Zq~+fl', io.StringIO()
    async with RawEndpoint(managing(token, "FAILED", FORMS[form](token))) as endpoint:
        spec = f"{endpoint.url.removesuffix('/v1')}/dedicated/v1#ep"
        given = bench.settings(spec, probe=True, log_file=bench.folder / "run.log")
        result = await evaluate(prepare(given, {"FRIENDLI_TOKEN": token}), Console(file=said, width=200))
    assert "its status is FAILED (" in result.parts[0].refused
    places = [*written(bench.folder), ("told", said.getvalue().encode()), ("result", repr(result).encode())]
    note("bytes searched for secrets", tried=searched(token, iter(places)), lost=0, unit="bytes")


@pytest.mark.parametrize("status", ["RUNNING", "TERMINATED"])
async def test_doctor_says_it_nowhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    """What `doctor` finds of an endpoint that repeats the token is printed, and put into JSON, without it."""
    token = 'A7_w=x&"/k9%Zq~+fl'
    monkeypatch.setenv("FRIENDLI_TOKEN", token)
    async with RawEndpoint(managing(token, status, token)) as endpoint:
        command = ["doctor", f"{endpoint.url.removesuffix('/v1')}/dedicated/v1#ep", "--json"]
        command += ["--tokenizer", lettered(bench), "--attempts", "1", "--patience", "0"]
        await asyncio.to_thread(main, command)
    told = capsys.readouterr()
    assert f"{status} (***, ***)" in told.err
    assert f"{status} (***, ***)" in told.out
    places = [("stdout", told.out.encode()), ("stderr", told.err.encode())]
    note("bytes searched for secrets", tried=searched(token, iter(places)), lost=0, unit="bytes")


async def test_the_program_says_it_nowhere(bench: Bench) -> None:
    """What the program prints and logs, in a process of its own, holds no token in any form."""
    token = 'A7_w=x&"/k9%Zq~+fl'
    cache = bench.folder / "cache"
    async with RawEndpoint(repeating(token, token, MIXES)) as endpoint:
        command = bench.command(
            endpoint.url, extra=["--attempts", "2", "--log-file", str(bench.folder / "log")]
        )
        environ = {**os.environ, "FRIENDLI_TOKEN": token, "XDG_CACHE_HOME": str(cache)}
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environ
        )
        out, err = await ended(process)
    assert process.returncode == 3, err.decode()
    assert b"Not every item is scored" in err
    places = [*written(bench.folder), ("stdout", out), ("stderr", err)]
    note("bytes searched for secrets", tried=searched(token, iter(places)), lost=0, unit="bytes")


CRASH = """
import asyncio, logging, os, sys, threading, warnings
from harness.cli import main
from harness.commands.app import app
token = os.environ["FRIENDLI_TOKEN"]

@app.command
def crash():
    logging.getLogger("aiohttp.client").warning("headers %s", {"Authorization": token})
    try:
        raise KeyError(token)
    except KeyError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    warnings.warn(f"unclosed {token}", ResourceWarning)
    thread = threading.Thread(target=lambda: 1 / 0 if not token else {}[token])
    thread.start()
    thread.join()
    class Broken:
        def __del__(self):
            raise ValueError(token)
    Broken()
    async def lost():
        asyncio.get_running_loop().call_exception_handler({"message": token})
    asyncio.run(lost())
    raise RuntimeError(f"it broke with {token}") from OSError(token)

sys.exit(main(["crash"]))
"""


async def test_a_breakdown_says_it_nowhere(tmp_path: Path) -> None:
    """Tracebacks, of threads too, warnings, and what libraries log come without the token."""
    token = "s3cret-0123456789-abcdef"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always", "-c", CRASH),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "FRIENDLI_TOKEN": token},
        cwd=Path(__file__).parents[1],
    )
    out, err = await ended(process)
    assert process.returncode == 1
    for said in (b"RuntimeError: it broke with ***", b"OSError: ***", b"KeyError: '***'", b"ValueError: ***"):
        assert said in err, err.decode()
    assert b"headers {'Authorization': '***'}" in err
    assert b"unclosed ***" in err
    assert b"Exception in thread" in err
    places = iter([("stdout", out), ("stderr", err)])
    note("bytes searched for secrets", tried=searched(token, places), lost=0, unit="bytes")
