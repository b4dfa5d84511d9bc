"""The list of what a run asks for, made while rows are checked."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data import listing
from harness.data.listing import CHUNK, Listing
from harness.errors import UsageError
from harness.plan import listed
from harness.prompts import Selection
from harness.scoring.scores import ItemRecord
from harness.suite import Suite, prepare_suite

ROOT = Path(__file__).parents[1]


def record(ordinal: int) -> ItemRecord:
    """A record with something in every field that a check knows."""
    return ItemRecord(
        ordinal=ordinal,
        task="toy",
        subject="é",
        shots=1,
        index=ordinal,
        id=f"id {ordinal}",
        gold=(0, 2),
        cluster="c",
        n_chars=(1, 2, 3),
        n_bytes=(1, 2, 4),
        problem="bad row" if ordinal % 2 else "",
    )


@pytest.mark.parametrize("count", [0, 1, CHUNK, 3 * CHUNK + 1])
def test_records_come_back_as_they_were(count: int) -> None:
    """Records come back whole and in order, as often as wanted."""
    found = Listing()
    for ordinal in range(count):
        found.add(record(ordinal))
    assert list(found) == list(found) == [record(ordinal) for ordinal in range(count)]


def test_two_readers_do_not_disturb_each_other() -> None:
    """A reader may begin while another is half way; both see records that come later."""
    found = Listing()
    for ordinal in range(3 * CHUNK):
        found.add(record(ordinal))
    first, second = iter(found), iter(found)
    assert [next(first).ordinal for _ in range(CHUNK + 1)][-1] == next(second).ordinal + CHUNK
    found.add(record(3 * CHUNK))
    found.flush()
    assert [each.ordinal for each in first] == list(range(CHUNK + 1, 3 * CHUNK + 1))


def test_the_temporary_file_ends_with_the_list() -> None:
    """Nothing is left on the disk when the list is gone."""
    found = Listing()
    found.add(record(0))
    found.flush()
    folder = found.path.parent
    assert found.path.stat().st_size
    del found
    gc.collect()
    assert not folder.exists()


def test_a_full_disk_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no room is left for the list, or its folder cannot be written, the way out is named."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = Listing()
    found._file.execute("PRAGMA max_page_count=1")
    with pytest.raises(UsageError, match=r"full.*set TMPDIR"):
        for ordinal in range(CHUNK):
            found.add(record(ordinal))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"No such file.*set TMPDIR"):
        Listing()


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 5), st.integers(1, 7))
def test_only_chosen_items_are_kept(chosen: list[bool], before: int, chunk: int) -> None:
    """Of the last task only what was drawn stays, numbered on, however many are looked at together; tasks
    before it stay as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "CHUNK", chunk)
        _keep_chosen(chosen, before)


def _keep_chosen(chosen: list[bool], before: int) -> None:
    found = Listing()
    earlier = [replace(record(at), task="earlier") for at in range(before)]
    later = [replace(record(at), ordinal=before + at) for at in range(len(chosen))]
    for each in (*earlier, *later):
        found.add(each)
    found.keep("toy", {"é": {at for at, drawn in enumerate(chosen) if drawn}}, first=before)
    kept = [each for each, drawn in zip(later, chosen, strict=True) if drawn]
    renumbered = [replace(each, ordinal=before + at) for at, each in enumerate(kept)]
    assert list(found) == [*earlier, *renumbered]


@pytest.mark.parametrize("selection", [Selection(), Selection(limit=2), Selection(sample=2, seed=3)])
def test_a_suite_lists_what_it_asks(tmp_path: Path, selection: Selection) -> None:
    """The list is that of the prompts that are made, whatever is chosen: golds and bad rows too."""
    for name in ("one", "two"):
        rows = [
            {"question": f"{name} {at}?", "choices": ["x", "ÿ"], "answer": at % 3, "subject": f"s{at % 2}"}
            for at in range(9)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    suite = prepare_suite(
        [f"file:{tmp_path}/one.jsonl", f"file:{tmp_path}/two.jsonl:cloze"],
        shots=None,
        data_dir=None,
        selection=selection,
        skip_bad_rows=True,
    )
    made = [listed(prompt, ordinal) for ordinal, prompt in Suite.prompts(suite)]
    assert list(suite.listing) == made
    assert len(made) == suite.size == (18 if selection == Selection() else 8)


# ------------------------------------------------------------------------------------- what a kill leaves


def _left_by_a_kill(place: Path) -> None:
    """Make a list in a process that is killed at once."""
    program = (
        "import os, signal, tempfile, sys; tempfile.tempdir = sys.argv[1]\n"
        "from harness.data.listing import Listing\n"
        "kept = Listing(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(place)], check=False, cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL


def test_what_a_kill_leaves_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a list whose process was killed goes with the next list; one in use stays."""
    _left_by_a_kill(tmp_path)
    (left,) = tmp_path.glob("forced-choice-*")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living = Listing()
    assert left.is_dir()  # so young a one may be in the making
    hours = time.time() + 7200
    listing.sweep(tmp_path, hours)
    assert not left.exists()
    assert living.path.is_file()
    living.add(record(0))
    assert list(living) == [record(0)]


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """A link, a file, and a folder that was never locked and is not a day old, are left alone."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / "forced-choice-link").symlink_to(kept)
    (tmp_path / "forced-choice-file").touch()
    (tmp_path / "forced-choice-new").mkdir()
    listing.sweep(tmp_path, time.time() + 7200)
    assert {each.name for each in tmp_path.glob("forced-choice-*")} == {
        f"forced-choice-{name}" for name in ("link", "file", "new")
    }
    listing.sweep(tmp_path, time.time() + 2 * 86_400)
    assert not (tmp_path / "forced-choice-new").exists()
    assert (kept / "file").exists()
