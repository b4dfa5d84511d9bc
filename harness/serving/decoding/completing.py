"""One completion from start to end, on a model and what is kept of earlier contexts; no threads, no HTTP.

A context is read in blocks that start at multiples of the block length, and of a kept context whole blocks
are used. So the same numbers come out of the same operations, to the bit, whatever was read before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic

import numpy as np

from harness.serving.decoding.beams import search
from harness.serving.decoding.job import Completion, Job, Output, Piece, Tally, Work, together
from harness.serving.decoding.sampling import Scored, draw, log_softmax, reported, score
from harness.serving.decoding.spelling import Growth, Spell
from harness.serving.decoding.steering import steer
from harness.serving.decoding.writing import Writing
from harness.serving.models.seam import Ids, Model, P, Segment, Span
from harness.serving.models.weights import Floats
from harness.serving.prefixes import Found, PrefixCache


@dataclass(frozen=True, slots=True)
class Reader(Generic[P]):
    """A model, where its contexts are kept, and the count of what is read of them."""

    model: Model[P]
    cache: PrefixCache[P] | None = None
    """None: they are not kept."""
    name: Hashable = ""
    """The model's own, among those that share the cache."""
    tally: Tally = field(default_factory=Tally)

    def find(self, ids: Ids) -> Found[P]:
        """What is known of a context."""
        return Found(0) if self.cache is None else self.cache.find(self.name, ids, self.model.block)


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


def complete(reader: Reader[P], job: Job, spell: Spell) -> Work[P, Completion]:
    """Score the forced output, or make one, with the context's own scores where they are to be echoed."""
    model = reader.model
    prompt = yield from read(reader, job)
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


def read(reader: Reader[P], job: Job) -> Work[P, Prompt[P]]:
    """Read a context, as far as it is not kept from before, and keep it.

    An echo reads all of it, as scores are not kept; a context with vectors of its own is not kept.

    Raises:
        FloatingPointError: the logits of what follows are no numbers; then it is not kept either.
    """
    ids, model, tally = np.asarray(job.context_ids, np.int32), reader.model, reader.tally
    found: Found[P] = Found(0) if job.vectors else reader.find(ids)
    tally.prompt_cached += found.known
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
        tally.prompt_computed += max(0, at + len(block) - max(at, found.known))
        if job.echo:
            following = ids[at + 1 : at + 1 + len(block)]
            echoed += score(reported(logits[: len(following)], job.after), following, job.top)
    row = logits[-1].copy()
    log_softmax(row)  # raises where they are no numbers: before they are kept
    if reader.cache is not None and not job.vectors:
        reader.cache.add(reader.name, ids, model, past, row)
    return Prompt(ids, [Span(past, 0, len(ids))], row, found.known, tuple(echoed))


def _force(model: Model[P], prompt: Prompt[P], job: Job) -> Work[P, list[Scored]]:
    """Each forced token's log-probability; the last one is scored, and need not be read."""
    forced = np.asarray(job.forced_ids, np.int32)
    tokens = score(reported(prompt.row[None], job.after), forced[:1], job.top)
    if len(forced) == 1:
        return tokens
    past = model.join(prompt.spans, len(forced) - 1)
    for at in range(0, len(forced) - 1, model.block):
        block = forced[at : min(at + model.block, len(forced) - 1)]
        (logits,) = yield [Segment(past, block, len(block))]
        tokens += score(reported(logits, job.after), forced[at + 1 : at + 1 + len(block)], job.top)
    return tokens


def _generate(model: Model[P], prompt: Prompt[P], job: Job, index: int, spell: Spell) -> Work[P, Output]:
    """Draw token by token until something ends the output."""
    random = np.random.default_rng(job.seeds[index])
    past = model.join(prompt.spans, min(job.max_tokens, model.block))
    writing, row = Writing(job, index, spell), prompt.row
    while True:
        values = reported(row[None], job.after)
        token = draw(steer(row, prompt.ids, writing.ids, job.steering), job.sampling, random)
        if token is None:
            return writing.end("stop")
        (scored,) = score(values, np.asarray([token], np.int32), job.top)
        output = writing.add(scored)
        if output is not None:
            return output
        (logits,) = yield [Segment(past, np.asarray([token], np.int32), 1)]
        row = logits[-1]


def _watch(job: Job, outputs: Sequence[Output], spell: Spell) -> None:
    """Tell who watches of outputs that were not drawn."""
    if job.emit is None:
        return
    for index, output in enumerate(outputs):
        growth = Growth(spell)
        for scored in output.tokens:
            growth.add(scored.token)
        growth.close()
        told = 0
        for scored, start, end in zip(output.tokens, growth.starts, growth.ends, strict=True):
            job.emit(Piece(output=index, scored=scored, text=growth.text[told:end], offset=start))
            told = end
