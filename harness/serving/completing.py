"""One completion from start to end, on a model and its cache; it knows neither threads nor HTTP.

A context is read in blocks that start at multiples of the block length, and a cached context is shared in
whole blocks. So the same numbers come out of the same operations, to the bit, whatever the cache holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal

import numpy as np

from harness.serving.cache import Prefix, PrefixCache
from harness.serving.model import Ids, Model, P
from harness.serving.sampling import Scored, draw, log_softmax, score
from harness.serving.weights import Floats

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Job:
    """One completion to be made; its ids are known to be the model's and to fit its length."""

    context_ids: Sequence[int]
    max_tokens: int
    forced_ids: Sequence[int] = ()
    """The output, where it is given; then nothing is drawn."""
    top: int = 0
    """How many alternatives to report a position."""
    temperature: float = 1.0
    seed: int = 0
    echo: bool = False
    """Score the context too; nothing is forced then."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model made of a job."""

    output: Sequence[Scored]
    finish_reason: FinishReason
    cached_tokens: int
    """Tokens of the context whose keys and values were taken from the cache."""
    echoed: Sequence[Scored] = ()
    """The context's tokens behind the first, where they were to be scored."""


class Cancelled(Exception):
    """The completion was given up: nobody waits for it any more, or the endpoint stops."""


def complete(model: Model[P], cache: PrefixCache[P], job: Job, cancelled: Event) -> Completion:
    """Score the forced output, or generate one, with the context's own score where that is to be echoed.

    Raises:
        Cancelled: `cancelled` was set; it is looked at once a block or generated token.
    """
    if job.echo:
        echoed, prefix = _echo(model, job, cancelled)
        output = _generate(model, prefix, job, cancelled)
        return Completion(output, _reason(model, output), 0, echoed)
    prefix, cached = _read(model, cache, np.asarray(job.context_ids, np.int32), cancelled)
    if job.forced_ids:
        return Completion(_force(model, prefix, job, cancelled), "length", cached)
    output = _generate(model, prefix, job, cancelled)
    return Completion(output, _reason(model, output), cached)


def _reason(model: Model[P], output: Sequence[Scored]) -> FinishReason:
    return "stop" if output[-1].token in model.eos_ids else "length"


def _echo(model: Model[P], job: Job, cancelled: Event) -> tuple[list[Scored], Prefix[P]]:
    """The context read anew, each of its tokens scored by those before it.

    The cache is no help: it keeps what was read, not what was said of it.
    """
    ids = np.asarray(job.context_ids, np.int32)
    past = model.start(len(ids))
    echoed: list[Scored] = []
    row: Floats | None = None
    for logits in _feed(model, past, ids, cancelled, last_only=False):
        rows = log_softmax(logits)
        done = len(echoed)
        following = ids[done + 1 : done + 1 + len(rows)]
        echoed += score(rows[: len(following)], following, job.top)
        row = rows[-1]
    if row is None:
        raise ValueError("a context has at least one token")
    return echoed, Prefix(ids, past, row)


def _read(model: Model[P], cache: PrefixCache[P], ids: Ids, cancelled: Event) -> tuple[Prefix[P], int]:
    """The context's prefix, from the cache or read now; and how many of its tokens the cache had."""
    known = cache.get(ids)
    if known is not None:
        return known, len(ids)
    past, cached = _begin(model, cache, ids)
    prefix = Prefix(ids, past, _following(model, past, ids[cached:], cancelled))
    cache.add(prefix)
    return prefix, cached


def _begin(model: Model[P], cache: PrefixCache[P], ids: Ids) -> tuple[P, int]:
    """The past of as many whole blocks of the context as the cache has, its last token never among them."""
    near = cache.nearest(ids)
    shared = 0 if near is None else min(near[1], len(ids) - 1)
    shared -= shared % model.block
    if near is None or not shared:
        return model.start(len(ids)), 0
    return near[0].past.branch(shared, len(ids) - shared), shared


def _force(model: Model[P], prefix: Prefix[P], job: Job, cancelled: Event) -> list[Scored]:
    """Each forced token's log-probability; the last one is scored, and need not be read."""
    forced = np.asarray(job.forced_ids, np.int32)
    output = score(prefix.logprobs[None], forced[:1], job.top)
    if len(forced) == 1:
        return output
    past = prefix.past.branch(prefix.past.length, len(forced) - 1)
    for logits in _feed(model, past, forced[:-1], cancelled, last_only=False):
        done = len(output)
        output += score(log_softmax(logits), forced[done : done + len(logits)], job.top)
    return output


def _generate(model: Model[P], prefix: Prefix[P], job: Job, cancelled: Event) -> list[Scored]:
    """Draw token by token until the model ends the text or `max_tokens` are there."""
    random = np.random.default_rng(job.seed)
    past = prefix.past.branch(prefix.past.length, min(job.max_tokens, model.block))
    row, output = prefix.logprobs, list[Scored]()
    while True:
        token = draw(row, job.temperature, random)
        output += score(row[None], np.asarray([token], np.int32), job.top)
        if token in model.eos_ids or len(output) == job.max_tokens:
            return output
        row = _following(model, past, [token], cancelled)


def _following(model: Model[P], past: P, ids: Sequence[int] | Ids, cancelled: Event) -> Floats:
    """Read some ids; log-probabilities of the token after all of them: (vocabulary,)."""
    logits = deque(_feed(model, past, ids, cancelled, last_only=True), maxlen=1).pop()
    row: Floats = log_softmax(logits)[0]
    return row


def _feed(
    model: Model[P], past: P, ids: Sequence[int] | Ids, cancelled: Event, *, last_only: bool
) -> Iterator[Floats]:
    """Logits block by block."""
    for start in range(0, len(ids), model.block):
        if cancelled.is_set():
            raise Cancelled
        yield model.feed(past, ids[start : start + model.block], last_only=last_only)
