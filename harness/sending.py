"""In which order requests go out, so that a server's prefix cache works; pure.

A server keeps what it has computed of a prompt, in blocks of some tokens, and spares itself the same
beginning of another one, but only once the first is done. So a request waits while one in flight is
computing more of its own beginning than is kept already: the first of a subject goes ahead with the shots,
the first choice of an item with its context, and the others follow. Meanwhile other beginnings keep the pool
full.

What the server keeps is not told; it is taken to be what went out last, up to `KEPT` tokens.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence

from harness.exchange import ScoreRequest

BLOCK = 16
"""Tokens that servers keep or forget together (vLLM's default); shorter beginnings are not worth a wait."""
KEPT = 32_768
"""Tokens of prompts that a server is trusted to keep: little beside what fits on a GPU."""
AHEAD = 512
"""Requests looked at before their turn, at most."""
AHEAD_TOKENS = 2**19
"""Tokens of their contexts: some tens of mebibytes."""

Chain = tuple[int, ...]
"""One number for each beginning of a context that ends with a block: equal ones begin alike."""


def chain(context_ids: Sequence[int]) -> Chain:
    """The blocks of a context that can be kept: not the one that its last token stands in, which is computed
    for every request anew, as the answer comes from there."""
    blocks = (len(context_ids) - 1) // BLOCK
    if blocks < 1:
        return ()
    packed = array("I", context_ids[: blocks * BLOCK]).tobytes()
    size = BLOCK * array("I").itemsize
    found = []
    last = 0
    for start in range(0, blocks * size, size):
        last = hash((last, packed[start : start + size]))
        found.append(last)
    return tuple(found)


class Schedule:
    """Requests that wait to be sent, given out one by one in the order that serves a prefix cache.

    Not for several threads. The order of what is added is kept but for what the cache asks for. Other
    beginnings are opened only where no request is ready.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._coming: deque[ScoreRequest] = deque()
        self._ready: deque[ScoreRequest] = deque()
        self._parked: dict[int, list[ScoreRequest]] = {}
        self._n_parked = 0
        self._held_tokens = 0
        """Of those parked and ready."""
        self._flying: dict[int, int] = {}
        """Beginnings that are being computed now, and by how many requests."""
        self._chains: dict[bytes, tuple[Chain, Chain]] = {}
        """Of each request in flight: its beginnings, and those that were not kept when it went out."""
        self._kept: tuple[set[int], set[int]] = set(), set()
        """Beginnings the server has: what was touched lately, and before that."""
        self._since = 0
        """Tokens that the server has computed since the two changed places."""
        self._last: tuple[Sequence[int], Chain] = (), ()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._coming) + len(self._ready) + self._n_parked

    @property
    def in_flight(self) -> int:
        """How many were given out and have not returned."""
        return len(self._chains)

    @property
    def coming(self) -> int:
        """How many of those that wait have not been looked at yet."""
        return len(self._coming)

    def add(self, requests: Iterable[ScoreRequest]) -> None:
        """Put requests behind all others."""
        self._coming.extend(requests)

    def add_first(self, requests: Iterable[ScoreRequest]) -> None:
        """Put requests before all that are ready: their context has just been computed."""
        for each in requests:
            self._ready.appendleft(each)
            self._held_tokens += len(each.context_ids)

    def clear(self) -> None:
        """Forget all that wait."""
        self._coming.clear()
        self._ready.clear()
        self._parked.clear()
        self._n_parked = self._held_tokens = 0

    def next(self) -> ScoreRequest | None:
        """The request to send now; None: nothing may go before another returns, or more is added."""
        while True:
            if self._ready:
                request = self._ready.popleft()
                self._held_tokens -= len(request.context_ids)
            elif self._coming and self._may_look_ahead():
                request = self._coming.popleft()
            else:
                return None
            beginnings = self._chain(request)
            depth, behind = self._place(beginnings)
            if behind is None:
                self._start(request, beginnings, depth)
                return request
            self._parked.setdefault(behind, []).append(request)
            self._n_parked += 1
            self._held_tokens += len(request.context_ids)

    def returned(self, request: ScoreRequest, *, computed: bool = True) -> int:
        """A request has come back, `computed` where its context was read; how many may go because of it."""
        beginnings, cold = self._chains.pop(request.key)
        if computed:
            self._touch(beginnings, (len(cold) + 1) * BLOCK)
        return self._release(cold)

    def delayed(self, request: ScoreRequest) -> int:
        """A request takes longer than it should, and nobody is to wait for it; how many may go now."""
        beginnings, cold = self._chains[request.key]
        self._chains[request.key] = beginnings, ()
        return self._release(cold)

    def _release(self, cold: Chain) -> int:
        released = 0
        for each in cold:  # the last come first: those that share most
            left = self._flying[each] - 1
            if left:
                self._flying[each] = left
            else:
                del self._flying[each]
            waiting = self._parked.pop(each, ())
            self._ready.extendleft(reversed(waiting))
            released += len(waiting)
        self._n_parked -= released
        return released

    def _may_look_ahead(self) -> bool:
        return len(self._ready) + self._n_parked < AHEAD and self._held_tokens < AHEAD_TOKENS

    def _chain(self, request: ScoreRequest) -> Chain:
        """As `chain`; neighbours often share their context."""
        ids, found = self._last
        if ids is not request.context_ids:
            found = chain(request.context_ids)
            self._last = request.context_ids, found
        return found

    def _place(self, beginnings: Chain) -> tuple[int, int | None]:
        """How many of the beginnings are kept, and the one in flight to wait for, if it has more of them."""
        lately, before = self._kept
        for depth in range(len(beginnings), 0, -1):
            each = beginnings[depth - 1]
            if each in lately or each in before:
                return depth, None
            if each in self._flying:
                return 0, each
        return 0, None

    def _start(self, request: ScoreRequest, beginnings: Chain, depth: int) -> None:
        cold = beginnings[depth:]
        self._chains[request.key] = beginnings, cold
        for each in cold:
            self._flying[each] = self._flying.get(each, 0) + 1
        if depth:
            self._touch(beginnings[:depth], 0)

    def _touch(self, beginnings: Chain, tokens: int) -> None:
        """The server has used or made these; what it has not for long, it may have forgotten."""
        self._kept[0].update(beginnings)
        self._since += tokens
        if self._since > KEPT // 2:
            self._kept = set(), self._kept[0]
            self._since = 0
