"""Prompts to ids: the seam between context and continuation, empty contexts, the bound on length."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import UsageError
from harness.encoding import Bound, encode_prompts
from harness.pairs import split_seam
from harness.seams import Seams
from tests.making import make_prompt


class Letters:
    """A tokenizer of one id a character that merges some pairs and may begin with a start token."""

    def __init__(self, *, start: int | None = None, merges: Sequence[str] = ()) -> None:
        self.start_id = start
        self.seams: Seams | None = None
        self._merges = merges

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with the start token."""
        start = [] if self.start_id is None else [self.start_id]
        return [start + ids for ids in self.encode_plain(texts)]

    def encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without the start token."""
        return [self._ids(text) for text in texts]

    def _ids(self, text: str) -> list[int]:
        ids, position = [], 0
        while position < len(text):
            merged = next((m for m in self._merges if text.startswith(m, position)), text[position])
            ids.append(sum(ord(c) << (8 * i) for i, c in enumerate(merged)))
            position += len(merged)
        return ids


def test_trailing_space_moves_to_the_continuation() -> None:
    """White space at the end of a context belongs to what follows."""
    assert split_seam("Answer:  ", "B") == ("Answer:", "  B")
    assert split_seam("Answer:", " B") == ("Answer:", " B")


def test_the_whole_is_split_by_count() -> None:
    """A merge across the seam moves the boundary as in the reference, and is counted."""
    (item,) = encode_prompts([make_prompt("ab", ["cd", "x"])], Letters(merges=["bc"]))
    merged, plain = item.pairs
    assert (merged.context_ids, merged.forced_ids) == ([97, 98], [100])  # whole: "a", "bc", "d"
    assert (merged.shifted, plain.shifted) == (True, False)
    assert item.shifted


def test_a_choice_without_tokens_is_no_answer() -> None:
    """Where a merge leaves a choice no token of its own the item cannot be scored, and says so."""
    (item,) = encode_prompts([make_prompt("ab", ["c", "x"])], Letters(merges=["bc"]))
    assert item.problem == "choice 0 has no tokens of its own"
    assert not item.pairs


def test_empty_context_becomes_the_start_token() -> None:
    """Without a context the start token stands for it, unless the continuation itself begins with it."""
    (item,) = encode_prompts([make_prompt("", ["ab", "<c"])], Letters(start=ord("<")))
    assert [(list(p.context_ids), list(p.forced_ids)) for p in item.pairs] == [([60], [97, 98]), ([60], [99])]


@given(
    context=st.text("abc ", min_size=1),
    continuations=st.lists(st.text("abc", min_size=1), min_size=1, max_size=4),
    max_length=st.integers(2, 12),
)
def test_bound_on_length(context: str, continuations: list[str], max_length: int) -> None:
    """No request is longer than the bound; the continuation is whole, the context keeps its right end."""
    tokenizer = Letters(start=1)
    prompt = make_prompt(context, continuations)
    (free,) = encode_prompts([prompt], tokenizer)
    (bound,) = encode_prompts([prompt], tokenizer, Bound(max_length))
    if bound.problem:
        assert any(len(pair.forced_ids) >= max_length for pair in free.pairs)
        assert not bound.pairs
        return
    for before, after in zip(free.pairs, bound.pairs, strict=True):
        assert len(after.context_ids) + len(after.forced_ids) <= max_length
        assert after.forced_ids == before.forced_ids
        assert len(after.context_ids) >= 1
        assert list(before.context_ids[after.dropped :]) == list(after.context_ids)
        total = len(before.context_ids) + len(before.forced_ids)
        assert after.dropped == max(0, total - max_length)


def test_overflow_can_skip_or_fail() -> None:
    """Too long an item is left unscored with the reason, or stops the run with its name."""
    prompt = make_prompt("a" * 10, [" b"])
    (item,) = encode_prompts([prompt], Letters(), Bound(8, "skip"))
    assert item.problem == "longer than --max-length (12 tokens)"
    with pytest.raises(UsageError, match="--on-overflow fail: toy item 0 has 12 tokens, --max-length is 8"):
        encode_prompts([prompt], Letters(), Bound(8, "fail"))


def test_a_text_is_encoded_once() -> None:
    """The context that choices share is one list of ids."""
    (item,) = encode_prompts([make_prompt("ab", [" c", " d"])], Letters())
    first, second = item.pairs
    assert first.context_ids is second.context_ids
