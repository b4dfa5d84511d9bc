"""Where tokenizers split for sure: parts encoded alone give the ids of the whole, for real ones and texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.encoding import EncodedItem, encode_prompts
from harness.prompts import Prompt, Selection
from harness.seams import Seams
from harness.suite import prepare_suite
from harness.tokenizing import Tokenizer, load_tokenizer
from tests.making import make_prompt

TOKENIZERS = ("tokenizers/gpt2", "tokenizers/gpt-neox-olmo", "tokenizers/openllama", "models/stories260k")


class Counting(Tokenizer):
    """A tokenizer that counts the tokens that it was asked for."""

    encoded = 0

    def encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        found = super().encode_plain(texts)
        self.encoded += sum(map(len, found))
        return found


def load(path: Path) -> Counting:
    """The tokenizer in a folder."""
    return Counting((path / "tokenizer.json").read_bytes())


def whole(tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> list[EncodedItem]:
    """The same without any knowledge of seams."""
    kept, tokenizer.seams = tokenizer.seams, None
    try:
        return encode_prompts(prompts, tokenizer)
    finally:
        tokenizer.seams = kept


def batches(prompts: Iterator[Prompt]) -> Iterator[list[Prompt]]:
    """As planning takes them."""
    while batch := list(islice(prompts, 64)):
        yield batch


@pytest.mark.parametrize("folder", TOKENIZERS)
@pytest.mark.parametrize("task", ["hellaswag", "mmlu", "winogrande", "piqa"])
def test_ids_are_those_of_whole_texts(shared: Path, folder: str, task: str) -> None:
    """Real items of all kinds, with shots where the task has them: no id and no mark differs."""
    suite = prepare_suite(
        [task],
        shots=5 if task == "mmlu" else 0,
        data_dir=shared / "data",
        selection=Selection(sample=3 if task == "mmlu" else 150),
        skip_bad_rows=False,
    )
    tokenizer = load_tokenizer(str(shared / folder))
    prompts = [each for _, each in suite.prompts() if isinstance(each, Prompt)]
    for batch in batches(iter(prompts)):
        assert [each.pairs for each in encode_prompts(batch, tokenizer)] == [
            each.pairs for each in whole(tokenizer, batch)
        ]


def test_shots_and_contexts_are_encoded_once(shared: Path) -> None:
    """Behind five shots, a subject's questions cost little more than their own tokens."""
    tokenizer = load(shared / "tokenizers/gpt-neox-olmo")
    suite = prepare_suite(
        ["mmlu"],
        shots=5,
        data_dir=shared / "data",
        selection=Selection(limit=40),
        skip_bad_rows=False,
    )
    prompts = [each for _, each in islice(suite.prompts(), 80) if isinstance(each, Prompt)]
    items = [item for batch in batches(iter(prompts)) for item in encode_prompts(batch, tokenizer)]
    joined, tokenizer.encoded = tokenizer.encoded, 0
    sent = sum(len(item.pairs[0].context_ids) for item in items)
    assert joined < sent / 2  # each context once would be `sent`; the shots are most of it


words = st.text(
    st.sampled_from("abzABZ019 .,;:'\"!?-_()[]\n\t\u00e9\u00df\u4e2d\u2581\u0120<>|/s\u00a0\u3000"),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=4), words), max_size=6))
@pytest.mark.parametrize("folder", TOKENIZERS)
def test_whatever_the_text_the_ids_are_those_of_the_whole(
    shared: Path, folder: str, texts: list[tuple[str, list[str], str]]
) -> None:
    """Odd characters on both sides of seams, and prefixes of all sorts, change no id."""
    tokenizer = _loaded(shared / folder)
    prompts = [make_prompt(context, rests, prefix=prefix) for context, rests, prefix in texts]
    assert [each.pairs for each in encode_prompts(prompts, tokenizer)] == [
        each.pairs for each in whole(tokenizer, prompts)
    ]


_KEPT: dict[Path, Tokenizer] = {}


def _loaded(path: Path) -> Tokenizer:
    """Loaded once, so that what one example taught is used by the next."""
    if path not in _KEPT:
        _KEPT[path] = load_tokenizer(str(path))
    return _KEPT[path]


def spaces(texts: Sequence[str]) -> list[list[int]]:
    """A tokenizer of one id a character."""
    return [[ord(each) for each in text] for text in texts]


def test_where_the_vocabulary_reaches_across_nothing_is_joined() -> None:
    """A piece with a space after a letter keeps that letter's seams from use, and those of its last byte."""
    assert Seams(lambda: ["a", "\u0120b"], spaces).known("x", " y") is None
    seams = Seams(lambda: ["a", "x\u0120b", "\u0142\u0120"], spaces)
    assert seams.known("x", " y") is False
    assert seams.known("y", " y") is None
    assert seams.known("\u00e0", " y") is False  # UTF-8 C3 A0, and U+0142 stands for A0
    assert seams.head_of("ax by cx d") == "ax by"


def test_a_seam_is_used_only_once_it_was_shown() -> None:
    """Unknown, then known by its kind of characters; one counterexample ends it for good."""
    seams = Seams(lambda: [], spaces)
    assert seams.known("ab", " cd") is None
    seams.learn("ab", " cd", same=True)
    assert seams.known("xy", " zz") is True
    assert seams.known("xY", " zz") is None
    seams.learn("xy", " zz", same=False)
    seams.learn("ab", " cd", same=True)
    assert seams.known("ab", " cd") is False


@pytest.mark.parametrize(
    ("head", "tail"), [("", " a"), ("a ", " b"), ("a", "b"), ("a", "  b"), ("a", " "), ("a\n", " b")]
)
def test_what_is_no_seam(head: str, tail: str) -> None:
    """A seam is a single space between what is no white space."""
    assert Seams(lambda: [], spaces).known(head, tail) is False
