"""What goes wrong with shards, and the way out that `run` and `merge` tell of each: nothing is lost on it."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness import load_run
from harness.caps import Volume
from harness.earlier import earlier
from harness.errors import StoreError, UsageError
from harness.manifest import Exit
from harness.merging.spent import own_of
from harness.merging.whole import merge
from harness.runs import RunFolder, SuiteIdentity
from harness.viewing.folders import Folders
from tests.fake_endpoint import FakeEndpoint
from tests.running import ROOT, Bench, bench, sent_again

__all__ = ["bench"]


async def shards(bench: Bench, of: int, *urls: str, **changes: Any) -> list[Exit]:
    """All shards of a run, one after another; how they ended."""
    numbers = range(1, of + 1)
    return [
        (await bench.run(*urls, out="many", shard=f"{number}/{of}", **changes)).exit for number in numbers
    ]


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the `run.json` of a folder."""
    file = folder / "run.json"
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))


@pytest.mark.parametrize("again", [2, 3])
async def test_caps_know_shards_whose_folders_are_gone(bench: Bench, again: int) -> None:
    """Once merged, shards may be deleted: what they sent still counts, for shards of their cut and of others,
    and after further merges."""
    whole = bench.folder / "many"
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await shards(bench, 2, url, max_requests=48)
        sent = len(endpoint.bodies)
        assert 40 <= sent <= 48
        for _ in range(2):
            merge(whole)
            shutil.rmtree(whole / "shards")
            await shards(bench, again, url, max_requests=48)
            assert len(endpoint.bodies) <= 48
        merge(whole)
        assert all(earlier(whole).shards[f"{n}-of-2"].seconds > 0 for n in (1, 2))
        shutil.rmtree(whole / "shards")
        assert earlier(whole).volume.requests == len(endpoint.bodies)
        await shards(bench, again, url, max_requests=600)
        assert merge(whole).exit is Exit.DONE
        assert sent_again(endpoint.bodies) == 0
    assert earlier(whole).volume.requests == len(endpoint.bodies) == 96
    assert own_of(earlier(whole)).sent == {}


async def test_one_shard_that_is_gone(bench: Bench) -> None:
    """A second merge without one of the shards keeps what is known of it."""
    whole = bench.folder / "many"
    async with FakeEndpoint() as endpoint:
        await shards(bench, 2, f"it={endpoint.base_url}")
    merge(whole)
    shutil.rmtree(whole / "shards/1-of-2")
    merged = merge(whole)
    said = bench.manifest("many")
    assert merged.exit is Exit.DONE
    assert [each["sent"]["it"]["requests"] for each in said["shards"].values()] == [48, 48]
    assert earlier(whole).volume.requests == 96


async def test_endpoints_go_by_identity(bench: Bench) -> None:
    """An endpoint that shards call by other names, swapped ones even, is one, with the name that it had last;
    what it sent is counted once, whatever a run calls it then."""
    whole = bench.folder / "many"
    async with FakeEndpoint() as one, FakeEndpoint() as two:
        more: dict[str, Any] = {"out": "many", "probe": True}
        await bench.run(f"a={one.base_url}", f"b={two.base_url}", shard="1/2", **more)
        edit(whole / "shards/1-of-2", lambda said: said["timings"].update(begun="2020-01-01T00:00:00Z"))
        await bench.run(f"b={one.base_url}", f"a={two.base_url}", shard="2/2", **more)
        first, second = (earlier(whole / f"shards/{n}-of-2").by_label for n in (1, 2))
        sent = {now: (first[then] + second[now]).requests for then, now in (("a", "b"), ("b", "a"))}
        assert sent["a"] >= len(two.bodies) > 96
        merge(whole)
        said = bench.manifest("many")
        assert {label: each["items_done"] for label, each in said["counts"].items()} == {"a": 24, "b": 24}
        assert {label: each["requests_sent"] for label, each in said["counts"].items()} == {"a": 96, "b": 96}
        assert earlier(whole).by_label.keys() == {"a", "b"}
        assert {label: each.requests for label, each in earlier(whole).by_label.items()} == sent
        assert own_of(earlier(whole)).sent == {}
        await bench.run(f"x={one.base_url}", f"y={two.base_url}", out="many")
        assert {label: each.requests for label, each in earlier(whole).by_label.items()} == {
            "x": sent["b"],
            "y": sent["a"],
        }
        assert own_of(earlier(whole)).sent == {}
        await bench.run(f"z={one.base_url}", out="many")
        assert own_of(earlier(whole)).sent.get("", Volume()) == Volume()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("", r"cannot be read \(Input data was truncated"),
        ("[]", r"cannot be read \(Expected `object`, got `array`"),
        ('{"status": "complete"}', r"cannot be read \(Object missing required field"),
        ("[" * 100_000, "cannot be read"),
    ],
    ids=["gone", "empty", "list", "short", "deep"],
)
async def test_a_shard_that_does_not_say_what_it_is(bench: Bench, content: str | None, said: str) -> None:
    """A shard with replies whose run.json is gone or nonsense is named, by merge and by a run; the way out
    works, and asks nothing twice."""
    whole = bench.folder / "many"
    file = whole / "shards/1-of-2/run.json"
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await shards(bench, 2, url)
        _spoil(file, content)
        merged = merge(whole)
        (told,) = (line for line in merged.told if "1/2" in line)
        assert told.startswith(f"Shard 1/2 is left out. {file}: ")
        assert "give the command of shard 1/2 again: it sends nothing twice" in told
        assert (merged.exit, merged.untried) == (Exit.UNSCORED, 12)
        with pytest.raises(UsageError, match=f"not merged yet. .*1-of-2/run.json: {said}"):
            await bench.run(url, out="many")
        shutil.rmtree(whole / "shards/2-of-2")
        with pytest.raises(UsageError, match=f"1-of-2/run.json: {said}"):
            merge(whole)
        file.unlink(missing_ok=True)
        assert (await bench.run(url, out="many", shard="1/2")).exit is Exit.DONE
        assert merge(whole).exit is Exit.DONE
        assert sent_again(endpoint.bodies) == 0


def _spoil(file: Path, content: str | None) -> None:
    """Put something else into a file, or nothing in its place."""
    file.unlink()
    if content is not None:
        file.write_text(content)


@pytest.mark.parametrize(
    "lacks", ["counts", "probes_amiss", "checks", "remarks", "beside_journal", "versions", "heartbeat"]
)
async def test_a_shard_that_says_less(bench: Bench, lacks: str) -> None:
    """What a run.json does not say is taken for nothing, where that can be; the tables stand."""
    async with FakeEndpoint() as endpoint:
        await shards(bench, 2, f"it={endpoint.base_url}")
    edit(bench.folder / "many/shards/1-of-2", lambda said: said.pop(lacks))
    assert merge(bench.folder / "many").exit is Exit.DONE
    assert merge(bench.folder / "many").exit is Exit.DONE


@pytest.mark.parametrize("lacks", ["timings", "tasks", "identity", "settings", "endpoints", "status"])
async def test_a_shard_that_says_too_little(bench: Bench, lacks: str) -> None:
    """Without these a shard is left out, and the field is named; other shards pass over its replies."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await shards(bench, 2, url)
        edit(bench.folder / "many/shards/1-of-2", lambda said: said.pop(lacks))
        told = merge(bench.folder / "many").told
        assert any("1-of-2/run.json: cannot be read" in line and f"`{lacks}`" in line for line in told)
        if lacks != "identity":  # nobody knows what it is: no shard begins beside it
            assert (await bench.run(url, out="many", shard="2/2")).exit is Exit.DONE


async def test_the_run_itself_does_not_say_what_it_is(bench: Bench) -> None:
    """Nothing is merged into a folder whose run.json is nonsense; without it all is there again."""
    whole = bench.folder / "many"
    async with FakeEndpoint() as endpoint:
        await shards(bench, 2, f"it={endpoint.base_url}")
    merge(whole)
    before = bench.scores("many")
    (whole / "run.json").write_text("[1]")
    with pytest.raises(UsageError, match=r"many/run.json: cannot be read .*; move it away and give"):
        merge(whole)
    (whole / "run.json").unlink()
    assert merge(whole).exit is Exit.DONE
    assert bench.scores("many") == before


async def test_shards_of_different_lists(bench: Bench) -> None:
    """Where a shard was cut from another list, that is said, with what differs; its command given again with
    the same makes the run whole."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", shard="1/2", limit=2)
        edit(
            bench.folder / "many/shards/1-of-2",
            lambda said: said["timings"].update(begun="2020-01-01T00:00:00Z"),
        )
        await bench.run(url, out="many", shard="2/2", limit=3)
        merged = merge(bench.folder / "many")
        assert merged.exit is Exit.UNSCORED
        assert merged.told[0] == (
            "Shards cut from another list of items than shard 2/2, which began last (--limit 2, not 3): 1/2;"
            " give their commands again with what that one was given"
        )
        await bench.run(url, out="many", shard="1/2", limit=3)
        merged = merge(bench.folder / "many")
        assert merged.exit is Exit.DONE
        assert not any("Shards" in line for line in merged.told)
        assert len(load_run(bench.folder / "many").items) == 12


async def test_tasks_in_another_order(bench: Bench) -> None:
    """An order of the tasks is part of the list, too."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", shard="1/3")
        edit(
            bench.folder / "many/shards/1-of-3",
            lambda said: said["timings"].update(begun="2020-01-01T00:00:00Z"),
        )
        await bench.run(url, out="many", shard="2/3", tasks="mmlu,hellaswag")
        told = merge(bench.folder / "many").told
    assert told[0] == "Shards not begun: 3/3"
    assert "(tasks in another order): 1/3" in told[1]


async def test_a_shard_at_work_that_has_written_nothing(bench: Bench) -> None:
    """A run is refused from the moment at which a shard holds its folder, before its run.json is there."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="one")
        sent = len(endpoint.bodies)
        identity = SuiteIdentity(bench.manifest("one")["identity"])
        with RunFolder(bench.folder / "many/shards/1-of-2", identity, sends=True):
            with pytest.raises(UsageError, match=r"its shards are at work \(1-of-2\); wait for them to end"):
                await bench.run(url, out="many")
            assert len(endpoint.bodies) == sent
        assert (await bench.run(url, out="many")).exit is Exit.DONE


def program(*arguments: str, within: Path, before: str = "") -> tuple[int, str]:
    """The exit code of Python with these arguments, and what it says on stderr; no traceback."""
    command = ["bash", "-c", f'{before}exec "$@"', "bash", sys.executable, *arguments]
    done = subprocess.run(command, cwd=within, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def say(folder: Path, *arguments: str, before: str = "") -> tuple[int, str]:
    """The same of a command of the program."""
    return program(str(ROOT / "run_eval.py"), *arguments, within=folder, before=before)


async def test_what_merge_says_of_what_is_in_its_way(bench: Bench) -> None:
    """Its errors name what merge knows: it has no --out; and a limit on files has a way out."""
    whole = bench.folder / "many"
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await shards(bench, 2, url)
        identity = SuiteIdentity(bench.manifest("many/shards/1-of-2")["identity"])
        with (
            RunFolder(whole, identity),
            pytest.raises(UsageError, match=r"^/.*: another run is working in this folder; wait for it to"),
        ):
            merge(whole)
        code, said = say(bench.folder, "merge", "many", before="trap '' XFSZ; ulimit -f 16; ")
        assert (code, said.count("\n")) == (2, 1)
        assert "and that there is room (df, ulimit -f); then give the command again" in said
        (journal,) = (whole / "shards/1-of-2/journal").glob("*.sqlite")
        for content in (_of_schema(journal, "3"), b"nothing of the kind " * 100):
            journal.write_bytes(content)
            with pytest.raises(
                StoreError, match=r"1-of-2/journal/.*; move it away \(replies that it alone has"
            ):
                merge(whole)
        journal.unlink()
        assert merge(whole).untried == 12
        assert (await bench.run(url, out="many", shard="1/2")).exit is Exit.DONE
        assert merge(whole).exit is Exit.DONE


def _of_schema(journal: Path, schema: str) -> bytes:
    """A journal as another version writes it."""
    with closing(sqlite3.connect(journal)) as opened, opened:
        opened.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (schema,))
    return journal.read_bytes()


INTERRUPTED_IN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
from harness.merging import folding, texts, whole
_, room, name = sys.argv[:3]
room = {"folding": folding, "texts": texts, "whole": whole}[room]
real = getattr(room, name)
def interrupting(*given, **named):
    signal.raise_signal(signal.SIGINT)
    return real(*given, **named)
setattr(room, name, interrupting)
from harness.cli import main
sys.exit(main(sys.argv[3:]))
"""
"""A merge that is interrupted at the begin of one of its functions."""


@pytest.mark.parametrize(
    "moment",
    [("folding", "_fold_replies"), ("whole", "parts_in"), ("whole", "write_results"), ("texts", "_in_order")],
    ids=lambda moment: moment[1],
)
async def test_a_merge_that_is_interrupted(bench: Bench, moment: tuple[str, str]) -> None:
    """Ctrl-C ends a merge with one line that says how it goes on; until then everything names the way out."""
    whole = bench.folder / "many"
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="one")
        await shards(bench, 2, url)
    code, said = program("-c", INTERRUPTED_IN, *moment, "merge", str(whole), within=ROOT)
    assert (code, said.count("\n")) == (130, 1), said
    assert f"merge {whole}" in said
    if moment[1] == "write_results":
        command = bench.command(url, out="many")[3:]
        commands: list[list[str]] = [["rescore"], ["report"], ["compare"]]
        for each in (*([*each, str(whole)] for each in commands), ["plan", *command]):
            code, said = say(bench.folder, *each)
            assert (code, f"merge {whole}`" in said) == (2, True), said
    assert merge(whole).exit is Exit.DONE
    assert bench.scores("many") == bench.scores("one")


async def test_view_names_a_merge_that_was_broken_off(bench: Bench) -> None:
    """Among the runs that `view` shows it is one with a way out, not one that goes on for ever."""
    whole = bench.folder / "many"
    async with FakeEndpoint() as endpoint:
        await shards(bench, 2, f"it={endpoint.base_url}")
    merge(whole)
    edit(whole, lambda said: said.update(status="running"))
    found = Folders(bench.folder).found().values()
    (problem,) = (each.problem for each in found if each.path == whole)
    assert "a merge of its shards is at work, or broken off; `merge" in problem


async def test_a_plan_is_refused_as_its_run_would_be(bench: Bench) -> None:
    """What a run would take nobody can say before what its shards have is merged."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url, out="many", shard="1/2")
        code, said = say(bench.folder, "plan", *bench.command(url, out="many")[3:])
        assert (code, "not merged yet (1-of-2); give `merge" in said) == (2, True)
        merge(bench.folder / "many")
        assert say(bench.folder, "plan", *bench.command(url, out="many")[3:])[0] == 0


def _journal(shard: Path) -> Path:
    (found,) = (shard / "journal").glob("*.sqlite")
    return found


def _a_file(shard: Path) -> None:
    shutil.rmtree(shard)
    shard.write_text("")


def _an_empty_folder(shard: Path) -> None:
    shutil.rmtree(shard)
    shard.mkdir()


def _other_endpoint(shard: Path) -> None:
    with closing(sqlite3.connect(_journal(shard))) as opened, opened:
        opened.execute("UPDATE meta SET value = 'other' WHERE name = 'identity'")


def _other_columns(shard: Path) -> None:
    with closing(sqlite3.connect(_journal(shard))) as opened, opened:
        opened.execute("ALTER TABLE items RENAME COLUMN keys TO other")


def _other_items(shard: Path) -> None:
    with closing(sqlite3.connect(_journal(shard))) as opened, opened:
        opened.execute("UPDATE items SET subject = 'other'")


def _other_metrics(shard: Path) -> None:
    edit(shard, lambda said: said["tasks"]["mmlu"].update(metrics=["acc", "best"]))


def _nonsense(shard: Path) -> None:
    for name in ("9-of-2", "0-of-2", "1-of-999999999", "x-of-2", "1-of-2 (copy)", "3-of-9"):
        (shard.parent / name).mkdir()
        (shard.parent / name / "run.json").write_text("{}" if name != "3-of-9" else "")
    (shard.parent / "3-of-9" / "run.json").unlink()
    (shard.parent / "4-of-9").write_text("")


@pytest.mark.parametrize(
    ("harm", "untried", "said"),
    [
        (_a_file, 12, "Shards not begun: 1/2"),
        (_an_empty_folder, 12, "Shards not begun: 1/2"),
        (lambda shard: shutil.rmtree(shard / "journal"), 12, "Shards without a journal: 1/2"),
        (lambda shard: _journal(shard).write_bytes(b""), 12, "Shards without a journal: 1/2"),
        (_other_endpoint, None, r"1-of-2/\S+ and .*2-of-2/\S+ are of different endpoints, .* move away one"),
        (_other_columns, None, r"1-of-2/\S+: is damaged; move it away, and give the command of its shard"),
        (_other_items, 12, "All shards are complete, yet items are lacking: .* nothing is sent twice"),
        (_other_metrics, 12, r"1-of-2/run.json: cannot be read \(metric 'best' of mmlu is unknown"),
        (lambda shard: (shard / "prompts.txt").write_bytes(b"\xff"), 0, ""),
        (_nonsense, 0, ""),
    ],
    ids=["file", "empty", "gone", "cleared", "endpoint", "columns", "items", "metrics", "prompts", "names"],
)
async def test_whatever_is_found_there(
    bench: Bench, harm: Callable[[Path], object], untried: int | None, said: str
) -> None:
    """Whatever stands where a shard should, merge says what it is and puts the rest together, or nothing."""
    whole = bench.folder / "many"
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await shards(bench, 2, url)
        harm(whole / "shards/1-of-2")
        if untried is None:
            with pytest.raises(StoreError, match=said):
                merge(whole)
            return
        merged = merge(whole)
    assert merged.untried == untried
    assert len(load_run(whole).items) == 24
    assert any(re.search(said, line) for line in merged.told)
