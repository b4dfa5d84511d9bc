"""What earlier sessions of a run sent, read from its folder; reading changes nothing.

The journals know every request that ended; `run.json` says what was sent besides: what an endpoint was asked
to learn about it, and requests that were given up when a run was stopped. Nobody wrote down what a session
sent besides that was killed, or ended before its folder was opened, nor how long it took.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from harness.caps import Price, Spending, Volume
from harness.doctor.findings import Finding, Verdict
from harness.journalfile import begun
from harness.prices import Prices
from harness.replies import JournalStats, StoredReplies
from harness.runs import Whose


class _Timings(msgspec.Struct, frozen=True):
    earlier_s: float = 0.0
    sending_s: float = 0.0


class Probed(msgspec.Struct, frozen=True):
    """What `run.json` says that a brief probe found."""

    identity: str
    replicate: str
    probe: str
    verdict: Verdict
    measured: str
    value: float | None = None
    consequence: str = ""
    advice: str = ""


class RandomOrder(msgspec.Struct, frozen=True):
    """How a run was asked that was to stop once decided."""

    seed: int
    margin: float


class Merged(msgspec.Struct, frozen=True):
    """What `run.json` says of a shard that was merged into the run."""

    status: str
    """As the shard's own `run.json` had it."""
    at: str
    """Its last sign of life then."""
    running: bool
    """It was still at work, and may have answered more since."""
    items: int
    """That it holds."""
    sent: dict[str, Volume]
    """By label of the endpoint, in all its sessions."""
    seconds: float
    """That these took for sending."""

    def called(self, now: Mapping[str, str]) -> Merged:
        """The same by other labels; `now`: of each label that is another, what it is."""
        return msgspec.structs.replace(self, sent=_called(self.sent, now))


class Own(msgspec.Struct, frozen=True):
    """What `run.json` says, once shards were merged, of the sessions of the run itself."""

    sent: dict[str, Volume]
    """By label."""
    seconds: float

    def called(self, now: Mapping[str, str]) -> Own:
        """The same by other labels, likewise."""
        return msgspec.structs.replace(self, sent=_called(self.sent, now))


class _Endpoint(msgspec.Struct, frozen=True):
    label: str
    identity: str
    replicate: int


class _Manifest(msgspec.Struct, frozen=True):
    """What of `run.json` is read here; an earlier version may have written none of it."""

    beside_journal: dict[str, Volume] = {}
    probes_amiss: list[Probed] = []
    random_order: RandomOrder | None = None
    timings: _Timings = _Timings()
    shards: dict[str, Merged] = {}
    without_shards: Own | None = None
    endpoints: list[_Endpoint] = []


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was sent for a run before this session."""

    journals: Mapping[Whose, Volume] = field(default_factory=dict)
    """By endpoint, whether this session asks it or not."""
    beside: Mapping[str, Volume] = field(default_factory=dict)
    """What no journal knows, by label."""
    probed: Mapping[Whose, Sequence[Finding]] = field(default_factory=dict)
    """What brief probes found amiss, by endpoint, whether this session asks it or not."""
    order: RandomOrder | None = None
    """Of the last session that was to stop once decided."""
    seconds: float = 0.0
    """That all sessions together took for sending."""
    shards: Mapping[str, Merged] = field(default_factory=dict)
    """Those that were merged, by name."""
    own: Own | None = None
    """What the run itself had sent when they were; None: it has been at work since, or none was merged."""
    labels: Mapping[Whose, str] = field(default_factory=dict)
    """Of the endpoints of the last session."""

    @property
    def by_label(self) -> dict[str, Volume]:
        """All that was sent, by label of the endpoint; empty where no session that is known called it so."""
        found = dict(self.beside)
        for of_whom, volume in self.journals.items():
            label = self.labels.get(of_whom, "")
            found[label] = found.get(label, Volume()) + volume
        return found

    @property
    def volume(self) -> Volume:
        """All of it."""
        return sum([*self.journals.values(), *self.beside.values()], Volume())

    def called(self, names: Mapping[Whose, str]) -> Earlier:
        """The same by the labels that endpoints have now, as far as these are known: sessions may call one
        endpoint by several names, and it is one all the same."""
        now = {label: names[whom] for whom, label in self.labels.items() if names.get(whom, label) != label}
        return replace(
            self,
            beside=_called(self.beside, now),
            shards={name: each.called(now) for name, each in self.shards.items()},
            own=None if self.own is None else self.own.called(now),
            labels={**self.labels, **names},
        )

    def count(self, spending: Spending, prices: Prices) -> None:
        """Count it as spent, at today's prices."""
        for volume, price in self._priced(prices):
            spending.earlier(volume, price)

    def cost(self, prices: Prices) -> float:
        """What it costs at today's prices, hours too."""
        return sum(price.of(volume) for volume, price in self._priced(prices)) + prices.hours(self.seconds)

    def _priced(self, prices: Prices) -> Iterator[tuple[Volume, Price]]:
        for endpoint, volume in self.journals.items():
            yield volume, prices.of_journal(endpoint)
        for label, volume in self.beside.items():
            yield volume, prices.of(label)


def earlier(folder: Path) -> Earlier:
    """What was sent for the run in a folder; nothing where there is none yet.

    Raises:
        StoreError: a journal cannot be read.
    """
    with journals_in(folder) as found:
        sent = {of_whom: sent_of(journal.stats()) for of_whom, journal in found.items()}
    return replace(told(folder), journals=sent)


def told(folder: Path) -> Earlier:
    """The same, but for what only the journals know; these are not opened."""
    said = _manifest(folder / "run.json")
    probed: dict[Whose, list[Finding]] = {}
    for each in said.probes_amiss:
        probed.setdefault((each.identity, each.replicate), []).append(_finding(each))
    seconds = said.timings.earlier_s + said.timings.sending_s
    labels = {(each.identity, str(each.replicate)): each.label for each in said.endpoints}
    return Earlier(
        beside=said.beside_journal,
        probed=probed,
        order=said.random_order,
        seconds=seconds,
        shards=said.shards,
        own=said.without_shards,
        labels=labels,
    )


@contextmanager
def journals_in(folder: Path) -> Iterator[dict[Whose, StoredReplies]]:
    """The journals of a run's folder, by endpoint; raises `StoreError` where one cannot be read."""
    with ExitStack() as opened:
        found = {}
        for file in filter(begun, sorted((folder / "journal").glob("*.sqlite"))):
            journal = opened.enter_context(closing(StoredReplies(file)))
            found[journal.meta.get("identity", ""), journal.meta.get("replicate", "0")] = journal
        yield found


def sent_of(stats: JournalStats) -> Volume:
    """What the requests of a journal took to send, retries included."""
    return Volume(stats.attempts, stats.context_tokens, stats.forced_tokens)


def added(one: Mapping[str, Volume], other: Mapping[str, Volume]) -> dict[str, Volume]:
    """Both together, by label."""
    return {
        label: one.get(label, Volume()) + other.get(label, Volume())
        for label in dict.fromkeys((*one, *other))
    }


def _called(sent: Mapping[str, Volume], now: Mapping[str, str]) -> dict[str, Volume]:
    """By other labels; what has one then is put together."""
    found: dict[str, Volume] = {}
    for label, volume in sent.items():
        found = added(found, {now.get(label, label): volume})
    return found


def _finding(said: Probed) -> Finding:
    return Finding(said.probe, said.verdict, said.measured, said.consequence, said.advice, said.value)


def _manifest(file: Path) -> _Manifest:
    """What `run.json` says; nothing where it cannot be read, which the run itself will complain about."""
    try:
        read: Any = json.loads(file.read_bytes())
        return msgspec.convert(read, _Manifest)
    except (OSError, ValueError, RecursionError):
        return _Manifest()
