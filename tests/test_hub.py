"""What the hub has and refuses: data sets and tokenizers from a hub on this machine, and its absence.

The libraries read their settings once, when they are imported, so each state of the world is a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness.choosing.registry import load_task
from harness.data.hub import reachable, why_not
from tests.loopback_hub import COMMIT, Repo, hub
from tests.test_tokenizing import definition

ROOT = Path(__file__).parents[1]
CARD = "---\nconfigs:\n- config_name: all\n  data_files:\n  - split: test\n    path: all/test.parquet\n---\n"
NOWHERE = "http://127.0.0.1:9"
"""Nobody listens there: a connection is refused at once."""

PROGRAM = """
import json, sys, time
from dataclasses import replace
from harness.errors import UsageError
from harness.choosing.registry import load_task
from harness.data.rows import open_rows
from harness.tokenizing import load_tokenizer
waits = []
time.sleep = waits.append  # the libraries try again, with growing waits
task = load_task("mmlu")
said = {}
for kind, name, config, split in json.loads(sys.argv[1]):
    try:
        if kind == "tokenizer":
            found = load_tokenizer(name)
            told = [found.revision, found.leading]
        else:
            data = replace(task.dataset, hub=name, config=config)
            found = open_rows(replace(task, dataset=data), split, None)
            told = [found.source, found.revision, [[row.place, row.subject, row.index] for row in found]]
    except UsageError as error:
        told = str(error)
    said[f"{name} {config} {split}".strip()] = told
print(json.dumps(said))
print(f"waited {sum(waits)} s" if waits else "", end="", file=sys.stderr)
"""


@dataclass(frozen=True)
class World:
    """A hub and a home with its cache."""

    address: str
    home: Path

    def ask(self, *asked: tuple[str, ...], **environ: str) -> dict[str, Any]:
        """What a process finds of each (kind, name, config, split)."""
        return self.heard(*asked, **environ)[0]

    def heard(self, *asked: tuple[str, ...], **environ: str) -> tuple[dict[str, Any], str]:
        """The same, and what the process says on stderr meanwhile, waits and all."""
        given = json.dumps([(*each, "", "")[:4] for each in asked])
        told = subprocess.run(
            [sys.executable, "-c", PROGRAM, given],
            cwd=ROOT,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(self.home),
                "HF_ENDPOINT": self.address,
                **environ,
            },
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stderr
        found: dict[str, Any] = json.loads(told.stdout)
        return found, told.stderr


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A hub with three rows of MMLU, a tokenizer, and what cannot be had."""
    example = dict(load_task("mmlu").example)
    file = tmp_path / "test.parquet"
    table = pa.Table.from_pylist([example, {**example, "subject": "virology"}, example])
    parquet.write_table(table, file)
    script = f"open({str(tmp_path / 'was-run')!r}, 'w').close()".encode()
    repos = {
        "datasets/cais/mmlu": Repo({"README.md": CARD.encode(), "all/test.parquet": file.read_bytes()}),
        "datasets/some/script": Repo({"README.md": b"# A data set\n", "script.py": script}),
        "datasets/some/gated": Repo(gated=401),
        "datasets/some/closed": Repo(gated=403),
        "models/some/model": Repo(
            {"tokenizer.json": definition(), "tokenizer_config.json": b"{}", "model.safetensors": b"weights"}
        ),
        "models/some/weights": Repo({"model.safetensors": b"weights"}),
        "models/some/gated": Repo(gated=401),
        "models/some/closed": Repo(gated=403),
    }
    with hub(repos) as address:
        yield World(address, tmp_path / "home")
    assert not (tmp_path / "was-run").exists()


MMLU = ("data", "cais/mmlu", "all", "test")
MODEL = ("tokenizer", "some/model")
KNOWN = {
    "cais/mmlu all test": [
        "cais/mmlu (all)",
        COMMIT,
        [
            ["cais/mmlu (all) test row 0 (from 0)", "astronomy", 0],
            ["cais/mmlu (all) test row 1 (from 0)", "virology", 0],
            ["cais/mmlu (all) test row 2 (from 0)", "astronomy", 1],
        ],
    ],
    "some/model": [COMMIT, [0]],
}


def test_what_was_fetched_is_found_again(world: World) -> None:
    """Rows and tokenizer come with the commit that the hub resolved; offline, by either variable, and where
    the hub is gone, the kept copies are used, and what is not kept is one clear line."""
    assert world.ask(MMLU, MODEL) == KNOWN
    kept = {str(file.name) for file in world.home.rglob("*") if file.is_file()}
    assert "tokenizer.json" in kept
    assert "model.safetensors" not in kept
    others = ("data", "some/other", "all", "test"), ("tokenizer", "some/more")
    for environ, way_out in (
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set, and no copy is kept on this machine. Unset it, or"),
        ({"HF_DATASETS_OFFLINE": "1"}, "HF_DATASETS_OFFLINE is set, and no copy is kept on this machine."),
        (
            {"HF_ENDPOINT": NOWHERE},
            "the hub cannot be reached, and no copy is kept on this machine. Try again",
        ),
    ):
        found = world.ask(MMLU, MODEL, *others, **environ)
        assert {name: found[name] for name in KNOWN} == KNOWN
        assert found["some/other all test"].startswith(
            "--tasks mmlu: some/other (all), split test, cannot be loaded from the hub: " + way_out
        )
        assert "pass --data-dir to read a local copy." in found["some/other all test"]
        if "HF_DATASETS_OFFLINE" not in environ:  # which is of data sets alone
            assert way_out.removesuffix(", or") in found["some/more"]


@pytest.mark.parametrize("address", [NOWHERE, "http://no-such-host.invalid"])
def test_no_network_is_said_at_once(world: World, address: str) -> None:
    """A hub that cannot be reached is neither asked again nor waited for, and no library says a word."""
    found, said = world.heard(MMLU, MODEL, HF_ENDPOINT=address)
    for each in found.values():
        assert "the hub cannot be reached, and no copy is kept on this machine. Try again later" in each
    assert said == ""


def test_what_the_look_goes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next host on the way decides: the hub, or a proxy where the environment names one for it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with hub({}) as address:
        assert reachable(address)
        assert not reachable(NOWHERE)
        monkeypatch.setenv("http_proxy", address)
        assert reachable("http://no-such-host.invalid")
        monkeypatch.setenv("http_proxy", NOWHERE)
        assert not reachable(address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert reachable(address)
    assert not reachable(address)
    assert reachable("odd")  # whoever asks there will hear more


def test_a_look_that_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even the name takes for ever, the look ends after its seconds."""
    release = Event()

    def hanging(*_: object, **__: object) -> None:
        release.wait()
        raise OSError

    monkeypatch.setattr("socket.create_connection", hanging)
    assert not reachable("http://192.0.2.1", seconds=0.01)
    release.set()


def test_what_cannot_be_had(world: World) -> None:
    """Gated, unknown, a program, without that configuration or split: one line that says which, and what to
    do; no code of the hub is ever run."""
    found = world.ask(
        ("data", "some/gated", "all", "test"),
        ("data", "some/closed", "all", "test"),
        ("data", "some/unknown", "all", "test"),
        ("data", "some/script", "all", "test"),
        ("data", "cais/mmlu", "anatomy", "test"),
        ("data", "cais/mmlu", "all", "train"),
        HF_TOKEN="hf_none",
    )
    begin = "--tasks mmlu: {} ({}), split {}, cannot be loaded from the hub: "
    for asked, said in (
        (
            "some/gated all test",
            "it is gated, and you are not logged in. Accept its terms on its page on the hub",
        ),
        (
            "some/closed all test",
            "it is gated, and the account of your HF_TOKEN has no access. Ask for it on",
        ),
        (
            "some/unknown all test",
            "the hub has nothing of that name, or shows it only to some. Look at the name",
        ),
        ("some/script all test", "it is a program (script.py), and code from the hub is never run. Pass"),
        ("cais/mmlu anatomy test", "it has no configuration 'anatomy'; there are 'all'. Pass --data-dir"),
        ("cais/mmlu all train", "it has no split 'train'; there are 'test'. Pass --data-dir"),
    ):
        assert found[asked].startswith(begin.format(*asked.split()) + said), found[asked]
        assert "\n" not in found[asked]
        assert "hf_none" not in found[asked]


def test_tokenizers_that_cannot_be_had(world: World) -> None:
    """Of a tokenizer too it is said whether it is gated, unknown, no tokenizer, or out of reach."""
    asked = [("tokenizer", f"some/{name}") for name in ("gated", "closed", "unknown", "weights")]
    found = world.ask(*asked)
    found["some/model"] = world.ask(MODEL, HF_ENDPOINT=NOWHERE)["some/model"]
    local = "pass a tokenizer.json or a folder that holds one."
    for name, said in (
        ("gated", "it is gated, and you are not logged in. Accept its terms on its page on the hub and set"),
        ("closed", "it is gated, and the account of your HF_TOKEN has no access."),
        ("unknown", "the hub has nothing of that name, or shows it only to some."),
        (
            "model",
            f"the hub cannot be reached, and no copy is kept on this machine. Try again later, or {local}",
        ),
    ):
        begin = f"--tokenizer some/{name}: neither a local file or folder nor to be had from the hub: "
        assert found[f"some/{name}"].startswith(begin + said), found[f"some/{name}"]
    assert found["some/weights"].startswith(
        "--tokenizer some/weights: has no tokenizer.json on the hub; pass"
    )


def test_anything_else_is_what_the_library_says() -> None:
    """An error of no known kind is its own first line, and the way out."""
    assert why_not(KeyError("odd"), "pass --data-dir", {}) == "'odd'. Pass --data-dir."
    assert why_not(OSError("a\nb"), "pass --data-dir", {}) == "a. Pass --data-dir."
    assert why_not(OSError(), "pass --data-dir", {}) == "OSError. Pass --data-dir."


def test_an_absent_network_that_is_told_in_words() -> None:
    """`datasets` says of a hub that breaks off only in its text that it was the network."""
    error = FileNotFoundError("Couldn't find 'a/b' on the Hub either: LocalEntryNotFoundError: An error")
    assert why_not(error, "pass --data-dir", {}).startswith("the hub cannot be reached, and no copy is kept")
