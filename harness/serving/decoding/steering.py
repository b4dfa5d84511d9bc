"""What makes tokens likelier or less likely because of what was said before: penalties and bans. Pure.

Sources: Keskar et al., "CTRL", 2019, arXiv:1909.05858 (repetition penalty); OpenAI's API reference (frequency
and presence penalty: over what was generated); Hugging Face's logits processors (n-grams, bad words).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.serving.models.seam import Ids
from harness.serving.models.weights import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What bends the logits before a token is drawn; the defaults leave them as they are."""

    repetition_penalty: float = 1.0
    """Logits of tokens in input or output are divided by it where positive, else multiplied."""
    frequency_penalty: float = 0.0
    """Nats off a token's logit for each time it was generated."""
    presence_penalty: float = 0.0
    """Nats off a token's logit once it was generated."""
    no_repeat_ngram: int = 1
    """No n-gram of this length twice in input and output; 1: no such rule."""
    bad: tuple[tuple[int, ...], ...] = ()
    """Sequences that must not be completed in the output."""
    min_tokens: int = 0
    """Before so many tokens of output none of `ending` comes."""
    ending: frozenset[int] = frozenset()

    @property
    def idle(self) -> bool:
        """Whether nothing is bent."""
        return self == Steering(ending=self.ending)


def steer(logits: Floats, context: Ids, output: Sequence[int], steering: Steering) -> Floats:
    """The logits after everything that bends them, (vocabulary,); what is banned is minus infinity."""
    if steering.idle:
        return logits
    bent = logits.copy()
    said = np.asarray(output, np.int32)
    if steering.repetition_penalty != 1:
        seen = np.unique(np.concatenate([context, said]))
        values = bent[seen].astype(np.float64)
        penalty = steering.repetition_penalty
        with np.errstate(over="ignore"):  # a penalty beyond all bounds rules a token out
            bent[seen] = np.where(values > 0, values / penalty, values * penalty)
    if len(said) and (steering.frequency_penalty or steering.presence_penalty):
        tokens, counts = np.unique(said, return_counts=True)
        bent[tokens] -= (steering.frequency_penalty * counts + steering.presence_penalty).astype(np.float32)
    bent[_banned(context, output, steering)] = -np.inf
    return bent


def _banned(context: Ids, output: Sequence[int], steering: Steering) -> list[int]:
    banned = _completing(context, output, steering.no_repeat_ngram) if steering.no_repeat_ngram > 1 else []
    said = tuple(output)
    for sequence in steering.bad:
        *start, last = sequence
        if not start or said[-len(start) :] == tuple(start):
            banned.append(last)
    if len(output) < steering.min_tokens:
        banned.extend(steering.ending)
    return banned


def _completing(context: Ids, output: Sequence[int], n: int) -> list[int]:
    """The tokens that would complete an n-gram that is there already."""
    whole = np.concatenate([context, np.asarray(output, np.int32)])
    if len(whole) < n:
        return []
    grams = np.lib.stride_tricks.sliding_window_view(whole, n)
    start = whole[len(whole) - n + 1 :]
    found: list[int] = grams[(grams[:, :-1] == start).all(axis=1), -1].tolist()
    return found
