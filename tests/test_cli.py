"""The command line as people use it: what is wrong is one line with the way out, and exit 2."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.serving.faults.plan import rows

ROOT = Path(__file__).parents[1]
GOOD = {"--endpoint": "http://127.0.0.1:9/v1", "--tasks": "hellaswag", "--tokenizer": "{tokenizer}"}


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """The file of a tiny real tokenizer: one id a character."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {chr(code): code - 32 for code in range(32, 127)} | {"\n": 95, "?": 31}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    file = tmp_path / "tokenizer.json"
    backend.save(str(file))
    return str(file)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"--tasks": "hellaswagg"}, "--tasks: no task 'hellaswagg'. Did you mean hellaswag"),
        ({"--tasks": ""}, "--tasks: none given"),
        ({"--tokenizer": "./nowhere"}, "--tokenizer ./nowhere: no such file or folder"),
        ({"--tokenizer": "other={tokenizer}"}, "no endpoint has the label 'other'"),
        ({"--tokenizer": None}, "--tokenizer: none given for 127.0.0.1:9"),
        ({"--endpoint": "dedicatd:x"}, "--endpoint dedicatd:x: not a SPEC. Did you mean dedicated?"),
        ({"--endpoint": "dedicated:x"}, "set FRIENDLI_TOKEN in the environment"),
        ({"--endpoint": None}, "--endpoint"),
        ({"--data-dir": "./nowhere"}, "--data-dir nowhere: no such folder"),
        ({"--data-dir": "{empty}"}, "none of hellaswag/validation.parquet"),
        ({"--limit": "0"}, "--limit 0: must be at least 1"),
        ({"--limit": "many"}, '--limit: unable to convert "many" into int'),
        ({"--concurrency": "0"}, "--concurrency 0: must be auto, or at least 1"),
        ({"--concurrency": "many"}, "--concurrency: give auto or a whole number"),
        ({"--bos": "maybe"}, "--bos"),
        ({"--limt": "5"}, "Did you mean --limit"),
        ({"--max-length": "1"}, "--max-length 1"),
    ],
)
def test_wrong_use(
    wrong: dict[str, str | None],
    says: str,
    tokenizer: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong use is one clear line that names the flag, exit 2, and leaves no run behind."""
    empty = tmp_path / "empty"
    empty.mkdir()
    flags = {**GOOD, "--data-dir": str(empty), "--out": str(tmp_path / "run"), **wrong}
    given = [
        (name, value.format(tokenizer=tokenizer, empty=empty))
        for name, value in flags.items()
        if value is not None
    ]
    code = main(["run", *(each for pair in given for each in pair)])
    printed = capsys.readouterr()
    assert code == 2
    assert says in printed.err
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [[], ["--limit", "5"], ["--json"]])
def test_nothing_to_run(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command line with neither tasks nor endpoint is told of both, and of suite files, in one line."""
    assert main(["run", *flags]) == 2
    assert capsys.readouterr().err == (
        "forced-choice: nothing to run: give --tasks NAME and --endpoint SPEC, or a suite file:"
        " run SUITE.toml\n"
    )


def test_help_says_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """The usage shows both ways to run; no flag is called required, as a suite file may stand for any."""
    assert main(["run", "--help"]) == 0
    said = capsys.readouterr().out
    assert "run --tasks NAME[,NAME] --endpoint SPEC [OPTIONS]" in said
    assert "run SUITE.toml [OPTIONS]" in said
    assert "required" not in said


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped command names the nearest one."""
    assert main(["rnu"]) == 2
    assert 'Did you mean "run"?' in capsys.readouterr().err


def test_tokenizer_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no tokenizer, and a folder without one, are named."""
    (tmp_path / "tokenizer.json").write_text("{}")
    common = ["--endpoint", "http://127.0.0.1:9/v1", "--tasks", "hellaswag", "--tokenizer"]
    assert main(["run", *common, str(tmp_path / "tokenizer.json")]) == 2
    assert "not a tokenizer.json" in capsys.readouterr().err
    (tmp_path / "sub").mkdir()
    assert main(["run", *common, str(tmp_path / "sub")]) == 2
    assert "no tokenizer.json in this folder" in capsys.readouterr().err


def test_bad_rows_are_listed(tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that are no items stop the run before the first request, each with file, line and field."""
    folder = tmp_path / "hellaswag"
    folder.mkdir()
    good = '{"activity_label": "a", "ctx_a": "b", "ctx_b": "", "endings": ["1","2","3","4"], "label": "%s"}'
    (folder / "validation.jsonl").write_text("\n".join([good % 0, good % 4, good % "x"]))
    arguments = ["run", "--data-dir", str(tmp_path)]
    for name, value in GOOD.items():
        arguments += [name, value.format(tokenizer=tokenizer)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "hellaswag/validation.jsonl line 2: field 'label': gold 4 is out of range" in error
    assert "hellaswag/validation.jsonl line 3: field 'label'" in error
    assert "--skip-bad-rows" in error


def test_port_taken(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A port in use is named with its flag."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = main(["serve", "--model", str(shared / "models/stories260k"), "--port", str(port)])
    assert code == 2
    assert f"--port {port}" in capsys.readouterr().err


def test_model_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds no model is named."""
    assert main(["serve", "--model", str(tmp_path / "nowhere")]) == 2
    assert "--model" in capsys.readouterr().err


def test_the_program_of_a_checkout() -> None:
    """`python run_eval.py` is the command, and its help names every flag of `run`."""
    shown = subprocess.run(
        [sys.executable, str(ROOT / "run_eval.py"), "run", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for flag in ("--endpoint", "--tasks", "--tokenizer", "--shots", "--limit", "--rpm", "--tpm", "--out"):
        assert flag in shown.stdout


def test_all_faults_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`serve --faults list` prints every fault as it is written, and serves nothing."""
    assert main(["serve", "--faults", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [form for _, form, _ in rows()]
