"""One attempt over HTTP: foreign errors in our words, proxies, refusals, and no secret in any of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from harness.dialects import dialect
from harness.errors import UsageError
from harness.exchange import ScoreRequest
from harness.failures import Fault, classify
from harness.secrets import Secret
from harness.transport import Attempt, Transport, Wire, proxy_for, translated
from tests.fake_endpoint import FakeClock

PLACE = ConnectionKey("api.host", 443, True, True, None, None, None)


def wire(url: str = "https://api.host/v1/completions") -> Wire:
    """An endpoint with a token."""
    return Wire(
        url=url,
        headers={"Authorization": "Bearer sesame-0123"},
        secrets=[Secret("sesame-0123")],
        timeout=120,
        connect_timeout=10,
        connections=1,
    )


@pytest.mark.parametrize(
    ("error", "fault", "words"),
    [
        (TimeoutError(), "timeout", "no whole reply within 120 s"),
        (aiohttp.SocketTimeoutError(), "timeout", "no whole reply within 120 s"),
        (aiohttp.ConnectionTimeoutError(), "timeout", "no connection within 10 s"),
        (aiohttp.ClientPayloadError("x"), "cut body", "ended too early"),
        (aiohttp.ServerDisconnectedError(), "connection", "closed the connection"),
        (
            aiohttp.ClientConnectorDNSError(PLACE, socket.gaierror(-2, "unknown")),
            "connection",
            "host api.host",
        ),
        (aiohttp.ClientConnectorError(PLACE, OSError(111, "refused")), "connection", "refused"),
        (ConnectionResetError(104, "reset by peer"), "connection", "reset by peer"),
        (aiohttp.ClientResponseError(None, (), message="sesame"), "connection", "not valid HTTP"),  # type: ignore[arg-type]
        (aiohttp.ClientOSError(), "connection", "ClientOSError"),
        (
            aiohttp.ClientConnectorCertificateError(PLACE, ssl.SSLCertVerificationError(1, "self-signed")),
            "bad certificate",
            "self-signed",
        ),
    ],
)
def test_foreign_errors_are_translated(
    error: aiohttp.ClientError | OSError, fault: Fault, words: str
) -> None:
    """Each exception of the HTTP library becomes one of our faults, in words."""
    found, said = translated(error, wire())
    assert found == fault
    assert words in said


@pytest.mark.parametrize(
    ("variables", "status", "hint"),
    [
        ((), 401, "Is FRIENDLI_TOKEN set and valid?"),
        ((), 403, "open to the holder of FRIENDLI_TOKEN and the team in FRIENDLI_TEAM?"),
        (("MY_TOKEN",), 401, "Is MY_TOKEN set and valid?"),
        (("MY_TOKEN",), 403, "open to the holder of MY_TOKEN?"),
        (("MY_TOKEN", "MY_TEAM"), 403, "open to the holder of MY_TOKEN and the team in MY_TEAM?"),
    ],
)
def test_a_refusal_names_the_variables_that_were_used(
    variables: tuple[str, ...], status: int, hint: str
) -> None:
    """Whoever looks where the hint says finds the token, and the team, that were sent."""
    transport = Transport(replace(wire(), variables=variables), dialect("friendli"), FakeClock())
    refused = Attempt(0.1, None, classify(status, {}, now=0.0), "no", status)
    assert transport.refusal(refused).endswith(hint)


def test_no_repr_shows_a_header() -> None:
    """Neither the record of an endpoint nor what sends to it shows the token."""
    made = wire()
    transport = Transport(made, dialect("friendli"), FakeClock())
    assert "sesame" not in f"{made!r} {transport!r} {vars(transport)!r}"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://api.host/v1", "http://user:pass%21word@proxy:3128"),
        ("http://api.host/v1", None),
        ("https://inside.corp/v1", None),
        ("https://localhost:8000/v1", None),
        ("https://127.8.0.1/v1", None),
        ("https://[::1]:8000/v1", None),
    ],
)
def test_proxies_come_from_the_environment(
    url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy is used for its scheme, but not where NO_PROXY says so, and never for loopback."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pass%21word@proxy:3128")
    monkeypatch.setenv("NO_PROXY", ".corp")
    assert proxy_for(url) == proxy


def test_a_proxy_without_a_scheme_is_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and port alone, as many write it, are enough."""
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    assert proxy_for("https://api.host/v1") == "http://proxy:3128"


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cannot be used is named, not passed by; its password is not shown."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:sesame@proxy:1080")
    with pytest.raises(UsageError, match="HTTPS_PROXY names a socks5 proxy") as caught:
        proxy_for("https://api.host/v1")
    assert "sesame" not in str(caught.value)


@asynccontextmanager
async def proxy_that_says(reply: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A proxy on loopback that lets nobody through; its port, and the heads of what it was asked."""
    seen: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1], seen


async def test_a_proxy_is_used_and_its_password_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go through the proxy with its credentials; what it says comes without them."""
    said = b"HTTP/1.1 407 No\r\nContent-Length: 26\r\n\r\nnot with pass!word, friend"
    async with proxy_that_says(said) as (port, seen):
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pass%21word@127.0.0.1:{port}")
        transport = Transport(wire("http://api.host/v1/completions"), dialect("friendli"), FakeClock())
        await transport.open()
        attempt = await transport.send(ScoreRequest(b"k", [1], [2]), b"{}")
        await transport.close()
    assert seen[0].startswith(b"POST http://api.host/v1/completions")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNzIXdvcmQ=" in seen[0]
    assert str(attempt) == "407: not with ***, friend"


@pytest.mark.parametrize("way", ["send", "call"])
async def test_a_tunnel_is_asked_for_without_the_token(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that only passes bytes on is told where to, and no more, also where it has no credentials."""
    async with proxy_that_says(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n") as (port, seen):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        transport = Transport(wire(), dialect("friendli"), FakeClock())
        await transport.open()
        if way == "send":
            assert (await transport.send(ScoreRequest(b"k", [1], [2]), b"{}")).reason == "connection"
        else:
            assert (await transport.call("GET", "https://api.host/v1")).status is None
        await transport.close()
    assert seen[0].startswith(b"CONNECT api.host:443 HTTP/1.1\r\n")
    assert b"sesame" not in seen[0]
    assert b"authorization" not in seen[0].lower()


async def test_a_host_that_cannot_be() -> None:
    """A name that no host can have fails the request in a line that shows it."""
    transport = Transport(wire("https://a..b/v1/completions"), dialect("friendli"), FakeClock())
    await transport.open()
    attempt = await transport.send(ScoreRequest(b"k", [1], [2]), b"{}")
    called = await transport.call("GET", "https://a..b/v1")
    await transport.close()
    assert str(attempt) == "connection: no host can be called a..b"
    assert called.detail == "no host can be called a..b"
