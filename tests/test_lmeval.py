"""Sample files of lm-evaluation-harness against runs of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from harness import compare, load_run
from harness.cli import main
from tests.running import Bench
from tests.test_compare import bench, both, fails, make_run, rows
from tests.test_golden import records

__all__ = ["bench", "both"]

Line = dict[str, Any]


def line(
    doc_id: int, contexts: Sequence[str], continuations: Sequence[str], sums: Sequence[float], gold: int
) -> Line:
    """One item as version 0.4.13 logs it: a request a choice, numbers as texts."""
    best = max(range(len(sums)), key=sums.__getitem__)
    pairs = list(zip(contexts, continuations, strict=True))
    return {
        "doc_id": doc_id,
        "doc": {"query": contexts[0]},
        "target": str(gold),
        "arguments": {f"gen_args_{i}": {"arg_0": a, "arg_1": b} for i, (a, b) in enumerate(pairs)},
        "resps": [[[str(each), "False"]] for each in sums],
        "filtered_resps": [[str(each), "False"] for each in sums],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "doc_hash": "0" * 64,
        "prompt_hash": sha256(contexts[0].encode()).hexdigest(),
        "target_hash": "0" * 64,
        "acc": float(best == gold),
        "acc_norm": 0.0,
    }


def logged(folder: Path, run: Path, label: str, change: Callable[[Line], Line] = dict) -> Path:
    """What lm-evaluation-harness would have logged, had it got the run's own log-probabilities."""
    found = load_run(run)
    texts = {(row["task"], row["subject"], row["index"]): row for row in found.texts.to_dict("records")}
    files: dict[str, list[Line]] = {}
    for item in found.items[found.items.endpoint == label].to_dict("records"):
        text = texts[item["task"], item["subject"], item["index"]]
        name = f"{item['task']}_{item['subject']}" if item["subject"] else item["task"]
        files.setdefault(name, []).append(
            change(
                line(
                    item["index"],
                    text["contexts"],
                    [f" {each}" for each in text["choices"]],
                    item["sums"].tolist(),
                    item["gold"][0],
                )
            )
        )
    folder.mkdir(exist_ok=True)
    for name, lines in files.items():
        file = folder / f"samples_{name}_2026-01-31T10-20-30.123456.jsonl"
        file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


def test_the_same_log_probabilities(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of sample files, one a task or subject, is compared with a run like another endpoint."""
    samples = logged(tmp_path / "out", both, "base")
    assert main(["compare", f"{both}#base", f"lm-eval:{samples}", "--out", str(tmp_path)]) == 0
    written = rows(tmp_path)
    assert {row["endpoint"] for row in written} == {"lm-eval"}
    for row in written:
        if row["statistic"] == "token_shift":
            assert row["n"] == "0"
        else:
            assert float(row["difference"]) == 0
            assert row["agreement"] in ("1", "")
    assert {row["statistic"] for row in written} >= {
        "acc",
        "acc_norm",
        "acc_bytes",
        "acc_token",
        "divergence",
    }
    assert "Compared with base" in capsys.readouterr().out


def test_as_the_baseline(both: Path, tmp_path: Path) -> None:
    """Sample files may come first, and are compared with each endpoint of the run."""
    samples = logged(tmp_path / "out", both, "base")
    comparison = compare(f"lm-eval:{samples}", both)
    assert comparison.findings.labels == ("lm-eval", "base", "tuned")
    assert comparison.folder == both
    flips = comparison.flips
    assert set(flips.endpoint) == {"tuned"}
    assert set(flips.question) != {""}


def test_other_prompts_are_refused(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prompt that differs by one character (a chat template, say) is another question."""

    def templated(given: Line) -> Line:
        return {**given, "prompt_hash": sha256(given["doc"]["query"].encode() + b" ").hexdigest()}

    samples = logged(tmp_path / "out", both, "base", templated)
    said = fails(capsys, f"{both}#base", f"lm-eval:{samples}")
    assert "base and lm-eval: 24 items with another prompt, first hellaswag item 0 (0 shots)" in said


def test_another_gold_is_refused(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the file calls another choice right than the run does, it is another question."""

    def other(given: Line) -> Line:
        return {**given, "acc": 1 - given["acc"]}

    samples = logged(tmp_path / "out", both, "base", other)
    said = fails(capsys, f"{both}#base", f"lm-eval:{samples}")
    assert "24 items with another gold" in said


def test_every_context_is_checked(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A context that differs is found also where it is not the first."""

    def other(given: Line) -> Line:
        given["arguments"]["gen_args_3"]["arg_0"] += " "
        return given

    samples = logged(tmp_path / "out", both, "base", other)
    assert "24 items with another prompt" in fails(capsys, f"{both}#base", f"lm-eval:{samples}")


def test_items_logged_twice(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Filters log an item again with the same numbers; other numbers are a contradiction."""
    samples = logged(tmp_path / "out", both, "base")
    file = next(samples.glob("samples_hellaswag*"))
    text = file.read_text()
    file.write_text(text + text)
    assert compare(f"{both}#base", f"lm-eval:{samples}").flips.empty
    file.write_text(text + text.splitlines()[0].replace('[["-', '[["-1'))
    assert main(["compare", f"{both}#base", f"lm-eval:{samples}"]) == 2
    assert "line 13: item 0 stands here with other numbers than before" in capsys.readouterr().err


def test_prompts_without_their_hash(both: Path, tmp_path: Path) -> None:
    """Older files have no hash; it is made of the logged prompt itself."""

    def older(given: Line) -> Line:
        return {name: value for name, value in given.items() if name != "prompt_hash"}

    samples = logged(tmp_path / "out", both, "base", older)
    assert compare(f"{both}#base", f"lm-eval:{samples}").flips.empty


def test_unconditional_requests_are_passed_over(both: Path, tmp_path: Path) -> None:
    """With acc_mutual_info each choice is asked for again without a context, which does not count."""

    def doubled(given: Line) -> Line:
        return {**given, "filtered_resps": given["filtered_resps"] + [["-1.0", "True"]] * 4}

    samples = logged(tmp_path / "out", both, "base", doubled)
    assert compare(f"{both}#base", f"lm-eval:{samples}").flips.empty


def test_fewer_items(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of a limited evaluation are refused, and compared with --common-only."""
    samples = logged(tmp_path / "out", both, "base")
    for file in samples.glob("samples_mmlu_*"):
        file.unlink()
    said = fails(capsys, f"{both}#base", f"lm-eval:{samples}")
    assert "12 items only in base, first mmlu anatomy item 0 (0 shots)" in said
    assert len(compare(f"{both}#base", f"lm-eval:{samples}", common_only=True).mismatches) == 12


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("samples_hellaswag.jsonl", "{", "line 1: is no sample"),
        ("samples_hellaswag.jsonl", '{"doc_id": 0, "filtered_resps": ["42"]}', "line 1: is no sample"),
        (
            "samples_hellaswag.jsonl",
            '{"doc_id": 0, "filtered_resps": [["x"]], "prompt_hash": "a"}',
            "line 1: ['x'] is no log-probability",
        ),
        (
            "samples_hellaswag.jsonl",
            '{"doc_id": 0, "filtered_resps": [["nan"]], "prompt_hash": "a"}',
            "log-probability nan",
        ),
        (
            "samples_hellaswag.jsonl",
            '{"doc_id": 0, "filtered_resps": [["0.5"]], "prompt_hash": "a"}',
            "log-probability 0.5",
        ),
        ("samples_hellaswag.jsonl", '{"doc_id": 0, "filtered_resps": [["-1"]]}', "prompts cannot be checked"),
        ("samples_helaswag.jsonl", "", "the run has no task 'helaswag'. Did you mean hellaswag"),
        ("mine.jsonl", "", "call it samples_TASK.jsonl"),
        ("samples_hellaswag.jsonl", None, "no such file or folder"),
    ],
)
def test_wrong_files(
    name: str, text: str | None, says: str, both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no sample file is refused by file and line."""
    if text is not None:
        (tmp_path / name).write_text(text)
    assert says in fails(capsys, f"{both}#base", f"lm-eval:{tmp_path / name}")


def test_wrong_folders(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without sample files, or with two of one task, is refused."""
    assert "holds no samples_*.jsonl" in fails(capsys, f"{both}#base", f"lm-eval:{tmp_path}")
    for name in ("samples_hellaswag.jsonl", "samples_hellaswag_2026-01-31T10-20-30.123456.jsonl"):
        (tmp_path / name).write_text("")
    assert "has hellaswag twice" in fails(capsys, f"{both}#base", f"lm-eval:{tmp_path}")


def test_against_the_reference(bench: Bench, shared: Path, tmp_path: Path) -> None:
    """Prompts and sums that the reference made: every prompt of ours has its hash."""
    requests = dict_of(shared / "golden/requests.jsonl")
    sums = dict_of(shared / "golden/scores_stories260k.jsonl")
    lines = [
        line(
            i,
            requests[i]["contexts"],
            requests[i]["continuations"],
            sums[i]["sums"],
            sums[i]["gold_index"],
        )
        for i in range(25)
    ]
    file = tmp_path / "samples_hellaswag.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    run = make_run(bench, "golden", "base", tasks="hellaswag", limit=25, data_dir=shared / "data")
    comparison = compare(run, f"lm-eval:{file}")
    frame = comparison.frame.set_index(["level", "statistic"])
    assert frame.n["task", "acc"] == 25
    for metric in ("acc", "acc_norm"):
        expected = [sums[i][metric] for i in range(25)]
        assert frame.value["task", metric] == pytest.approx(sum(expected) / 25)


def dict_of(file: Path) -> dict[int, dict[str, Any]]:
    """The golden records of HellaSwag without shots, by position."""
    found = {}
    for (task, _, shots), record in records(file):
        if task == "hellaswag" and shots == 0:
            found[int(record["doc_id"])] = record
    return found
