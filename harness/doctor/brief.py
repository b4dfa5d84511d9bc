"""The brief probe of a run: before an endpoint is sent anything, it shows that it can be scored on.

It fails an endpoint only on what makes every score wrong: credentials, ids or count of what is forced, values
that are none, all equal, or that do not chain. All else is said, and the run goes on. What may be chance is
asked again: only what persists counts. It does not hold a run up for long: an endpoint that is slow to answer
is scored meanwhile, and given up later if it must be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from harness.caps import Meter
from harness.dialects import Dialect
from harness.doctor.asking import Asking
from harness.doctor.findings import Finding, not_checked
from harness.doctor.judging import Chain, chain_holds, judged_chain, judged_flat
from harness.doctor.sound import chain_of, link
from harness.doctor.waking import Awake
from harness.doctor.wire import PLAIN, TEXTS, compared_tokenizers, reads_prompts, takes_prompts
from harness.errors import EndpointRefused, Stopped
from harness.events import event
from harness.exchange import ScoreRequest
from harness.forecast import Forecast
from harness.pairs import Tokenizes, Unencoded

ROUNDS = 8
"""How often the chain is asked for before what is amiss with it counts."""
HOLD = 10.0
"""Seconds that a run waits for its probe; then it begins, and hears of it later."""
PROBED_ITEMS = 1, 32
"""Of the run, of which a choice is asked: the first; more where it cannot be."""
RESERVE = 10
"""Caps must leave so many times what the probe takes, or it is not made."""
Wakings = dict[str, "asyncio.Task[Awake]"]
"""By URL of the management API."""
MIXED = (("words, digits, accents and emoji", "".join(text for _, text in TEXTS[:-1])),)

MEANING = {
    "count": ("count", "it does not say one log-probability for each forced token"),
    "ids": ("forced ids", "it puts out other tokens than are forced"),
}
"""Name of the probe, and what a reply lacks, by what its error is about."""


class Brief:
    """Probes one endpoint once, when something is about to be sent to it.

    Attributes:
        findings: what was found so far.
    """

    def __init__(
        self,
        label: str,
        asking: Callable[[], Awaitable[Asking | None]],
        meter: Meter,
        forecast: Forecast,
        wakings: Wakings,
        *,
        probing: bool = True,
        sits_out: bool = True,
    ) -> None:
        """Nothing is asked before `before`.

        Args:
            label: of the endpoint.
            asking: how to ask; None: nothing of this run can be asked.
            meter: of the endpoint.
            forecast: of the endpoint, to which the probe is added.
            wakings: of all endpoints of the run.
            probing: it is probed too, and not only woken.
            sits_out: the run is more patient with an endpoint that is down than its probe.
        """
        self.findings: list[Finding] = []
        self._label = label
        self._asking = asking
        self._meter = meter
        self._forecast = forecast
        self._wakings = wakings
        self._probes = probing
        self._sits_out = sits_out
        self._probing: asyncio.Task[None] | None = None
        self._woken: asyncio.Task[Asking | None] | None = None
        self._until = 0.0
        """On the event loop's clock: so long the run waits."""
        self._over = False

    async def before(self) -> None:
        """See to it that the endpoint is awake and has been probed; soon over, where it is slow.

        Raises:
            EndpointRefused: it must not be asked any more, or fails its probe.
        """
        if self._over:
            return
        if self._woken is None:
            self._woken = asyncio.create_task(self._wake())
        asking = await asyncio.shield(self._woken)
        if self._over:
            return
        loop = asyncio.get_running_loop()
        if self._probing is None:
            self._probing, self._until = asyncio.create_task(self._probe(asking)), loop.time() + HOLD
        if (left := self._until - loop.time()) > 0:
            await asyncio.wait([self._probing], timeout=left)
        self._heard()

    async def end(self) -> None:
        """The run has sent everything: what is not known by now is not waited for.

        Raises:
            EndpointRefused: as `before`.
        """
        self._heard()
        if self._probing is not None and not self._over:
            self._found(not_checked("probe", "it was not answered while the run went on"))
        await self.close()

    async def close(self) -> None:
        """Stop whatever is still asked."""
        tasks = [each for each in (self._woken, self._probing) if each is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _heard(self) -> None:
        if self._probing is not None and self._probing.done() and not self._over:
            self._over = True
            self._probing.result()

    async def _wake(self) -> Asking | None:
        try:
            asking = await self._asking()
            if asking is not None and asking.management is not None:
                found = await self._shared(asking.management, asking)
                if found.state == "unknown":
                    self._found(not_checked("awake", found.told))
        except Stopped:  # so will whoever sends next
            self._over = True
            return None
        return asking

    async def _shared(self, url: str, asking: Asking) -> Awake:
        """Wake an endpoint once for all its adapters."""
        if url not in self._wakings:
            self._wakings[url] = asyncio.create_task(woken(asking))
        return await asyncio.shield(self._wakings[url])

    async def _probe(self, asking: Asking | None) -> None:
        if not self._probes:
            return
        if asking is None:
            self._found(not_checked("probe", "none of the first items can be asked"))
            return
        requests = await asyncio.to_thread(taken, asking.questions[0], asking.varied, asking.tokenizer)
        reserve = Forecast()
        reserve.add(RESERVE * requests)
        if not self._meter.leaves(reserve.volume):
            self._found(not_checked("probe", f"its {len(requests)} requests are too many for the caps"))
            return
        self._forecast.add(requests)
        named = {"probe": _sound(asking), **_beside(asking)}
        asked = [self._unless_down(name, each) for name, each in named.items()]
        found = await asyncio.gather(*asked, return_exceptions=True)
        if any(isinstance(each, Stopped) for each in found):  # so will whoever sends next
            return
        for each in found:
            if isinstance(each, BaseException):
                raise each
            self._found(each)
        if isinstance(sound := found[0], Finding) and sound.verdict == "wrong":
            raise EndpointRefused(f"it failed its probe: {sound.line()}. --no-probe runs without it")

    async def _unless_down(self, name: str, asked: Awaitable[Finding]) -> Finding:
        """What is found; nothing of an endpoint that stays down, where the run itself may sit that out."""
        try:
            return await asked
        except EndpointRefused as error:
            if error.reason or not self._sits_out:
                raise
            return not_checked(name, str(error))

    def _found(self, finding: Finding) -> None:
        self.findings.append(finding)
        said = {"name": finding.name, "verdict": finding.verdict, "measured": finding.measured}
        level = logging.INFO if finding.verdict == "ok" else logging.WARNING
        event("probe", said, endpoint=self._label, level=level)


async def woken(asking: Asking) -> Awake:
    """See to it that a dedicated endpoint is awake.

    Raises:
        EndpointRefused: it will not be.
    """
    found = await asking.wake()
    if found.state == "down":
        raise EndpointRefused(f"it does not run: its status is {found.told}")
    return found


def taken(question: ScoreRequest, wire: Dialect, tokenizer: Tokenizes | None) -> list[ScoreRequest]:
    """What a probe asks if all goes well; texts are encoded for that.

    Args:
        question: that it asks.
        wire: format of the endpoint.
        tokenizer: the one that was given; None: it is the endpoint itself.
    """
    parts: list[tuple[Sequence[int], Sequence[int]]] = [*chain_of(question)]
    if wire.wants_text:
        parts = [(question.context_ids, question.forced_ids)]
    if tokenizer is not None and takes_prompts(wire):
        ids = tokenizer.encode([PLAIN])[0]
        parts += [] if isinstance(ids, Unencoded) else 2 * [(ids, question.forced_ids)]
    asked = [ScoreRequest(b"", context, forced) for context, forced in parts]
    if tokenizer is not None and wire.tokenize_route is not None:
        asked += [ScoreRequest(b"", (), ()) for _ in MIXED]
    return asked


def _beside(asking: Asking) -> dict[str, Awaitable[Finding]]:
    """What is looked at and fails nothing, by name; not where it could show nothing."""
    if asking.tokenizer is None:
        return {}
    beside: dict[str, Awaitable[Finding]] = {"tokenizer": compared_tokenizers("tokenizer", asking, MIXED)}
    if takes_prompts(asking.varied):
        beside["prompt and tokens"] = reads_prompts("prompt and tokens", asking)
    return beside


async def _sound(asking: Asking) -> Finding:
    """What all scores rest on, in one finding."""
    if not asking.takes_ids:
        return await _whole_alone(asking)
    chain, why = Chain(), ""
    for _ in range(ROUNDS):
        why = await link(asking, chain, 3)
        if chain_holds(chain) and judged_flat("", chain.whole).verdict != "wrong":
            return judged_chain("chain rule", chain)
        if why and not why.startswith("protocol"):
            return not_checked("probe", why)
    if not (chain.whole and chain.first and chain.rest):
        return _unbelievable(asking, why)
    flat = judged_flat("not all equal", chain.whole)
    return flat if flat.verdict == "wrong" else judged_chain("chain rule", chain)


async def _whole_alone(asking: Asking) -> Finding:
    """Of an endpoint that takes texts: whether a question is answered in a way that can be believed."""
    why = ""
    for _ in range(ROUNDS):
        outcome = await asking.score(asking.request(asking.questions[0]))
        if outcome.reply is not None:
            return Finding("log-probabilities", "ok", "a question is answered")
        why = f"{outcome.failure.reason}: {outcome.failure.detail}" if outcome.failure else ""
        if not why.startswith("protocol"):
            return not_checked("probe", why)
    return _unbelievable(asking, why)


def _unbelievable(asking: Asking, why: str) -> Finding:
    """Replies came, and none of them could be believed."""
    about = next((each.about for each in reversed(list(asking.varied.problems.values()))), "")
    if not asking.takes_ids and not about:  # texts may be split otherwise there in this item alone
        return not_checked("probe", why)
    name, what = MEANING.get(
        about, ("log-probabilities", "these are no log-probabilities of what was forced")
    )
    return Finding(name, "wrong", f"{why.removeprefix('protocol: ')}, {ROUNDS} times", what)
