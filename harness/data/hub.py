"""Why something cannot be had from the hub, in a sentence, and the way out.

`datasets` and `huggingface_hub` raise dozens of kinds of errors, some of them out of others; which one it was
is told by the names of their classes and, where a library says it in words alone, by these.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables that forbid the libraries to use the network."""
_YES = ("1", "ON", "YES", "TRUE")
_NO_NETWORK = ("ConnectionError", "ConnectError", "TimeoutException", "LocalEntryNotFoundError")
_NO_CONFIG = re.compile(r"BuilderConfig '(?P<name>[^']*)' not found\. Available: (?P<there>\[.*?\])")
_NO_SPLIT = re.compile(r"Unknown split \"(?P<name>[^\"]*)\"\. Should be one of (?P<there>\[.*?\])")
_SCRIPT = re.compile(r"scripts are no longer supported, but found (?P<file>\S+)")


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
    if kinds & set(_NO_NETWORK):
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
