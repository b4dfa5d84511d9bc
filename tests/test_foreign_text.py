"""Hostile text in data sets, tokenizers, names and files: inert where it is shown, exact where it is kept."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

from harness import load_run
from harness.cli import main
from harness.errors import UsageError
from harness.inert import inert, inert_json
from harness.prepare import prepare
from harness.printing import print_result
from harness.runner import evaluate
from harness.terminal import print_table, say
from harness.tokenizing import load_tokenizer
from tests.fake_endpoint import FakeEndpoint
from tests.ledger import note
from tests.running import Bench, bench

__all__ = ["bench"]

TEXTS: Mapping[str, str] = {
    "colours": "\x1b[31mred\x1b[0m",
    "a title": "\x1b]0;owned\x07",
    "a link": "\x1b]8;;http://other\x1b\\click\x1b]8;;\x1b\\",
    "the clipboard": "\x1b]52;c;aGk=\x07",
    "a device's answer": "\x1b[6n\x1bP+q544e\x1b\\",
    "a cleared screen": "\x1b[2J\x1b[H\x1bc",
    "a C1 escape": "\x9b31mred\x9c",
    "backspaces": "good\b\b\b\bevil",
    "a carriage return": "line\rforged",
    "NUL": "a\0b",
    "changes of direction": "\u202eevil\u2066",
    "markup of rich": "[red]x[/red] [link=http://other]y[/link]",
    "broken markup": "[/red]",
    "an emoji code": ":smile:",
    "a formula": "=cmd|' /C calc'!A0",
    "tags": "\U000e0041\U000e0042",
    "a percent sign": "%s %(x)d {0}",
    "a path": "../../../etc/passwd",
    "a long line": "x" * 50_000,
}
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")


def is_inert(shown: str) -> bool:
    """Whether a terminal would show it and do nothing else."""
    return not ACTIVE.search(shown)


@given(st.text() | st.sampled_from(list(TEXTS.values())))
def test_what_is_shown_is_inert(text: str) -> None:
    """Whatever a text holds, no terminal obeys it, and every other sign of it is there."""
    shown = inert(text)
    assert is_inert(shown)
    assert len(shown) == len(text)
    shown.encode()
    assert json.loads(inert_json(json.dumps(text, ensure_ascii=False))) == text
    assert is_inert(inert_json(json.dumps(text, ensure_ascii=False)))


@pytest.mark.parametrize("name", TEXTS)
def test_a_terminal_does_nothing_but_show(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines and tables show markup and escapes as signs, also where rich writes its own."""
    text = TEXTS[name]
    out = io.StringIO()
    say(Console(file=out, force_terminal=True, width=100), f"it says {text}")
    table = Table(title=Text(text))
    table.add_column(Text(text))
    table.add_row(Text(text))
    print_table(table)
    assert is_inert(out.getvalue())
    assert is_inert(capsys.readouterr().out)
    assert inert(text) in out.getvalue()
    note("hostile inputs", tried=1, lost=0, unit="inputs")


def rows_with(bench: Bench, text: str) -> str:
    """Rows whose questions, choices, subjects and ids hold a text; the tasks that ask them."""
    hellaswag = {
        "ind": 1,
        "activity_label": text,
        "ctx_a": f"Somebody {text} bakes.",
        "ctx_b": "she",
        "endings": [f"{text} {n}." for n in range(4)],
        "source_id": text,
        "label": "1",
    }
    own = {
        "question": f"{text}?",
        "subject": text,
        "choices": [f"{text} a", "b"],
        "answer": 1,
        "cluster": text,
    }
    for file, row in (
        (bench.data / "hellaswag/validation.jsonl", hellaswag),
        (bench.folder / "own.jsonl", own),
    ):
        file.write_text((json.dumps(row) + "\n") * 3)
    return f"hellaswag,file:{bench.folder / 'own.jsonl'}"


@pytest.mark.parametrize("name", TEXTS)
async def test_a_hostile_data_set(bench: Bench, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Such rows are scored as others are; what is shown is inert, what is kept is exact."""
    text = TEXTS[name]
    out = io.StringIO()
    async with FakeEndpoint() as endpoint:
        given = bench.settings(endpoint.base_url, tasks=rows_with(bench, text), probe=False)
        result = await evaluate(prepare(given, {}), Console(file=out, force_terminal=True))
    print_result(result, as_json=False)
    print_result(result, as_json=True)
    captured = capsys.readouterr()
    assert result.exit == 0, captured.err
    assert is_inert(captured.out)
    assert is_inert(captured.err)
    assert is_inert((result.folder / "prompts.txt").read_text())
    assert is_inert((result.folder / "run.json").read_text())
    exact = parquet.read_table(result.folder / "texts.parquet").to_pylist()
    assert any(text in context for row in exact for context in row["contexts"])
    assert text.strip() in {row["subject"].strip() for row in exact}
    assert set(load_run(result.folder).scores["subject"]) == set(result.accuracy["subject"])
    note("hostile inputs", tried=1, lost=0, unit="inputs")


def _question(question: str = '"q"', answer: str = "1") -> bytes:
    """A row of MMLU."""
    others = '"subject": "virology", "choices": ["a", "b", "c", "d"]'
    return f'{{"question": {question}, {others}, "answer": {answer}}}'.encode()


BAD_ROWS: Mapping[str, tuple[bytes, str]] = {
    "half a character": (_question('"\\ud800"'), "half a character"),
    "deep JSON": (b"[" * 100_000, "not JSON"),
    "a deep field": (_question("[" * 900 + "]" * 900), "nested too deeply"),
    "no UTF-8": (b'{"question": "\xff"}', "not UTF-8"),
    "NUL bytes": (b"\0\0\0", "not JSON"),
    "a huge number": (_question(answer="9" * 5000), "not JSON"),
    "NaN for an answer": (_question(answer="NaN"), "answer"),
    "an escape for a key": (b'{"\\u001b[31m": 1}', "field"),
    "an escape in a label": (_question(answer='"\\u001b]0;x\\u0007"'), "answer"),
    "a line without end": (_question(f'"{"q" * 3_000_000}"'), "longer than 2 MiB"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_told(
    bench: Bench, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no row ends the run before the first request, exit 2, in inert lines with file and line."""
    monkeypatch.setattr("harness.data.rowfiles.LONGEST_LINE", 2 << 20)
    line, says = BAD_ROWS[name]
    (bench.data / "mmlu/test.jsonl").write_bytes(line + b"\n")
    command = bench.command("http://127.0.0.1:9/v1")[2:]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert is_inert(captured.err)
    assert says in captured.err
    assert "mmlu/test" in captured.err
    assert len(captured.err) < 3000
    note("hostile inputs", tried=1, lost=0, unit="inputs")


def _altered(bench: Bench, change: Callable[[dict[str, Any]], object]) -> bytes:
    definition = json.loads(bench.tokenizer.read_text())
    change(definition)
    return json.dumps(definition).encode()


TOKENIZERS: Mapping[str, Callable[[Bench], bytes]] = {
    "nothing": lambda bench: b"",
    "deep JSON": lambda bench: b"[" * 100_000,
    "NUL": lambda bench: bytes(100),
    "no UTF-8": lambda bench: b'{"model": "\xff"}',
    "half a character": lambda bench: b'{"version": "\\ud800"}',
    "an escape for a model": lambda bench: _altered(bench, lambda it: it["model"].update(type="\x1b[31m")),
    "negative ids": lambda bench: _altered(bench, lambda it: it["model"]["vocab"].update(a=-1)),
    "ids beyond any": lambda bench: _altered(bench, lambda it: it["model"]["vocab"].update(a=2**40)),
    "a pickle": lambda bench: (
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    ),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_is_no_tokenizer(bench: Bench, name: str) -> None:
    """It is named in one short line."""
    bench.tokenizer.write_bytes(TOKENIZERS[name](bench))
    with pytest.raises(UsageError) as refused:
        load_tokenizer(str(bench.tokenizer))
    said = str(refused.value)
    assert "not a tokenizer.json" in said
    assert len(said) < 600
    note("hostile inputs", tried=1, lost=0, unit="inputs")


async def test_a_hostile_vocabulary(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Pieces that a terminal would obey are pieces as others are."""
    backend = Tokenizer.from_file(str(bench.tokenizer))
    backend.add_special_tokens([text for text in TEXTS.values() if len(text) < 99])
    backend.save(str(bench.tokenizer))
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, tasks=rows_with(bench, TEXTS["a link"]))
    print_result(result, as_json=False)
    captured = capsys.readouterr()
    assert result.exit == 0
    assert is_inert(captured.out + captured.err)
    note("hostile inputs", tried=1, lost=0, unit="inputs")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--tasks", "{}", "--endpoint", "embedded"],
        ["run", "--tasks", "sample_mmlu", "--endpoint", "http://host/v1#{}"],
        ["run", "--tasks", "sample_mmlu", "--endpoint", "{}"],
        ["run", "--tasks", "sample_mmlu", "--endpoint", "http://host/v1", "--tokenizer", "{}"],
        ["run", "{}.toml"],
        ["run", "--{}"],
        ["plan", "--tasks", "file:{}.jsonl", "--endpoint", "embedded"],
        ["compare", "{}"],
        ["compare", "lm-eval:{}"],
        ["rescore", "{}"],
        ["tasks", "{}"],
        ["{}"],
    ],
)
@pytest.mark.parametrize("name", ["a title", "a C1 escape", "broken markup", "changes of direction"])
def test_hostile_arguments(arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name out of a foreign script or suite file is shown inert in the error; exit 2, no traceback."""
    assert main([each.replace("{}", TEXTS[name]) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("forced-choice: ")
    assert is_inert(captured.out + captured.err)
    note("hostile inputs", tried=1, lost=0, unit="inputs")


FOLDERS: Mapping[str, tuple[str, bytes]] = {
    "deep run.json": ("run.json", b"[" * 100_000),
    "deep objects in run.json": ("run.json", b'{"a":' * 100_000),
    "no UTF-8 in run.json": ("run.json", b'{"status": "\xff"}'),
    "a number for run.json": ("run.json", b"7"),
    "escapes in run.json": ("run.json", b'{"status": "\\u001b[31m", "endpoints": "\\u001b]0;x\\u0007"}'),
    "deep samples": ("samples_x.jsonl", b"[" * 100_000),
    "samples in no UTF-8": ("samples_x.jsonl", b'{"doc_id": "\xff"}'),
    "samples with escapes": ("samples_x.jsonl", b'{"\\u001b]0;x\\u0007": 1}'),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_hostile_runs_to_compare(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no run, or no sample file, is named in one inert line; exit 2."""
    file, content = FOLDERS[name]
    (tmp_path / file).write_bytes(content)
    source = str(tmp_path) if file == "run.json" else f"lm-eval:{tmp_path / file}"
    assert main(["compare", source, source]) == 2
    captured = capsys.readouterr()
    assert is_inert(captured.out + captured.err)
    assert captured.err.startswith("forced-choice: ")
    assert len(captured.err) < 2000
    note("hostile inputs", tried=1, lost=0, unit="inputs")
