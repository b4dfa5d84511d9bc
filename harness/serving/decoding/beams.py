"""Beam search: deterministic, with sampling, and stochastic.

Deterministic and naive sampling follow Hugging Face's `beam_search` and `beam_sample`. Stochastic: Kool et
al., "Stochastic Beams and Where to Find Them", 2019, arXiv:1903.06059, whose beams are a sample of outputs
without replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic

import numpy as np
import numpy.typing as npt

from harness.serving.decoding.job import Beams, Job, Output, Work
from harness.serving.decoding.sampling import Logprobs, Sampling, Scored, candidates, reported, score
from harness.serving.decoding.steering import steer
from harness.serving.models.seam import Ids, Model, P, Segment, fork
from harness.serving.models.weights import Floats

_PLAIN = Sampling()


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    """The beginning of an output, or a whole one."""

    tokens: tuple[Scored, ...] = ()
    total: float = 0.0
    """Log-probability of all tokens, after steering."""
    perturbed: float = 0.0
    """Stochastic: `total` with Gumbel noise, the greatest of its continuations' (Kool et al., section 4)."""
    ended: bool = False

    @property
    def ids(self) -> list[int]:
        return [each.token for each in self.tokens]


@dataclass(frozen=True, slots=True)
class _Beam(Generic[P]):
    """An open hypothesis, read to its end."""

    hypothesis: _Hypothesis
    past: P
    row: Floats
    """Logits of the next token, (vocabulary,)."""
    values: Floats
    """Its log-probabilities as they are reported, (1, vocabulary)."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A beam and one token more."""

    beam: int
    token: int
    total: float
    perturbed: float = 0.0


def search(
    model: Model[P], begin: Callable[[int], P], context: Ids, row: Floats, job: Job, beams: Beams
) -> Work[P, Output]:
    """The best output that the search finds.

    Args:
        model: what reads.
        begin: makes a past of the context with room for so many tokens.
        context: ids of the context.
        row: logits of what follows the context, (vocabulary,).
        job: what is asked for.
        beams: how it is searched for.
    """
    random = np.random.default_rng(job.seeds[0])
    rank = _Ranking(beams)
    past = begin(min(job.max_tokens, model.block))
    open_beams = [_Beam(_Hypothesis(), past, row, reported(row[None], job.after))]
    ended: list[_Hypothesis] = []
    for length in range(1, job.max_tokens + 1):
        weighed = [_weighed(beam, context, job, beams, random) for beam in open_beams]
        grown, finished = _grow(open_beams, weighed, job, beams, random)
        grown, ended = rank.compete(grown, [*ended, *finished])
        if not grown or rank.decided(grown, ended, length) or _all_stop(grown, job):
            break
        if length < job.max_tokens:
            open_beams = yield from _read(model, open_beams, grown, job)
    found = ended if ended and rank.only_ended(grown, ended) else [*ended, *(each for each, _ in grown)]
    if not found:
        return Output((), "stop", job.seeds[0])
    best = max(found, key=rank.final)
    stopped = best.ended or bool(job.ending.stop_tokens & set(best.ids))
    return Output(best.tokens, "stop" if stopped else "length", job.seeds[0])


_Grown = tuple[_Hypothesis, int]
"""A hypothesis and the beam that it continues."""


class _Ranking:
    """Which hypothesis is better."""

    def __init__(self, beams: Beams) -> None:
        self._beams = beams

    def normalised(self, total: float, length: int) -> float:
        """Log-probability over length to the power of the penalty."""
        return float(total / max(length, 1) ** self._beams.length_penalty)

    def final(self, each: _Hypothesis) -> float:
        """What outputs are compared by in the end."""
        if not self._beams.post_normalization:
            return each.total
        return self.normalised(each.total, len(each.tokens))

    def compete(
        self, grown: Sequence[_Grown], ended: Sequence[_Hypothesis]
    ) -> tuple[list[_Grown], list[_Hypothesis]]:
        """Open and ended hypotheses after they have competed for the places, where they do."""
        if self._beams.kind == "STOCHASTIC":
            value = _perturbed
        elif self._beams.pre_normalization:
            value = self._normalised_of
        else:
            return list(grown), sorted(ended, key=self.final, reverse=True)[: self._beams.width]
        all_of_them = [*grown, *((each, -1) for each in ended)]
        best = sorted(all_of_them, key=lambda each: value(each[0]), reverse=True)[: self._beams.width]
        return [each for each in best if each[1] >= 0], [each for each, beam in best if beam < 0]

    def decided(self, grown: Sequence[_Grown], ended: Sequence[_Hypothesis], length: int) -> bool:
        """Whether no open hypothesis can come out best any more, as far as is worth waiting for."""
        if self._beams.kind == "STOCHASTIC" or len(ended) < self._beams.width:
            return False
        if self._beams.early_stopping:
            return True
        hoped = max(each.total for each, _ in grown)
        best = self.normalised(hoped, length) if self._beams.post_normalization else hoped
        return best <= min(map(self.final, ended))

    def only_ended(self, grown: Sequence[_Grown], ended: Sequence[_Hypothesis]) -> bool:
        """Whether the open ones are out of the search."""
        return not grown or (len(ended) >= self._beams.width and self._beams.kind != "STOCHASTIC")

    def _normalised_of(self, each: _Hypothesis) -> float:
        return self.normalised(each.total, len(each.tokens))


def _perturbed(each: _Hypothesis) -> float:
    return each.perturbed


def _weighed(
    beam: _Beam[P], context: Ids, job: Job, beams: Beams, random: np.random.Generator
) -> Logprobs | None:
    """Log-probabilities of a beam's next token, (vocabulary,); None where nothing may follow."""
    bent = steer(beam.row, context, beam.hypothesis.ids, job.steering)
    return candidates(bent, _PLAIN if beams.kind == "DETERMINISTIC" else job.sampling, random)


def _grow(
    open_beams: Sequence[_Beam[P]],
    weighed: Sequence[Logprobs | None],
    job: Job,
    beams: Beams,
    random: np.random.Generator,
) -> tuple[list[_Grown], list[_Hypothesis]]:
    """The hypotheses that go on, and those that have ended now."""
    totals = _totals(open_beams, weighed)
    chosen = _CHOICES[beams.kind](open_beams, totals, beams.width, random)
    grown: list[_Grown] = []
    finished: list[_Hypothesis] = []
    for place, candidate in enumerate(chosen):
        ends = candidate.token in job.ending.tokens
        if ends and (place < beams.width or beams.kind == "STOCHASTIC"):
            finished.append(_extended(open_beams, candidate, job, ended=True))
        elif not ends and (len(grown) < beams.width or beams.kind == "STOCHASTIC"):
            grown.append((_extended(open_beams, candidate, job, ended=False), candidate.beam))
    return grown, finished


def _extended(open_beams: Sequence[_Beam[P]], candidate: _Candidate, job: Job, *, ended: bool) -> _Hypothesis:
    beam = open_beams[candidate.beam]
    (scored,) = score(beam.values, np.asarray([candidate.token], np.int32), job.top)
    return _Hypothesis((*beam.hypothesis.tokens, scored), candidate.total, candidate.perturbed, ended)


def _all_stop(grown: Sequence[_Grown], job: Job) -> bool:
    """Whether every open beam holds a stop token."""
    return bool(job.ending.stop_tokens) and all(job.ending.stop_tokens & set(each.ids) for each, _ in grown)


def _read(
    model: Model[P], open_beams: Sequence[_Beam[P]], grown: Sequence[_Grown], job: Job
) -> Work[P, list[_Beam[P]]]:
    """Read the last token of each: the last that continues a beam takes its past, others a copy."""
    last = {beam: index for index, (_, beam) in enumerate(grown)}
    pasts = [
        open_beams[beam].past if last[beam] == index else fork(model, open_beams[beam].past, model.block)
        for index, (_, beam) in enumerate(grown)
    ]
    logits = yield [
        Segment(past, np.asarray([each.ids[-1]], np.int32), 1)
        for past, (each, _) in zip(pasts, grown, strict=True)
    ]
    return [
        _Beam(each, past, rows[-1], reported(rows, job.after))
        for (each, _), past, rows in zip(grown, pasts, logits, strict=True)
    ]


# ---------------------------------------------------------------------------------------------- choosing


Totals = npt.NDArray[np.float64]
"""Log-probability of each beam with each next token: (beams, vocabulary)."""


def _likeliest(
    open_beams: Sequence[_Beam[P]], totals: Totals, width: int, random: np.random.Generator
) -> list[_Candidate]:
    """Twice as many as there are places, so that enough go on even if half of them end; likeliest first."""
    return _greatest(totals, totals, 2 * width)


def _sampled(
    open_beams: Sequence[_Beam[P]], totals: Totals, width: int, random: np.random.Generator
) -> list[_Candidate]:
    """Likewise, but drawn without replacement: the greatest after Gumbel noise."""
    drawn = _greatest(totals + random.gumbel(size=totals.shape), totals, 2 * width)
    return sorted(drawn, key=lambda each: each.total, reverse=True)


def _stochastic(
    open_beams: Sequence[_Beam[P]], totals: Totals, width: int, random: np.random.Generator
) -> list[_Candidate]:
    """The greatest by noise, drawn top-down: the greatest of a beam's continuations has the beam's own."""
    noisy = totals + random.gumbel(size=totals.shape)
    for index, beam in enumerate(open_beams):
        if beam.hypothesis.tokens and np.isfinite(noisy[index]).any():
            noisy[index] = _conditioned(noisy[index], beam.hypothesis.perturbed)
    return [
        replace(each, perturbed=float(noisy[each.beam, each.token]))
        for each in _greatest(noisy, totals, width)
    ]


_CHOICES = {"DETERMINISTIC": _likeliest, "NAIVE_SAMPLING": _sampled, "STOCHASTIC": _stochastic}


def _conditioned(noisy: Logprobs, greatest: float) -> Logprobs:
    """Gumbel values given that the greatest of them is this one (Kool et al., appendix B.3)."""
    top = noisy.max()
    with np.errstate(divide="ignore", invalid="ignore"):
        v = greatest - noisy + np.log1p(-np.exp(noisy - top))
    lowered: Logprobs = greatest - np.maximum(0, v) - np.log1p(np.exp(-np.abs(v)))
    lowered[noisy == top] = greatest
    lowered[np.isneginf(noisy)] = -np.inf
    return lowered


def _totals(open_beams: Sequence[_Beam[P]], weighed: Sequence[Logprobs | None]) -> Totals:
    return np.stack(
        [
            np.full(len(beam.row), -np.inf) if row is None else beam.hypothesis.total + row
            for beam, row in zip(open_beams, weighed, strict=True)
        ]
    )


def _greatest(values: Totals, totals: Totals, count: int) -> list[_Candidate]:
    """The candidates of the greatest values, greatest first; none that is impossible."""
    flat = values.ravel()
    count = min(count, flat.size)
    found = np.sort(np.argpartition(-flat, count - 1)[:count])  # in their order, so that ties are stable
    order = found[np.argsort(-flat[found], kind="stable")]
    beams, tokens = np.unravel_index(order, values.shape)
    return [
        _Candidate(int(beam), int(token), float(totals[beam, token]))
        for beam, token in zip(beams, tokens, strict=True)
        if np.isfinite(values[beam, token])
    ]
