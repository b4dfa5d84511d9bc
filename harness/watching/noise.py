"""The noise of an endpoint: what scoring some items a second time changed; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.scoring.scores import ItemScore
from harness.watching.judging import Difference, Finding, Floor, floor_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What differs between two scorings of the same items."""

    items: int
    """Scored both times."""
    flips: Mapping[str, float] = field(default_factory=dict)
    """By metric: the share of the items with such a prediction for which it changed."""
    sum_sd: float = 0.0
    """Standard deviation of one sum about its mean, nats: of two, sqrt(mean squared difference / 2)."""
    sum_largest: float = 0.0
    """The largest difference of two sums, nats."""
    tokens: int = 0
    token_mean: float = 0.0
    """Mean over items of the mean difference of a token's log-probability, sign dropped, nats."""
    token_sd: float = 0.0
    """Its standard deviation over items."""

    def floor(self, items: int) -> Floor:
        """What a look at so many items may differ by without a reason."""
        return floor_of(self.token_mean, self.token_sd, items)

    def finding(self) -> Finding:
        """As the table of checks has it."""
        told = [
            f"{100 * share:.2f} % change their prediction by {name}" for name, share in self.flips.items()
        ]
        said = ", ".join([*told, self._sums])
        return Finding(
            check="noise",
            when="repeated",
            verdict="fine",
            says=f"noise floor: of {self.items:,} items that were scored twice {said}",
            figures={
                "tokens": self.tokens,
                "mean_difference": self.token_mean,
                "items": self.items,
                "sum_sd": self.sum_sd,
                "largest_sum_difference": self.sum_largest,
            },
            flips=self.flips,
        )

    @property
    def _sums(self) -> str:
        return f"sums differ by {self.sum_largest:.2g} nats at most (standard deviation {self.sum_sd:.2g})"


def measured(
    firsts: Sequence[ItemScore],
    seconds: Sequence[ItemScore],
    differences: Sequence[Difference],
    metrics: Mapping[str, Sequence[str]],
) -> Noise | None:
    """What scoring twice shows; None where nothing was scored both times.

    Args:
        firsts: the items as the run scored them.
        seconds: the same, in the same order, scored again.
        differences: of each of them, token by token.
        metrics: by task, those that it reports.
    """
    from harness.comparison.columns import columns_of_scores  # not sooner: requests do not wait for it

    pairs = [(one, other) for one, other in zip(firsts, seconds, strict=True) if one.sums and other.sums]
    pairs = [(one, other) for one, other in pairs if len(one.sums) == len(other.sums)]
    if not pairs or not differences:
        return None
    before, after = (columns_of_scores("", each, metrics) for each in zip(*pairs, strict=True))
    flips: dict[str, float] = {}
    for name, predicted in before.predictions.items():
        known = (predicted >= 0) & (after.predictions[name] >= 0)
        if known.any():
            changed = predicted[known] != after.predictions[name][known]
            flips[name] = float(changed.mean())
    shifts = after.sums.values - before.sums.values
    means = np.array([each.mean for each in differences])
    return Noise(
        items=len(pairs),
        flips=flips,
        sum_sd=math.sqrt(float(np.mean(shifts**2)) / 2),
        sum_largest=float(np.abs(shifts).max()),
        tokens=sum(each.tokens for each in differences),
        token_mean=float(means.mean()),
        token_sd=float(means.std(ddof=1)) if len(means) > 1 else float(means.mean()),
    )
