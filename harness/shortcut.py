"""Several choices out of one reply: single tokens read off the alternatives that it names; pure.

Where every choice of an item is one token after the same context, one of them is forced and the others are
looked up among the alternatives at its position. Those are keyed by text, so that it must be known what the
endpoint calls a token (its raw piece, its text, its text without spaces), and that no other token is called
the same. Both are learnt from forced replies, which also show whether alternatives are what forcing the same
token gives. A choice that is not among them, or not for sure, is forced on its own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

from harness.encoding import EncodedItem
from harness.exchange import TOLERANCE, Outcome, Reply, ScoreRequest

TOPS = (20, 10, 5)
"""How many alternatives to ask for: the most that an endpoint takes of these."""
SAME = 1e-3
"""Nats by which an alternative may differ from the same token when it is forced."""

NOT_NAMED = "none of the choices is among the alternatives that it names"
SHARED = "what it calls the choices, it calls other tokens too"
"""Why an item shows nothing, though another may."""

_ANCHOR = "a"
"""Stands before a token whose text is to keep the space it begins with."""


class Vocabulary(Protocol):
    """What reading needs of a tokenizer."""

    @property
    def id_limit(self) -> int:
        """One more than the highest id."""

    def piece(self, token_id: int) -> str | None:
        """The raw vocabulary piece of an id."""

    def decode_each(self, texts: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids, special tokens too."""

    def encode_plain(self, texts: Sequence[str]) -> Sequence[list[int]]:
        """Ids of each text without special tokens."""


def _pieces(vocabulary: Vocabulary, ids: Sequence[int]) -> list[str]:
    return [vocabulary.piece(each) or "" for each in ids]


def _decoded(vocabulary: Vocabulary, ids: Sequence[int]) -> list[str]:
    return vocabulary.decode_each([[each] for each in ids])


def _spaced(vocabulary: Vocabulary, ids: Sequence[int]) -> list[str]:
    anchor = vocabulary.encode_plain([_ANCHOR])[0]
    before = vocabulary.decode_each([anchor])[0]
    return [text.removeprefix(before) for text in vocabulary.decode_each([[*anchor, each] for each in ids])]


def _stripped(vocabulary: Vocabulary, ids: Sequence[int]) -> list[str]:
    return [text.strip() for text in _decoded(vocabulary, ids)]


def _numbered(vocabulary: Vocabulary, ids: Sequence[int]) -> list[str]:
    return [f"token_id:{each}" for each in ids]


RULES: Mapping[str, Callable[[Vocabulary, Sequence[int]], list[str]]] = {
    "piece": _pieces,
    "text with its space": _spaced,
    "text": _decoded,
    "text without spaces": _stripped,
    "id": _numbered,
}
"""What endpoints call tokens in `logprobs`: texts of some ids."""


class Names:
    """What tokens are called, under each rule that has not been ruled out."""

    def __init__(self, vocabulary: Vocabulary, rules: Sequence[str] = tuple(RULES)) -> None:
        """Take the endpoint's own vocabulary; nothing is computed before it is asked for."""
        self.rules = tuple(rules)
        self._vocabulary = vocabulary
        self._known: dict[int, str | None] = {}
        self._counts: dict[str, Counter[str]] = {}

    def narrowed(self, seen: Mapping[int, str], others: Collection[str] = ()) -> Names:
        """Those by whose rules these ids are called so, and which know most of some other names.

        There may be none left. "A" alone is the text of a token, and that of " A" without spaces; that " the"
        is a name too tells which of them is meant.
        """
        ids = list(seen)
        texts = [seen[each] for each in ids]
        rules = [rule for rule in self.rules if self._texts(rule, ids) == texts]
        if others and len(rules) > 1:
            known = {rule: sum(each in self._all(rule) for each in others) for rule in rules}
            rules = [rule for rule in rules if known[rule] == max(known.values())]
        found = Names(self._vocabulary, rules)
        found._counts = {rule: counts for rule, counts in self._counts.items() if rule in rules}
        return found

    def name(self, token_id: int) -> str | None:
        """What the id is called; None where the rules disagree, or another id is called the same."""
        if token_id not in self._known:
            texts = {self._texts(rule, [token_id])[0] for rule in self.rules}
            text = texts.pop() if len(texts) == 1 else None
            if text is not None and any(self._all(rule)[text] > 1 for rule in self.rules):
                text = None
            self._known[token_id] = text
        return self._known[token_id]

    def _texts(self, rule: str, ids: Sequence[int]) -> list[str]:
        return RULES[rule](self._vocabulary, ids)

    def _all(self, rule: str) -> Counter[str]:
        """All names there are, and how many ids have each."""
        if rule not in self._counts:
            self._counts[rule] = Counter(self._texts(rule, range(self._vocabulary.id_limit)))
        return self._counts[rule]


@dataclass(frozen=True, slots=True)
class Shortcut:
    """How an endpoint's alternatives are read, and what shows that they may be."""

    top: int
    """How many are asked for."""
    names: Names
    checked: int
    """Alternatives that were compared with the same token forced."""
    largest: float
    """By how much they differed at most, nats."""

    def evidence(self) -> str:
        """All of it as one line of JSON."""
        said = {
            "logprobs": self.top,
            "names": self.names.rules,
            "checked": self.checked,
            "largest_difference": self.largest,
        }
        return json.dumps(said)


@dataclass(frozen=True, slots=True)
class Seen:
    """A forced token and what the endpoint said beside it."""

    token_id: int
    text: str
    value: float
    alternatives: Mapping[str, float]


def seen_in(request: ScoreRequest, reply: Reply) -> Seen | None:
    """What a reply shows of a single forced token; None where it names no tokens."""
    if not reply.token_texts or not reply.top_logprobs:
        return None
    return Seen(request.forced_ids[0], reply.token_texts[0], reply.token_logprobs[0], reply.top_logprobs[0])


def learn(seen: Sequence[Seen], names: Names, top: int) -> Shortcut | str:
    """How to read an endpoint's alternatives, or why they cannot be.

    Args:
        seen: several tokens forced after the same context.
        names: of its vocabulary.
        top: alternatives that were asked for.
    """
    others = {name for each in seen for name in each.alternatives}
    narrowed = names.narrowed({each.token_id: each.text for each in seen}, others)
    if not narrowed.rules:
        return "it calls tokens by other names than its tokenizer has for them"
    if not any(narrowed.name(each.token_id) for each in seen):
        return SHARED
    values = {name: each.value for each in seen if (name := narrowed.name(each.token_id)) is not None}
    differences = [
        abs(each.alternatives[name] - value)
        for each in seen
        for name, value in values.items()
        if name in each.alternatives and name != each.text
    ]
    if not differences:
        return NOT_NAMED
    if not max(differences) <= SAME:
        return f"its alternatives differ by up to {max(differences):.2g} nats from the same tokens forced"
    return Shortcut(top, narrowed, len(differences), max(differences))


def is_single(encoded: EncodedItem) -> bool:
    """Whether all choices, two at least, are single tokens after the same context."""
    pairs = encoded.pairs
    return len(pairs) > 1 and all(
        len(pair.forced_ids) == 1
        and (pair.context_ids is pairs[0].context_ids or pair.context_ids == pairs[0].context_ids)
        for pair in pairs
    )


def merged(requests: Sequence[ScoreRequest]) -> list[ScoreRequest]:
    """What is to be sent: of neighbours that ask for alternatives after one context the first, for all."""
    found: list[ScoreRequest] = []
    for (top, _), group in groupby(requests, lambda each: (each.top, each.context_ids)):
        together = list(group)
        if top:
            found.append(replace(together[0], also=tuple(together[1:])) if together[1:] else together[0])
        else:
            found += together
    return found


def read_off(outcome: Outcome, shortcut: Shortcut) -> list[Outcome]:
    """The outcomes of what a request asked for beside its own token, as far as its reply tells them.

    Nothing is read where the reply calls its own token otherwise than expected, or gives it two values.
    """
    request, reply = outcome.request, outcome.reply
    seen = seen_in(request, reply) if reply else None
    if seen is None or seen.text != shortcut.names.name(seen.token_id):
        return []
    if not abs(seen.alternatives.get(seen.text, seen.value) - seen.value) <= SAME:
        return []
    highest = max(seen.value, *seen.alternatives.values())
    found = []
    for each in request.also:
        value = seen.alternatives.get(shortcut.names.name(each.forced_ids[0]) or "")
        if value is not None and math.isfinite(value) and value <= TOLERANCE:
            said = Reply(each.forced_ids, (value,), greedy=value >= highest)
            found.append(Outcome(each, said, latency=outcome.latency, attempts=0, read_from=request.key))
    return found
