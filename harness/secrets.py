"""Secrets, and how they are kept out of every text.

Whatever a server says may repeat what we sent it, as it was or encoded; `redact` is applied to all of it
before it is kept, shown or cut.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from functools import lru_cache

MASK = "***"
"""Stands for a secret. Bearer tokens hold no asterisk (RFC 6750): it neither holds one nor completes one."""

_FRIENDLI = re.compile(r"flp(?:_|%5f|\\u005f)[\w%\\-]+", re.IGNORECASE)
"""What a Friendli token looks like, whoever's it is."""


class Secret:
    """A text that is shown only by `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself: for a header, and nothing else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def redact(text: str, secrets: Iterable[Secret] = ()) -> str:
    """The text with every secret replaced, and everything that looks like a Friendli token.

    Found as written, in any case, percent-encoded, escaped as in JSON or HTML (also in part), and inside
    base64. Redact before cutting: of a secret cut in half the first half would stay.
    """
    for value in sorted({secret.reveal() for secret in secrets}, key=len, reverse=True):
        if value:
            for pattern in _patterns(value):
                text = pattern.sub(MASK, text)
    return _FRIENDLI.sub(MASK, text)


@lru_cache(maxsize=64)
def _patterns(value: str) -> tuple[re.Pattern[str], ...]:
    """Patterns of a secret: as a text, character by character, and as the inside of a longer base64."""
    patterns = [re.compile("".join(map(_forms, value)), re.IGNORECASE)]
    cores = [core for shift in range(3) if len(core := _base64_core(value, shift)) >= 8]
    if cores:
        either = "|".join(map(re.escape, cores)).replace(r"\+", "[-+]").replace("/", "[/_]")
        patterns.append(re.compile(either))
    return tuple(patterns)


def _forms(character: str) -> str:
    """A pattern of one character in every form a server may write it."""
    code = ord(character)
    percent = "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogatepass"))
    plain = (r"\\?" if character in '"\\/' else "") + re.escape(character)
    return rf"(?:{plain}|{percent}|\\u{code:04x}|&\#(?:x0*{code:x}|0*{code});)"


def _base64_core(value: str, shift: int) -> str:
    """The characters of a base64 text that this secret alone decides, `shift` bytes into a group of three."""
    encoded = base64.b64encode(b"\0" * shift + value.encode(errors="surrogatepass")).decode()
    first = -(-8 * shift // 6)
    last = 8 * (shift + len(value.encode(errors="surrogatepass"))) // 6
    return encoded[first:last]
