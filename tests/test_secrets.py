"""Secrets: no way of printing shows one, and none is left in what a server says."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cleaning import Cleaner
from harness.secrets import MASK, Secret, _finder, like_a_secret, redact
from tests.test_planted import FORMS, searched
from tests.test_planted import tokens as planted

TOKEN_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/="
tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=60)
long_tokens = st.text(TOKEN_CHARACTERS, min_size=12, max_size=60)


def test_a_secret_shows_itself_only_when_asked() -> None:
    """No way of printing a secret prints it, also from inside a record."""
    secret = Secret("flp_abc123")

    @dataclasses.dataclass
    class Holder:
        token: Secret

    holder = Holder(secret)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>20}",
        repr(holder),
        repr(dataclasses.asdict(holder)),
    ]
    assert all("abc123" not in each for each in shown)
    assert secret.reveal() == "flp_abc123"


def test_secrets_compare_by_value() -> None:
    """Equal secrets are equal, and copies too; no text equals a secret."""
    assert Secret("a") == Secret("a") == copy.deepcopy(Secret("a"))
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != "a"


@given(st.lists(st.text() | tokens), st.lists(tokens, max_size=3))
def test_no_secret_survives(parts: list[str], values: list[str]) -> None:
    """Wherever and how often secrets stand in a text, none is left in it."""
    text = "".join(part + value for part in parts for value in ["", *values])
    clean = redact(text, [Secret(value) for value in values])
    assert not any(value in clean for value in values)


@pytest.mark.parametrize(
    "encode",
    [
        str.upper,
        lambda value: quote(value, safe=""),
        lambda value: quote(value, safe="").lower(),
        lambda value: json.dumps(value),
        lambda value: json.dumps(value).replace("/", "\\/"),
        lambda value: "".join(f"\\u{ord(each):04X}" for each in value),
        lambda value: "".join(f"&#{ord(each)};" for each in value),
        lambda value: "".join(f"&#x{ord(each):X};" for each in value),
    ],
)
@given(value=long_tokens)
def test_encoded_forms_are_found(encode: object, value: str) -> None:
    """A secret that a server repeats in another case, percent-encoded or escaped is found."""
    assert callable(encode)
    assert redact(f"<{encode(value)}>", [Secret(value)]).strip('<">') == MASK


@given(before=st.binary(max_size=5), value=long_tokens, after=st.binary(max_size=5), safe=st.booleans())
def test_base64_is_found(before: bytes, value: str, after: bytes, safe: bool) -> None:
    """A secret inside base64 is found at any offset: what can be decoded of it is short."""
    encode = base64.urlsafe_b64encode if safe else base64.b64encode
    encoded = encode(before + value.encode() + after).decode()
    clean = redact(encoded, [Secret(value)])
    assert MASK in clean
    assert len(clean) <= len(MASK) + len(encode(before + after)) + 8


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Bearer flp_XYZ-12 is bad", "Bearer *** is bad"),
        ("key=flp%5Fabc&a=1", "key=***&a=1"),
        ("FLP\\u005fabc", "***"),
        ("(flp_a)", "(***)"),
    ],
)
def test_what_looks_like_a_token_goes_too(text: str, clean: str) -> None:
    """Friendli tokens are removed whoever's they are."""
    assert redact(text) == clean


def test_other_text_is_left_alone() -> None:
    """Nothing but secrets changes; an empty secret is none."""
    text = "flipped flp, help_me: 100 % of 5 tokens \\u00e9"
    assert redact(text, [Secret(""), Secret("absent")]) == text


@pytest.mark.parametrize("apart", ["\n\n", "\0", " \x1b ", "\u200b\t"])
def test_what_comes_together_in_a_line_goes_too(apart: str) -> None:
    """A secret that has a space in it is found where a line is made of what stood apart."""
    line = Cleaner([Secret("correct horse battery")]).line(f"no: correct{apart}horse{apart}battery!")
    assert line == "no: ***!"


@pytest.mark.parametrize(
    "name", ["qwen25instruct7b", "llama31instruct", "base", "mmlu-5shot-2026", "MY_TOKEN_2"]
)
def test_names_that_people_give_are_no_secrets(name: str) -> None:
    """Models' names run words and digits together; they are not taken for tokens."""
    assert not like_a_secret(name)


@pytest.mark.parametrize("name", ["JBSWY3DPEHPK3PXP", "9f86d081884c7d65", "flp_Ab3dEf6h", "s3cretS3cretS3cr"])
def test_what_looks_like_a_token(name: str) -> None:
    """Digits all over, or a vendor's own beginning."""
    assert like_a_secret(name)


@pytest.mark.parametrize("form", FORMS)
@given(token=planted)
@settings(max_examples=15)
def test_whatever_a_server_makes_of_it(form: str, token: str) -> None:
    """No form in which a server may write a secret leaves a trace of it that could be put together again."""
    said = f"<{FORMS[form](token)}>"
    searched(token, iter([(form, redact(said, [Secret(token)]).encode())]))


ROUGH = st.lists(st.sampled_from([*"\\\\\\/\"'%&u0", "\\u", "\\x", "a"]), min_size=8, max_size=24).map(
    "".join
)
"""Secrets that hold what escapes begin with, mostly backslashes."""
WAYS: Sequence[Any] = (
    lambda each: each,
    lambda each: each.upper(),
    lambda each: f"%{ord(each):02x}",
    lambda each: f"%25{ord(each):02X}",
    lambda each: f"\\u{ord(each):04x}",
    lambda each: f"\\\\x{ord(each):02x}",
    lambda each: f"&#{ord(each)};",
    lambda each: f"&amp;#x{ord(each):x};",
    lambda each: f"\\\\\\{each}" if each in "\\/\"'" else each,
)
"""To write a character."""


def mixed(data: st.DataObject, value: str) -> str:
    """A secret, each of its characters written in some way."""
    return "".join(data.draw(st.sampled_from(WAYS))(each) for each in value)


@given(value=ROUGH, data=st.data())
def test_every_character_may_be_written_its_own_way(value: str, data: st.DataObject) -> None:
    """A secret is found whole though a server escapes some of its characters in one way, some in another."""
    assert redact(f"<{mixed(data, value)}>", [Secret(value)]) == f"<{MASK}>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("\\" * 20, "\\" * 90 + "x"),
        ("\\" * 19 + "/", "\\" * 90 + "x"),
        ("\\u" * 10, (5 * "\\" + "u0075") * 10),
        ('\\"' * 10, (5 * "\\" + '"') * 9),
    ],
    ids=["backslashes alone", "and a slash", "escaped letters", "escaped quotes"],
)
def test_backslashes_without_end(value: str, text: str) -> None:
    """Whichever of a server's backslashes may be whose, a search takes a bounded number of steps."""
    in_vain(value, text)


@given(value=ROUGH, data=st.data())
def test_a_search_in_vain_is_short(value: str, data: st.DataObject) -> None:
    """A search in what nearly holds a secret, again and again, takes a bounded number of steps."""
    text = ""
    for character in 2 * value:
        ways = [each(character) for each in WAYS]
        text += data.draw(st.sampled_from([*ways, "\\", 5 * "\\", "u0075", "u005c"]))
    in_vain(value, text)


def in_vain(value: str, text: str) -> None:
    """Count the steps that a search takes where what comes after a secret never fits."""
    parts = list(re._parser.parse(_finder(value)._escaped.pattern))  # type: ignore[attr-defined]
    steps = Steps(text.lower(), most=100 * len(value) * len(text))
    for at in range(len(text)):
        for _ in steps.ends(parts, at):
            pass


class Steps:
    """Searches as `re` does, by going back, and counts."""

    def __init__(self, text: str, *, most: int) -> None:
        """More than `most` steps are too many."""
        self.text, self.left = text, most

    def ends(self, parts: Sequence[Any], at: int) -> Iterator[int]:
        """Where a pattern that begins here may end, each as often as there are ways to it."""
        self.left -= 1
        assert self.left > 0, "too many steps"
        if not parts:
            yield at
            return
        for end in self._one(parts[0][0], parts[0][1], at):
            yield from self.ends(parts[1:], end)

    def _one(self, kind: Any, given: Any, at: int) -> Iterator[int]:
        name = str(kind)
        if name == "LITERAL":
            if self.text[at : at + 1] == chr(given).lower():
                yield at + 1
        elif name == "BRANCH":
            for each in given[1]:
                yield from self.ends(list(each), at)
        elif name == "SUBPATTERN":
            yield from self.ends(list(given[3]), at)
        elif name == "ASSERT":
            behind, inner = given
            assert behind == -1
            if any(True for _ in self.ends(list(inner), at - 1)):
                yield at
        else:
            assert name == "MAX_REPEAT", name
            least, most, inner = given
            yield from self._repeated(least, most, list(inner), at)

    def _repeated(self, least: int, most: int, inner: Sequence[Any], at: int) -> Iterator[int]:
        if most:
            for end in self.ends(inner, at):
                yield from self._repeated(max(0, least - 1), most - 1, inner, end)
        if not least:
            yield at
