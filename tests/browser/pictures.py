"""Screenshots as arrays: enough of PNG to see whether something is on them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_BYTES = {2: 3, 6: 4}
"""Of a pixel, by the type of its colours: with or without an alpha channel."""


def pixels(png: bytes) -> NDArray[np.uint8]:
    """Red, green and blue, shape (height, width, 3), of an 8-bit PNG as browsers write it."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, width, height, size = 8, b"", 0, 0, 0
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        content = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", content)
            assert (depth, interlaced) == (8, 0)
            size = _BYTES[colours]
        elif kind == b"IDAT":
            packed += content
        at += length + 12
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * size)
    rows = np.zeros((height, width * size), np.uint8)
    before = np.zeros(width * size, np.uint8)
    for number, line in enumerate(lines):
        before = rows[number] = _unfiltered(int(line[0]), line[1:], before, size)
    return rows.reshape(height, width, size)[:, :, :3]


def _unfiltered(kind: int, line: NDArray[np.uint8], above: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A line as it was before it was made easier to compress."""
    if kind == 0:
        return line
    if kind == 2:
        return line + above
    if kind == 1:  # each is the sum of all before it, channel by channel
        return np.cumsum(line.reshape(-1, size), axis=0, dtype=np.uint8).reshape(-1)
    found = [0] * size
    up, corner = above.tolist(), [0] * size + above.tolist()
    for at, value in enumerate(line.tolist()):
        left = found[at]
        guess = (left + up[at]) // 2 if kind == 3 else _paeth(left, up[at], corner[at])
        found.append((value + guess) & 0xFF)
    return np.array(found[size:], np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    straight = left + up - corner
    by_left, by_up, by_corner = abs(straight - left), abs(straight - up), abs(straight - corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner
