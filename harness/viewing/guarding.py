"""Who may ask, and what pages may do.

The page is for the browser of whoever started it. Other pages in that browser can send requests to loopback
too, under any name that they let point there (DNS rebinding), so a request is answered only where it names
loopback, and none that another page makes inside itself. Nothing but reading is offered. Texts of data sets
and endpoints stand in the pages: their policy lets no script run but the program's own files, and no address
be asked but this one.
"""

from __future__ import annotations

from aiohttp import web

HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""What a browser of this machine calls it; the port may be that of a tunnel."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OTHERS = ("cross-site", "same-site")


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on an answer; a policy of its own stays."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Content-Security-Policy", POLICY)


def refuse(request: web.Request) -> None:
    """Raise what a request is refused with, if it is."""
    if host_of(request.headers.get("Host", "")) not in HOSTS:
        raise web.HTTPForbidden(text="This page answers to 127.0.0.1 and localhost alone.\n")
    if request.method != "GET":
        raise web.HTTPMethodNotAllowed(request.method, ["GET"])
    navigates = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    framed = request.headers.get("Sec-Fetch-Dest", "document") != "document"
    if request.headers.get("Sec-Fetch-Site", "none") in _OTHERS and (framed or not navigates):
        raise web.HTTPForbidden(text="Another page asked for this.\n")


def host_of(header: str) -> str:
    """The host of a Host header, without its port."""
    name, separator, port = header.strip().lower().rpartition(":")
    return name if separator and port.isdigit() else header.strip().lower()
