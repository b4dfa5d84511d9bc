"""What a person can say of one endpoint alone: an `[[endpoints]]` table of a suite file, checked.

Its names of variables are only names: the secrets themselves come from the environment, and stand in no file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.secrets import LONGEST_WITH_DIGITS, LONGEST_WORD, like_a_secret, redact

Concurrency = int | Literal["auto"]
"""Requests in flight at once; auto: as many as an endpoint turns out to take."""

_LABEL = re.compile(r"[\w.@+#-]+")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
WRITTEN = (
    "looks like a secret, and the run's files would have it; take one with shorter words (with digits in them"
    f" at most {LONGEST_WITH_DIGITS} characters, else {LONGEST_WORD}), and leave secrets to the environment"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """One endpoint with its adapters, and what holds for them only.

    Raises:
        UsageError: a value that cannot be meant; the text names the key and never repeats what may be secret.
    """

    spec: str
    """As `--endpoint` takes it."""
    name: str = ""
    """Its label in tables; its adapters are called NAME:ADAPTER."""
    base: bool = True
    """Whether the base model is asked too; false: its adapters alone."""
    adapters: tuple[str, ...] = ()
    """Routes of adapters: each is an endpoint more."""
    tokenizer: str = ""
    """As `--tokenizer` takes it."""
    ca_file: str = ""
    """As `--ca-file` takes it."""
    identity: str = ""
    """Stands for the URL in what identifies the endpoint: its replies are found again at another address."""
    token_env: str = ""
    """The variable that holds the token, instead of the usual one."""
    team_env: str = ""
    """The variable that holds the team, instead of the usual one."""
    rpm: float | None = None
    """Requests a minute that the account allows."""
    tpm: float | None = None
    """Tokens a minute that the account allows."""
    concurrency: Concurrency | None = None
    """Requests in flight at once, for each of these endpoints; auto: found out, for all of them together."""
    price_in: float | None = None
    """Price of a million prompt tokens, in any currency."""
    price_out: float | None = None
    """Price of a million tokens that are forced."""
    price_hour: float | None = None
    """Instead of these: price of an hour of the endpoint; base and adapters share it."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        self._check_names()
        self._check_variables()
        for key, amount in (("rpm", self.rpm), ("tpm", self.tpm)):
            if amount is not None and not 0 < amount < float("inf"):
                raise self.error(key, f"{amount:g}: must be a number above 0")
        if self.concurrency is not None and self.concurrency != "auto" and self.concurrency < 1:
            raise self.error("concurrency", f"{self.concurrency}: must be auto, or at least 1")
        self._check_prices()

    def error(self, key: str, problem: str) -> UsageError:
        """An error of one key, which says of which endpoint."""
        return UsageError(f"[[endpoints]] {self.name or public(self.spec)}, {key}: {problem}")

    def _check_names(self) -> None:
        if self.name and (redact(self.name) != self.name or not _LABEL.fullmatch(self.name)):
            place = f"[[endpoints]] {public(self.spec)}, name"
            raise UsageError(f"{place}: must be made of letters, digits and any of . _ @ + # -")
        if like_a_secret(self.name):
            raise UsageError(f"[[endpoints]] {public(self.spec)}, name: {WRITTEN}")
        for at, adapter in enumerate(self.adapters, 1):
            if not adapter.strip() or ":" in adapter or not adapter.isprintable():
                raise self.error(f"adapters {at}", "must be one route, in one line and without a colon")
        if len({*self.adapters}) < len(self.adapters):
            raise self.error("adapters", "one is given twice; to ask it twice, give it in a table of its own")
        if not self.base and not self.adapters:
            raise self.error("base", "false leaves nothing to ask, as there are no adapters")
        if self.identity and not _can_be_written_down(self.identity):
            raise self.error("identity", "must be one line, and as a URL be without user, query and #")
        if like_a_secret(self.identity):
            raise self.error("identity", WRITTEN)

    def _check_prices(self) -> None:
        of_tokens = (("price_in", self.price_in), ("price_out", self.price_out))
        for key, price in (*of_tokens, ("price_hour", self.price_hour)):
            if price is not None and not 0 <= price < float("inf"):
                raise self.error(key, f"{price:g}: must be 0 or more")
        given = next((key for key, price in of_tokens if price is not None), None)
        if given and self.price_hour is not None:
            raise self.error("price_hour", f"it and {given} exclude each other; choose one")

    def _check_variables(self) -> None:
        """A secret in the place of a variable's name would be written into run.json, and shown."""
        for key, name in (("token_env", self.token_env), ("team_env", self.team_env)):
            if name and not is_variable(name):
                raise self.error(
                    key,
                    "must be the name of an environment variable, such as MY_TOKEN (capitals, digits and _);"
                    " what stands there looks like the secret itself",
                )


def is_variable(name: str) -> bool:
    """Whether this can be the name of an environment variable; what looks like a token cannot."""
    return _VARIABLE.fullmatch(name) is not None and not like_a_secret(name)


def public(spec: str) -> str:
    """A SPEC or URL as messages may repeat it: without user, password and query."""
    return redact(re.sub(r"\?[^#]*", "?***", re.sub(r"//.*@", "//***@", spec)))


def plain_address(address: str) -> str:
    """A URL as endpoints write theirs: host in lower case, no slash at the end; any other text as it is."""
    if "://" not in address:
        return address
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/')}"


def _can_be_written_down(address: str) -> bool:
    """Whether this holds no secret and no line break; files will have it."""
    try:
        plain_address(address)
    except ValueError:
        return False
    return address.isprintable() and public(address) == address and not ("://" in address and "#" in address)
