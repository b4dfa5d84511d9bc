"""One attempt over HTTP: a body goes out, a checked reply or a decision about the failure comes back.

`posting` does the sending. Here aiohttp's exceptions are translated, redirects are not followed, and nothing
that a server said leaves with a secret in it. Retries are the client's business.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import istr
from yarl import URL

from harness.cleaning import Cleaner
from harness.dialects import Dialect
from harness.errors import ReplyError, TruncatedReply, UsageError
from harness.exchange import Reply, ScoreRequest
from harness.failures import Decision, Fault, classify, one_line
from harness.pacing.headers import TELLING, Limits, limits_of
from harness.posting import LARGEST_ERROR, NotHttp, Posted, Poster, read
from harness.redacting import keep
from harness.secrets import Secret
from harness.trust import what_to_do

HINTS: Mapping[str, str] = {
    "401": "Is {token} set and valid?",
    "403": "Is this endpoint open to the holder of {token}{team}?",
    "404": "Are the endpoint id, model and adapter right, and does the URL end in /v1?",
}
"""What to do about an endpoint that refuses, by reason."""

_JSON = {"Content-Type": "application/json", "Accept": "application/json"}
_TELLING = tuple(map(istr, TELLING))
"""Names of headers that are looked for in every reply, made so that this is cheap."""


class Attempt(NamedTuple):
    """What came of sending a request once: a reply, or else a decision."""

    seconds: float
    """From sending to the last byte."""
    reply: Reply | None = None
    decision: Decision | None = None
    detail: str = ""
    """One line of what went wrong, secrets removed."""
    status: int | None = None
    """Of a reply that is no 200."""
    limits: Limits | None = None
    """What it says of the account's limits; None where it says nothing."""

    @property
    def retry_after(self) -> float | None:
        """Seconds that the endpoint asks us to wait; None where it does not."""
        return self.decision.retry_after if self.decision is not None else None

    @property
    def retryable(self) -> bool:
        """Whether another attempt may fare better."""
        return self.decision is not None and self.decision.action == "retry"

    @property
    def reason(self) -> str:
        """Why it failed, short; empty where it did not."""
        return self.decision.reason if self.decision is not None else ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class Called(NamedTuple):
    """What came of calling a route that scores nothing."""

    status: int | None
    """None where no reply came."""
    body: bytes
    """Secrets removed."""
    detail: str = ""
    """One line of what went wrong, secrets removed; empty at a 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Where requests of one endpoint go, and how."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    secrets: Sequence[Secret]
    variables: Sequence[str] = ()
    """Where the token came from, and the team if there may be one; empty: the usual ones of the format."""
    timeout: float
    """Seconds for one attempt, until the last byte."""
    connect_timeout: float
    connections: int
    tls: ssl.SSLContext | None = None
    """Whose certificates are believed; None: those that the system knows."""


class Transport:
    """Sends to one endpoint, over connections that are kept open."""

    def __init__(self, wire: Wire, dialect: Dialect, clock: Callable[[], float]) -> None:
        """Nothing is opened before `open`."""
        self._wire = wire
        self._dialect = dialect
        self._clock = clock
        self._url = URL(wire.url)  # once, not for each request
        self._proxy = proxy_for(wire.url)
        secrets = [*wire.secrets, *_password(self._proxy)]
        self._cleaner = Cleaner(secrets)
        keep(secrets)

    async def open(self) -> None:
        """Make the session; connections follow with the first requests."""
        wire = self._wire
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=wire.connections, ssl=wire.tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_JSON,  # no credentials: a session tells its own headers to proxies too
            timeout=aiohttp.ClientTimeout(total=wire.timeout, sock_connect=wire.connect_timeout),
        )
        self._poster = Poster(self._session, self._url, {**_JSON, **wire.headers}, self._proxy)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, request: ScoreRequest, body: bytes) -> Attempt:
        """Send once; only cancellation is raised."""
        began = self._clock()
        fault: Fault
        try:
            posted = await self._poster.post(body)
            if posted.status != 200:
                return self._refused(posted, began)
            reply = self._dialect.parse(posted.content, request)
            if reply.top_logprobs or reply.token_texts:
                reply = self._cleaner.reply(reply)
            return Attempt(self._clock() - began, reply, limits=_limits(posted.headers))
        except TruncatedReply as error:
            kind = f" ({one_line(_content_type(posted.headers), 80)})" if posted.content else ""
            fault, detail = "cut body", f"{error}{kind}"
        except ReplyError as error:
            fault, detail = "protocol", str(error)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            fault, detail = translated(error, self._wire)
        decision = classify(None, {}, fault, now=time.time())
        return Attempt(self._clock() - began, None, decision, self._cleaner.line(detail))

    async def call(self, method: str, url: str) -> Called:
        """Call a route of the same host without a body, once; only cancellation is raised."""
        try:
            async with self._session.request(
                method, url, headers=self._wire.headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                status, headers = response.status, response.headers
                content = await read(response.content, LARGEST_ERROR)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            return Called(None, b"", self._cleaner.line(translated(error, self._wire)[1]))
        said = "" if status == 200 else self._said(status, headers, content[:LARGEST_ERROR])
        return Called(status, self._cleaner.text(content).encode(), said)

    def refusal(self, attempt: Attempt) -> str:
        """The line that ends an endpoint: what happened, where, and what to do."""
        said = f": {attempt.detail.rstrip('.')}" if attempt.detail else ""
        variables = self._wire.variables or self._dialect.variables
        team = f" and the team in {variables[1]}" if len(variables) > 1 else ""
        hint = HINTS.get(attempt.reason, "").format(token=variables[0], team=team)
        return f"{attempt.reason} from {self._wire.url}{said}. {hint}".rstrip()

    def _refused(self, posted: Posted, began: float) -> Attempt:
        """A reply that is no 200."""
        decision = classify(posted.status, posted.headers, now=time.time())
        detail = self._said(posted.status, posted.headers, posted.content[:LARGEST_ERROR])
        return Attempt(self._clock() - began, None, decision, detail, posted.status, _limits(posted.headers))

    def _said(self, status: int, headers: Mapping[str, str], content: bytes) -> str:
        """What an error reply says."""
        if 300 <= status < 400:
            where = self._cleaner.line(headers.get("Location", "nowhere"))
            return f"a redirect to {where}; none is followed"
        return self._cleaner.line(self._dialect.error_message(self._cleaner.text(content).encode()))


def translated(error: aiohttp.ClientError | OSError | UnicodeError, wire: Wire) -> tuple[Fault, str]:
    """Fault and words of a foreign exception.

    Its own text is not used where it may hold a URL: that of a proxy has a password in it.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=problem):
            said = str(getattr(problem, "verify_message", problem)).rstrip(".")
            return "bad certificate", f"{said}. {what_to_do(problem)}"
        case aiohttp.ClientConnectorSSLError():
            return "connection", f"no TLS connection: {_tls_words(error)}"
        case aiohttp.ConnectionTimeoutError():
            return "timeout", f"no connection within {wire.connect_timeout:g} s"
        case TimeoutError():
            return "timeout", f"no whole reply within {wire.timeout:g} s"
        case aiohttp.ClientPayloadError():
            return "cut body", "the body ended too early or could not be decompressed"
        case aiohttp.ClientConnectorDNSError(host=host):
            return "connection", f"cannot resolve host {host}"
        case aiohttp.ServerDisconnectedError():
            return "connection", "the server closed the connection"
        case NotHttp() | aiohttp.ClientResponseError():
            return "connection", "the reply is not valid HTTP"
        case UnicodeError():
            return "connection", f"no host can be called {urlsplit(wire.url).hostname}"
        case OSError(strerror=str(words)):
            return "connection", words
    return "connection", type(error).__name__


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL; none for loopback, nor where NO_PROXY says so.

    aiohttp could read the environment itself, but would read ~/.netrc with it, in a thread, each request.

    Raises:
        UsageError: it is of a kind that cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    named = getproxies().get(parts.scheme)
    if not named:
        return None
    kind, separator, _ = named.partition("://")
    if separator and kind not in ("http", "https"):
        raise UsageError(
            f"{parts.scheme.upper()}_PROXY names a {kind} proxy; only http and https ones can be used"
        )
    return named if separator else f"http://{named}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _password(proxy: str | None) -> list[Secret]:
    """The password in a proxy's URL, as written and as meant."""
    password = urlsplit(proxy).password if proxy else None
    return [Secret(password), Secret(unquote(password))] if password else []


def _content_type(headers: Mapping[str, str]) -> str:
    """What a body is said to be, without parameters."""
    return headers.get("Content-Type", "of no type").partition(";")[0].strip().lower()


def _tls_words(error: OSError) -> str:
    """What OpenSSL says in brackets and capitals, without them."""
    reason = str(getattr(error.__cause__, "reason", "") or "").replace("_", " ").lower()
    return {"wrong version number": "the server does not speak TLS there; is it http?"}.get(
        reason, reason or "it broke off"
    )


def _limits(headers: Mapping[str, str]) -> Limits | None:
    """What a reply says of limits; most say nothing."""
    for name in _TELLING:
        if name in headers:
            return limits_of(headers, now=time.time())
    return None
