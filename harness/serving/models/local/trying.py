"""What a network can do, found out by trying it on a few tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from harness.errors import UsageError
from harness.serving.models.local.network import Asked, Network, to_floats
from harness.serving.models.local.pasts import KeptPast, Layout
from harness.serving.models.local.quiet import first_line
from harness.serving.models.seam import Ids, Model, Segment
from harness.serving.models.weights import Floats

TOKENS = 24
MAX_TOKENS = 512
"""To see beyond a sliding window takes as many tokens as it has; a wider one is not tried."""
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}
"""Of the mean difference of logits, over their spread: what rounding may do. A token that is seen where it
should not be, or stands elsewhere, changes them by about their spread."""
COARSE = 0.1
"""The same for any other type of weights."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found out."""

    vocab_size: int
    layout: Layout | None
    """None: it keeps more than keys and values."""
    ids: Ids
    """(tokens,): ids to try it with."""


def probe(network: Network) -> Probe:
    """Read some tokens, and see what comes back.

    Raises:
        UsageError: the network fails, or what follows a token changes its logits.
    """
    rows = network.model.get_input_embeddings().weight.shape[0]
    count = _tokens(network)
    ids = ((np.arange(count) * 7919 + 11) % rows).astype(np.int32)
    try:
        with torch.inference_mode():
            whole, part = _alone(network, ids), _alone(network, ids[: count // 2])
            cache = network.cache_of(_asked(network, ids).inputs)
    except Exception as error:  # whatever a model of a kind of its own asks for
        raise UsageError(f"--model {network.folder}: cannot be run ({first_line(error)})") from error
    if not np.isfinite(whole).all():
        raise UsageError(f"--model {network.folder}: gives logits that are no numbers")
    if not alike(network, part, whole[: len(part)]):
        raise UsageError(
            f"--model {network.folder}: what follows a token changes its logits: no causal language model"
        )
    layout = Layout.of(cache, network.device)
    if getattr(network.config, "attention_chunk_size", None):
        layout = None  # which chunk a key is in would depend on the padding before it
    return Probe(whole.shape[1], layout, ids)


def keeps_rightly(network: Network, cached: Model[KeptPast], ids: Ids) -> bool:
    """Whether two sequences, read on bit by bit in padded batches, get the logits that each gets alone."""
    sequences = [ids, ids[::-1][: max(2, 2 * len(ids) // 3)]]
    pasts = [cached.join((), 0) for _ in sequences]
    found: list[list[Floats]] = [[], []]
    edges = [_edges(len(ids), 2), _edges(len(sequences[1]), 4)]
    try:
        for step in range(len(edges[0]) - 1):
            parts = [each[at[step] : at[step + 1]] for each, at in zip(sequences, edges, strict=True)]
            segments = [Segment(past, part, len(part)) for past, part in zip(pasts, parts, strict=True)]
            for row, logits in zip(found, cached.feed(segments), strict=True):
                row.append(logits)
        with torch.inference_mode():
            expected = [_alone(network, each) for each in sequences]
    except Exception:  # whatever a model that wants a cache of its own kind leads to
        return False
    pairs = zip(found, expected, strict=True)
    return all(alike(network, np.concatenate(parts), whole) for parts, whole in pairs)


def alike(network: Network, one: Floats, other: Floats) -> bool:
    """Whether logits differ by rounding alone."""
    spread = float(np.std(other)) or 1.0
    return float(np.mean(np.abs(one - other))) <= TOLERANCE.get(network.dtype, COARSE) * spread


def _tokens(network: Network) -> int:
    windows = [getattr(network.config, name, None) for name in ("sliding_window", "window_size")]
    beyond = [each + 8 for each in windows if isinstance(each, int) and each + 8 <= MAX_TOKENS]
    return min(max([TOKENS, *beyond]), network.max_length)


def _edges(length: int, share: int) -> list[int]:
    """Where to cut a sequence into a beginning, the next few tokens, and a single last one."""
    return [0, max(1, length // share) if length > 2 else 1, length - 1, length]


def _alone(network: Network, ids: Ids) -> Floats:
    """Logits after each id of one sequence: no cache, no padding, no positions but the model's own."""
    asked = _asked(network, ids)
    return to_floats(network(asked)[0])


def _asked(network: Network, ids: Ids) -> Asked:
    inputs = torch.from_numpy(ids.astype(np.int64))[None].to(network.device)
    return Asked(inputs, torch.ones_like(inputs), torch.arange(len(ids), device=network.device))
