"""Secrets, and how they are kept out of every text.

Whatever a server says may repeat what we sent it, as it was or encoded; `redact` is applied to all of it
before it is kept, shown or cut.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

MASK = "***"
"""Stands for a secret. Bearer tokens hold no asterisk (RFC 6750): it neither holds one nor completes one."""

SHORTEST = 8
"""Characters of a secret that is looked for in what people type: shorter ones turn up there by accident."""
LONGEST_WORD, LONGEST_WITH_DIGITS = 24, 12
"""Characters between the signs of a name: tokens are longer, and full of digits."""
_USUAL = re.compile(r".*_(TOKEN|KEY|SECRET|PASSWORD)")
"""What variables that hold a secret are usually called."""
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


def secrets_of(environ: Mapping[str, str], variables: Iterable[str] = ()) -> list[Secret]:
    """What must not stand in a name or a file: the values of variables that are called like secrets.

    Args:
        environ: the environment.
        variables: others that hold a secret, whatever they are called.
    """
    names = {*filter(_USUAL.fullmatch, environ), *variables}
    values = {environ.get(name, "").strip() for name in names}
    return [Secret(value) for value in sorted(values) if len(value) >= SHORTEST]


def like_a_secret(text: str) -> bool:
    """Whether a name looks like a token: as Friendli's do, or with a part that is no word of people's."""
    return redact(text) != text or any(map(_no_word, re.split(r"[\W_]+", text)))


def _no_word(part: str) -> bool:
    """Whether a part is too long, or too full of digits, for what people write (as in qwen25instruct7b)."""
    digits = sum(map(str.isdigit, part))
    plain = not digits or (part.islower() and 4 * digits < len(part))
    return len(part) > (LONGEST_WORD if plain else LONGEST_WITH_DIGITS)


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
