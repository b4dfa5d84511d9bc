"""Secrets, and how they are kept out of every text.

Whatever a server says may repeat what we sent it, as it was or encoded; `redact` is applied to all of it
before it is kept, shown or cut.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache

MASK = "***"
"""Stands for a secret. Bearer tokens hold no asterisk (RFC 6750): it neither holds one nor completes one."""

SHORTEST = 8
"""Characters of a secret that is looked for in what people type: shorter ones turn up there by accident."""
LONGEST_WORD, LONGEST_WITH_DIGITS = 24, 12
"""Characters between the signs of a name: tokens are longer, and full of digits."""
_USUAL = re.compile(r".*_(TOKEN|KEY|SECRET|PASSWORD)")
"""What variables that hold a secret are usually called."""
_FRIENDLI = re.compile(r"flp(?:_|%(?:25){0,3}5f|\\{1,4}u005f|&\#(?:x5f|95);)[\w%\\-]+", re.IGNORECASE)
"""What a Friendli token looks like, whoever's it is."""
_HTML = {"&": ("amp",), "<": ("lt",), ">": ("gt",), '"': ("quot",), "'": ("apos",)}
"""Characters that HTML has names for."""
_BACKSLASH = "\\"
_PARTS = re.compile(r"(\\*)([^\\]?)")
"""Of a secret: each character, and the backslashes before it."""
_MARKS = re.compile(r"[%\\\\&]")
"""One of these begins every escape."""
_LEAST_BASE64 = 8
"""Characters that a secret alone must decide; fewer turn up by accident."""
_BASE64_BREAK = r"(?:\s|\\{1,4}[rn]|%(?:25){0,3}0[ad]){0,4}"
"""Lines of base64 are often broken."""


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

    Found as written, in any case, percent-encoded, escaped as in JSON, Python or HTML (in part, or twice
    over), in hexadecimal, and inside base64. Redact before cutting: of a secret cut in half the first half
    would stay.
    """
    for value in sorted({secret.reveal() for secret in secrets}, key=len, reverse=True):
        if value:
            text = _finder(value).removed(text)
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


class _Finder:
    """Finds one secret. Most texts cannot hold it, which is seen before the long patterns are even made."""

    def __init__(self, value: str) -> None:
        self._value = value
        self._raw = value.encode(errors="surrogatepass")
        self._plain = re.compile(re.escape(value), re.IGNORECASE)
        self._bytes = {f"{byte:02x}" for byte in self._raw} if len(self._raw) >= SHORTEST // 2 else set()
        cores = (_base64_core(self._raw, shift) for shift in range(3))
        self._cores = [core for core in cores if len(core) >= _LEAST_BASE64]
        self._groups = {group for core in self._cores for group in _groups(core)}

    def removed(self, text: str) -> str:
        """The text without the secret."""
        text = (self._escaped if _MARKS.search(text) else self._plain).sub(MASK, text)
        lowered = text.lower()
        if self._bytes and all(each in lowered for each in self._bytes):
            text = self._hexadecimal.sub(MASK, text)
        if self._cores and any(group in text for group in self._groups):
            text = self._base64.sub(MASK, text)
        return text

    @cached_property
    def _escaped(self) -> re.Pattern[str]:
        """As a text, character by character; backslashes together with those that escape what follows."""
        parts = _PARTS.findall(self._value)
        written = (_backslashes(len(run)) + _forms(each, alone=not run) for run, each in parts)
        return re.compile("".join(written), re.IGNORECASE)

    @cached_property
    def _hexadecimal(self) -> re.Pattern[str]:
        bytes_ = (rf"(?:0x|\\{{1,4}}x)?{byte:02x}" for byte in self._raw)
        return re.compile(r"[\s:,-]{0,2}".join(bytes_), re.IGNORECASE)

    @cached_property
    def _base64(self) -> re.Pattern[str]:
        """As the inside of a longer base64."""
        return re.compile("|".join(_BASE64_BREAK.join(map(_base64_forms, core)) for core in self._cores))


_finder = lru_cache(maxsize=256)(_Finder)


def _forms(character: str, *, alone: bool = True) -> str:
    """A pattern of one character in every form a server may write it, also twice over.

    Every repetition is bounded: what is searched comes from a server, which could make it take for ever.

    Args:
        character: no backslash; or nothing.
        alone: no backslashes stand before it that are found already, whosever they are.
    """
    if not character:
        return ""
    code = ord(character)
    before = r"\\{1,4}" if alone else r"(?<=\\)"
    plain = (r"\\{0,4}" if alone and character in "\"'/" else "") + re.escape(character)
    return rf"(?:{before}{_escape(code)}|{_percent(character)}|{_html(character)}|{plain})"


def _backslashes(count: int) -> str:
    """A pattern of so many backslashes in a row, in every form, and of those that escape what follows.

    Which of a server's backslashes stands for which is not asked: the ways to share them out multiply, and a
    search in vain would try them all. So a few more are found than the secret has.
    """
    if not count:
        return ""
    one = rf"\\(?:{_escape(ord(_BACKSLASH))})?|{_percent(_BACKSLASH)}|{_html(_BACKSLASH)}"
    return rf"(?:{one}){{{count},{5 * count + 4}}}"


def _percent(character: str) -> str:
    return "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in character.encode(errors="surrogatepass"))


def _escape(code: int) -> str:
    """As JSON, Python and JavaScript escape a character, without the backslash."""
    return rf"(?:u{code:04x}|u\{{0{{0,4}}{code:x}\}}|x{code:02x})"


def _html(character: str) -> str:
    code = ord(character)
    names = "".join(f"|{name}" for name in _HTML.get(character, ()))
    return rf"&(?:amp;){{0,3}}(?:\#(?:x0{{0,6}}{code:x}|0{{0,6}}{code}){names});"


def _base64_core(raw: bytes, shift: int) -> str:
    """The characters of a base64 text that these bytes alone decide, `shift` bytes into a group of three."""
    encoded = base64.b64encode(b"\0" * shift + raw).decode()
    return encoded[-(-8 * shift // 6) : 8 * (shift + len(raw)) // 6]


def _groups(core: str) -> list[str]:
    """Parts of a base64 text, one of which is whole wherever it stands; the empty one is everywhere."""
    parts = [core[at : at + 4] for at in range(0, len(core) - 3, 4)]
    plain = [part for part in parts if part.isalnum()]  # the others may be escaped
    return plain if len(plain) > 2 else [""]  # a line break cuts one at most, and is far from the next


def _base64_forms(character: str) -> str:
    """A pattern of one character of base64, in either alphabet, escaped or not."""
    if character == "+":
        return r"(?:[-+]|%(?:25){0,3}2b|\\{1,4}u002b)"
    if character == "/":
        return r"(?:\\{0,4}/|_|%(?:25){0,3}2f|\\{1,4}u002f)"
    return character
