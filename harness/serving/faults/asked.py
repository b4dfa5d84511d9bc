"""What is asked, and what a fault makes of it before the endpoint reads it. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, Literal

from harness.serving.faults.draws import Draw

Route = Literal["completions", "tokenize", "detokenize"]
ROUTES: dict[str, Route] = {
    "completions": "completions",
    "tokenize": "tokenize",
    "detokenize": "detokenize",
}
"""By the last part of the path."""

Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]
"""Texts to ids, each with the leading special tokens."""

_BYTES_A_TOKEN = 4
"""Roughly, of a text: what it costs before it is tokenized."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has come."""

    route: Route
    path: str
    draw: Draw
    fields: dict[str, Any] | None
    """None where the body is no JSON object: the endpoint says so."""

    @property
    def streams(self) -> bool:
        """Whether the reply is to be a stream."""
        return self.route == "completions" and self.fields is not None and self.fields.get("stream") is True

    @property
    def tokens(self) -> int:
        """What a completion may cost: its ids, or a quarter of its bytes, and the most it may put out."""
        if self.route != "completions" or self.fields is None:
            return 0
        asked = self.fields
        forced = asked.get("forced_output_tokens")
        most = asked.get("max_tokens")
        output = most if isinstance(most, int) else len(forced) if isinstance(forced, list) else 0
        return max(_length(asked.get("tokens")) + _length(asked.get("prompt")) + max(output, 0), 1)


def parsed(body: bytes) -> dict[str, Any] | None:
    """The fields of a body, None where it is no JSON object."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def written(value: object) -> bytes:
    """JSON, which may hold NaN."""
    return json.dumps(value, separators=(",", ":")).encode()


class Vocabulary:
    """Another vocabulary of the same size: each id stands where another one should."""

    def __init__(self, size: int, seed: int) -> None:
        """Take the number of ids; `seed` chooses among the orders there are."""
        self._size = size
        draw = Draw(seed, b"vocabulary", 0)
        self._factor = 1 + draw.pick("factor", size)
        while gcd(self._factor, size) != 1:
            self._factor += 1
        self._offset = 1 + draw.pick("offset", max(size - 1, 1))
        self._back = pow(self._factor, -1, size) if size > 1 else 0

    def there(self, ids: Sequence[int]) -> list[int]:
        """The ids of the other vocabulary; those outside stay."""
        return [
            (each * self._factor + self._offset) % self._size if self._has(each) else each for each in ids
        ]

    def back(self, ids: Sequence[int]) -> list[int]:
        """What `there` was given."""
        return [(each - self._offset) * self._back % self._size if self._has(each) else each for each in ids]

    def _has(self, token_id: int) -> bool:
        return 0 <= token_id < self._size


def without_adapter(asked: Asked, routes: frozenset[str]) -> dict[str, Any] | None:
    """The fields without the adapter's route; None where they name none."""
    model = None if asked.fields is None else asked.fields.get("model")
    if asked.fields is None or not isinstance(model, str):
        return None
    endpoint, colon, _ = model.partition(":")
    if colon and endpoint:
        return {**asked.fields, "model": endpoint}
    if asked.path.startswith("/v1/") and model in routes:
        return {name: value for name, value in asked.fields.items() if name != "model"}
    return None


def with_id_in_front(asked: Asked, token_id: int) -> dict[str, Any] | None:
    """The fields with an id in front of each sequence of ids; None where a completion has none."""
    if asked.route != "completions" or asked.fields is None:
        return None
    changed = dict(asked.fields)
    for name in ("tokens", "prompt"):
        given = _some(changed.get(name))
        if _all(given, int):
            changed[name] = [token_id, *given]
        elif name == "prompt" and _all(given, list):
            changed[name] = [[token_id, *each] for each in given]
    return None if changed == asked.fields else changed


def shortened(asked: Asked, most: int) -> dict[str, Any] | None:
    """The fields with the last `most` ids of a completion's `tokens`; None where there are no more."""
    given = _some((asked.fields or {}).get("tokens")) if asked.route == "completions" else []
    return {**(asked.fields or {}), "tokens": given[-most:]} if len(given) > most else None


def texts_of(asked: Asked) -> list[str]:
    """The texts of a completion's `prompt`, of which there are none where it is ids."""
    prompt = None if asked.fields is None or asked.route != "completions" else asked.fields.get("prompt")
    texts = [prompt] if isinstance(prompt, str) else _some(prompt)
    return texts if _all(texts, str) and all(map(_is_text, texts)) else []


def with_ids(asked: Asked, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The fields with ids in place of `texts_of`."""
    fields = asked.fields or {}
    return {**fields, "prompt": list(ids[0]) if isinstance(fields["prompt"], str) else [*map(list, ids)]}


def with_other_tokens(asked: Asked, vocabulary: Vocabulary) -> dict[str, Any] | None:
    """The fields of a detokenization as the other vocabulary reads them; None where there are no ids."""
    if asked.route != "detokenize" or asked.fields is None:
        return None
    tokens = _some(asked.fields.get("tokens"))
    return {**asked.fields, "tokens": vocabulary.back(tokens)} if _all(tokens, int) else None


def in_other_tokens(reply: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """A tokenization's reply in the ids of the other vocabulary."""
    return {**reply, "tokens": vocabulary.there(_some(reply.get("tokens")))}


def _some(given: object) -> list[Any]:
    """The list that was given, else none."""
    return given if isinstance(given, list) else []


def _all(given: list[Any], kind: type) -> bool:
    """Whether it holds these, and at least one."""
    return bool(given) and all(type(each) is kind for each in given)


def _is_text(text: str) -> bool:
    """Whether it is one: half a surrogate pair, which JSON can escape, is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _length(given: object) -> int:
    """Tokens of a text, of ids, or of a list of such; what is neither costs one."""
    if isinstance(given, str):
        return -(-len(given.encode("utf-8", "surrogatepass")) // _BYTES_A_TOKEN)
    return sum(
        _length(each) if isinstance(each, str) else len(each) if isinstance(each, list) else 1
        for each in _some(given)
    )
