"""Choices read off replies while a run goes on, and held against forced ones every so often.

That an endpoint's alternatives are what forcing gives was shown once (`learning`). Another engine behind the
same address may see it otherwise, so of every few hundred items a choice that was read is forced as well.
Where the two differ nothing is read any more, and what was read since they last agreed is forgotten, and
forced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.exchange import Outcome, ScoreRequest
from harness.learning import Lesson
from harness.plan import KeyMaker
from harness.shortcut import SAME, read_off

EVERY = 512
"""Items read between two checks: 28 requests more for the 14,042 items of MMLU."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an outcome."""

    read: Sequence[Outcome] = ()
    """Of the choices that it told of too."""
    again: Sequence[ScoreRequest] = ()
    """Requests with the same context that have to be sent."""
    forget: Sequence[ScoreRequest] = ()
    """What was read and is not to be believed any more; to be sent, each by itself."""


@dataclass(slots=True)
class _Check:
    """A choice that was read and is forced as well."""

    value: float
    since: list[ScoreRequest] = field(default_factory=list)
    """What was read before it, and after the check before it."""


class Reading:
    """What one endpoint's replies tell of other choices; for one event loop."""

    def __init__(self, lesson: Lesson, keys: KeyMaker, already: int = 0) -> None:
        """Take what is learnt of the endpoint, and the keys of its requests.

        `already`: items that count as read, so that the checks of several processes come in turns.
        """
        self._lesson = lesson
        self._keys = keys
        self._items = already
        self._unproven: list[ScoreRequest] = []
        self._checks: dict[bytes, _Check] = {}

    def take(self, outcome: Outcome) -> Taken:
        """Read what an outcome tells, and judge it where it is a check."""
        if (check := self._checks.pop(outcome.request.key, None)) is not None:
            return self._judged(check, outcome)
        request, found = outcome.request, self._lesson.found
        if not request.also:
            return Taken()
        if outcome.failure is not None:  # each fails by the same
            return Taken([_failed(outcome, each) for each in request.also])
        read = read_off(outcome, found) if found else []
        keys = {each.request.key for each in read}
        again = [each for each in request.also if each.key not in keys]
        self._unproven += [each.request for each in read]
        self._items += bool(read)
        if read and self._items % EVERY == 0:
            again.append(self._check(read[0]))
        return Taken(read, again)

    def _check(self, read: Outcome) -> ScoreRequest:
        """The request that forces a choice that was read."""
        request = read.request
        (key,) = self._keys.keys(request.context_ids, [request.forced_ids])
        self._checks[key] = _Check(read.reply.token_logprobs[0] if read.reply else 0.0, self._unproven)
        self._unproven = []
        return ScoreRequest(key, request.context_ids, request.forced_ids)

    def _judged(self, check: _Check, outcome: Outcome) -> Taken:
        if outcome.reply is None:  # it says nothing about alternatives: the next check has to
            self._unproven += check.since
            return Taken()
        difference = abs(outcome.reply.token_logprobs[0] - check.value)
        if difference <= SAME:
            return Taken()
        doubted = [*check.since, *self.doubt(difference)]
        self._lesson.why = (
            "in the middle of the run its alternatives were no longer what forcing gives (by"
            f" {difference:.2g} nats): from then on every choice was forced, and the last {len(doubted):,}"
            " that had been read were forced too"
        )
        return Taken(forget=doubted)

    def doubt(self, difference: float) -> list[ScoreRequest]:
        """Read nothing any more; what was read and is not proven by a check, to be forgotten and forced.

        `difference`: nats by which alternatives were not what forcing gives.
        """
        doubted = self._unproven
        for each in self._checks.values():
            doubted += each.since
            each.since = []
        self._unproven = []
        self._lesson.found = None
        self._lesson.changed = difference
        return doubted


def _failed(outcome: Outcome, request: ScoreRequest) -> Outcome:
    """The failure of a request that told of another too."""
    return Outcome(request, failure=outcome.failure, attempts=0, read_from=outcome.request.key)
