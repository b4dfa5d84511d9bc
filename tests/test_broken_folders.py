"""Nothing paid for is lost: full disks, folders that cannot be written, journals cut in the middle."""

from __future__ import annotations

import asyncio
import json
import random
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, StoreError, UsageError
from harness.journal import Journal
from harness.manifest import Exit
from tests.fake_endpoint import FakeEndpoint
from tests.ledger import note
from tests.running import LONGEST, REQUESTS, ROOT, Bench, bench, ended, sent_again  # noqa: F401

TABLES = ("scores.csv", "items.csv", "items.parquet", "texts.parquet")


def tables(folder: Path) -> list[bytes]:
    """The bytes of a run's tables."""
    return [(folder / name).read_bytes() for name in TABLES]


async def true_tables(bench: Bench, url: str) -> list[bytes]:  # noqa: F811
    """Those of a run whose folder is sound."""
    await bench.run(f"it={url}", out="true")
    return tables(bench.folder / "true")


# --------------------------------------------------------------------------------- in a world of their own


def alone(script: str) -> list[str]:
    """A command that may mount what nobody else sees."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]


@pytest.fixture(scope="session")
def mounting(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests that mount file systems skip where that is not allowed."""
    script = f"mount -t tmpfs -o size=1m none {tmp_path_factory.mktemp('mounted')}"
    try:
        subprocess.run(alone(script), check=True, capture_output=True, timeout=LONGEST)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here, not even in a namespace of one's own")


async def done(script: str) -> tuple[str, list[str]]:
    """What a script says, and the lines on its standard error that are errors of the program."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*alone(script), stdout=pipe, stderr=pipe, cwd=ROOT)
    said, errors = await ended(child)
    assert b"Traceback" not in errors, errors.decode()
    return said.decode(), [each for each in errors.decode().splitlines() if each.startswith("forced-choice:")]


@pytest.mark.parametrize("size", [56, 80, 120])
async def test_a_full_disk(size: int, bench: Bench, mounting: None) -> None:  # noqa: F811
    """A disk full at the start, while sending, at the tables: one line, and the same command goes on."""
    disk = bench.folder / "disk"
    disk.mkdir()
    async with FakeEndpoint() as endpoint:
        command = shlex.join(bench.command(f"it={endpoint.base_url}", out="disk/run"))
        said, errors = await done(
            f"mount -t tmpfs -o size={size}k none {disk}; {command} > {bench.folder}/first; echo $?;"
            f"mount -o remount,size=20m {disk}; {command} > {bench.folder}/second; echo $?;"
            f"cp -r {disk}/run {bench.folder}/saved"
        )
        assert said.split() in (["2", "0"], ["3", "0"])
        assert len(errors) == 1
        assert "the disk is full; make room" in errors[0]
        (counts,) = json.loads((bench.folder / "saved/run.json").read_text())["counts"].values()
        assert counts["requests_sent"] + counts["requests_from_journal"] == REQUESTS
        assert sent_again(endpoint.bodies) <= counts["requests_sent"]  # nothing that the journal had
        assert tables(bench.folder / "saved") == await true_tables(bench, endpoint.base_url)
    assert not [*(bench.folder / "saved").glob(".*.new")]
    note("disks full at some moment", tried=1, lost=0, unit="disks")


async def test_a_read_only_folder(bench: Bench, mounting: None) -> None:  # noqa: F811
    """A folder that cannot be written is found before the first request, in a new run and in an old one."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", out="old/run")
        sent = len(endpoint.bodies)
        for out in ("old/run", "old/new"):
            command = shlex.join(bench.command(f"it={endpoint.base_url}", out=out))
            folder = bench.folder / "old"
            said, errors = await done(
                f"mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}; {command}; echo $?"
            )
            assert said.split()[-1] == "2"
            assert len(errors) == 1
            assert "Read-only file system" in errors[0] or "writable" in errors[0]
            assert "--out" in errors[0]
        assert len(endpoint.bodies) == sent
    note("folders that cannot be written", tried=2, lost=0, unit="folders")


# ------------------------------------------------------------------------------------------------ in the way


def _file_above(run: Path) -> None:
    run.rmdir()
    run.parent.rmdir()
    run.parent.write_text("mine")


IN_THE_WAY: Mapping[str, Callable[[Path], object]] = {
    "a file": lambda run: run.write_text("mine"),
    "a file above it": _file_above,
    "a file for the journals": lambda run: (run / "journal").write_text("mine"),
    "a folder for the lock": lambda run: (run / ".lock").mkdir(),
    "a folder for run.json": lambda run: (run / "run.json").mkdir(),
    "a run.json that is none": lambda run: (run / "run.json").write_text("{"),
    "a run.json of something else": lambda run: (run / "run.json").write_text("[1]"),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
async def test_something_is_in_the_way(what: str, bench: Bench) -> None:  # noqa: F811
    """What stands where the run would is left as it is, and named, before the first request."""
    run = bench.folder / "above/run"
    run.mkdir(parents=True)
    if what == "a file":
        run.rmdir()
    IN_THE_WAY[what](run)
    before = sorted(map(str, bench.folder.rglob("*")))
    async with FakeEndpoint() as endpoint:
        with pytest.raises(UsageError, match=r"--out .*above") as caught:
            await bench.run(f"it={endpoint.base_url}", out="above/run")
        assert "\n" not in str(caught.value)
        assert endpoint.bodies == []
    left = {each for each in map(str, bench.folder.rglob("*")) if each not in before}
    assert left <= {str(run / name) for name in ("journal", ".lock")}
    note("folders that cannot be written", tried=1, lost=0, unit="folders")


# --------------------------------------------------------------------------------------- a journal that fills


@pytest.mark.parametrize("pages", [8, 9, 10, 11])
async def test_a_journal_that_cannot_grow(
    pages: int,
    bench: Bench,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite's own "full" in the middle of a run ends it with what it has; the same command completes it."""
    prepare: Any = Journal._prepare

    def small(self: Journal, *given: Any) -> None:
        prepare(self, *given)
        self._writer.execute(f"PRAGMA max_page_count = {pages}")

    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "_prepare", small)
            try:
                result = await bench.run(url)
            except StoreError as error:
                assert "the disk is full; make room" in str(error)
            else:
                assert result.exit == Exit.UNSCORED
                assert any("the disk is full; make room" in remark for remark in result.remarks)
        again = await bench.run(url)
        assert again.exit == Exit.DONE
        assert tables(again.folder) == await true_tables(bench, endpoint.base_url)
    note("disks full at some moment", tried=1, lost=0, unit="disks")


# ------------------------------------------------------------------------------------------- a journal is cut


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A file that was cut, or a page of which was overwritten."""
    page = chance.randrange(len(data) // 4096) * 4096
    kind = chance.choice(("cut", "cut", "zeros", "noise", "head"))
    if kind == "cut":
        return data[: chance.randrange(len(data))]
    if kind == "head":
        return chance.randbytes(100) + data[100:]
    put = bytes(4096) if kind == "zeros" else chance.randbytes(4096)
    return data[:page] + put + data[page + 4096 :]


@pytest.mark.parametrize("part", range(4))
async def test_a_damaged_journal(part: int, bench: Bench) -> None:  # noqa: F811
    """A journal that was cut or overwritten is named in one line with the way out, which helps."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        true = await true_tables(bench, endpoint.base_url)
        for seed in range(part, 40, 4):
            out = f"damaged{seed}"
            shutil.copytree(bench.folder / "true", bench.folder / out)
            (journal,) = (bench.folder / out / "journal").glob("*.sqlite")
            journal.write_bytes(damaged(journal.read_bytes(), random.Random(seed)))
            sent = len(endpoint.bodies)
            try:
                result = await bench.run(url, out=out)
            except HarnessError as error:
                assert str(journal) in str(error)
                assert "move it away" in str(error)
                assert "\n" not in str(error)
                assert len(endpoint.bodies) == sent
                journal.rename(journal.with_suffix(".away"))
                result = await bench.run(url, out=out)
            assert result.exit == Exit.DONE
            assert tables(result.folder) == true
        note("journals cut or overwritten", tried=10, lost=0, unit="journals")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_journal_that_was_hardly_begun(begun: bool, bench: Bench) -> None:  # noqa: F811
    """A file that a kill, or a full disk, left without its tables is no obstacle to the same command."""
    async with FakeEndpoint() as endpoint:
        true = await true_tables(bench, endpoint.base_url)
        shutil.copytree(bench.folder / "true", bench.folder / "run")
        (file,) = (bench.folder / "run/journal").glob("*.sqlite")
        file.write_bytes(b"")
        if begun:
            with closing(sqlite3.connect(file)) as journal:
                journal.execute("PRAGMA journal_mode=WAL")
        result = await bench.run(f"it={endpoint.base_url}")
        assert result.exit == Exit.DONE
        assert tables(result.folder) == true
        assert len(endpoint.bodies) == 2 * REQUESTS
    note("journals cut or overwritten", tried=1, lost=0, unit="journals")


async def images(bench: Bench, endpoint: FakeEndpoint, chance: random.Random) -> list[Path]:  # noqa: F811
    """The folder as a power loss would have left it at some moments of a run."""
    moments = set(chance.sample(range(2, REQUESTS), 12))
    taken: list[Path] = []

    def script(number: int, body: object) -> None:
        if number in moments:
            image = bench.folder / f"image{number}"
            shutil.copytree(bench.folder / "imaged", image, ignore=shutil.ignore_patterns(".*"))
            taken.append(image)

    endpoint._script = script
    await bench.run(f"it={endpoint.base_url}", out="imaged")
    endpoint._script = lambda number, body: None
    return taken


@pytest.mark.parametrize("seed", range(2))
async def test_a_log_that_is_cut(seed: int, bench: Bench) -> None:  # noqa: F811
    """Of a log that is cut, overwritten or gone what is whole counts, what is not is asked again."""
    chance = random.Random(seed)
    async with FakeEndpoint() as endpoint:
        taken = await images(bench, endpoint, chance)
        true = tables(bench.folder / "imaged")
        for image in taken:
            (log,) = (image / "journal").glob("*-wal")
            data = log.read_bytes()
            at = chance.randrange(len(data) + 1)
            kind = chance.choice(("cut", "noise", "gone", "whole"))
            if kind == "cut":
                log.write_bytes(data[:at])
            if kind == "noise":
                log.write_bytes(data[:at] + chance.randbytes(len(data) - at))
            for shm in (image / "journal").glob("*-shm"):
                shm.unlink()  # as after a restart of the machine
            if kind == "gone":
                log.unlink()
            kept, sent = _replies(image), len(endpoint.bodies)
            result = await bench.run(f"it={endpoint.base_url}", out=image.name)
            assert result.exit == Exit.DONE
            assert len(endpoint.bodies) - sent == REQUESTS - kept
            assert tables(result.folder) == true
        note("journals cut or overwritten", tried=len(taken), lost=0, unit="journals")


def _replies(image: Path) -> int:
    """The replies that a journal still has."""
    copy = image.with_name(f"{image.name} read")
    shutil.copytree(image / "journal", copy)  # reading folds a log in
    (file,) = copy.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as journal:
        try:
            return int(journal.execute("SELECT count(sum) FROM replies").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
