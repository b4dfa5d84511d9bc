"""The file of token ids: kept, shared by processes, set aside when broken, and never a reason to fail."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.tokencache import FILE, TokenCache, cache_file

ROOT = Path(__file__).parents[1]


def key(n: int) -> bytes:
    """The n-th key."""
    return b"%032d" % n


def kept(path: Path, keys: list[bytes]) -> dict[bytes, list[int]]:
    """What another process would find."""
    with closing(TokenCache(path)) as cache:
        return cache.get(keys)


def test_where_it_is() -> None:
    """In the user's cache folder; a relative XDG_CACHE_HOME counts as none, as its specification says."""
    assert cache_file({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c") / FILE
    assert cache_file({"XDG_CACHE_HOME": "c", "HOME": "/h"}) == Path("/h/.cache") / FILE
    assert cache_file({}) is None


@given(st.dictionaries(st.binary(min_size=32, max_size=32), st.lists(st.integers(0, 2**32 - 1))))
def test_what_is_put_is_got(tmp_path_factory: pytest.TempPathFactory, found: dict[bytes, list[int]]) -> None:
    """Ids come back as they were, and unknown keys do not."""
    path = tmp_path_factory.mktemp("cache") / "deep" / "tokens.sqlite"
    with closing(TokenCache(path)) as cache:
        cache.put(found)
        assert cache.get([*found, key(0)]) == found
        assert cache.remarks == []
    assert kept(path, list(found)) == found


def test_more_keys_than_a_query_takes(tmp_path: Path) -> None:
    """Thousands of keys are looked up in one call."""
    found = {key(n): [n] for n in range(2500)}
    with closing(TokenCache(tmp_path / "t")) as cache:
        cache.put(found)
        assert cache.get(list(found)) == found


WRITER = """
import sys
from pathlib import Path
from harness.tokencache import TokenCache
cache = TokenCache(Path(sys.argv[1]))
first = int(sys.argv[2])
for n in range(first, first + 200):
    cache.put({b"%032d" % each: [each, n] for each in (n, 10_000 + n % 50)})
    assert cache.get([b"%032d" % n]) == {b"%032d" % n: [n, n]}
print(cache.remarks)
"""


def test_two_processes_on_one_file(tmp_path: Path) -> None:
    """Processes that write at the same time lose nothing, and leave a sound file."""
    path = tmp_path / "tokens.sqlite"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(first)],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (0, 100, 1000)
    ]
    said = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert said == ["[]", "[]", "[]"]
    keys = [key(n) for n in (*range(300), *range(1000, 1200))]
    assert len(kept(path, keys)) == 500
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_broken_file_is_set_aside(tmp_path: Path) -> None:
    """What is no SQLite file makes place for a new one, and is kept under another name; said in one line."""
    path = tmp_path / "tokens.sqlite"
    path.write_bytes(
        b"not a database, but long enough to be read as the header of one, 100 bytes and more" * 20
    )
    with closing(TokenCache(path)) as cache:
        assert cache.get([key(1)]) == {}
        cache.put({key(1): [5]})
        assert cache.get([key(1)]) == {key(1): [5]}
        assert cache.remarks == [f"the token cache {path} was broken; it was set aside as *.broken"]
    assert kept(path, [key(1)]) == {key(1): [5]}
    assert path.with_name("tokens.sqlite.broken").read_bytes().startswith(b"not a database")


def test_a_file_that_breaks_while_it_is_open(tmp_path: Path) -> None:
    """Pages that are overwritten are noticed when they are read; what was in them is asked for anew."""
    path = tmp_path / "tokens.sqlite"
    with closing(TokenCache(path)) as cache:
        cache.put({key(n): list(range(n, n + 300)) for n in range(500)})
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with closing(TokenCache(path)) as cache:
        assert cache.get([key(n) for n in range(500)]) == {}
        cache.put({key(1): [5]})
        assert cache.get([key(1)]) == {key(1): [5]}
        assert len(cache.remarks) == 1


def test_another_process_has_set_it_aside(tmp_path: Path) -> None:
    """A new file under the name of a broken one is taken, never set aside in its turn."""
    path = tmp_path / "tokens.sqlite"
    with closing(TokenCache(path)) as late, closing(TokenCache(path)) as early:
        late.put({key(n): list(range(300)) for n in range(500)})
        path.write_bytes(path.read_bytes()[:4096] + os.urandom(40_000))
        early.put({key(1): [5]})
        assert late.get([key(1)]) == {key(1): [5]}
    assert kept(path, [key(1)]) == {key(1): [5]}


def test_damaged_ids_are_unknown(tmp_path: Path) -> None:
    """A row whose content is damaged counts as none."""
    path = tmp_path / "tokens.sqlite"
    with closing(TokenCache(path)) as cache:
        cache.put({key(1): [1, 2, 3], key(2): [4]})
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE texts SET ids = x'00112233' WHERE key = ?", [key(1)])
        file.commit()
    assert kept(path, [key(1), key(2)]) == {key(2): [4]}


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    """Without a usable file nothing is kept, nothing fails, and one line says so."""
    (tmp_path / "file").write_text("")
    for path in (None, tmp_path / "file" / "below" / "tokens.sqlite"):
        with closing(TokenCache(path)) as cache:
            cache.put({key(1): [5]})
            assert cache.get([key(1)]) == {}
            cache.put({key(1): [5]})
            assert len(cache.remarks) == 1
            assert "token ids are not kept" in cache.remarks[0]
