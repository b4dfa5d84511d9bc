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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from harness.dialects import dialect
from harness.endpoint_settings import WRITTEN, EndpointSettings, plain_address, public
from harness.errors import UsageError, did_you_mean
from harness.plan import EndpointIdentity
from harness.secrets import SHORTEST, Secret, like_a_secret, redact

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


Account = tuple[str, str, str]
"""Base URL, base model, and the variable of the token where one is named."""


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
    own: EndpointSettings = field(default_factory=lambda: EndpointSettings(spec=""))
    """What was said of it, and of its adapters, alone."""

    @property
    def wire_model(self) -> str | None:
        """The `model` field of the body."""
        return (f"{self.model}:{self.adapter}" if self.adapter else self.model) or None

    @property
    def identity(self) -> EndpointIdentity:
        """What keys are made of; the label is no part of it."""
        return EndpointIdentity(
            dialect=self.dialect,
            base_url=plain_address(self.own.identity) or self.base_url,
            model=self.model,
            adapter=self.adapter,
            replicate=self.replicate,
        )

    @property
    def account(self) -> Account:
        """Endpoints of one account share what it allows: same server, same base model, same token."""
        return self.base_url, self.model, self.own.token_env


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets an endpoint may be sent; from the environment only."""

    token: Secret | None = None
    team: Secret | None = None
    variables: tuple[str, ...] = ()
    """Where the token is looked for, and the team if the endpoint may have one."""

    def headers(self) -> dict[str, str]:
        """Request headers; a team only where there is one, as an empty header is not the same as none."""
        headers = {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.reveal()}"
        if self.team is not None:
            headers["X-Friendli-Team"] = self.team.reveal()
        return headers

    @property
    def secrets(self) -> list[Secret]:
        """What must not come back in what the endpoint says."""
        return [each for each in (self.token, self.team) if each is not None]


def parse_endpoints(given: Sequence[str | EndpointSettings]) -> tuple[Endpoint, ...]:
    """The endpoints of a command or suite file, labels made unique, replicates numbered.

    Raises:
        UsageError: a SPEC is malformed, or a label is given twice.
    """
    if not given:
        raise UsageError(f"--endpoint: none given. Forms: {', '.join(FORMS)}")
    tables = [EndpointSettings(spec=each) if isinstance(each, str) else each for each in given]
    parsed = [each for table in tables for each in _with_adapters(table)]
    labels = Counter(label for label, _ in parsed if label)
    twice = [label for label, count in labels.items() if count > 1]
    if twice:
        raise UsageError(f"--endpoint: the label {twice[0]!r} is given twice")
    endpoints: list[Endpoint] = []
    for label, endpoint in parsed:
        equal = sum(replace(each.identity, replicate=0) == endpoint.identity for each in endpoints)
        taken = {*labels, *(each.label for each in endpoints)} - {label}
        endpoints.append(replace(endpoint, label=label or _free_label(endpoint, taken), replicate=equal))
    return tuple(endpoints)


def credentials(endpoint: Endpoint, environ: Mapping[str, str]) -> Credentials:
    """The secrets for an endpoint, out of its usual variables or those that a suite file names for it.

    `FRIENDLI_TOKEN` goes to the vendor's host, to loopback, and to https; never in clear text elsewhere, not
    to an embedded endpoint, which asks for none, and not to an OpenAI-style one, which has `OPENAI_API_KEY`.
    Where a variable is named for the token the usual team, which is another token's, is left out.

    Raises:
        UsageError: a vendor endpoint without a token, a named variable that is not set, or a token that would
            cross a network in the clear.
    """
    if endpoint.embedded:
        return Credentials()
    own, (variable, *of_team) = endpoint.own, dialect(endpoint.dialect).variables
    if own.team_env and not of_team:
        raise own.error("team_env", f"{endpoint.dialect} endpoints have no team")
    variable, of_team = own.token_env or variable, [own.team_env] if own.team_env else of_team
    if own.token_env and not own.team_env:
        of_team = []
    found = {name: environ.get(name, "").strip() for name in (variable, *of_team)}
    for key, name in (("token_env", own.token_env), ("team_env", own.team_env)):
        if name and not found[name]:
            raise own.error(key, f"set {name} in the environment; it is not set")
    token = found[variable]
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
    team = "".join(found[name] for name in of_team)
    return Credentials(Secret(token) if token else None, Secret(team) if team else None, (variable, *of_team))


def refuse_secrets(endpoints: Sequence[Endpoint], found: Iterable[Credentials]) -> None:
    """Refuse endpoints that have a secret in what a run writes down of them: a name, an identity, a route.

    Args:
        endpoints: of the run.
        found: what the endpoints of the run are sent; a token of a few characters is no such secret, as it
            turns up in names by accident.

    Raises:
        UsageError: one has; the text says where, and repeats nothing of it.
    """
    tokens = {each.token for each in found if each.token is not None}
    secrets = [each for each in tokens if len(each.reveal()) >= SHORTEST]
    for number, each in enumerate(endpoints, 1):
        parts = {
            "the name": each.label,
            "the identity": each.own.identity,
            "the address": each.base_url,
            "the endpoint id or model": each.model,
            "the adapter": each.adapter,
        }
        for part, text in parts.items():
            if redact(text, secrets) != text:
                raise UsageError(
                    f"--endpoint: {part} of endpoint {number} holds a token, which the run's files would"
                    " have; take another, and leave the token to the environment"
                )


def _with_adapters(table: EndpointSettings) -> Iterator[tuple[str, Endpoint]]:
    """Label (or empty) and endpoint of a base model and of each of its adapters."""
    label, endpoint = _parse(table.spec)
    if label and like_a_secret(label):
        raise UsageError(f"--endpoint: the name before = {WRITTEN}")
    if label and table.name:
        raise table.error("name", f"the SPEC has the label {label!r} already; choose one")
    label, endpoint = table.name or label, replace(endpoint, own=table)
    if endpoint.embedded and (table.identity or table.token_env or table.team_env):
        raise table.error("spec", "embedded is known by its weights and asks for no secret; leave those out")
    if table.adapters and endpoint.adapter:
        raise table.error("adapters", "the SPEC names an adapter already; choose one place for all of them")
    if table.adapters and (endpoint.dialect in OPENAI or not endpoint.model or _is_serverless(endpoint)):
        raise table.error(
            "adapters", "only endpoints that are asked for MODEL:ADAPTER have such; give a table to each"
        )
    if table.base:
        yield label, endpoint
    for adapter in table.adapters:
        yield f"{label}:{adapter}" if label else "", replace(endpoint, adapter=adapter)


def _is_serverless(endpoint: Endpoint) -> bool:
    return endpoint.vendor and endpoint.base_url == f"{VENDOR}/serverless/v1"


def _parse(text: str) -> tuple[str, Endpoint]:
    """Label (or empty) and endpoint of one SPEC."""
    said = public(text)
    if not text.isprintable():
        raise UsageError(f"--endpoint {said}: holds characters that cannot be shown; a SPEC has none")
    labelled = _LABELLED.fullmatch(text)
    label, spec = (labelled["label"], labelled["spec"]) if labelled else ("", text)
    kind, colon, rest = spec.partition(":")
    if kind in _URL_KINDS:
        name = _URL_KINDS[kind]
        return label, _from_url(spec, spec.removeprefix(f"{name}+"), name)
    if kind == EMBEDDED:
        if colon and not rest:
            raise UsageError(f"--endpoint {said}: no adapter after embedded:. Forms: {', '.join(FORMS)}")
        _, adapter = _model_and_adapter(text, spec)
        return label, Endpoint(
            label="", dialect="friendli", base_url=EMBEDDED, model=EMBEDDED, adapter=adapter, embedded=True
        )
    if kind in ("dedicated", "serverless") and colon:
        model, adapter = _model_and_adapter(spec, rest) if kind == "dedicated" else (rest, "")
        if not model.strip():
            raise UsageError(f"--endpoint {said}: no name after {kind}:. Forms: {', '.join(FORMS)}")
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
    raise UsageError(f"--endpoint {said}: not a SPEC. {near}Forms: {', '.join(FORMS)}")


def _from_url(spec: str, address: str, name: str) -> Endpoint:
    """The endpoint at an address; `spec` is what was typed."""
    url = urlsplit(address)
    try:
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise UsageError(f"--endpoint {public(spec)}: host or port of this URL is none") from error
    if not host:
        raise UsageError(f"--endpoint {public(spec)}: no host in this URL")
    if url.username or url.password:
        raise UsageError(f"--endpoint {host}: no user or password in a URL; set a token in the environment")
    path = url.path.rstrip("/")
    if not path.endswith("/v1") or url.query:
        raise UsageError(
            f"--endpoint {public(spec)}: the URL must end in /v1, then #MODEL; requests go to /v1/completions"
        )
    # OpenAI-style servers serve an adapter under a name of its own, and names may hold colons.
    model, adapter = (url.fragment, "") if name in OPENAI else _model_and_adapter(spec, url.fragment)
    base_url = f"{url.scheme}://{url.netloc.lower()}{path}"
    return Endpoint(label="", dialect=name, base_url=base_url, model=model, adapter=adapter)


def _model_and_adapter(spec: str, text: str) -> tuple[str, str]:
    model, colon, adapter = text.partition(":")
    if colon and not (model and adapter):
        raise UsageError(f"--endpoint {public(spec)}: an adapter is written MODEL:ADAPTER, both parts there")
    return model, adapter


def _free_label(endpoint: Endpoint, taken: set[str]) -> str:
    name = endpoint.wire_model or urlsplit(endpoint.base_url).netloc
    numbered = [name, *(f"{name}#{n}" for n in range(2, len(taken) + 3))]
    return next(each for each in numbered if each not in taken)
