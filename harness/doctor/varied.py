"""A wire format whose bodies may say more, or other things, than a run would ever send; pure.

For probes alone: whether sampling fields matter, whether a text is read as its ids. What a reply was refused
for is kept by request, so that a probe can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from harness.dialects import Dialect
from harness.errors import ReplyError
from harness.exchange import Reply, ScoreRequest


class Varied:
    """Another format's bodies, changed for some requests.

    Attributes:
        fields: what to put into the body of a request, by its key; None takes a field out.
        problems: why the last reply to a request was not believed, likewise.
    """

    def __init__(self, inner: Dialect) -> None:
        """Take the format itself."""
        self.fields: dict[bytes, Mapping[str, Any]] = {}
        self.problems: dict[bytes, ReplyError] = {}
        self._inner = inner
        self.name = inner.name
        self.variables = inner.variables
        self.path = inner.path
        self.wants_text = inner.wants_text
        self.names_tokens = inner.names_tokens
        self.tokenize_route = inner.tokenize_route

    def build(self, request: ScoreRequest, model: str | None) -> bytes:
        """The body as the format has it, with the request's own changes."""
        body = self._inner.build(request, model)
        changes = self.fields.get(request.key)
        return with_fields(body, changes) if changes else body

    def parse(self, body: bytes, request: ScoreRequest) -> Reply:
        """The checked reply; raises as the format does, and keeps what it raised."""
        try:
            return self._inner.parse(body, request)
        except ReplyError as error:
            self.problems[request.key] = error
            raise

    def error_message(self, body: bytes) -> str:
        """What an error body says."""
        return self._inner.error_message(body)


def with_fields(body: bytes, changes: Mapping[str, Any]) -> bytes:
    """A JSON object with fields changed, added, or (None) taken out."""
    fields = {**msgspec.json.decode(body, type=dict[str, Any]), **changes}
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
