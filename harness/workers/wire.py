"""Messages of a run and its workers as bytes: msgpack, read strictly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from harness.workers.channel import ChannelLost
from harness.workers.messages import ToRun, ToWorker


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} is no part of a message")  # as msgspec asks of a hook


def _rich(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_of_worker = msgspec.msgpack.Decoder(ToWorker, dec_hook=_rich)
_of_run = msgspec.msgpack.Decoder(ToRun, dec_hook=_rich)


def encoded(message: ToWorker | ToRun) -> bytes:
    """A message as bytes."""
    return _encoder.encode(message)


def to_worker(message: bytes) -> ToWorker:
    """What a run told a worker; raises `ChannelLost` where it is none of ours."""
    with _ours():
        found: ToWorker = _of_worker.decode(message)
    return found


def to_run(message: bytes) -> ToRun:
    """What a worker told the run; raises `ChannelLost` where it is none of ours."""
    with _ours():
        found: ToRun = _of_run.decode(message)
    return found


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ChannelLost(f"what came is no message ({error})") from error
