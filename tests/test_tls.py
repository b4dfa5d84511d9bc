"""Whose word is believed: certificates, private authorities, and the way through a proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from harness.dialects import dialect
from harness.endpoint_settings import EndpointSettings
from harness.errors import UsageError
from harness.exchange import ScoreRequest
from harness.prepare import prepare
from harness.secrets import Secret
from harness.suitefile import dump_suite, read_suite
from harness.transport import Attempt, Transport, Wire
from harness.trust import trusting
from tests.fake_endpoint import FakeClock, completion
from tests.raw_endpoint import Asked, RawEndpoint, http
from tests.running import Bench, bench

__all__ = ["bench"]

TOKEN = "sesame-0123456789"
REQUEST = ScoreRequest(b"k" * 16, [1, 2], [3])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority that nobody but a test believes."""
    return trustme.CA()


def server(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """The server's side of a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def truthful(asked: Asked) -> bytes:
    """Answer a completion."""
    return http(completion(asked.body))


async def sent(url: str, tls: ssl.SSLContext | None = None) -> tuple[Attempt, str]:
    """What comes of one request with a token, and how the endpoint would be given up."""
    made = Wire(
        url=f"{url}/completions",
        headers={"Authorization": f"Bearer {TOKEN}"},
        secrets=[Secret(TOKEN)],
        timeout=10,
        connect_timeout=5,
        connections=1,
        tls=tls,
    )
    transport = Transport(made, dialect("friendli"), FakeClock())
    await transport.open()
    try:
        attempt = await transport.send(REQUEST, b'{"tokens":[1,2],"forced_output_tokens":[3],"logprobs":1}')
    finally:
        await transport.close()
    return attempt, transport.refusal(attempt)


def pem(folder: Path, authority: trustme.CA, name: str = "ca.pem") -> Path:
    """The authority's certificate in a file."""
    authority.cert_pem.write_to_path(str(folder / name))
    return folder / name


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("names", "expires", "known", "says"),
    [
        (
            ["127.0.0.1"],
            None,
            False,
            "unable to get local issuer certificate. Name the authority that signed",
        ),
        (["other.host"], None, True, "not valid for '127.0.0.1'. Is the host in the URL the one"),
        (["127.0.0.1"], NOW - timedelta(days=1), True, "certificate has expired. It must be renewed there"),
    ],
)
async def test_a_bad_certificate_ends_the_endpoint(
    tmp_path: Path, authority: trustme.CA, names: list[str], expires: Any, known: bool, says: str
) -> None:
    """Nobody vouches for it, another host, expired: one line with the way out, and nothing was sent."""
    leaf = authority.issue_cert(*names, not_after=expires)
    tls = trusting(pem(tmp_path, authority), "--ca-file") if known else None
    async with RawEndpoint(truthful, tls=server(leaf)) as endpoint:
        attempt, line = await sent(endpoint.url, tls)
        assert endpoint.asked == []
    assert attempt.decision is not None
    assert (attempt.decision.action, attempt.reason) == ("stop", "bad certificate")
    assert says in line
    assert line.startswith(f"bad certificate from {endpoint.url}")
    assert "\n" not in line


async def test_a_certificate_that_signed_itself_is_refused(tmp_path: Path) -> None:
    """It is refused unless a person names it as an authority."""
    own = trustme.CA()
    leaf = own.issue_cert("127.0.0.1")
    async with RawEndpoint(truthful, tls=server(leaf)) as endpoint:
        attempt, line = await sent(endpoint.url, trusting(pem(tmp_path, trustme.CA()), "--ca-file"))
        assert attempt.reason == "bad certificate"
        assert "--ca-file FILE" in line
        attempt, _ = await sent(endpoint.url, trusting(pem(tmp_path, own, "own.pem"), "--ca-file"))
    assert attempt.reply is not None


async def test_a_server_without_tls_is_named() -> None:
    """https spoken to an http server says what is the matter; it is tried again, as it may be restarting."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as plain:
        attempt, _ = await sent(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}/v1")
    assert str(attempt) == "connection: no TLS connection: the server does not speak TLS there; is it http?"
    assert attempt.retryable


async def test_ssl_cert_file_counts_too(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--ca-file` adds to what the system and SSL_CERT_FILE know, and takes nothing away."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pem(tmp_path, authority)))
    context = trusting(pem(tmp_path, trustme.CA(), "another.pem"), "--ca-file")
    async with RawEndpoint(truthful, tls=server(authority.issue_cert("127.0.0.1"))) as endpoint:
        attempt, _ = await sent(endpoint.url, context)
    assert attempt.reply is not None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "it cannot be read: No such file or directory"),
        (b"", "it holds no certificate in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "it holds no certificate in PEM"),
        (b"\x30\x82\x00", "it holds no certificate in PEM form"),
    ],
)
@pytest.mark.parametrize("send", [True, False])
def test_a_ca_file_is_checked_before_anybody_is_asked(
    bench: Bench, content: bytes | None, says: str, send: bool
) -> None:
    """`run` and `plan` refuse a file that cannot be read or holds no certificate: exit 2, one line."""
    file = bench.folder / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    for given, place in (
        (bench.settings("https://host/v1", ca_file=file), f"--ca-file {file}: "),
        (
            bench.settings(endpoint=(EndpointSettings(spec="https://host/v1", ca_file=str(file)),)),
            f"[[endpoints]] https://host/v1, ca_file: {file}: ",
        ),
    ):
        with pytest.raises(UsageError) as refused:
            prepare(given, {}, send=send)
        assert str(refused.value).startswith(f"{place}{says}")


def test_a_suite_file_names_it_for_an_endpoint(bench: Bench, authority: trustme.CA) -> None:
    """A table's own file is its alone, starts at the suite's folder, and is written out again."""
    pem(bench.folder, authority)
    suite = bench.folder / "suite.toml"
    suite.write_text(
        'tasks = "hellaswag"\n[[endpoints]]\nspec = "https://one/v1"\nca_file = "ca.pem"\n'
        '[[endpoints]]\nspec = "https://two/v1"\n'
    )
    said = read_suite(suite)
    prepared = prepare(bench.settings(**{**said, "tasks": "hellaswag"}), {}, send=False)
    assert list(prepared.trusted) == ["one"]
    assert f'ca_file = "{bench.folder}/ca.pem"' in dump_suite(bench.settings(**said), {})


async def test_a_run_with_a_private_authority(bench: Bench, authority: trustme.CA) -> None:
    """With the file a whole run scores, texts tokenized by the endpoint too; without it nothing is sent."""

    def answer(asked: Asked) -> bytes:
        if "/tokenize" in asked.line:
            return http({"tokens": [ord(each) for each in asked.body["prompt"]]})
        return truthful(asked)

    leaf = authority.issue_cert("127.0.0.1")
    ca_file = pem(bench.folder, authority)
    async with RawEndpoint(answer, tls=server(leaf)) as endpoint:
        result = await bench.run(endpoint.url, ca_file=ca_file, tasks="hellaswag")
        assert result.exit == 0
        asked = len(endpoint.asked)
        result = await bench.run(endpoint.url, out="without", tasks="hellaswag")
        assert result.exit == 4
        assert "--ca-file FILE" in result.parts[0].refused
        assert len(endpoint.asked) == asked


# ------------------------------------------------------------------------------------------------ proxies


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A proxy on loopback that connects every CONNECT to one port; its own port, and what it was told."""
    heads: list[bytes] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        serving.append(asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer)))
        await serving[-1]

    serving: list[asyncio.Future[Any]] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1], heads
        await asyncio.gather(*serving)


async def test_a_proxy_sees_no_token(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through CONNECT the certificate is held against the host, which alone reads what is sent."""
    context = trusting(pem(tmp_path, authority), "--ca-file")
    async with (
        RawEndpoint(truthful, tls=server(authority.issue_cert("api.inside"))) as endpoint,
        proxy(endpoint.port) as (port, heads),
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass%21word@127.0.0.1:{port}")
        attempt, _ = await sent("https://api.inside/v1", context)
        assert attempt.reply is not None, attempt
        assert endpoint.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert "proxy-authorization" not in endpoint.asked[0].headers
        wrong, line = await sent("https://api.outside/v1", context)
        assert wrong.reason == "bad certificate"
        assert "'api.outside'" in line
        assert len(endpoint.asked) == 1
    assert heads[0].startswith(b"CONNECT api.inside:443 HTTP/1.1")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNzIXdvcmQ=" in heads[0]
    assert TOKEN.encode() not in b"".join(heads)


async def test_no_proxy_is_asked_where_none_should_be(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loopback is reached directly, whatever the environment names."""
    context = trusting(pem(tmp_path, authority), "--ca-file")
    async with (
        RawEndpoint(truthful, tls=server(authority.issue_cert("127.0.0.1"))) as endpoint,
        proxy(endpoint.port) as (port, heads),
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        attempt, _ = await sent(endpoint.url, context)
    assert attempt.reply is not None
    assert heads == []
