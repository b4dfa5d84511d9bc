"""The endpoint as its own tokenizer: texts to ids through its tokenize route, kept in a cache.

The route takes one text, and adds special tokens or not as the endpoint is set. What it adds is learnt from
probes and taken off again, so that `--bos` means here what it means for a file. One probe, a text of many
scripts, is sent in every run: its ids are part of every key of the cache and of the tokenizer's hash, so that
another tokenizer behind the same address is noticed. All others are sent once.

Encoding is called from threads and waits there; the requests themselves are made on the run's event loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile

from harness.errors import EndpointRefused, UsageError
from harness.exchange import Failure, Outcome, ScoreRequest
from harness.modes import Bos
from harness.pairs import Unencoded
from harness.seams import Seams
from harness.tokencache import TokenCache
from harness.tokenizing import BOS_NAMES, EOS_NAMES, in_front

AT_ONCE = 16
"""Texts in flight at once, for each tokenize route."""
WAY_OUT = "Without a tokenize route there, give a tokenizer file (--tokenizer)."

_VERSION = 1
_FINGERPRINT = (
    "The quick brown fox can't jump over 1,234.56 lazy dogs (A-Z)!  Two spaces,\ttab,\n\nlines; "
    "naïve façade, Größe, São, Łódź; Что это? Ελληνικά; שלום; مرحبا; हिन्दी; ภาษาไทย; "
    "你好，世界。 日本語です; 한국어; "
    "🙂🚀 def f(x):\n    return x**2 != {'a': [1, 2]} # ∑ ≤ √2 → ½ “quoted” – dash… _under_ ##42 "
    "antidisestablishmentarianism http://example.org/?q=1&r=%20 00000 aaaaaaaa ABCdef\r\n"
)
"""Tokenizers that split this alike are taken for the same."""
_PLAIN = ("a", "1", "(", "Z b", "\u4e2d")
"""Texts that have no first and no last token in common, but what is put around every text."""
_NAMES = tuple(dict.fromkeys((*BOS_NAMES, *EOS_NAMES)))

Ask = Callable[[ScoreRequest], Awaitable[Outcome]]
"""Sends a text to a tokenize route until it is answered or has failed for good; raises `EndpointRefused`."""


@dataclass(frozen=True, slots=True)
class Manners:
    """What a tokenize route puts around every text, as its probes show."""

    front: list[int]
    back: list[int]
    bos_id: int | None
    eos_id: int | None
    unsure: int | None = None
    """An id that every text begins with, which may be a start token or a part of each text."""

    def leading(self, bos: Bos) -> list[int]:
        """The ids to put in front of every text.

        Raises:
            UsageError: the endpoint does not show what `bos` asks for.
        """
        if self.unsure is not None and bos != "auto":
            raise UsageError(
                f"--bos {bos}: every text begins with token {self.unsure} there, and whether it is a start"
                " token cannot be told from outside; give a tokenizer file (--tokenizer)"
            )
        if bos == "off":
            return []
        if self.front or bos == "auto":
            return self.front
        if self.bos_id is None:
            raise UsageError(
                "--bos on: the endpoint puts no start token in front of a text, and does not show which id it"
                " has; give a tokenizer file (--tokenizer)"
            )
        return [self.bos_id]

    def taken_off(self, ids: list[int]) -> list[int] | Unencoded:
        """The ids of a text itself."""
        n, end = len(self.front), len(ids) - len(self.back)
        if end < n or ids[:n] != self.front or ids[end:] != self.back:
            return Unencoded("the endpoint tokenized it without the special tokens that other texts get")
        return ids[n:end]


def manners(probed: Mapping[str, list[int] | None]) -> Manners:
    """What the probes' ids show; None: that text was refused."""
    known = [ids for text in _PLAIN if (ids := probed[text]) is not None]
    empty = probed[""]
    seen = [*known, empty] if empty else known
    front = _common(seen)
    back = _common([ids[len(front) :][::-1] for ids in seen])[::-1]
    named = _named(Manners(front, back, None, None), probed)
    bos_id = next((named[name] for name in BOS_NAMES if name in named), None)
    eos_id = next((named[name] for name in EOS_NAMES if name in named), None)
    if empty or not front or (len(front) == 1 and front[0] in named.values()):
        return Manners(front, back, bos_id, eos_id)
    return Manners([], back, bos_id, eos_id, unsure=front[0])


def _named(around: Manners, probed: Mapping[str, list[int] | None]) -> dict[str, int]:
    """The ids of usual names that are one token there; not one that several share: it stands for unknowns."""
    found: dict[str, int] = {}
    for name in _NAMES:
        ids = probed.get(name)
        bare = around.taken_off(ids) if ids is not None else ids
        if isinstance(bare, list) and len(bare or around.front) == 1:  # a start token may not be doubled
            found[name] = (bare or around.front)[0]
    shared = Counter(found.values())
    return {name: one for name, one in found.items() if shared[one] == 1}


def _common(lists: Sequence[Sequence[int]]) -> list[int]:
    """The ids that all begin with."""
    return [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, zip(*lists, strict=False))]


# ------------------------------------------------------------------------------------------- the endpoint


class TokenizeRoute:
    """One tokenize route, probed and asked through the cache; shared by the adapters of an endpoint.

    Attributes:
        manners: what it puts around texts; known once `probe` has returned.
        signature: of all that the ids depend on, address and probes.
        cache: where ids are kept.
        loop: the event loop that asks.
        lock: held for a batch, so that what one adapter asks the others find kept.
    """

    def __init__(self, address: tuple[str, str, str], ask: Ask, cache: TokenCache) -> None:
        """Take the route of a wire format, base URL and model; call it on the event loop that asks."""
        self.cache = cache
        self.manners = Manners([], [], None, None)
        self.signature = ""
        self._address = address
        self._ask = ask
        self.loop = asyncio.get_running_loop()
        self.lock = threading.Lock()
        self._prefix = b""

    async def probe(self) -> None:
        """Learn what it does to texts.

        Raises:
            EndpointRefused: it refuses, fails, or does not tokenize.
        """
        try:
            fingerprint = await self._probed([_FINGERPRINT])
            said = json.dumps([_VERSION, *self._address, fingerprint[_FINGERPRINT]])
            self._prefix = sha256(said.encode()).digest()
            keys = {text: self.key(text) for text in ("", *_PLAIN, *_NAMES)}
            kept = await asyncio.to_thread(self.cache.get, list(keys.values()))
            fresh = await self._probed([text for text, key in keys.items() if key not in kept])
        except EndpointRefused as error:
            raise EndpointRefused(f"{error} {WAY_OUT}") from error
        new = {keys[text]: ids for text, ids in fresh.items() if ids is not None}
        await asyncio.to_thread(self.cache.put, new)
        probed = {text: kept[key] if key in kept else fresh[text] for text, key in keys.items()}
        plain = [probed[text] for text in _PLAIN]
        if None in plain or not fingerprint[_FINGERPRINT] or plain.count(plain[0]) == len(plain):
            raise EndpointRefused(
                f"its tokenize route gives no ids of some texts, or all the same. {WAY_OUT}"
            )
        self.manners = manners(probed)
        self.signature = json.dumps([said, list(probed.values())])

    async def _probed(self, texts: Sequence[str]) -> dict[str, list[int] | None]:
        """Ids of probes; None where the text is refused, which says something too."""
        found: dict[str, list[int] | Failure] = {}
        await self.ask_all(texts, found)
        probed: dict[str, list[int] | None] = {}
        for text, ids in found.items():
            if isinstance(ids, Failure) and (ids.status not in (400, 422) or text == _FINGERPRINT):
                raise EndpointRefused(f"its tokenize route fails: {_words(ids)}.")
            probed[text] = None if isinstance(ids, Failure) else ids
        return probed

    async def ask_all(self, texts: Sequence[str], found: dict[str, list[int] | Failure]) -> None:
        """Ask for the raw ids of these texts, several at a time; `found` is filled as they come."""
        todo = iter(texts)

        async def work() -> None:
            for text in todo:
                outcome = await self._ask(ScoreRequest(self.key(text)[:16], (), (), text=("", text)))
                found[text] = list(outcome.reply.token_ids) if outcome.reply else _failure(outcome)

        workers = [asyncio.create_task(work()) for _ in range(min(AT_ONCE, len(texts)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def key(self, text: str) -> bytes:
        """What the cache knows a text's ids by."""
        return sha256(self._prefix + text.encode(errors="surrogatepass")).digest()


class EndpointTokenizer:
    """A tokenize route as the tokenizer of one endpoint of a run; its methods are called from threads.

    Attributes:
        leading, start_id, sha256: as of `Tokenizer`.
        asked, known: how many texts the endpoint has tokenized here, and how many it had before.
    """

    def __init__(self, route: TokenizeRoute, bos: Bos) -> None:
        """Take a probed route; raises `UsageError` where it does not show what `bos` asks for."""
        around = route.manners
        self.leading = around.leading(bos)
        ids = (*self.leading[:1], *around.front[:1], around.bos_id, around.eos_id)
        self.start_id = next((one for one in ids if one is not None), None)
        self.sha256 = sha256(f"{route.signature} {self.leading}".encode()).hexdigest()
        self.seams: Seams | None = None  # its texts are kept one by one, and whole
        self.asked = self.known = 0
        self._route = route
        self._waiting: Future[None] | None = None
        self._interrupted = False

    @property
    def remarks(self) -> Sequence[str]:
        """What a person must know of the file where ids are kept."""
        return self._route.cache.remarks

    def encode(self, texts: Sequence[str]) -> list[list[int] | Unencoded]:
        """Ids of each text with the leading ids, which are not doubled where the text has them.

        Raises:
            EndpointRefused: the endpoint must not be asked any more.
            CancelledError: of `concurrent.futures`: it was interrupted.
        """
        return [
            each if isinstance(each, Unencoded) else in_front(self.leading, each)
            for each in self.encode_plain(texts)
        ]

    def encode_plain(self, texts: Sequence[str]) -> list[list[int] | Unencoded]:
        """Ids of each text without what the endpoint puts around it; raises as `encode` does."""
        found = self._ids(list(dict.fromkeys(texts)))
        manners = self._route.manners
        bare = {
            text: Unencoded(f"the endpoint did not tokenize it: {_words(ids)}")
            if isinstance(ids, Failure)
            else manners.taken_off(ids)
            for text, ids in found.items()
        }
        return [bare[text] for text in texts]

    def interrupt(self) -> None:
        """End what waits, and what would wait; callable from any thread."""
        self._interrupted = True
        if (waiting := self._waiting) is not None:
            waiting.cancel()

    def _ids(self, texts: Sequence[str]) -> dict[str, list[int] | Failure]:
        """Raw ids, kept ones first; what came is kept also where the batch ends early."""
        route = self._route
        keys = {text: route.key(text) for text in texts}
        with route.lock:
            kept = route.cache.get(list(keys.values()))
            found: dict[str, list[int] | Failure] = {
                text: kept[key] for text, key in keys.items() if key in kept
            }
            self.known += len(found)
            fresh: dict[str, list[int] | Failure] = {}
            try:
                self._wait([text for text in texts if text not in found], fresh)
            finally:
                new = {keys[text]: ids for text, ids in dict(fresh).items() if isinstance(ids, list)}
                self.asked += len(new)
                route.cache.put(new)
        return found | fresh

    def _wait(self, texts: Sequence[str], fresh: dict[str, list[int] | Failure]) -> None:
        """Have the event loop ask for the texts."""
        if not texts:
            return
        self._waiting = asyncio.run_coroutine_threadsafe(self._route.ask_all(texts, fresh), self._route.loop)
        if self._interrupted:
            self._waiting.cancel()
        try:
            self._waiting.result()
        finally:
            self._waiting = None


def _failure(outcome: Outcome) -> Failure:
    return outcome.failure or Failure("no reply")


def _words(failure: Failure) -> str:
    return f"{failure.reason}: {failure.detail}" if failure.detail else failure.reason
