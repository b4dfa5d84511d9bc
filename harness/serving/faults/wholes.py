"""Faults that take the place of a whole reply, or break it off: errors, resets, silence. aiohttp's side."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate

from aiohttp import web

from harness.serving.faults.asked import Asked
from harness.serving.faults.limits import TurnedAway
from harness.serving.faults.plan import Faults
from harness.serving.faults.refusing import Refusal

Sleep = Callable[[float], Awaitable[object]]

WHOLE = (
    *("429", "429_date", "429_bare", "500", "502", "503", "504", "401", "403", "leak"),
    *("not_json", "hang", "reset", "reset_midway", "cut", "slow"),
)
"""Drawn in this order; the first that strikes is the only one."""

_STATUS = {
    "429": (429, "too many requests"),
    "429_date": (429, "too many requests"),
    "429_bare": (429, "too many requests"),
    "500": (500, "internal error"),
    "503": (503, "the service is unavailable"),
    "401": (401, "the bearer token is wrong"),
    "403": (403, "the team has no access"),
}
"""Errors with a JSON body."""
_GATEWAY = {"502": (502, "502 Bad Gateway"), "504": (504, "504 Gateway Time-out")}
"""Errors of what stands in front of the endpoint, with a page of HTML."""

_PIECES = 20
"""In which a slow body comes, at most."""
_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""On, for 0 seconds: closing such a socket resets the connection."""
_UNFINISHED_EVENT = b'data: {"id": "cmpl-0", "object": "text_completion", "choi'
_TURNED_AWAY = {
    "outage": (503, "the service is unavailable"),
    "rpm": (429, "the limit of requests a minute is reached"),
    "tpm": (429, "the limit of tokens a minute is reached"),
    "capacity": (429, "too many requests are in flight"),
}
_TOO_LARGE = "the request alone is over the limit of tokens a minute"


class Wholes:
    """Makes such replies."""

    def __init__(self, faults: Faults, sleep: Sleep, wall: Callable[[], float]) -> None:
        """`wall`: seconds since 1970."""
        self._faults = faults
        self._sleep = sleep
        self._wall = wall
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let go of the requests that hang."""
        self._stopping.set()

    def drawn(self, asked: Asked) -> str | None:
        """The fault that strikes a request; `slow` strikes no stream."""
        names = WHOLE[:-1] if asked.streams else WHOLE
        return next((each for each in names if asked.draw.strikes(each, self._faults.value(each))), None)

    async def instead(self, name: str, request: web.Request, asked: Asked) -> web.StreamResponse:
        """The reply of a fault that does not need the endpoint's own."""
        if name in _STATUS:
            return self._error(name)
        match name:
            case "502" | "504":
                status, title = _GATEWAY[name]
                return _page(status, title)
            case "leak":
                return _leak(request)
            case "not_json":
                return _page(200, "Welcome")
            case "hang":
                await self._stopping.wait()
            case "cut" | "reset_midway":
                return await _break_stream(request, name)
        return reset(request)

    async def spoil(self, name: str, request: web.Request, body: bytes) -> web.StreamResponse:
        """What a fault makes of the endpoint's own JSON."""
        if name == "not_json":
            return web.Response(body=body[: len(body) // 2], content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        with suppress(ConnectionError):  # the client may have left
            await response.prepare(request)
            if name == "slow":
                await self._dribble(response, body)
                return response
            await response.write(body[: len(body) // 2])
        return _end(request, response, name)

    async def _dribble(self, response: web.StreamResponse, body: bytes) -> None:
        pieces = min(_PIECES, max(len(body), 1))
        size = math.ceil(len(body) / pieces)
        for piece in range(pieces):
            await self._sleep(self._faults.slow_seconds / pieces)
            await response.write(body[piece * size : (piece + 1) * size])

    def _error(self, name: str) -> web.Response:
        status, message = _STATUS[name]
        reply = _json_error(status, message)
        if name == "429":
            reply.headers["Retry-After"] = str(self._faults.retry_after)
        if name == "429_date":  # beside its own Date, as clocks differ and a date has no fractions
            now = math.floor(self._wall())
            reply.headers["Date"] = formatdate(now, usegmt=True)
            reply.headers["Retry-After"] = formatdate(now + self._faults.retry_after, usegmt=True)
        return reply


def needs_reply(name: str, asked: Asked) -> bool:
    """Whether a fault spoils the endpoint's own JSON, rather than taking its place."""
    if name == "not_json":
        return not asked.streams and asked.draw.pick(name, 2) == 0
    return name in ("reset_midway", "cut", "slow") and not asked.streams


def turned_away(why: TurnedAway, request: web.Request) -> web.StreamResponse:
    """The reply to a request that is turned away."""
    if why.name == "blackout":
        return reset(request)
    status, message = _TURNED_AWAY[why.name]
    if why.wait is None:
        return _json_error(status, message)
    if math.isinf(why.wait):
        return _json_error(status, _TOO_LARGE)
    reply = _json_error(status, message)
    reply.headers["Retry-After"] = str(math.ceil(why.wait))
    return reply


def refusal(why: Refusal) -> web.Response:
    """The error of an endpoint that lacks what was asked for."""
    if why.status != 422:
        return _json_error(why.status, why.message)
    field, _, problem = why.message.partition(": ")
    said = {"loc": ["body", field], "msg": problem, "type": "value_error"}
    return web.json_response({"detail": [said]}, status=422)


def reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection; what is returned goes nowhere."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        transport.abort()
    return web.Response()


def _end(request: web.Request, response: web.StreamResponse, name: str) -> web.StreamResponse:
    """Break a reply off that has begun."""
    if name == "reset_midway":
        reset(request)
    elif request.transport is not None:
        request.transport.close()  # what is buffered goes out first
    return response


async def _break_stream(request: web.Request, name: str) -> web.StreamResponse:
    """A stream of events that ends within the first of them."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    with suppress(ConnectionError):  # the client may have left
        await response.prepare(request)
        await response.write(_UNFINISHED_EVENT)
    return _end(request, response, name)


def _json_error(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def _page(status: int, title: str) -> web.Response:
    text = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>gateway</center>\r\n</body>\r\n</html>\r\n"
    )
    return web.Response(text=text, status=status, content_type="text/html")


def _leak(request: web.Request) -> web.Response:
    """An error page of a careless server: what it was sent, in the body and in headers."""
    given = request.headers.get("Authorization", "").encode("utf-8", "replace").decode()
    said = {
        "error": {"message": f"upstream rejected Authorization: {given}", "headers": {"authorization": given}}
    }
    headers = {"X-Request-Authorization": given, "Location": f"/login?authorization={given}"}
    return web.Response(text=json.dumps(said), status=500, content_type="application/json", headers=headers)
