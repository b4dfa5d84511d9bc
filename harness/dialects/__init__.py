"""Wire formats: one file each, pure, found here by name.

A dialect turns a request into the bytes of a body and the bytes of a reply back into checked values. It
does not know about HTTP, time or retries. A new file with a `DIALECT` in it is all that a new format needs;
its name is that of the file, with - for _.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol

from harness.errors import UsageError, did_you_mean
from harness.exchange import Reply, ScoreRequest


class Dialect(Protocol):
    """One wire format."""

    name: str
    """As endpoint identities and SPECs call it."""
    variables: tuple[str, ...]
    """Environment variables: of the token, and where there is one of the team."""
    path: str
    """Below the base URL, which ends in /v1."""
    wants_text: bool
    """Context and continuation are sent as text: requests must bring `ScoreRequest.text`."""
    names_tokens: bool
    """Replies call the forced token and its alternatives by text, as many as `ScoreRequest.top` asks for, and
    at little cost: then other single tokens can be read off them."""
    tokenize_route: Dialect | None
    """How the endpoint is asked to turn text into ids, where it can be: a format of its own, whose requests
    bring nothing but `text`, and whose replies hold nothing but `token_ids`, special tokens included."""

    def build(self, request: ScoreRequest, model: str | None) -> bytes:
        """The body that asks for a score; no model where it is None or empty."""

    def parse(self, body: bytes, request: ScoreRequest) -> Reply:
        """The checked reply of a 200.

        Raises:
            TruncatedReply: the body is cut or no JSON.
            ReplyError: the body is whole, but must not be believed.
        """

    def error_message(self, body: bytes) -> str:
        """What the body of any other status says: one short, inert line, or the empty string."""


def dialect(name: str) -> Dialect:
    """The wire format of that name.

    Raises:
        UsageError: there is none.
    """
    files = [each.name for each in iter_modules(__path__) if not each.name.startswith("_")]
    known = {file.replace("_", "-"): file for file in sorted(files)}
    if name not in known:
        raise UsageError(f"wire format {name!r} is unknown. {did_you_mean(name, list(known))}")
    found: Dialect = import_module(f"{__name__}.{known[name]}").DIALECT
    return found
