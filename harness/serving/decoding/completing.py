"""One completion from start to end, on a model and what is kept of earlier contexts; no threads, no HTTP.

A context is read in blocks that start at multiples of the block length, and of a kept context whole blocks
are used. So the same numbers come out of the same operations, to the bit, whatever was read before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic

import numpy as np

from harness.serving.decoding.beams import search
from harness.serving.decoding.job import Completion, Ending, Job, Output, Work, together
from harness.serving.decoding.sampling import Scored, candidates, draw, log_softmax, score
from harness.serving.decoding.spelling import Spell
from harness.serving.decoding.steering import steer
from harness.serving.decoding.writing import Writing
from harness.serving.models.seam import Ids, Model, P, Segment, Span
from harness.serving.models.weights import Floats
from harness.serving.prefixes import Found, PrefixCache


@dataclass(frozen=True, slots=True)
class Kept(Generic[P]):
    """Where contexts of one model are kept."""

    cache: PrefixCache[P]
    name: Hashable
    """The model's own."""


@dataclass(frozen=True, slots=True)
class Prompt(Generic[P]):
    """A context that was read."""

    ids: Ids
    spans: Sequence[Span[P]]
    """Never fed again: who continues the context copies them."""
    row: Floats
    """Logits of the token that follows, (vocabulary,)."""
    known: int
    """Tokens whose keys and values had been kept."""
    echoed: Sequence[Scored] = ()


def complete(model: Model[P], kept: Kept[P] | None, job: Job, spell: Spell) -> Work[P, Completion]:
    """Score the forced output, or make one, with the context's own scores where they are to be echoed."""
    prompt = yield from read(model, kept, job)
    if job.forced_ids:
        tokens = yield from _force(model, prompt, job)
        outputs = [Output(tokens, "length", seed) for seed in job.seeds]
        _watch(job, outputs, spell)
    elif job.max_tokens == 0:
        outputs = [Output((), "length", seed) for seed in job.seeds]
    elif job.beams is not None:
        begin = partial(model.join, prompt.spans)
        outputs = [(yield from search(model, begin, prompt.ids, prompt.row, job, job.beams))]
    else:
        outputs = yield from together(
            [_generate(model, prompt, job, index, spell) for index in range(len(job.seeds))]
        )
    return Completion(outputs, prompt.known, prompt.echoed)


def read(model: Model[P], kept: Kept[P] | None, job: Job) -> Work[P, Prompt[P]]:
    """Read a context, as far as it is not kept from before, and keep it.

    An echo reads all of it, as scores are not kept; a context with vectors of its own is not kept.
    """
    ids = np.asarray(job.context_ids, np.int32)
    if job.vectors:
        kept = None
    found: Found[P] = Found(0) if kept is None else kept.cache.find(kept.name, ids, model.block)
    if found.row is not None and not job.echo:
        return Prompt(ids, found.spans, found.row, found.known)
    done = 0 if job.echo else min(len(found.pages) * model.block, len(ids) - 1)
    done -= done % model.block
    past = model.join(found.spans[: done // model.block], len(ids) - done)
    echoed: list[Scored] = []
    for at in range(done, len(ids), model.block):
        block = ids[at : at + model.block]
        last = at + len(block) == len(ids)
        rows = len(block) if job.echo else int(last)
        vectors = {place - at: job.vectors[place] for place in job.vectors if 0 <= place - at < len(block)}
        (logits,) = yield [Segment(past, block, rows, vectors)]
        if job.echo:
            following = ids[at + 1 : at + 1 + len(block)]
            echoed += score(_reported(logits[: len(following)], job), following, job.top)
    row = logits[-1].copy()
    if kept is not None:
        kept.cache.add(kept.name, ids, model, past, row)
    return Prompt(ids, [Span(past, 0, len(ids))], row, found.known, tuple(echoed))


def _force(model: Model[P], prompt: Prompt[P], job: Job) -> Work[P, list[Scored]]:
    """Each forced token's log-probability; the last one is scored, and need not be read."""
    forced = np.asarray(job.forced_ids, np.int32)
    tokens = score(_reported(prompt.row[None], job), forced[:1], job.top)
    if len(forced) == 1:
        return tokens
    past = model.join(prompt.spans, len(forced) - 1)
    for at in range(0, len(forced) - 1, model.block):
        block = forced[at : min(at + model.block, len(forced) - 1)]
        (logits,) = yield [Segment(past, block, len(block))]
        tokens += score(_reported(logits, job), forced[at + 1 : at + 1 + len(block)], job.top)
    return tokens


def _generate(model: Model[P], prompt: Prompt[P], job: Job, index: int, spell: Spell) -> Work[P, Output]:
    """Draw token by token until something ends the output."""
    random = np.random.default_rng(job.seeds[index])
    past = model.join(prompt.spans, min(job.max_tokens, model.block))
    writing, row = Writing(job, index, spell), prompt.row
    while True:
        bent = steer(row, prompt.ids, writing.ids, job.steering)
        token = draw(bent, job.sampling, random)
        if token is None:
            return writing.end("stop")
        (scored,) = score(_reported(row[None], job), np.asarray([token], np.int32), job.top)
        output = writing.add(scored)
        if output is not None:
            return output
        (logits,) = yield [Segment(past, np.asarray([token], np.int32), 1)]
        row = logits[-1]


def _watch(job: Job, outputs: Sequence[Output], spell: Spell) -> None:
    """Tell who watches of outputs that were not drawn."""
    if job.emit is None:
        return
    plain = replace(job, max_tokens=len(outputs[0].tokens) + 1, ending=Ending())
    for index, output in enumerate(outputs):
        writing = Writing(plain, index, spell)
        for scored in output.tokens:
            writing.add(scored)
        writing.end("length")


def _reported(logits: Floats, job: Job) -> Floats:
    """Log-probabilities as a reply reports them: before everything that steers the drawing."""
    if not job.moved:
        return log_softmax(logits)
    always = replace(job.sampling, xtc_probability=0.0)
    rows = [candidates(row, always, np.random.default_rng(0)) for row in logits]
    return np.asarray(
        [plain if row is None else row for row, plain in zip(rows, logits, strict=True)], np.float32
    )
