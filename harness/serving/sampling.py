"""From logits to log-probabilities, to the likeliest tokens, to a token drawn. Pure, and batched by rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.serving.model import Ids
from harness.serving.weights import Floats


@dataclass(frozen=True, slots=True)
class Scored:
    """One token of the output and its log-probability, before temperature."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids with their log-probabilities, likeliest first; as many as were asked for."""


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


def score(rows: Floats, ids: Ids, top: int) -> list[Scored]:
    """What rows of log-probabilities say of one id each, with the `top` likeliest alternatives."""
    chosen = rows[np.arange(len(ids)), ids].tolist()
    if not top:
        return [Scored(token, value) for token, value in zip(ids.tolist(), chosen, strict=True)]
    likeliest = _likeliest(rows, top)
    values = np.take_along_axis(rows, likeliest, axis=-1).tolist()
    return [
        Scored(token, value, tuple(zip(names, logprobs, strict=True)))
        for token, value, names, logprobs in zip(
            ids.tolist(), chosen, likeliest.tolist(), values, strict=True
        )
    ]


def draw(row: Floats, temperature: float, random: np.random.Generator) -> int:
    """The likeliest id at temperature 0, else one drawn from the tempered distribution."""
    if temperature == 0:
        return int(row.argmax())
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the likeliest to minus infinity
        scaled = (row.astype(np.float64) - row.max()) / temperature
    heights = np.cumsum(np.exp(scaled))
    return min(int(np.searchsorted(heights, random.random() * heights[-1], side="right")), len(row) - 1)


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
