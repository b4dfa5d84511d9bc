from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import UsageError
from harness.runs import RunFolder, SuiteIdentity
from tests.making import make_prompt

IDENTITY = SuiteIdentity({"tasks": {"toy": "1"}, "shots": {"toy": 0}, "seed": 0})


def test_the_same_suite_continues(tmp_path: Path) -> None:
    """A folder of the same suite is reopened, whatever its limit was."""
    with RunFolder(tmp_path / "run", IDENTITY) as folder:
        folder.write_manifest({"status": "complete", "settings": {"limit": 5}})
    with RunFolder(tmp_path / "run", IDENTITY) as folder:
        stored = json.loads((folder.path / "run.json").read_text())
    assert stored["status"] == "complete"
    assert stored["identity"] == dict(IDENTITY.fields)


def test_another_suite_is_refused(tmp_path: Path) -> None:
    """A folder of another suite is refused, naming what differs, and left as it is."""
    with RunFolder(tmp_path, IDENTITY) as folder:
        folder.write_manifest({"status": "complete"})
    before = (tmp_path / "run.json").read_bytes()
    other = SuiteIdentity({**IDENTITY.fields, "shots": {"toy": 5}})
    with pytest.raises(UsageError, match=r'another suite: shots is \{"toy": 0\} there and \{"toy": 5\} now'):
        RunFolder(tmp_path, other)
    assert (tmp_path / "run.json").read_bytes() == before


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    """The second of two runs on one folder is refused while the first works in it."""
    with (
        RunFolder(tmp_path, IDENTITY),
        pytest.raises(UsageError, match="another run is working in this folder"),
    ):
        RunFolder(tmp_path, IDENTITY)
    with RunFolder(tmp_path, IDENTITY):
        pass


def test_places_that_cannot_be_a_run(tmp_path: Path) -> None:
    """A file, a folder below a file, and an unreadable run.json are each named."""
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "below"):
        with pytest.raises(UsageError, match=r"^--out .*file"):
            RunFolder(path, IDENTITY)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match=r"run\.json cannot be read"):
        RunFolder(tmp_path, IDENTITY)


def test_prompts_for_the_eye(tmp_path: Path) -> None:
    """The first prompts are written whole, each continuation quoted, the right one marked."""
    with RunFolder(tmp_path, IDENTITY) as folder:
        folder.write_prompts([make_prompt("Two and two?", [" four", " five"], prefix="Sums.\n\n")])
    assert (tmp_path / "prompts.txt").read_text() == (
        "===== toy item 0, 0 shots\nSums.\n\nTwo and two?\n"
        "----- continuations (* is right)\n* ' four'\n  ' five'\n"
    )
