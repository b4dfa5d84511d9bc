"""What tokens are, as texts: with the tokenizer that a run used, if it is at hand.

Nothing is fetched: a tokenizer is one that stands where the run had it, or in the hub's cache, and is known
by its hash. Without it tokens are shown by their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness import reference
from harness.errors import UsageError
from harness.stored import Run
from harness.tokenizing import Tokenizer, load_tokenizer

Words = Callable[[int], str]
"""The text of an id."""
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What pieces have for a space, in tokenizers that do not spell bytes."""


def unknown(token_id: int) -> str:
    """An id whose text nobody knows."""
    return f"#{token_id}"


def wordings(run: Run) -> Mapping[str, Words]:
    """By the hash of a tokenizer: what its ids are. Those that are not at hand are left out."""
    endpoints = run.manifest.get("endpoints", [])
    wanted = {each.get("tokenizer_sha256") for each in endpoints} - {"", None}
    found: dict[str, Words] = {}
    for source in dict.fromkeys(_sources(run)):
        tokenizer = _at_hand(source, _bos(run))
        if tokenizer is not None and tokenizer.sha256 in wanted:
            found.setdefault(tokenizer.sha256, _words(tokenizer))
    return found


def _sources(run: Run) -> Iterator[str]:
    """Where the run's tokenizers may stand."""
    settings = run.manifest.get("settings", {})
    for named in settings.get("tokenizer") or ():
        yield from (named, named.partition("=")[2])
    for endpoint in settings.get("endpoint") or ():
        if isinstance(endpoint, dict) and endpoint.get("tokenizer"):
            yield endpoint["tokenizer"]
    yield str(reference.FOLDER)


def _bos(run: Run) -> Any:
    return run.manifest.get("settings", {}).get("bos", "auto")


def _at_hand(source: str, bos: Any) -> Tokenizer | None:
    """The tokenizer of a path, or of a hub id that the hub's cache has."""
    if not source:
        return None
    path = Path(source).expanduser()
    try:
        file = path / "tokenizer.json" if path.is_dir() else path
        here = str(path) if file.is_file() else _cached(source)  # a pipe would never end
        return load_tokenizer(here, bos=bos) if here else None
    except (UsageError, OSError, ValueError):
        return None


def _cached(hub_id: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(hub_id, "tokenizer.json")
    return file if isinstance(file, str) else None


def _words(tokenizer: Tokenizer) -> Words:
    @cache
    def words(token_id: int) -> str:
        piece = tokenizer.piece(token_id)
        if piece is None:
            return unknown(token_id)
        if _SPACE in piece:
            return piece.replace(_SPACE, " ")
        return tokenizer.decode([token_id], keep_special=True) or piece

    return words
