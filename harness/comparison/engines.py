"""The same model behind two endpoints: what serving it otherwise changes, token by token; pure.

An engine, a number format, a batch size shift log-probabilities. Three questions: by how much (`shifts`), on
which items most (`worst_items`), and whether the difference in accuracy is more than what shifts of this size
make of near-ties (`harness.comparison.nearties`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Place
from harness.comparison.measures import Pair, margins
from harness.comparison.paired import Floats, Integers

WORST = 50
"""Items that are listed."""
POSITIONS = ((0, "first token"), (1, "second"), (2, "third and fourth"), (4, "fifth to eighth"), (8, "later"))
"""Where a token stands in its continuation: from which on, and what that is called."""
SIZES = (
    (0.0, "-0.01 to 0"),
    (0.01, "-0.1 to -0.01"),
    (0.1, "-1 to -0.1"),
    (1.0, "-4 to -1"),
    (4.0, "below -4"),
)
"""Log-probability that the baseline gives a token: from which size on, and what that is called (nats)."""


@dataclass(frozen=True, slots=True)
class TokenShifts:
    """Every forced token that both endpoints were asked under the same id."""

    shift: Floats
    """Log-probability of the endpoint less the baseline's (nats), shape (tokens,)."""
    logprob: Floats
    """The baseline's."""
    item: Integers
    """Position in `Pair.scored`; likewise for the choice inside the item, and the token inside the choice."""
    choice: Integers
    position: Integers

    def take(self, chosen: NDArray[np.bool_]) -> TokenShifts:
        """Some of them."""
        return TokenShifts(
            self.shift[chosen],
            self.logprob[chosen],
            self.item[chosen],
            self.choice[chosen],
            self.position[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftRow:
    """How some tokens of one pair shifted: a row of `shifts.csv`, whose other columns are `SUMMARIES`."""

    baseline: str
    endpoint: str
    task: str
    """Empty: all tasks."""
    group: str
    part: str
    tokens: int
    summaries: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstItem:
    """An item that shifted much. The fields are columns of `worst.csv`."""

    baseline: str
    endpoint: str
    place: Place
    id: str
    shift: float
    """The largest of its tokens' (nats), with its sign."""
    choice: int
    position: int
    logprob: float
    """The baseline's, of that token."""
    sum_shift: float
    """The largest change of a choice's sum, with its sign."""
    margin: float
    """Of right over wrong, on the baseline."""
    margin_change: float


def _quantile(values: Floats, *, at: float) -> float:
    return float(np.quantile(values, at))


SUMMARIES: Mapping[str, Callable[[Floats], float]] = {
    "mean": lambda values: float(values.mean()),
    "sd": lambda values: float(values.std(ddof=1)) if len(values) > 1 else 0.0,
    "mean_abs": lambda values: float(np.abs(values).mean()),
    **{
        f"q{round(100 * at):02}": partial(_quantile, at=at)
        for at in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    },
    "largest": lambda values: float(np.abs(values).max()),
}
"""What is told of the shifts of some tokens, by the name of its column; a further one is one line here."""


def _by(bounds: Sequence[tuple[float, str]], values: Floats | Integers) -> NDArray[np.str_]:
    """The name of the last bound that each value reaches."""
    names = np.array([name for _, name in bounds])
    return names[np.searchsorted([bound for bound, _ in bounds], values, side="right") - 1]


GROUPS: Mapping[str, Callable[[TokenShifts], NDArray[np.str_]]] = {
    "all": lambda tokens: np.full(len(tokens.shift), "all"),
    "position": lambda tokens: _by(POSITIONS, tokens.position),
    "logprob": lambda tokens: _by(SIZES, np.maximum(0.0, -tokens.logprob)),
}
"""By what tokens are told apart; a further way is one line here."""


def token_shifts(pair: Pair) -> TokenShifts:
    """The shifts of all tokens of the items that both endpoints have scored; none where none are known."""
    tokens, other_tokens = pair.baseline.columns.tokens, pair.other.columns.tokens
    if tokens is None or other_tokens is None or not len(pair.scored):
        nothing = np.empty(0, np.int64)
        return TokenShifts(np.empty(0), np.empty(0), nothing, nothing, nothing)
    choices = pair.baseline.columns.sums.flat(pair.baseline.at)
    other_choices = pair.other.columns.sums.flat(pair.other.at)
    alike = tokens.ids[choices] == other_tokens.ids[other_choices]
    before = tokens.logprobs.take(choices[alike])
    after = other_tokens.logprobs.take(other_choices[alike])
    item = pair.baseline.sums.spread(np.arange(len(pair.scored)))
    number = np.arange(len(item)) - pair.baseline.sums.spread(pair.baseline.sums.starts)
    return TokenShifts(
        after.values - before.values,
        before.values,
        before.spread(item[alike]),
        before.spread(number[alike]),
        np.arange(len(before.values)) - before.spread(before.starts),
    )


def shift_rows(pair: Pair, found: TokenShifts) -> Iterator[ShiftRow]:
    """The shifts in every group and part, of all tasks together, then of each where there are several."""
    places = pair.baseline.columns.places
    of_item = np.array([places[at].task for at in pair.baseline.at.tolist()])
    tasks = list(dict.fromkeys(of_item.tolist()))
    for task in ("", *(tasks if len(tasks) > 1 else ())):
        chosen = found if not task else found.take(of_item[found.item] == task)
        for group, parted in GROUPS.items():
            parts = parted(chosen)
            for part in _in_order(group, parts):
                values = chosen.shift[parts == part]
                yield ShiftRow(
                    baseline=pair.baseline.columns.label,
                    endpoint=pair.other.columns.label,
                    task=task,
                    group=group,
                    part=part,
                    tokens=len(values),
                    summaries={name: summary(values) for name, summary in SUMMARIES.items()},
                )


def worst_items(pair: Pair, found: TokenShifts) -> Iterator[WorstItem]:
    """The items of which a token shifted most, the worst first."""
    by_size = np.argsort(-np.abs(found.shift), kind="stable")
    _, first = np.unique(found.item[by_size], return_index=True)
    before, after = margins(pair.baseline), margins(pair.other)
    sums, others = pair.baseline.sums.lists(), pair.other.sums.lists()
    for at in by_size[np.sort(first)[:WORST]].tolist():
        item = int(found.item[at])
        place = int(pair.baseline.at[item])
        moved = [there - here for here, there in zip(sums[item], others[item], strict=True)]
        yield WorstItem(
            baseline=pair.baseline.columns.label,
            endpoint=pair.other.columns.label,
            place=pair.baseline.columns.places[place],
            id=pair.baseline.columns.ids[place],
            shift=float(found.shift[at]),
            choice=int(found.choice[at]),
            position=int(found.position[at]),
            logprob=float(found.logprob[at]),
            sum_shift=max(moved, key=abs),
            margin=float(before[item]),
            margin_change=float(after[item] - before[item]),
        )


def _in_order(group: str, parts: NDArray[np.str_]) -> list[str]:
    """The parts that are there, in the order of their bounds."""
    there = set(parts.tolist())
    bounds = {"position": POSITIONS, "logprob": SIZES}.get(group, ())
    return [name for _, name in bounds if name in there] or sorted(there)
