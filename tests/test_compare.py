"""`compare` on real runs of a loopback endpoint: sources, refusals, files, exit codes, frames."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import harness
from harness import UsageError, compare, evaluate, load_run
from harness.cli import main
from harness.prepare import prepare
from harness.runner import evaluate as run_suite
from harness.stored import Run
from tests.fake_endpoint import Body, FakeEndpoint, Fault, Status, values
from tests.running import ROOT, Bench

ITEMS = 12 + 3 * 4


def shifted(number: int, body: Body) -> Fault | None:
    """The model `tuned` says something else of one choice in four; `half` refuses every second item."""
    forced, context = sum(body["forced_output_tokens"]), sum(body["tokens"])
    if body.get("model") == "tuned" and forced % 4 == 0:
        return values(lambda logprobs: logprobs.__setitem__(0, logprobs[0] - 3))
    return Status(400) if body.get("model") == "half" and context % 2 else None


def make_run(bench: Bench, out: str, *models: str, **changes: Any) -> Path:
    """A run on these models of one endpoint; its folder."""

    async def work() -> Path:
        async with FakeEndpoint(shifted) as endpoint:
            urls = [f"{name}={endpoint.base_url}#{name.partition('2')[0]}" for name in models]
            prepared = prepare(bench.settings(*urls, out=out, **changes), {})
            with Console(quiet=True) as quiet:
                return (await run_suite(prepared, quiet)).folder

    return asyncio.run(work())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Rows and a tokenizer, for all runs of this module."""
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def both(bench: Bench) -> Path:
    """A run of two endpoints."""
    return make_run(bench, "both", "base", "tuned")


def rows(folder: Path, file: str = "comparison.csv") -> list[dict[str, str]]:
    """The rows of a file that a comparison wrote."""
    with (folder / file).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `compare` says when it is used wrongly: one line, exit 2, nothing on stdout."""
    assert main(["compare", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("forced-choice: ")
    return printed.err


def test_endpoints_of_a_run(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table and the verdicts go to stdout, the files into the run's folder."""
    assert main(["compare", str(both)]) == 0
    printed = capsys.readouterr()
    assert "Compared with base" in printed.out
    assert "tuned" in printed.out
    assert "over the suite (mean of 2 tasks)" in printed.out
    assert f"Files: {both}/ (comparison.csv, flips.csv)" in printed.err
    written = rows(both)
    assert {row["level"] for row in written} == {"suite", "task", "group", "subject"}
    assert {row["task"] for row in written} >= {"hellaswag", "mmlu", "mmlu_stem", ""}
    assert {row["n"] for row in written if row["task"] == "hellaswag" and row["statistic"] == "acc"} == {"12"}
    assert all(row["question"] and json.loads(row["choices"]) for row in rows(both, "flips.csv"))


def test_rows_follow_from_the_items(both: Path) -> None:
    """Differences and flips are those that anyone counts in `items.csv`."""
    comparison, items = compare(both), load_run(both).items
    for task, metric in (("hellaswag", "acc"), ("hellaswag", "acc_norm"), ("mmlu", "acc")):
        of_task = items[items.task == task]
        by_label = {
            label: of_task[of_task.endpoint == label].reset_index()[f"correct_{metric}"]
            for label in ("base", "tuned")
        }
        frame = comparison.frame
        [row] = frame[(frame.level == "task") & (frame.task == task) & (frame.statistic == metric)].to_dict(
            "records"
        )
        changes = by_label["tuned"] - by_label["base"]
        assert row["difference"] == pytest.approx(changes.mean())
        assert (row["wrong_to_right"], row["right_to_wrong"]) == ((changes == 1).sum(), (changes == -1).sum())
        assert row["unscored"] == 0


def test_clusters_reach_the_comparison(both: Path) -> None:
    """HellaSwag's items come in pairs of one source here; its errors are those of six clusters."""
    frame = compare(both).frame
    tasks = frame[(frame.level == "task") & frame.headline.astype(bool)].set_index("task")
    assert tasks.clusters.to_dict() == {"hellaswag": 6, "mmlu": 12}


def test_token_shifts_come_from_the_journal(both: Path, tmp_path: Path) -> None:
    """Every fourth choice was shifted by three nats on one token; without a journal the cell is empty."""
    frame = compare(both).frame
    shift = frame[(frame.statistic == "token_shift") & (frame.task == "mmlu") & (frame.level == "task")]
    assert shift.largest.item() == pytest.approx(3.0)
    letters = load_run(both).texts.query("task == 'mmlu'").forced_ids
    choices = [ids for each in letters for ids in each]
    moved = sum(sum(ids) % 4 == 0 for ids in choices)
    assert shift.difference.item() == pytest.approx(3.0 * moved / sum(map(len, choices)))
    copy = shutil.copytree(both, tmp_path / "copy")
    shutil.rmtree(copy / "journal")
    frame = compare(copy).frame
    assert frame[frame.statistic == "token_shift"].difference.isna().all()


def test_two_runs(bench: Bench, both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Endpoints of several runs are told apart by the runs' names; files go to the second run."""
    other = make_run(bench, "other", "tuned")
    assert main(["compare", f"{both}#base", str(other), f"{both}#tuned"]) == 0
    assert f"Files: {other}/" in capsys.readouterr().err
    labels = {row["endpoint"] for row in rows(other)}
    assert labels == {"other/tuned", "both/tuned"}
    comparison = compare(f"{both}#tuned", other)
    assert comparison.flips.empty  # the same model, asked in two runs
    headline = comparison.frame[comparison.frame.headline == 1]
    assert (headline.difference == 0).all()
    assert (headline.agreement.dropna() == 1).all()


def test_baseline(both: Path) -> None:
    """Another endpoint than the first can be the baseline: differences change their sign."""
    one, other = compare(both).frame, compare(both, baseline="tuned").frame
    assert set(other.baseline) == {"tuned"}
    directed = one.statistic.isin(["acc", "acc_norm", "gold_logprob", "margin"])
    assert other.difference[directed].to_numpy() == pytest.approx(-one.difference[directed].to_numpy())


def test_other_items_are_refused(bench: Bench, both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of different items are refused; asked to, what both have is compared, and the rest listed."""
    short = make_run(bench, "short", "tuned", limit=2)
    said = fails(capsys, f"{both}#base", short)
    assert (
        "items do not match: base and tuned: 16 items only in base, first hellaswag item 2 (0 shots)" in said
    )
    assert "--common-only" in said
    assert not (short / "comparison.csv").exists()
    assert main(["compare", f"{both}#base", str(short), "--common-only"]) == 0
    assert "base and tuned: 16 items only in base" in capsys.readouterr().err
    assert len(rows(short, "mismatches.csv")) == 16
    [task] = [r for r in rows(short) if (r["level"], r["task"], r["statistic"]) == ("task", "mmlu", "acc")]
    assert task["n"] == "6"


def test_other_prompts_are_refused(bench: Bench, both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same items with another number of shots are other questions."""
    shots = make_run(bench, "shots", "base", tasks="mmlu", shots=1)
    said = fails(capsys, f"{both}#base", shots, "--common-only")
    assert "no scored item in common" in said


def test_unscored_items_are_counted(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """What an endpoint refused to score is in no number, and stands beside each; the gate does not pass."""
    folder = make_run(bench, "half", "base", "half")
    assert main(["compare", str(folder), "--fail-if-worse-than", "0.9"]) == 1
    printed = capsys.readouterr()
    whole = next(row for row in rows(folder) if row["level"] == "suite")
    assert int(whole["unscored"]) > 0
    assert int(whole["n"]) + int(whole["unscored"]) == ITEMS
    assert f"({whole['unscored']} unscored)" in printed.out
    assert "is incomplete: compared is what its tables hold" in printed.err
    assert "has 99 % of its items scored on both: FAILED" in printed.err


def test_replicates_measure_the_noise(bench: Bench) -> None:
    """The same endpoint given twice does not differ from itself, and says how noisy the endpoint is."""
    comparison = compare(make_run(bench, "twice", "base", "base2"))
    assert set(comparison.frame.verdict.dropna()) <= {"undecided", "equivalent", ""}
    assert (comparison.frame.noise_stderr.dropna() == 0).all()
    assert "base and base2 are one endpoint asked twice" in comparison.remarks[0]


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_formats(form: str, both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables for documents go to stdout alone."""
    assert main(["compare", str(both), "--format", form, "--out", str(tmp_path), "--subjects"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith({"markdown": "| task", "latex": "% "}[form])
    assert "anatomy" in shown
    assert (tmp_path / "comparison.csv").exists()


def test_json(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get every row, also where the gate fails."""
    code = main(["compare", str(both), "--json", "--fail-if-worse-than", "0", "--out", str(tmp_path)])
    shown = json.loads(capsys.readouterr().out)
    assert code == 1
    assert len(shown) == len(rows(tmp_path))


def test_gate_files(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy in a file decides the exit code; JUnit and Markdown say why."""
    policy = tmp_path / "gate.toml"
    files = ["--junit", str(tmp_path / "gate.xml"), "--summary", str(tmp_path / "gate.md")]
    for margin, code in (("0.999", 0), ("0.0001", 1)):
        policy.write_text(f"margin = {margin}\nrequired = ['mmlu', 'hellaswag']\n")
        assert main(["compare", str(both), "--gate", str(policy), "--out", str(tmp_path), *files]) == code
    assert "gate: tuned: mmlu acc is worse by less than 0.01 points: FAILED" in capsys.readouterr().err
    assert 'failures="2"' in (tmp_path / "gate.xml").read_text()
    assert (tmp_path / "gate.md").read_text().count("## forced-choice gate: ") == 2


def test_unknown_endpoint_of_a_policy(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy that names an endpoint which is not there passes nothing."""
    (tmp_path / "gate.toml").write_text("margin = 0.9\nendpoints = ['tunde']\n")
    said = fails(capsys, both, "--gate", tmp_path / "gate.toml", "--out", tmp_path)
    assert "no endpoint 'tunde' is compared with the baseline. Did you mean tuned?" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}/nowhere"], "nowhere: no run is there (it has no run.json)"),
        (["{run}#tunde"], "no endpoint 'tunde'. Did you mean tuned?"),
        (["{run}#base"], "base is the only endpoint"),
        (["lm-eval:x.jsonl"], "give at least one run"),
        ([], "give at least one run"),
        (["{run}", "--baseline", "bas"], "--baseline: no endpoint 'bas'. Did you mean base?"),
        (["{run}", "--margin", "1"], "--margin 1: must be between 0 and 1 (0.01 is one point)"),
        (["{run}", "--fail-if-worse-than", "-1"], "--fail-if-worse-than -1: must be between 0 and 1"),
        (["{run}", "--gate", "x.toml", "--fail-if-worse-than", "0.1"], "exclude each other"),
        (["{run}", "--junit", "x.xml"], "--junit needs a gate"),
        (["{run}", "--gate", "x.toml", "--junit", ""], "--junit: no file given"),
        (["x" * 300], "File name too long"),
        (["{run}", "lm-eval:" + "x" * 300], "File name too long"),
        (["{run}", "lm-eval:"], "a file or folder must follow"),
        (["{run}", "--json", "--format", "latex"], "--json and --format latex exclude each other"),
        (["{run}", "--format", "html"], "--format"),
        (["{run}", "--gate", "nowhere.toml"], "--gate nowhere.toml: No such file"),
    ],
)
def test_wrong_use(
    arguments: Sequence[str], says: str, both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong use is one clear line, exit 2."""
    assert says in fails(capsys, *(each.format(run=both) for each in arguments))


@pytest.mark.parametrize("extra", [[], ["--json"], ["--format", "markdown"]])
def test_a_reader_that_goes_away(extra: Sequence[str], both: Path, tmp_path: Path) -> None:
    """A reader that closes the pipe, as `head` does, changes neither the exit code nor the files."""
    gate = ["--fail-if-worse-than", "0", "--junit", str(tmp_path / "gate.xml"), "--out", str(tmp_path)]
    command = [sys.executable, str(ROOT / "run_eval.py"), "compare", str(both), *gate, *extra]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        said = child.stderr.read()
    assert child.returncode == 1
    assert b"Traceback" not in said
    assert (tmp_path / "gate.xml").exists()


def test_a_terminal_that_lacks_signs(both: Path) -> None:
    """Where a sign cannot be shown another one stands for it."""
    command = [sys.executable, str(ROOT / "run_eval.py"), "compare", str(both)]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, capture_output=True, env=environ, check=True)
    assert b"tuned" in shown.stdout
    assert shown.stdout.isascii()


def test_a_full_disk(both: Path) -> None:
    """Output that cannot be written is one line, and not the exit code of a gate."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, str(ROOT / "run_eval.py"), "compare", str(both)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_empty_summary(both: Path, tmp_path: Path) -> None:
    """Where "$GITHUB_STEP_SUMMARY" is not set, there is no summary to write."""
    assert (
        main(["compare", str(both), "--fail-if-worse-than", "0.99", "--summary", "", "--out", str(tmp_path)])
        == 0
    )


def damaged(both: Path, folder: Path, change: Callable[[Path], object]) -> Path:
    """A copy of the run with something wrong."""
    copy = shutil.copytree(both, folder / "copy")
    change(copy)
    return copy


def without_metrics(folder: Path) -> None:
    """As an earlier version wrote it."""
    manifest = json.loads((folder / "run.json").read_text())
    for task in manifest["tasks"].values():
        del task["metrics"]
    (folder / "run.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "items.parquet").unlink(), "items.parquet: is missing; give the command"),
        (lambda folder: (folder / "items.parquet").write_bytes(b"PAR1"), "items.parquet: cannot be read"),
        (lambda folder: (folder / "run.json").write_text("{"), "run.json: cannot be read"),
        (lambda folder: (folder / "run.json").write_text("[]"), "run.json: cannot be read"),
        (lambda folder: (folder / "run.json").write_text('{"status": 1}'), "Expected `str`, got `int`"),
        (without_metrics, "an earlier version made this run of hellaswag; give the command"),
        (
            lambda folder: next((folder / "journal").glob("*.sqlite")).write_bytes(b"x" * 4096),
            "is no journal of this program",
        ),
    ],
)
def test_damaged_runs(
    change: Callable[[Path], object],
    says: str,
    both: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run that cannot be read is named, with the way out."""
    assert says in fails(capsys, damaged(both, tmp_path, change))


def test_a_run_that_is_still_going(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its tables are compared, and it is said that they may not be the last."""
    copy = shutil.copytree(both, tmp_path / "copy")
    manifest = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**manifest, "status": "running"}))
    assert main(["compare", str(copy)]) == 0
    assert "is running: compared is what its tables hold" in capsys.readouterr().err


def test_other_tokenizers_are_said(bench: Bench, both: Path, tmp_path: Path) -> None:
    """Runs that cut texts otherwise are compared, with a remark."""
    copy = shutil.copytree(both, tmp_path / "copy")
    manifest = json.loads((copy / "run.json").read_text())
    manifest["identity"]["max_length"] = 512
    manifest["identity"]["tasks"]["mmlu"] = "0.9"
    manifest["identity"]["tasks"]["hellaswag"] = {"version": "1.0", "hash": "a", "code": "b"}
    (copy / "run.json").write_text(json.dumps(manifest))
    remarks = compare(both, copy).remarks
    assert any("differ in max_length (null, 512)" in each for each in remarks)
    assert any("differ in the version of mmlu (1.0, 0.9)" in each for each in remarks)
    assert any("differ in the code of hellaswag (None, b)" in each for each in remarks)


def test_frames(both: Path) -> None:
    """A run's tables come back as frames that say what the files say."""
    run = load_run(both)
    assert run.labels == ("base", "tuned")
    assert run.status == "complete"
    expected = pd.read_csv(both / "scores.csv", keep_default_na=False, na_values={"value": [""]})
    assert list(run.scores.columns) == list(expected.columns)
    assert run.scores.value.to_numpy() == pytest.approx(expected.value.to_numpy())
    assert set(run.scores.subject) == {"", "anatomy", "virology", "world_religions"}
    assert len(run.items) == 2 * ITEMS
    assert isinstance(run.items.sums.iloc[0], np.ndarray)
    assert len(run.texts) == ITEMS
    assert isinstance(compare(run).frame, pd.DataFrame)


async def test_from_a_running_event_loop(tmp_path: Path) -> None:
    """As in a notebook: evaluate, look at the frame, compare; all with a loop running already."""
    assert asyncio.get_running_loop().is_running()
    run = evaluate(
        "embedded",
        "embedded:geography",
        tasks=["sample_hellaswag"],
        limit=3,
        out=str(tmp_path / "run"),
        progress=False,
    )
    assert isinstance(run, Run)
    assert run.scores.n.tolist() == [3] * len(run.scores)
    assert run.remarks
    assert len(compare(run).verdicts) == 1


def test_wrong_settings_from_python() -> None:
    """An unknown setting is named, as an unknown flag is."""
    with pytest.raises(UsageError, match=r"no setting 'limt'\. Did you mean limit"):
        evaluate("embedded", tasks="sample_hellaswag", limt=3)
    with pytest.raises(UsageError, match="no task 'helaswag'"):
        evaluate("embedded", tasks="helaswag")


def test_light_imports() -> None:
    """A task file or `--help` does not wait for what only a comparison needs."""
    code = "import sys, harness.cli; print([m for m in ('pandas', 'scipy', 'aiohttp') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = harness.nothing
