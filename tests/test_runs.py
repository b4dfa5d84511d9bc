"""A run's folder: whose it is, who may work in it, and what stands in its first files."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness import UsageError
from harness.choosing.registry import load_task
from harness.prepare import prepare
from harness.runs import RunFolder, SuiteIdentity
from harness.settings import RunSettings
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
            RunFolder(path, IDENTITY, sends=True)
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


@pytest.mark.parametrize(
    ("there", "now", "said"),
    [
        ("1", "2", 'toy: its version changed (version "1" there, "2" now)'),
        ({"files": "a"}, {"files": "b"}, "toy: the content of its files or their settings changed"),
        (
            {"version": "1", "hash": "a", "code": "a"},
            {"version": "1", "hash": "b", "code": "b"},
            'toy: the content of its Python file changed (code "a" there, "b" now)',
        ),
        ({"version": "1", "hash": "a"}, {"version": "1", "hash": "b"}, "toy: what it asks changed"),
        ("1", {"version": "1", "hash": "b"}, "toy: what it asks changed"),
    ],
)
def test_a_task_that_changed_is_named(there: object, now: object, said: str) -> None:
    """Of tasks that differ the first is named, and what of it changed, in words."""
    found = SuiteIdentity({"tasks": {"same": "1", "toy": now}}).difference(
        {"tasks": {"same": "1", "toy": there}}
    )
    assert found is not None
    assert found.startswith(f"tasks: {said}")


def test_a_task_that_is_not_asked_on_both_sides() -> None:
    """One task more or less is told by its name."""
    one, two = {"tasks": {"toy": "1"}}, {"tasks": {"toy": "1", "other": "1"}}
    assert SuiteIdentity(one).difference(two) == "tasks: other is asked there and not now"
    assert SuiteIdentity(two).difference(one) == "tasks: other is asked now and not there"


CODE = """
from tests.making import item_of, make_task
from harness import Dataset
from dataclasses import replace
def item(row):
    found = item_of(row)
    return replace(found, pairs=tuple(replace(each, context=each.context + MORE) for each in found.pairs))
MORE = {more!r}
TASK = make_task(item=item)
"""


def test_edited_code_is_another_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code, files of questions and packages whose prompts changed are refused by what changed; tasks that
    ship are known by their version."""
    (tmp_path / "toy").mkdir()
    rows = '{"question": "One?", "choices": ["a", "b"], "answer": 0}\n'
    (tmp_path / "toy" / "test.jsonl").write_text(rows)
    monkeypatch.syspath_prepend(str(tmp_path))
    package = {"toy": [EntryPoint("toy", "edited_package:TASK", "forced_choice.tasks")]}

    def identity(tasks: str) -> SuiteIdentity:
        settings = RunSettings(endpoint=("embedded",), tasks=tasks, data_dir=tmp_path)
        return prepare(settings, {}).identity

    def write(more: str) -> None:
        for name in ("mine.py", "edited_package.py"):
            (tmp_path / name).write_text(CODE.format(more=more))
        (tmp_path / "quiz.jsonl").write_text(rows.replace("One", f"One{more}"))
        sys.modules.pop("edited_package", None)

    def identities() -> list[SuiteIdentity]:
        found = [identity(f"{tmp_path / 'mine.py'}"), identity(f"file:{tmp_path / 'quiz.jsonl'}")]
        with monkeypatch.context() as patched:
            patched.setattr("harness.choosing.resolving.installed", lambda: package)
            return [*found, identity("toy")]

    monkeypatch.setitem(sys.modules, "edited_package", sys)  # so that the test leaves none behind
    write("")
    before = identities()
    assert [now.difference(then.fields) for now, then in zip(identities(), before, strict=True)] == [None] * 3
    write(" really")
    said = [now.difference(then.fields) or "" for now, then in zip(identities(), before, strict=True)]
    assert "tasks: toy: the content of its Python file changed" in said[0]
    assert "tasks: quiz: the content of its files or their settings changed" in said[1]
    assert "tasks: toy: what it asks changed" in said[2]
    assert identity("sample_hellaswag").fields["tasks"] == {
        "sample_hellaswag": load_task("sample_hellaswag").version
    }
