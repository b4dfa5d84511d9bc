"""Tokenizers from files: start tokens, special tokens, hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from harness import UsageError
from harness.modes import Bos
from harness.tokenizing import Tokenizer, load_tokenizer

VOCABULARY = {"<s>": 0, "</s>": 1, "[SEP]": 2, "?": 3} | {chr(code): code for code in range(32, 127)}


def definition(template: str = "<s> $A") -> bytes:
    """A `tokenizer.json` of one id a character that puts special tokens around a text."""
    backend = Backend(models.WordLevel(VOCABULARY, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.add_special_tokens(["<s>", "</s>", "[SEP]"])
    special = [(name, VOCABULARY[name]) for name in ("<s>", "</s>", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single=template, pair=None, special_tokens=special)
    return backend.to_str().encode()


@pytest.mark.parametrize(
    ("template", "bos", "leading"),
    [
        ("<s> $A", "auto", [0]),
        ("<s> $A </s>", "auto", [0]),
        ("$A </s>", "auto", []),
        ("$A", "auto", []),
        ("$A", "on", [0]),
        ("<s> $A </s>", "on", [0]),
        ("<s> $A </s>", "off", []),
        ("[SEP] <s> $A", "auto", [2, 0]),
    ],
)
def test_leading_tokens_are_kept_trailing_ones_never(template: str, bos: Bos, leading: list[int]) -> None:
    """What the tokenizer puts in front is kept unless told otherwise; what it puts behind is never sent."""
    tokenizer = Tokenizer(definition(template), bos=bos)
    assert tokenizer.leading == leading
    assert tokenizer.encode(["ab", ""]) == [[*leading, 97, 98], leading]
    assert tokenizer.encode_plain(["ab"]) == [[97, 98]]


@given(st.lists(st.text("ab <s>/"), max_size=4))
def test_encoding_is_what_the_library_does(texts: list[str]) -> None:
    """Ids are those of the library with its special tokens; a start token the text has is not doubled."""
    ours, backend = Tokenizer(definition()), Backend.from_str(definition().decode())
    for text, ids in zip(texts, ours.encode(texts), strict=True):
        expected = backend.encode(text).ids
        assert ids == (expected[1:] if expected[:2] == [0, 0] else expected)


def test_the_hash_tells_tokenizers_apart() -> None:
    """Equal hashes encode alike: another file or another start is another hash."""
    hashes = {
        Tokenizer(definition(), bos="auto").sha256,
        Tokenizer(definition(), bos="on").sha256,
        Tokenizer(definition(), bos="off").sha256,
        Tokenizer(definition("$A")).sha256,
    }
    assert len(hashes) == 3


def test_what_stands_for_nothing() -> None:
    """The start token stands for an empty context, else the end token; a config may name them."""
    assert Tokenizer(definition("$A")).start_id == 0
    assert Tokenizer(definition("$A"), special={"bos_token": "[SEP]"}).start_id == 2
    plain = Backend(models.WordLevel({"a": 5, "?": 3}, unk_token="?"))
    assert Tokenizer(plain.to_str().encode()).start_id is None
    with pytest.raises(UsageError, match="--bos on: this tokenizer names no beginning-of-sequence token"):
        Tokenizer(plain.to_str().encode(), bos="on")


def test_file_and_folder(tmp_path: Path) -> None:
    """A tokenizer is found by its file and by its folder, whose config may name the special tokens."""
    (tmp_path / "tokenizer.json").write_bytes(definition("$A"))
    config = {"bos_token": {"content": "[SEP]"}, "eos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for source in (tmp_path, tmp_path / "tokenizer.json"):
        assert load_tokenizer(str(source), bos="on").leading == [2]


def test_hub_out_of_reach() -> None:
    """Offline, a hub id is refused in one line that says so, at once."""
    with pytest.raises(UsageError) as caught:
        load_tokenizer("nobody/nothing")
    assert str(caught.value) == (
        "--tokenizer nobody/nothing: neither a local file or folder nor to be had from the hub:"
        " HF_HUB_OFFLINE is set, and no copy is kept on this machine. Unset it, or pass a tokenizer.json or a"
        " folder that holds one."
    )
