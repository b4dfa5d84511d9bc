"""From logits to log-probabilities, to the likeliest tokens, to a token drawn. Pure.

Sources: Fan et al., "Hierarchical Neural Story Generation", 2018, arXiv:1805.04833 (top-k); Holtzman et al.,
"The Curious Case of Neural Text Degeneration", 2020, arXiv:1904.09751 (top-p); Nguyen et al., "Turning Up the
Heat: Min-p Sampling", 2024, arXiv:2407.01082; exclude top choices (XTC): text-generation-webui, pull request
6335.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.serving.models.seam import Ids
from harness.serving.models.weights import Floats

Logprobs = npt.NDArray[np.float64]
"""(vocabulary,); minus infinity where a token cannot be drawn."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One token of the output and its log-probability, before anything that steers the drawing."""

    token: int
    logprob: float
    likeliest: tuple[int, ...] = ()
    """As many ids as were asked for, likeliest first."""
    logprobs: tuple[float, ...] = ()
    """Theirs. In two tuples, as the garbage collector has no work with tuples of numbers."""

    @property
    def top(self) -> Iterator[tuple[int, float]]:
        """The likeliest ids with their log-probabilities."""
        return zip(self.likeliest, self.logprobs, strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a token is drawn; the defaults draw from the model's own distribution."""

    temperature: float = 1.0
    """0 takes the likeliest."""
    top_k: int = 0
    """Only the likeliest so many; 0: all."""
    top_p: float = 1.0
    """Only the likeliest that together have this probability."""
    min_p: float = 0.0
    """Only those at least so likely as this share of the likeliest."""
    xtc_threshold: float = 0.5
    xtc_probability: float = 0.0
    """With this probability all tokens that reach the threshold but the least likely of them are out."""


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities of each row; the normaliser is summed in float64.

    Raises:
        FloatingPointError: the logits are no finite numbers: broken weights, never a score.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    sums = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    if not np.isfinite(sums).all():
        raise FloatingPointError("the model's logits are not finite")
    logprobs: Floats = (shifted - np.log(sums)).astype(np.float32)
    return logprobs


def reported(logits: Floats, after: Sampling | None) -> Floats:
    """Log-probabilities of each row as a reply reports them: before everything that steers the drawing.

    Args:
        logits: (rows, vocabulary).
        after: the temperature, top-k, top-p and min-p that they are taken after all the same, as an honest
            endpoint does not. None: nothing.

    Raises:
        FloatingPointError: the logits are no numbers.
    """
    plain = log_softmax(logits)
    if after is None:
        return plain
    always, chance = replace(after, xtc_probability=0.0), np.random.default_rng(0)
    rows = [candidates(row, always, chance) for row in logits]
    return np.asarray([own if row is None else row for row, own in zip(rows, plain, strict=True)], np.float32)


def score(rows: Floats, ids: Ids, top: int) -> list[Scored]:
    """What rows of log-probabilities say of one id each, with the `top` likeliest alternatives."""
    chosen = rows[np.arange(len(ids)), ids].tolist()
    if not top:
        return [Scored(token, value) for token, value in zip(ids.tolist(), chosen, strict=True)]
    likeliest = _likeliest(rows, top)
    values = np.take_along_axis(rows, likeliest, axis=-1).tolist()
    return [
        Scored(token, value, tuple(names), tuple(logprobs))
        for token, value, names, logprobs in zip(
            ids.tolist(), chosen, likeliest.tolist(), values, strict=True
        )
    ]


def candidates(logits: Floats, sampling: Sampling, random: np.random.Generator) -> Logprobs | None:
    """Log-probabilities of what may be drawn, in the order of Hugging Face's warpers: temperature, top-k,
    top-p, min-p, then XTC; None where nothing may.

    Temperature 0 leaves the likeliest alone. `random` decides whether XTC strikes.
    """
    if not np.isfinite(logits).any():
        return None
    if sampling.temperature == 0:
        return _only(logits, np.arange(len(logits)) == logits.argmax())
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the likeliest to minus infinity
        row = (logits.astype(np.float64) - logits.max()) / sampling.temperature
    if 0 < sampling.top_k < len(row):
        row = _only(row, row >= np.partition(row, -sampling.top_k)[-sampling.top_k])
    if sampling.top_p < 1:
        row = _only(row, _nucleus(row, sampling.top_p))
    if sampling.min_p > 0:
        row = _only(row, row >= row.max() + np.log(sampling.min_p))
    if sampling.xtc_probability > 0 and random.random() < sampling.xtc_probability:
        row = _only(row, ~_top_choices(row, sampling.xtc_threshold))
    return _normalised(row)


def draw(logits: Floats, sampling: Sampling, random: np.random.Generator) -> int | None:
    """The likeliest id at temperature 0, else one drawn; None where nothing may be drawn."""
    if sampling.temperature == 0:
        return int(logits.argmax()) if np.isfinite(logits).any() else None
    row = candidates(logits, sampling, random)
    if row is None:
        return None
    heights = np.cumsum(np.exp(row))
    return min(int(np.searchsorted(heights, random.random() * heights[-1], side="right")), len(row) - 1)


def _only(row: Floats | Logprobs, kept: npt.NDArray[np.bool_]) -> Logprobs:
    return np.where(kept, row, -np.inf).astype(np.float64)


def _normalised(row: Logprobs) -> Logprobs:
    shifted = row - row.max()
    normalised: Logprobs = shifted - np.log(np.exp(shifted).sum())
    return normalised


def _nucleus(row: Logprobs, mass: float) -> npt.NDArray[np.bool_]:
    """The likeliest that together reach `mass`; the one that crosses it is kept."""
    order = np.argsort(-row, kind="stable")
    probabilities = np.exp(_normalised(row))[order]
    kept = np.zeros(len(row), bool)
    kept[order[np.cumsum(probabilities) - probabilities < mass]] = True
    return kept


def _top_choices(row: Logprobs, threshold: float) -> npt.NDArray[np.bool_]:
    """All that reach the threshold but the least likely of them."""
    probabilities = np.exp(_normalised(row))
    reached = np.isfinite(row) & (probabilities >= threshold)
    if reached.any():
        reached[np.where(reached, probabilities, np.inf).argmin()] = False
    return reached


def _likeliest(rows: Floats, top: int) -> Ids:
    """The ids of the `top` greatest values of each row, greatest first."""
    if top == 1:
        best: Ids = rows.argmax(axis=-1, keepdims=True).astype(np.int32)
        return best
    top = min(top, rows.shape[-1])
    found = np.argpartition(rows, -top, axis=-1)[:, -top:]
    order = np.argsort(-np.take_along_axis(rows, found, axis=-1), axis=-1, kind="stable")
    likeliest: Ids = np.take_along_axis(found, order, axis=-1).astype(np.int32)
    return likeliest
