"""What came of a run that was to stop once decided: in words, in `run.json`, and in what its tables count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.deciding.referee import Referee
from harness.manifest import EndpointRun, Exit
from harness.replies import StoredReplies
from harness.scoring.scores import NOT_ASKED, NOT_TRIED, ItemScore

if TYPE_CHECKING:
    from harness.comparison.findings import Verdict
    from harness.comparison.sequential import State

STATUS = "decided"
"""What `run.json` says of a run that stopped so, with items that were never asked."""


class Counting:
    """Scores on their way to the tables: what a decided run did not ask is no failure, and does not count.

    Attributes:
        asked: items by task, of those that were asked.
        spared: likewise, of those that were not.
    """

    def __init__(self, scores: Iterable[ItemScore]) -> None:
        """Nothing is read yet."""
        self._scores = scores
        self.asked: Counter[str] = Counter()
        self.spared: Counter[str] = Counter()

    def __iter__(self) -> Iterator[ItemScore]:
        """The scores, in their order."""
        for score in self._scores:
            if score.unscored in (NOT_TRIED, NOT_ASKED):
                self.spared[score.record.task] += 1
                yield replace(score, unscored=NOT_ASKED)
            else:
                self.asked[score.record.task] += 1
                yield score


def counted(scores: Mapping[str, Iterable[ItemScore]], referee: Referee) -> dict[str, Iterable[ItemScore]]:
    """Scores as the tables take them: once all pairs are decided they are counted."""
    return {label: Counting(each) if referee.decided else each for label, each in scores.items()}


async def outcome_of(
    referee: Referee, scores: Mapping[str, Iterable[ItemScore]], parts: Sequence[EndpointRun]
) -> Outcome:
    """What came of it, once tables are written from these scores.

    Raises:
        StoreError: a journal cannot be read.
    """
    through = {label: each for label, each in scores.items() if isinstance(each, Counting)}
    journals = {part.endpoint.label: part.journal for part in parts}
    states = await asyncio.to_thread(referee.states)
    return Outcome(referee, states, await asyncio.to_thread(saved, through, journals))


@dataclass(frozen=True, slots=True)
class Saved:
    """What was not asked, over all endpoints; shares are of the whole."""

    items: int
    items_share: float
    requests: int
    """About so many, like tokens: an item that was not asked is taken to need what those of its task did."""
    requests_share: float
    tokens: int
    """Of prompts, and forced."""
    tokens_share: float


def saved(counted: Mapping[str, Counting], journals: Mapping[str, StoredReplies]) -> Saved:
    """What a run saved, by label of its endpoints."""
    whole = [0.0, 0.0, 0.0]
    spared = [0.0, 0.0, 0.0]
    for label, each in counted.items():
        taken = journals[label].asked_by_task()
        for task in each.asked.keys() | each.spared.keys():
            items, requests, tokens = taken.get(task, (0, 0, 0))
            of_one = (1.0, requests / items, tokens / items) if items else (1.0, 0.0, 0.0)
            for at, amount in enumerate(of_one):
                spared[at] += amount * each.spared[task]
                whole[at] += amount * (each.spared[task] + each.asked[task])
    shares = [part / total if total else 0.0 for part, total in zip(spared, whole, strict=True)]
    items, requests, tokens = map(round, spared)
    return Saved(items, shares[0], requests, shares[1], tokens, shares[2])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a run's comparison has come, once nothing is asked any more."""

    referee: Referee
    states: Sequence[State]
    saved: Saved

    @property
    def spared(self) -> bool:
        """Whether all is decided, and something was not asked for that reason."""
        return self.referee.decided and self.saved.items > 0

    def status(self, code: Exit) -> str:
        """What `run.json` says of the run that ended with this code."""
        return STATUS if self.spared and code is Exit.DONE else code.status

    def document(self) -> dict[str, Any]:
        """As `run.json` has it."""
        referee = self.referee
        return {
            "decided": referee.decided,
            "margin": referee.margin,
            "level": referee.level,
            "items": referee.order.compared,
            "pairs": [
                {"baseline": pair.baseline, "endpoint": pair.endpoint, **asdict(state)}
                for pair, state in zip(referee.pairs, self.states, strict=True)
            ],
            "saved": asdict(self.saved),
        }

    def remarks(self) -> Iterator[str]:
        """One sentence a pair, and what was saved."""
        referee = self.referee
        for pair, state in zip(referee.pairs, self.states, strict=True):
            yield told(
                pair.endpoint, pair.baseline, state, referee.order.compared, referee.margin, referee.level
            )
        if self.saved.items:
            found = self.saved
            yield (
                f"Not asked, over all endpoints: {found.items_share:.0%} of the items ({found.items:,}), and"
                f" with them about {found.requests_share:.0%} of the requests ({found.requests:,}) and"
                f" {found.tokens_share:.0%} of the tokens ({found.tokens:,}). The same command without"
                " --compare-until-decided asks them."
            )


_SAID: Mapping[Verdict, str] = {
    "better": "{endpoint} is better than {baseline}",
    "worse": "{endpoint} is worse than {baseline}",
    "equivalent": "{endpoint} and {baseline} differ by less than {margin}",
    "undecided": "Undecided between {endpoint} and {baseline}",
}
_EQUAL = "{endpoint} and {baseline} are equal"


def told(endpoint: str, baseline: str, state: State, items: int, margin: float, level: float) -> str:
    """What is known of a pair, in a sentence.

    Args:
        endpoint: label.
        baseline: label.
        state: of the pair.
        items: of the whole.
        margin: below which a difference does not matter.
        level: of the pair.
    """
    from harness.comparison.words import p_number, points, size  # not sooner: requests do not wait for it

    said = _SAID[state.verdict] if margin or state.verdict != "equivalent" else _EQUAL
    verdict = said.format(endpoint=endpoint, baseline=baseline, margin=size(margin))
    text = (
        f"{verdict} over all {items:,} items, told by {state.items:,} of them:"
        f" {100 * (1 - level):.3g} % interval {points(state.low)} to {points(state.high)} points"
    )
    if state.verdict in ("better", "worse"):
        text += f", p {p_number(state.p_value)}"
    if state.unknown:
        text += f"; {state.unknown:,} that could not be scored are put in at their worst"
    return text + ". It holds however often one looks."
