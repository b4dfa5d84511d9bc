"""An endpoint that answers at once, in a process of its own: what a client costs shows behind it.

    python -m tests.bench.instant --tokenizer DIR/tokenizer.json

Line 1 on standard output is the base URL; it ends when its standard input does. It speaks Friendli's
completions with forced ids, and OpenAI-style ones with `echo`, whose prompts are ids. HTTP/1.1 is read by
hand, with nothing but what clients here send: bodies of a known length, connections that stay, requests that
may come one behind the other. GET /counts says what it saw since DELETE /counts.

`--rpm` refuses with 429 what a sliding window of a minute does not allow. `--capacity` takes so many at once,
each for `--latency` seconds, and refuses the others. With `--faulty N` every N-th completion goes wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from tests.bench.answers import Answers, Asked, texts_of

TROUBLES = ("busy", "reset", "cut", "broken")
"""What goes wrong, in turn: 429; the connection dropped; half of a reply, then the connection closed; 500."""

_DECODE = msgspec.json.Decoder(Asked).decode
_REASONS = {
    200: b"OK",
    404: b"Not Found",
    411: b"Length Required",
    422: b"Unprocessable",
    429: b"Too Many",
    500: b"Broken",
}


class Counts(msgspec.Struct):
    """What was seen since the last DELETE /counts."""

    requests: int = 0
    """Answered."""
    prompt_tokens: int = 0
    forced_tokens: int = 0
    """Of OpenAI-style prompts these are the generated ones."""
    refused: int = 0
    """With 429."""
    faulty: int = 0
    """With any other status but 200, or not wholly."""
    at_once: int = 0
    """Most requests in work at one time."""
    first: float | None = None
    """When the first request came; seconds of the system's monotonic clock."""
    seconds: list[int] = []
    """Requests answered in each second since then."""
    refused_seconds: list[int] = []
    """Likewise refused."""
    processor: float = 0.0
    """Seconds that this process has worked."""


class Limits:
    """What is refused: decided by the time of arrival."""

    def __init__(self, *, rpm: int = 0, window: float = 60.0, capacity: int = 0) -> None:
        """Set the limits; 0: none.

        Args:
            rpm: requests that any `window` may hold.
            window: its length in seconds.
            capacity: requests in work at once.
        """
        self._rpm = rpm
        self._window = window
        self._capacity = capacity
        self._taken: deque[float] = deque()
        self.working = 0

    def admit(self, now: float) -> bool:
        """Take a request, or refuse it; who takes it calls `done` at its end."""
        if self._rpm:
            taken = self._taken
            while taken and taken[0] <= now - self._window:
                taken.popleft()
            if len(taken) >= self._rpm:
                return False
        if self._capacity and self.working >= self._capacity:
            return False
        if self._rpm:
            self._taken.append(now)
        self.working += 1
        return True

    def done(self) -> None:
        """A request has ended."""
        self.working -= 1


class Endpoint:
    """Answers, counts and limits, shared by all connections."""

    def __init__(
        self,
        answers: Answers,
        limits: Limits,
        *,
        latency: float = 0.0,
        faulty: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is counted yet; `latency` is in seconds; every `faulty`-th goes wrong, 0: none."""
        self._faulty = faulty
        self._came = 0
        self.limits = limits
        self.latency = latency
        self._answers = answers
        self._clock = clock
        self._counts = Counts()
        self._worked = time.process_time()

    def reply(self, method: bytes, path: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and body for one request; a 200 of a completion has been admitted."""
        if path.endswith(b"/completions") and method == b"POST":
            return self._completion(body)
        if path == b"/counts" and method == b"GET":
            self._counts.processor = time.process_time() - self._worked
            return 200, msgspec.json.encode(self._counts)
        if path == b"/counts" and method == b"DELETE":
            self._counts, self._worked = Counts(), time.process_time()
            return 200, b"{}"
        return 404, _error("there is POST .../completions, GET /counts and DELETE /counts")

    def trouble(self, path: bytes) -> str:
        """What goes wrong with a request that has just come; empty: nothing."""
        if not self._faulty or not path.endswith(b"/completions"):
            return ""
        self._came += 1
        number, left = divmod(self._came, self._faulty)
        if left:
            return ""
        self._counts.faulty += 1
        return TROUBLES[number % len(TROUBLES)]

    def _completion(self, body: bytes) -> tuple[int, bytes]:
        counts, now = self._counts, self._clock()
        if counts.first is None:
            counts.first = now
        second = int(now - counts.first)
        if not self.limits.admit(now):
            counts.refused += 1
            _count(counts.refused_seconds, second)
            return 429, _error("too many requests")
        try:
            said = self._answer(body)
        except (msgspec.MsgspecError, IndexError) as error:
            self.limits.done()
            counts.faulty += 1
            return 422, _error(f"no request that this endpoint takes: {error}")
        counts.requests += 1
        counts.at_once = max(counts.at_once, self.limits.working)
        _count(counts.seconds, second)
        return 200, said

    def _answer(self, body: bytes) -> bytes:
        asked = _DECODE(body)
        if bytes(asked.prompt):
            said, prompt, forced = self._answers.openai(asked)
        elif asked.forced_output_tokens:
            said, prompt, forced = self._answers.friendli(asked)
        else:
            raise IndexError("forced_output_tokens, or a prompt of ids, is needed")
        self._counts.prompt_tokens += prompt
        self._counts.forced_tokens += forced
        return said


class Connection(asyncio.Protocol):
    """One client's connection: requests are answered in their order."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Nothing has been read."""
        self._endpoint = endpoint
        self._unread = b""
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what replies are written to."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Answer all requests that are whole."""
        self._unread = self._unread + data if self._unread else data
        if not self._waiting:
            self._answer()

    def _answer(self) -> None:
        written = []
        while not self._waiting and (found := _request(self._unread)) is not None:
            method, path, body, end = found
            self._unread = self._unread[end:]
            if body is None:
                written.append(_reply(411, _error("a body must have a Content-Length")))
                continue
            if trouble := self._endpoint.trouble(path):
                if status := {"busy": 429, "broken": 500}.get(trouble):
                    written.append(_reply(status, _error(trouble)))
                    continue
                self._break_off(written, trouble)
                return
            status, said = self._endpoint.reply(method, path, body)
            if status != 200 or not path.endswith(b"/completions"):
                written.append(_reply(status, said))
            elif self._endpoint.latency:
                self._waiting = True
                loop = asyncio.get_running_loop()
                loop.call_later(self._endpoint.latency, self._answered, _reply(status, said))
            else:
                self._endpoint.limits.done()
                written.append(_reply(status, said))
        if written:
            self._transport.write(b"".join(written))

    def _break_off(self, written: list[bytes], trouble: str) -> None:
        """End the connection after what is written already; a cut reply promises more than comes."""
        if trouble == "reset":
            self._transport.abort()
            return
        self._transport.write(b"".join([*written, _reply(200, b" " * 400)[:-300]]))
        self._transport.close()

    def _answered(self, reply: bytes) -> None:
        self._endpoint.limits.done()
        self._waiting = False
        if not self._transport.is_closing():
            self._transport.write(reply)
            self._answer()


def _request(data: bytes) -> tuple[bytes, bytes, bytes | None, int] | None:
    """Method, path, body and end of the first request, or None while it is not whole; no body: no length."""
    split = data.find(b"\r\n\r\n")
    if split < 0:
        return None
    method, path, _ = data[: data.find(b"\r\n")].split(b" ", 2)
    head = data[:split].lower()
    at = head.find(b"\r\ncontent-length:")
    begin = split + 4
    if at < 0:
        return method, path, (None if b"\r\ntransfer-encoding:" in head else b""), begin
    length_end = head.find(b"\r\n", at + 2)
    end = begin + int(head[at + 17 : length_end if length_end >= 0 else split])
    return (method, path, data[begin:end], end) if len(data) >= end else None


def _reply(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        _REASONS[status],
        len(body),
        body,
    )


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message}})


def _count(seconds: list[int], second: int) -> None:
    """Add one to a second's count; seconds in which nothing came are 0."""
    seconds.extend([0] * (second + 1 - len(seconds)))
    seconds[second] += 1


async def serve(endpoint: Endpoint) -> None:
    """Listen on loopback until standard input ends; first a line with the base URL."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(endpoint), "127.0.0.1", 0)
    async with server:
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    parser.add_argument("--whole-context", action="store_true", help="values depend on all ids before")
    parser.add_argument("--rpm", type=int, default=0, help="requests in any minute; more get 429")
    parser.add_argument("--capacity", type=int, default=0, help="requests at once; more get 429")
    parser.add_argument("--faulty", type=int, default=0, metavar="N", help="every N-th goes wrong")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each takes")
    given = parser.parse_args()
    answers = Answers(texts_of(given.tokenizer), whole_context=given.whole_context)
    gc.disable()  # what is remembered has no cycles, and is long to walk through
    limits = Limits(rpm=given.rpm, capacity=given.capacity)
    endpoint = Endpoint(answers, limits, latency=given.latency, faulty=given.faulty)
    run = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop

        run = uvloop.run
    run(serve(endpoint))


if __name__ == "__main__":
    main()
