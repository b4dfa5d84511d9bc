"""Endpoint SPECs: what people type, what it means, and which secrets it may be sent.

| SPEC | meaning |
| --- | --- |
| `dedicated:ENDPOINT_ID[:ADAPTER]` | Friendli dedicated |
| `serverless:MODEL` | Friendli serverless |
| `http(s)://HOST/PREFIX/v1#MODEL[:ADAPTER]` | Friendli's completions elsewhere: container, gateway, `serve` |
| `openai+http(s)://HOST/PREFIX/v1#MODEL` | OpenAI-style completions with `echo`: vLLM and kin |
| `openai-text+http(s)://HOST/PREFIX/v1#MODEL` | the same, of servers that take prompts as text only |
| `embedded[:ADAPTER]` | the reference model, served on loopback for the run |

Each may be given a label: `NAME=SPEC`. Pure: the environment is an argument, nothing is contacted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from harness.dialects import dialect
from harness.errors import UsageError, did_you_mean
from harness.plan import EndpointIdentity
from harness.secrets import Secret

VENDOR = "https://api.friendli.ai"
EMBEDDED = "embedded"
FORMS = (
    "dedicated:ENDPOINT_ID[:ADAPTER]",
    "serverless:MODEL",
    "http(s)://HOST/PREFIX/v1#MODEL[:ADAPTER]",
    "openai+http(s)://HOST/PREFIX/v1#MODEL",
    "openai-text+http(s)://HOST/PREFIX/v1#MODEL",
    "embedded[:ADAPTER]",
)
OPENAI = ("openai", "openai-text")
"""Wire formats of OpenAI-style endpoints: their SPECs are one of these, a plus sign, and the URL."""
_URL_KINDS = {
    f"{prefix}{scheme}": name
    for prefix, name in (("", "friendli"), *((f"{name}+", name) for name in OPENAI))
    for scheme in ("http", "https")
}
"""The wire format by what stands before a SPEC's first colon, where it is an address."""
_LABELLED = re.compile(r"(?P<label>[\w.@+#-]+)=(?P<spec>.+)", re.DOTALL)
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint, or one adapter of it, as a run addresses it."""

    label: str
    """Its name in tables."""
    dialect: str
    base_url: str
    """Ends in /v1, unless the endpoint is embedded."""
    model: str
    """Endpoint id or model; empty: left out of the body."""
    adapter: str = ""
    replicate: int = 0
    """Counts endpoints of equal identity in one run: each is asked anew."""
    vendor: bool = False
    embedded: bool = False
    """Served by this program; the base URL then says which weights, and the address is known in the run."""

    @property
    def wire_model(self) -> str | None:
        """The `model` field of the body."""
        return (f"{self.model}:{self.adapter}" if self.adapter else self.model) or None

    @property
    def identity(self) -> EndpointIdentity:
        """What keys are made of; the label is no part of it."""
        return EndpointIdentity(
            dialect=self.dialect,
            base_url=self.base_url,
            model=self.model,
            adapter=self.adapter,
            replicate=self.replicate,
        )

    @property
    def account(self) -> tuple[str, str]:
        """Endpoints of one account share `--rpm` and `--tpm`: same server, same base model."""
        return self.base_url, self.model


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets an endpoint may be sent; from the environment only."""

    token: Secret | None = None
    team: str = ""

    def headers(self) -> dict[str, str]:
        """Request headers; a team only where there is one, as an empty header is not the same as none."""
        headers = {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.reveal()}"
        if self.team:
            headers["X-Friendli-Team"] = self.team
        return headers


def parse_endpoints(specs: Sequence[str]) -> tuple[Endpoint, ...]:
    """The endpoints of a command, labels made unique, replicates numbered.

    Raises:
        UsageError: a SPEC is malformed, or a label is given twice.
    """
    if not specs:
        raise UsageError(f"--endpoint: none given. Forms: {', '.join(FORMS)}")
    parsed = [_parse(spec) for spec in specs]
    given = Counter(label for label, _ in parsed if label)
    twice = [label for label, count in given.items() if count > 1]
    if twice:
        raise UsageError(f"--endpoint: the label {twice[0]!r} is given twice")
    endpoints: list[Endpoint] = []
    for label, endpoint in parsed:
        equal = sum(replace(each, label="", replicate=0) == endpoint for each in endpoints)
        taken = {*given, *(each.label for each in endpoints)} - {label}
        endpoints.append(replace(endpoint, label=label or _free_label(endpoint, taken), replicate=equal))
    return tuple(endpoints)


def credentials(endpoint: Endpoint, environ: Mapping[str, str]) -> Credentials:
    """The secrets for an endpoint.

    `FRIENDLI_TOKEN` goes to the vendor's host, to loopback, and to https; never in clear text elsewhere, not
    to an embedded endpoint, which asks for none, and not to an OpenAI-style one, which has `OPENAI_API_KEY`.

    Raises:
        UsageError: a vendor endpoint without a token, or a token that would cross a network in the clear.
    """
    if endpoint.embedded:
        return Credentials()
    variables = dialect(endpoint.dialect).variables
    found = {name: environ.get(name, "").strip() for name in variables}
    variable, token = variables[0], found[variables[0]]
    if endpoint.vendor and not token:
        raise UsageError(f"--endpoint {endpoint.label}: set {variable} in the environment; it is not set")
    url = urlsplit(endpoint.base_url)
    if token and url.scheme == "http" and not _LOOPBACK.fullmatch(url.hostname or ""):
        raise UsageError(
            f"--endpoint {endpoint.label}: {endpoint.base_url} is not encrypted, and {variable} is set;"
            f" use https, or unset {variable} if this endpoint needs none"
        )
    for name, value in found.items():
        if not value.isascii() or not value.isprintable():
            raise UsageError(f"{name} holds characters that no header can carry")
    return Credentials(Secret(token) if token else None, found.get("FRIENDLI_TEAM", ""))


def _parse(text: str) -> tuple[str, Endpoint]:
    """Label (or empty) and endpoint of one SPEC."""
    labelled = _LABELLED.fullmatch(text)
    label, spec = (labelled["label"], labelled["spec"]) if labelled else ("", text)
    kind, colon, rest = spec.partition(":")
    if kind in _URL_KINDS:
        name = _URL_KINDS[kind]
        return label, _from_url(spec, spec.removeprefix(f"{name}+"), name)
    if kind == EMBEDDED:
        if colon and not rest:
            raise UsageError(f"--endpoint {text}: no adapter after embedded:. Forms: {', '.join(FORMS)}")
        _, adapter = _model_and_adapter(text, spec)
        return label, Endpoint(
            label="", dialect="friendli", base_url=EMBEDDED, model=EMBEDDED, adapter=adapter, embedded=True
        )
    if kind in ("dedicated", "serverless") and colon:
        model, adapter = _model_and_adapter(spec, rest) if kind == "dedicated" else (rest, "")
        if not model.strip():
            raise UsageError(f"--endpoint {text}: no name after {kind}:. Forms: {', '.join(FORMS)}")
        return label, Endpoint(
            label="",
            dialect="friendli",
            base_url=f"{VENDOR}/{kind}/v1",
            model=model,
            adapter=adapter,
            vendor=True,
        )
    hint = did_you_mean(kind.lower(), ("dedicated", "serverless", *_URL_KINDS, EMBEDDED))
    near = f"{hint} " if hint.startswith("Did") else ""
    raise UsageError(f"--endpoint {text}: not a SPEC. {near}Forms: {', '.join(FORMS)}")


def _from_url(spec: str, address: str, name: str) -> Endpoint:
    """The endpoint at an address; `spec` is what was typed."""
    url = urlsplit(address)
    try:
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise UsageError(f"--endpoint {spec}: {error}") from error
    if not host:
        raise UsageError(f"--endpoint {spec}: no host in this URL")
    if url.username or url.password:
        raise UsageError(f"--endpoint {host}: no user or password in a URL; set a token in the environment")
    path = url.path.rstrip("/")
    if not path.endswith("/v1") or url.query:
        raise UsageError(
            f"--endpoint {spec}: the URL must end in /v1, then #MODEL; requests go to /v1/completions"
        )
    # OpenAI-style servers serve an adapter under a name of its own, and names may hold colons.
    model, adapter = (url.fragment, "") if name in OPENAI else _model_and_adapter(spec, url.fragment)
    base_url = f"{url.scheme}://{url.netloc.lower()}{path}"
    return Endpoint(label="", dialect=name, base_url=base_url, model=model, adapter=adapter)


def _model_and_adapter(spec: str, text: str) -> tuple[str, str]:
    model, colon, adapter = text.partition(":")
    if colon and not (model and adapter):
        raise UsageError(f"--endpoint {spec}: an adapter is written MODEL:ADAPTER, both parts there")
    return model, adapter


def _free_label(endpoint: Endpoint, taken: set[str]) -> str:
    name = endpoint.wire_model or urlsplit(endpoint.base_url).netloc
    numbered = [name, *(f"{name}#{n}" for n in range(2, len(taken) + 3))]
    return next(each for each in numbered if each not in taken)
