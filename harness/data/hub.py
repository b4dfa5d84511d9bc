"""What to do where the hub cannot be reached, and why something cannot be had from it, in a sentence.

`datasets` and `huggingface_hub` raise dozens of kinds of errors, some of them out of others; which one it was
is told by the names of their classes and, where a library says it in words alone, by these. Without a network
they try again and again before they turn to their copies, which are all that is left: one look saves that.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from types import ModuleType
from urllib.parse import urlsplit

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables that forbid the libraries to use the network."""
LOOK = 5.0
"""Seconds that the hub gets to take a connection."""
_SETTING = "HF_HUB_OFFLINE"
"""What the libraries call it in their modules: whether they keep to copies on this machine."""
_PORTS = {"http": 80, "https": 443}
_YES = ("1", "ON", "YES", "TRUE")
_NO_NETWORK = ("ConnectionError", "ConnectError", "TimeoutException", "LocalEntryNotFoundError")
_NO_CONFIG = re.compile(r"BuilderConfig '(?P<name>[^']*)' not found\. Available: (?P<there>\[.*?\])")
_NO_SPLIT = re.compile(r"Unknown split \"(?P<name>[^\"]*)\"\. Should be one of (?P<there>\[.*?\])")
_SCRIPT = re.compile(r"scripts are no longer supported, but found (?P<file>\S+)")


@contextmanager
def offline_if_unreachable(*others: ModuleType) -> Iterator[None]:
    """Within this, libraries of the hub keep to the copies on this machine if the hub cannot be reached.

    Args:
        others: modules of settings beside that of `huggingface_hub`: `datasets.config`.
    """
    from huggingface_hub import constants

    libraries = (constants, *others)
    with ExitStack() as before:
        if not all(getattr(each, _SETTING) for each in libraries) and not reachable(constants.ENDPOINT):
            for each in libraries:
                before.callback(setattr, each, _SETTING, getattr(each, _SETTING))
                setattr(each, _SETTING, True)
        yield


def reachable(address: str, *, seconds: float = LOOK) -> bool:
    """Whether somebody takes connections at a URL, or at the proxy on the way to it; nothing is sent.

    Args:
        address: the URL; one that makes no sense is left to others, as reachable.
        seconds: that finding and connecting may take together.
    """
    try:
        place = _next_host(address)
    except ValueError:
        return True
    found: SimpleQueue[bool] = SimpleQueue()

    def look() -> None:
        with suppress(OSError, UnicodeError):
            socket.create_connection(place, timeout=seconds).close()
            found.put(True)
            return
        found.put(False)

    Thread(target=look, name="look for the hub", daemon=True).start()  # finding a name knows no time-out
    try:
        return found.get(timeout=seconds)
    except Empty:
        return False


def _next_host(address: str) -> tuple[str, int]:
    """Host and port that a connection goes to. Raises ValueError where the URL names none."""
    from urllib.request import getproxies, proxy_bypass

    url = urlsplit(address)
    proxies = {} if proxy_bypass(url.hostname or "") else getproxies()
    if proxy := proxies.get(url.scheme) or proxies.get("all"):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not url.hostname or (url.port is None and url.scheme not in _PORTS):
        raise ValueError(address)
    return url.hostname, url.port or _PORTS[url.scheme]


def why_not(error: BaseException, local: str, environ: Mapping[str, str] = os.environ) -> str:
    """What is wrong and what to do about it, without the name of what was asked for.

    Args:
        error: what a library of the hub raised.
        local: how to go on without the hub: "pass --data-dir to read a local copy".
        environ: to name the variable that forbids the network.
    """
    chain = list(_chain(error))
    kinds = {kind.__name__ for each in chain for kind in type(each).__mro__}
    words = " ".join(map(str, chain))
    otherwise = local[0].upper() + local[1:]
    if "GatedRepoError" in kinds or "is a gated dataset" in words:
        return _gated(chain, words, local)
    if script := _SCRIPT.search(words):
        return f"it is a program ({script['file']}), and code from the hub is never run. {otherwise}."
    for found, what in ((_NO_CONFIG, "configuration"), (_NO_SPLIT, "split")):
        if match := found.search(words):
            return f"it has no {what} {match['name']!r}; there are {match['there'][1:-1]}. {otherwise}."
    variable = next((name for name in OFFLINE if environ.get(name, "").upper() in _YES), "")
    if variable and kinds & {"OfflineModeIsEnabled", *_NO_NETWORK}:
        return f"{variable} is set, and no copy is kept on this machine. Unset it, or {local}."
    if kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        return (
            "the hub has nothing of that name, or shows it only to some. Look at the name; set HF_TOKEN if it"
            f" is private; or {local}."
        )
    if kinds & set(_NO_NETWORK) or any(each in words for each in _NO_NETWORK):
        return f"the hub cannot be reached, and no copy is kept on this machine. Try again later, or {local}."
    return f"{_first_line(error).removesuffix('.')}. {otherwise}."


def _gated(chain: list[BaseException], words: str, local: str) -> str:
    """Who has said who they are (403) only lacks access; who has not (401) must do that first."""
    codes = [getattr(getattr(each, "response", None), "status_code", None) for each in chain]
    if 403 in codes or "to ask for access" in words:
        return (
            "it is gated, and the account of your HF_TOKEN has no access. Ask for it on its page on the hub,"
            f" or {local}."
        )
    return (
        "it is gated, and you are not logged in. Accept its terms on its page on the hub and set HF_TOKEN,"
        f" or {local}."
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised out of."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
