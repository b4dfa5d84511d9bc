"""Suite files: what they say, how flags win over them, what a dump holds, and which secrets stand nowhere."""

from __future__ import annotations

import json
import os
import sqlite3
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from harness import UsageError, evaluate
from harness.accounts import Allowance, allowances
from harness.cli import main
from harness.commands.app import app
from harness.endpoint_settings import EndpointSettings, is_variable, plain_address, public
from harness.endpoints import credentials, parse_endpoints
from harness.manifest import Exit
from harness.pacing import Budget, Share
from harness.prepare import prepare
from harness.settings import RunSettings
from harness.suitefile import beneath, dump_suite, read_suite
from harness.work import Work
from tests.fake_endpoint import FakeEndpoint
from tests.running import ROOT, Bench, bench

__all__ = ["bench"]

WHOLE = """\
description = "Monday's"
limit = 200
shots = 2
data_dir = "rows"
out = "results/monday"
bos = "on"
timeout = 60
store_text = false
tokenizer = ["tokenizers/llama.json", "law=meta-llama/Llama-3.1-8B"]

[[tasks]]
name = "mmlu"
shots = 5

[[tasks]]
name = "arc_challenge:mc"

[[endpoints]]
spec = "dedicated:abc123"
name = "base"
adapters = ["math", "law"]
tokenizer = "./own"
identity = "https://Gateway/v1/"
token_env = "MY_TOKEN"
team_env = "MY_TEAM"
rpm = 600
tpm = 100_000
concurrency = 16

[[endpoints]]
spec = "embedded:science"
"""


def written(folder: Path, text: str, name: str = "suite.toml") -> Path:
    """A suite file."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def settings_of(file: Path) -> RunSettings:
    """The settings of a suite file alone."""
    return RunSettings(**read_suite(file))


# ---------------------------------------------------------------------------------------------- reading


def test_a_whole_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of key has the place in the settings that its flag would have."""
    written(tmp_path, WHOLE)
    monkeypatch.chdir(tmp_path)
    assert settings_of(Path("suite.toml")) == RunSettings(
        tasks="mmlu@5,arc_challenge:mc",
        endpoint=(
            EndpointSettings(
                spec="dedicated:abc123",
                name="base",
                adapters=("math", "law"),
                tokenizer="./own",
                identity="https://Gateway/v1/",
                token_env="MY_TOKEN",
                team_env="MY_TEAM",
                rpm=600,
                tpm=100_000,
                concurrency=16,
            ),
            EndpointSettings(spec="embedded:science"),
        ),
        limit=200,
        shots=2,
        data_dir=Path("rows"),
        out=Path("results/monday"),
        bos="on",
        timeout=60,
        store_text=False,
        tokenizer=("tokenizers/llama.json", "law=meta-llama/Llama-3.1-8B"),
    )


@pytest.mark.parametrize("name", sorted({each.name for each in fields(RunSettings)} - {"endpoint", "tasks"}))
def test_every_flag_is_a_key(name: str, tmp_path: Path) -> None:
    """A value of the wrong kind is refused for its kind, not because its key is unknown."""
    with pytest.raises(UsageError, match=rf"suite\.toml: {name}: expected .*, found (date|datetime)"):
        read_suite(written(tmp_path, f"{name} = 2026-01-01"))


@pytest.mark.parametrize(
    "said",
    [
        'tasks = "mmlu@5, piqa"',
        'tasks = ["mmlu@5", "piqa"]',
        'tasks = [{name = "mmlu", shots = 5}, "piqa"]',
        '[[tasks]]\nname = "mmlu"\nshots = 5\n[[tasks]]\nname = "piqa"',
    ],
)
def test_ways_to_say_tasks(said: str, tmp_path: Path) -> None:
    """A text, a list, tables, and both mixed mean the same tasks."""
    values = read_suite(written(tmp_path, said))
    assert RunSettings(endpoint=("embedded",), **values).task_names == ("mmlu@5", "piqa")


@pytest.mark.parametrize(
    "said",
    ['endpoints = "embedded"', 'endpoints = ["embedded"]', '[[endpoints]]\nspec = "embedded"'],
)
def test_ways_to_say_endpoints(said: str, tmp_path: Path) -> None:
    """A text, a list and a table mean the same endpoint."""
    values = read_suite(written(tmp_path, said))
    (endpoint,) = parse_endpoints(values["endpoint"])
    assert (endpoint.label, endpoint.embedded) == ("embedded", True)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("limt = 5", "no key 'limt'. Did you mean limit"),
        ("data-dir = 'x'", "no key 'data-dir'. Did you mean data_dir?"),
        ("[endpoint]\nspec = 'embedded'", "no key 'endpoint'. Did you mean endpoints"),
        ("suite = 'x'", "no key 'suite'. "),
        ("[[tasks]]\nname = 'mmlu'\nshot = 5", "[[tasks]] 1: no key 'shot'. Did you mean shots?"),
        (
            "tasks = ['piqa', {name = 'mmlu', shots = 'five'}]",
            "[[tasks]] 2: shots: expected integer, found text",
        ),
        ("[[endpoints]]\nspec = 'embedded'\nrpmm = 5", "[[endpoints]] 1: no key 'rpmm'. Did you mean rpm"),
        (
            "[[endpoints]]\nspec = 'embedded'\n[[endpoints]]\nspec = 'embedded'\nrpm = 'fast'",
            "[[endpoints]] 2, rpm: expected number, found text",
        ),
        ("[[endpoints]]\nname = 'x'", "[[endpoints]] 1: spec is missing"),
        ("endpoints = [5]", "endpoints 1: expected text or table, found integer"),
        ("endpoints = []", "endpoints: none given"),
        (
            "tasks = []",
            'tasks: an empty list; add tasks = ["mmlu", "hellaswag@10"] or [[tasks]] tables, or give',
        ),
        ("limit = '5'", "limit: expected integer, found text"),
        ("store_text = 1", "store_text: expected true or false, found integer"),
        ("bos = 'maybe'", "bos: expected one of auto, off, on"),
        ("concurrency = 'many'", "concurrency: expected auto or integer"),
        ("tokenizer = 5", "tokenizer: expected text or list, found integer"),
        ("limit = 0", "limit 0: must be at least 1"),
        ("limit = 1\nsample = 1", "limit and sample exclude each other"),
        ("max_length = 1", "max_length 1: must be at least 2"),
        ("endpoints = 'dedicatd:x'", "endpoints dedicatd:x: not a SPEC. Did you mean dedicated?"),
        ("limit = ", "not TOML: "),
        ("limit = 1\nlimit = 2", "not TOML: "),
    ],
)
def test_what_no_suite_says(said: str, message: str, tmp_path: Path) -> None:
    """A wrong key, kind or value is one line: the file, the place, what is wrong, and the nearest thing."""
    file = written(tmp_path, said)
    with pytest.raises(UsageError) as caught:
        read_suite(file)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("rpm = -1", "rpm: -1: must be a number above 0"),
        ("tpm = nan", "tpm: nan: must be a number above 0"),
        ("concurrency = 0", "concurrency: 0: must be auto, or at least 1"),
        ("base = false", "base: false leaves nothing to ask"),
        ("adapters = ['a', 'a']", "adapters: one is given twice"),
        ("adapters = ['a:b']", "adapters 1: must be one route"),
        ("identity = 'https://host/v1#model'", "identity: must be one line"),
        ("identity = 'https://me:pass@host/v1'", "identity: must be one line"),
        ("identity = 'http://[::1/v1'", "identity: must be one line"),
        ("token_env = 'my token'", "token_env: must be the name of an environment variable"),
    ],
)
def test_tables_that_cannot_be_meant(table: str, message: str, tmp_path: Path) -> None:
    """Each key of an endpoint's table is checked, and the error says of which endpoint."""
    file = written(tmp_path, f"[[endpoints]]\nspec = 'dedicated:ep'\nname = 'it'\n{table}")
    with pytest.raises(UsageError) as caught:
        read_suite(file)
    assert str(caught.value).startswith(f"{file}: [[endpoints]] it, {message}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("spec = 'dedicated:a:b'\nadapters = ['c']", "the SPEC names an adapter already"),
        ("spec = 'serverless:m'\nadapters = ['c']", "give a table to each"),
        ("spec = 'openai+http://127.0.0.1/v1#m'\nadapters = ['c']", "give a table to each"),
        ("spec = 'http://127.0.0.1/v1'\nadapters = ['c']", "give a table to each"),
        ("spec = 'embedded'\ntoken_env = 'MY_TOKEN'", "asks for no secret"),
        ("spec = 'embedded'\nidentity = 'here'", "known by its weights"),
        ("spec = 'x=embedded'\nname = 'y'", "has the label 'x' already"),
        ("spec = 'embedded'\nname = 'a b'", "must be made of letters"),
        (
            "spec = 'dedicated:a'\nadapters = ['c']\nname = 'x'\n[[endpoints]]\nspec='embedded'\nname='x'",
            "'x'",
        ),
    ],
)
def test_endpoints_that_contradict_themselves(table: str, message: str, tmp_path: Path) -> None:
    """What an endpoint cannot have is refused when the file is read, before any flag or environment."""
    with pytest.raises(UsageError, match=message) as caught:
        read_suite(written(tmp_path, f"[[endpoints]]\n{table}"))
    assert "\n" not in str(caught.value)


def test_two_allowances_of_one_account(tmp_path: Path) -> None:
    """An account has one allowance, however many tables speak of it; a general one fills the gaps."""
    tables = (
        "[[endpoints]]\nspec='{}'\nname='a'\nrpm=600\n[[endpoints]]\nspec='{}'\nname='b'\nrpm=60\ntpm=9\n"
    )
    file = written(tmp_path, tables.format("dedicated:x", "dedicated:x:math"))
    with pytest.raises(UsageError, match=r"\[\[endpoints\]\] b, rpm: 60 here, but 600 at a"):
        read_suite(file)
    values = read_suite(written(tmp_path, tables.format("dedicated:x", "dedicated:y")))
    endpoints = parse_endpoints([*values["endpoint"], "c=dedicated:x:law", "d=dedicated:z"])
    found = allowances(endpoints, rpm=5, tpm=7)
    assert [found[each.account] for each in endpoints] == [
        Allowance(600, 7),
        Allowance(60, 9),
        Allowance(600, 7),
        Allowance(5, 7),
    ]


def test_two_tokenizers_of_one_endpoint(tmp_path: Path) -> None:
    """A tokenizer above and another in the table: which is meant must be said."""
    file = written(tmp_path, "tokenizer='x=a'\n[[endpoints]]\nspec='dedicated:e'\nname='x'\ntokenizer='b'")
    with pytest.raises(UsageError, match="x, tokenizer: tokenizer above gives x one too"):
        read_suite(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is named, and so is one that is no text."""
    with pytest.raises(UsageError, match=r"suite\.toml: no such suite file"):
        read_suite(tmp_path / "suite.toml")
    (tmp_path / "suite.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not TOML"):
        read_suite(tmp_path / "suite.toml")


def test_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is found beside the file, wherever the program starts; results go where it starts."""
    written(
        tmp_path,
        """
        data_dir = "rows"
        out = "results/x"
        tokenizer = ["tok", "a=../other/tokenizer.json", "b=meta-llama/Llama", "c=endpoint", "d=/abs/tok"]
        tasks = ["file:questions.jsonl:cloze", "code/mine.py:TASK", "mmlu", "file:/abs/q.csv@3"]
        [[endpoints]]
        spec = "dedicated:ep"
        tokenizer = "tok"
        """,
        "ci/suite.toml",
    )
    (tmp_path / "ci/tok").mkdir()
    monkeypatch.chdir(tmp_path)
    found = settings_of(Path("ci/suite.toml"))
    assert found.data_dir == Path("ci/rows")
    assert found.out == Path("results/x")
    assert found.tokenizer == (
        "./ci/tok",
        "a=./ci/../other/tokenizer.json",
        "b=meta-llama/Llama",
        "c=endpoint",
        "d=/abs/tok",
    )
    assert found.task_names == (
        "file:./ci/questions.jsonl:cloze",
        "./ci/code/mine.py:TASK",
        "mmlu",
        "file:/abs/q.csv@3",
    )
    (endpoint,) = found.endpoint
    assert isinstance(endpoint, EndpointSettings)
    assert endpoint.tokenizer == "./ci/tok"


# ------------------------------------------------------------------------------------------- endpoints


def test_adapters_of_one_endpoint() -> None:
    """Each adapter is an endpoint more, called after its base, on the account of its base."""
    table = EndpointSettings(spec="dedicated:abc", name="base", adapters=("math", "law"), rpm=60)
    endpoints = parse_endpoints([table])
    assert [(each.label, each.wire_model) for each in endpoints] == [
        ("base", "abc"),
        ("base:math", "abc:math"),
        ("base:law", "abc:law"),
    ]
    assert len({each.account for each in endpoints}) == 1
    assert [each.label for each in parse_endpoints([replace(table, base=False)])] == ["base:math", "base:law"]
    assert [each.label for each in parse_endpoints([replace(table, name="", adapters=("m",))])] == [
        "abc",
        "abc:m",
    ]


def test_an_identity_stands_for_the_url() -> None:
    """Equal identities at two addresses are replicates; the identity of a URL is that URL however written."""
    one = EndpointSettings(spec="http://127.0.0.1:1/v1#m", identity="https://Prod/v1/")
    two = EndpointSettings(spec="http://127.0.0.1:2/v1#m", identity="https://prod/v1")
    first, second, real = parse_endpoints([one, two, "https://prod/v1#m"])
    assert first.identity.text() == second.identity.text() == real.identity.text()
    assert [each.replicate for each in (first, second, real)] == [0, 1, 2]
    assert first.account != second.account
    assert first.base_url == "http://127.0.0.1:1/v1"
    assert plain_address("our staging model") == "our staging model"


ENVIRON = {"FRIENDLI_TOKEN": "flp_usual", "FRIENDLI_TEAM": "usual", "MY_TOKEN": "flp_mine", "MY_TEAM": "mine"}


@pytest.mark.parametrize(
    ("named", "headers"),
    [
        ({}, {"Authorization": "Bearer flp_usual", "X-Friendli-Team": "usual"}),
        ({"token_env": "MY_TOKEN"}, {"Authorization": "Bearer flp_mine"}),
        (
            {"token_env": "MY_TOKEN", "team_env": "MY_TEAM"},
            {"Authorization": "Bearer flp_mine", "X-Friendli-Team": "mine"},
        ),
        ({"team_env": "MY_TEAM"}, {"Authorization": "Bearer flp_usual", "X-Friendli-Team": "mine"}),
    ],
)
def test_named_variables(named: dict[str, str], headers: dict[str, str]) -> None:
    """The named variables are read; the usual team is not sent with another's token."""
    (endpoint,) = parse_endpoints([EndpointSettings(spec="dedicated:ep", **named)])  # type: ignore[arg-type]
    assert credentials(endpoint, ENVIRON).headers() == headers


def test_named_variables_must_be_set() -> None:
    """A named variable that is not set is an error also where an endpoint could do without a token."""
    (endpoint,) = parse_endpoints([EndpointSettings(spec="http://127.0.0.1/v1", token_env="MY_TOKEN")])
    with pytest.raises(UsageError, match="token_env: set MY_TOKEN in the environment"):
        credentials(endpoint, {"FRIENDLI_TOKEN": "flp_usual"})
    far = EndpointSettings(spec="http://10.0.0.1/v1", token_env="MY_TOKEN")
    with pytest.raises(UsageError, match="not encrypted, and MY_TOKEN is set"):
        credentials(parse_endpoints([far])[0], ENVIRON)
    openai = EndpointSettings(spec="openai+http://127.0.0.1/v1#m", token_env="MY_TOKEN", team_env="MY_TEAM")
    with pytest.raises(UsageError, match="team_env: openai endpoints have no team"):
        credentials(parse_endpoints([openai])[0], ENVIRON)


def test_accounts_of_two_tokens() -> None:
    """One address with two tokens is two accounts, each with its own allowance."""
    tables = [EndpointSettings(spec="dedicated:e", token_env=each, rpm=at) for at, each in enumerate("AB", 1)]
    found = allowances(parse_endpoints(tables), rpm=None, tpm=None)
    assert [each.rpm for each in found.values()] == [1, 2]


# ---------------------------------------------------------------------------------------------- secrets

SECRETS = (
    "flp_s3cretS3cretS3cret",
    "FLP_S3CRETS3CRETS3CRET",
    "sk-proj-s3cretS3cretS3cret",
    "hf_s3cretS3cretS3cretS3cret",
    "JBSWY3DPEHPK3PXP",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF",
)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", ["token_env", "team_env"])
def test_a_secret_where_a_name_belongs(secret: str, key: str, tmp_path: Path) -> None:
    """A token in the place of its variable's name is refused, and not repeated."""
    file = written(tmp_path, f"[[endpoints]]\nspec = 'dedicated:ep'\n{key} = '{secret}'")
    with pytest.raises(UsageError, match="must be the name of an environment variable") as caught:
        read_suite(file)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        "[[endpoints]]\nspec = 'dedicated:ep'\ntoken = 'flp_s3cret'",
        "token = 'flp_s3cret'",
        "flp_s3cret = 1",
        "limit = 'flp_s3cret'",
        "bos = 'flp_s3cret'",
        "tasks = [5, 'flp_s3cret']",
        "endpoints = 'https://me:flp_s3cret@host:99999/v1'",
        "endpoints = 'https://me:x#flp_s3cret@host/v1'",
        "endpoints = 'https://host/v1?key=flp_s3cret#m'",
        "endpoints = 'flp_s3cret'",
        "[[endpoints]]\nspec = 'https://me:flp_s3cret@host/v1'\nrpm = 0",
        "[[endpoints]]\nspec = 'dedicated:ep'\nname = 'flp_s3cret'",
        "token = flp_s3cret",
    ],
)
def test_secrets_in_other_places(said: str, tmp_path: Path) -> None:
    """Wherever somebody writes a token into a file, the error does not show it."""
    other = "s3cret-without-a-prefix" if "@host" in said or "key=" in said else "flp_another-s3cret"
    for secret in ("flp_s3cret", other):
        with pytest.raises(UsageError) as caught:
            read_suite(written(tmp_path, said.replace("flp_s3cret", secret)))
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_as_a_name(secret: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like a token is no name and no identity, in a file or before a SPEC: a run writes these."""
    for key in ("name", "identity"):
        file = written(tmp_path, f"tasks = 'piqa'\n[[endpoints]]\nspec = 'dedicated:ep'\n{key} = '{secret}'")
        with pytest.raises(UsageError) as caught:
            read_suite(file)
        assert f"[[endpoints]] 1, {key}" in str(caught.value) or f"dedicated:ep, {key}: " in str(caught.value)
        assert secret not in str(caught.value)
    assert main(["run", "--tasks", "piqa", "--endpoint", f"{secret}=embedded"]) == 2
    printed = capsys.readouterr().err
    assert "--endpoint: the name before = looks like a secret" in printed
    assert secret not in printed


@pytest.mark.parametrize(
    "table",
    [
        {"spec": "dedicated:ep", "name": "my-pass-word-1"},
        {"spec": "dedicated:ep", "identity": "https://gateway/my-pass-word-1/v1"},
        {"spec": "dedicated:ep", "identity": "MY-PASS-WORD-1"},
        {"spec": "dedicated:my-pass-word-1"},
        {"spec": "dedicated:ep", "adapters": ("my-pass-word-1",)},
        {"spec": "https://my-pass-word-1.example/v1"},
    ],
)
def test_the_token_of_a_run_is_no_name(bench: Bench, table: dict[str, Any]) -> None:
    """A token that looks like words is known by its value, wherever a run would write it, and not shown."""
    settings = bench.settings(EndpointSettings(token_env="MY_TOKEN", **table))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"of endpoint [12] holds a token, which the run's") as caught:
        prepare(settings, {"MY_TOKEN": "my-pass-word-1"})
    assert "pass" not in str(caught.value).lower()
    prepare(settings, {"MY_TOKEN": "another-word"})


@pytest.mark.parametrize(
    "name",
    ["base", "llama-3.1-8b-instruct", "geography", "2026-11-25_nightly", "mixtral-8x22b@a100", "team#2"],
)
def test_names_of_people(name: str) -> None:
    """Names and addresses that people give are taken."""
    for identity in (name, f"https://{name.replace('@', '.').split('#')[0]}.eu-west-1.example.com/v1"):
        assert EndpointSettings(spec="dedicated:ep", name=name, identity=identity).name == name


def test_names_of_variables() -> None:
    """Names that people give to variables are taken."""
    for name in (
        "MY_TOKEN",
        "A",
        "_X",
        "FRIENDLI_TOKEN_2",
        "STAGING_EU_WEST_1_API_KEY",
        "AUTHENTICATION_TOKEN",
    ):
        assert is_variable(name)
    assert public("https://a:b@c/v1?d=e#f@2") == "https://***@2"
    assert public("openai+https://c/v1?d=e#f") == "openai+https://c/v1?***#f"


# ---------------------------------------------------------------------------------------------- merging


def test_flags_win_over_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every flag that is typed wins, also over tables and where it says the default; else the file holds."""
    file = written(tmp_path, WHOLE)
    numbers = ["--sample", "5", "--shots", "0", "--concurrency", "auto", "--rpm", "7"]
    others = ["--bos", "auto", "--store-text", "--tokenizer", "new"]
    assert main(["run", str(file), *numbers, *others, "--dump-suite"]) == 0
    found = tomllib.loads(capsys.readouterr().out)
    assert found["tasks"] == ["mmlu", "arc_challenge:mc"]
    assert (found["sample"], found["shots"], found["rpm"], found["tokenizer"]) == (5, 0, 7.0, ["new"])
    assert not {"limit", "bos", "store_text", "concurrency"} & set(found)
    assert found["timeout"] == 60.0
    assert found["endpoints"][0] == {
        "spec": "dedicated:abc123",
        "name": "base",
        "adapters": ["math", "law"],
        "identity": "https://Gateway/v1/",
        "token_env": "MY_TOKEN",
        "team_env": "MY_TEAM",
        "tpm": 100_000.0,
    }


@pytest.mark.parametrize(("said", "kept"), [('"auto"', None), ("7", 7)])
def test_concurrency_is_a_word_or_a_number(
    said: str, kept: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one key that is either is taken from a file as it is from a flag."""
    file = written(tmp_path, f"tasks = 'piqa'\nendpoints = 'embedded'\nconcurrency = {said}")
    assert main(["run", str(file), "--dump-suite"]) == 0
    assert tomllib.loads(capsys.readouterr().out).get("concurrency") == kept


def test_endpoints_and_tasks_of_flags_replace_those_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--endpoint` and `--tasks` stand for the file's lists as wholes."""
    file = written(tmp_path, WHOLE)
    assert main(["run", str(file), "--endpoint", "x=embedded", "--tasks", "piqa@1", "--dump-suite"]) == 0
    found = tomllib.loads(capsys.readouterr().out)
    assert (found["endpoints"], found["tasks"], found["limit"]) == (["x=embedded"], ["piqa@1"], 200)


def test_a_tokenizer_for_one_label_leaves_the_others_theirs() -> None:
    """`--tokenizer NAME=...` takes nothing from tables; a general one stands for all of them."""
    said = {"endpoint": (EndpointSettings(spec="dedicated:a", tokenizer="own", concurrency=2),)}
    assert beneath(said, {"tokenizer": ("b=x",)}) == said
    (table,) = beneath(said, {"tokenizer": "x", "concurrency": 1})["endpoint"]
    assert (table.tokenizer, table.concurrency) == ("", None)


def test_the_file_may_leave_to_flags_what_it_likes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file without endpoints needs `--endpoint`; what is missing in both is asked for."""
    file = written(tmp_path, 'tasks = "piqa"')
    assert main(["run", str(file), "--endpoint", "embedded", "--dump-suite"]) == 0
    capsys.readouterr()
    assert main(["run", str(file)]) == 2
    assert capsys.readouterr().err == (
        f'forced-choice: {file}: no endpoints: add endpoints = ["dedicated:ENDPOINT_ID"] or [[endpoints]]'
        " tables, or give --endpoint SPEC\n"
    )
    assert main(["run", str(written(tmp_path, "limit = 3"))]) == 2
    assert f"{file}: no tasks: add tasks = [" in capsys.readouterr().err


SWITCHED = """\
tasks = ["mmlu"]
limit = 9
shots = 1
max_length = 99
tpm = 8
data_dir = "rows"
json = true
fsync = true
skip_bad_rows = true
store_text = false

[[endpoints]]
spec = "embedded"
tpm = 7
"""


def test_flags_take_back_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each switch has its opposite, and each number the word none, which are as if the file had nothing."""
    file = written(tmp_path, SWITCHED)
    off = ["--no-json", "--no-fsync", "--no-skip-bad-rows", "--store-text", "--no-data-dir"]
    none = [word for name in ("limit", "shots", "max-length", "tpm") for word in (f"--{name}", "none")]
    assert main(["run", str(file), *off, *none, "--dump-suite"]) == 0
    assert tomllib.loads(capsys.readouterr().out) == {"tasks": ["mmlu"], "endpoints": [{"spec": "embedded"}]}


def test_every_switch_can_be_thrown_back() -> None:
    """Whoever adds a flag that is true or false leaves it its opposite."""
    parsed = app["run"].assemble_argument_collection()
    flags = {each.field_info.name: each.names for each in parsed}
    switches = [name for name, hint in get_type_hints(RunSettings).items() if hint is bool]
    assert switches
    for name in switches:
        assert f"--no-{name.replace('_', '-')}" in {
            *flags[name],
            *parsed.get(f"--{name}".replace("_", "-")).negatives,
        }


def test_none_leaves_the_other_way_to_choose_items() -> None:
    """`--limit` stands for the file's `sample` too; `--limit none` takes back a limit, and nothing else."""
    assert beneath({"sample": 4}, {"limit": ["3"]}) == {}
    assert beneath({"sample": 4}, {"limit": ["none"]}) == {"sample": 4}
    assert beneath({"sample": 4}, {"limit": None}) == {"sample": 4}
    assert beneath({"sample": 4, "limit": 3}, {"limit": None}) == {"sample": 4}


def test_wrong_files_end_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line too a wrong file is one line and exit 2."""
    assert main(["run", str(written(tmp_path, "limt = 5"))]) == 2
    printed = capsys.readouterr()
    assert "suite.toml: no key 'limt'. Did you mean limit" in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert main(["run", "hellaswag", "--endpoint", "embedded"]) == 2
    assert "hellaswag: no such suite file; benchmarks are named with --tasks" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- writing

words = st.text(st.characters(codec="utf-8", exclude_characters="\0,=/"), min_size=1, max_size=8)
names = st.text("abcXYZ019_.-+", min_size=1, max_size=8)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
amounts = st.floats(min_value=0, allow_infinity=False)
counts = st.integers(1, 2**62)
tables = st.builds(
    EndpointSettings,
    spec=names.map("dedicated:{}".format),
    adapters=st.lists(names, max_size=3, unique=True).map(tuple),
    tokenizer=st.just("") | words,
    ca_file=st.just("") | words,
    identity=st.just("") | names,
    token_env=st.just("") | st.text(ascii_uppercase + "_", min_size=1, max_size=9),
    team_env=st.just("") | st.just("MY_TEAM"),
    concurrency=st.none() | st.just("auto") | counts,
    price_hour=st.none() | amounts,
)
chosen: dict[str, st.SearchStrategy[Any]] = {
    "endpoint": st.lists(names.map("dedicated:{}".format) | tables, min_size=1, max_size=4).map(tuple),
    "tasks": st.lists(words | st.sampled_from(["mmlu@5", " piqa", ""]), max_size=4).map(
        lambda each: ",".join([*each, "x"])
    ),
    "tokenizer": st.lists(words, max_size=3).map(tuple),
    "metrics": st.sampled_from(["", "acc_norm", "all"]),
    "shots": st.none() | st.integers(0, 2**40),
    "limit": st.none() | counts,
    "sample": st.none(),
    "seed": st.integers(),
    "max_length": st.none() | st.integers(2, 2**40),
    "concurrency": st.just("auto") | counts,
    "attempts": counts,
    "rpm": st.none() | positive,
    "tpm": st.none() | positive,
    "timeout": positive,
    "patience": positive,
    "price_in": st.none() | amounts,
    "price_out": st.none() | amounts,
    "price_hour": st.none(),
    "repeat_sample": st.none() | counts,
    "margin": st.none(),
    "max_requests": st.none() | counts,
    "max_tokens": st.none() | counts,
    "max_cost": st.none() | positive,
    "data_dir": st.none() | words.map(Path) | words.map(Path("~", "x").joinpath),
    "ca_file": st.none() | words.map(Path),
    "out": st.none() | words.map(Path) | st.just(Path("~/x")) | st.just(Path("/a/b")),
    "log_file": st.none() | words.map(Path),
    "workers": st.none() | st.integers(1, 1000),
    "ray_address": st.none(),
    "shard": st.none(),
}
"""Strategies of the settings that a type alone does not tell; the others are of `Literal` or `bool` types."""


@given(settings=st.builds(RunSettings, **chosen))
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, settings: RunSettings
) -> None:
    """A dumped suite, read in the folder it was dumped in, is the same settings."""
    folder = tmp_path_factory.getbasetemp()
    before = os.getcwd()
    os.chdir(folder)
    try:
        written(Path(), dump_suite(settings, {}))
        assert settings_of(Path("suite.toml")) == settings
    finally:
        os.chdir(before)


def test_the_property_covers_every_flag() -> None:
    """Whoever adds a flag of an open type adds a strategy for it."""
    hints = get_type_hints(RunSettings)
    closed = {name for name, hint in hints.items() if hint is bool or get_origin(hint) is Literal}
    assert set(hints) == closed | set(chosen)


def test_a_dump_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A dumped file has the suite identity, folder and endpoints of its command line, and nobody is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", None)
    line = [
        "run",
        "--endpoint",
        "a=embedded",
        "--endpoint",
        "embedded:science",
        "--tasks",
        "sample_hellaswag@2",
    ]
    assert main([*line, "--limit", "3", "--seed", "5", "--dump-suite"]) == 0
    file = written(tmp_path, capsys.readouterr().out)
    typed = RunSettings(
        endpoint=("a=embedded", "embedded:science"), tasks="sample_hellaswag@2", limit=3, seed=5
    )
    assert settings_of(file) == typed
    one, other = prepare(typed, {}), prepare(settings_of(file), {})
    assert (one.identity, one.folder) == (other.identity, other.folder)
    assert [each.identity for each in one.endpoints] == [each.identity for each in other.endpoints]
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("flags", [["--out", "runs/{}"], ["--data-dir", "{}"], ["--tokenizer", "x={}"]])
@pytest.mark.parametrize("secret", ["flp_s3cret", "sk-proj-s3cretS3cret"])
def test_no_secret_is_dumped(
    flags: list[str], secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token that got into a command line, known by its looks or by the environment, is not written on."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-s3cretS3cret")
    command = ["run", "--endpoint", "embedded", "--tasks", "piqa", "--dump-suite"]
    assert main([*command, *(each.format(secret) for each in flags)]) == 2
    printed = capsys.readouterr()
    assert "looks like a token" in printed.err
    assert "s3cret" not in printed.out + printed.err


def test_a_malformed_spec_is_not_dumped(capsys: pytest.CaptureFixture[str]) -> None:
    """What no run could use is no suite either, and a password in a URL stays where it is."""
    command = ["run", "--endpoint", "https://me:s3cret@host/v1", "--tasks", "piqa", "--dump-suite"]
    assert main(command) == 2
    printed = capsys.readouterr()
    assert "no user or password" in printed.err
    assert "s3cret" not in printed.out + printed.err


# ------------------------------------------------------------------------------------------------- runs


def everything(folder: Path) -> bytes:
    """The bytes of all files of a folder, those of databases decoded."""
    found = b""
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        found += file.read_bytes()
        if file.suffix == ".sqlite":
            with sqlite3.connect(file) as database:
                found += "\n".join(database.iterdump()).encode()
            database.close()
    return found


class Spied(Budget):
    """A budget that counts whom it lets through, and lets nobody wait."""

    made: list[Spied]

    def __init__(self, rpm: float | None = None, tpm: float | None = None) -> None:
        super().__init__()
        self.open = False
        self.allowance = (rpm, tpm)
        self.let_through = 0
        self.made.append(self)

    def let(self, share: Share, tokens: int, now: float, since: float, requests: int = 1) -> float:
        self.let_through += 1
        return 0.0


async def test_budgets_and_concurrency_of_each(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes through the budget of its account, adapters through one; so many at once as said."""
    monkeypatch.setattr(Spied, "made", [], raising=False)
    monkeypatch.setattr("harness.accounts.Budget", Spied)
    at_once: list[int] = []

    def work(**given: Any) -> Work:
        at_once.append(given["client"].gate.most)
        return Work(**given)

    monkeypatch.setattr("harness.pools.Work", work)
    async with FakeEndpoint() as one, FakeEndpoint() as two, FakeEndpoint() as three:
        text = f"""
            rpm = 50
            [[endpoints]]
            spec = "{one.base_url}#m"
            adapters = ["math"]
            rpm = 600
            tpm = 90_000
            concurrency = 1
            [[endpoints]]
            spec = "{two.base_url}#m"
            rpm = 60
            [[endpoints]]
            spec = "{three.base_url}#m"
            """
        values = read_suite(written(bench.folder, text))
        result = await bench.run(tasks="mmlu", **values)
    assert result.exit is Exit.DONE
    found = {each.allowance: each.let_through for each in Spied.made}
    assert found == {
        (600, 90_000): len(one.bodies),
        (60, None): len(two.bodies),
        (50, None): len(three.bodies),
    }
    assert len(one.bodies) == 2 * len(two.bodies) == 2 * len(three.bodies) > 0
    assert at_once == [1, 1, 8, 8]
    assert one.most_in_flight <= 2


async def test_an_identity_survives_a_change_of_address(bench: Bench) -> None:
    """With `identity` the replies of a run are found again when the endpoint has moved to another port."""
    text = '[[endpoints]]\nspec = "{}#m"\nname = "it"\nidentity = "https://prod.example/v1"\nadapters = ["a"]'
    async with FakeEndpoint() as endpoint:
        await bench.run(**read_suite(written(bench.folder, text.format(endpoint.base_url))))
        assert endpoint.bodies
        first, journals = bench.scores(), sorted(bench.folder.glob("run/journal/*.sqlite"))
    async with FakeEndpoint() as moved:
        assert moved.base_url != endpoint.base_url
        result = await bench.run(**read_suite(written(bench.folder, text.format(moved.base_url))))
        assert not moved.bodies
        await bench.run(f"it={moved.base_url}#m", out="other")
        assert moved.bodies
    assert result.exit is Exit.DONE
    assert (bench.scores(), sorted(bench.folder.glob("run/journal/*.sqlite"))) == (first, journals)
    (base, adapter) = bench.manifest()["endpoints"]
    assert (base["label"], adapter["label"]) == ("it", "it:a")
    assert base["base_url"] == moved.base_url
    assert "prod.example" in base["identity"]


async def test_an_endpoint_that_tokenizes_keeps_its_suite_when_it_moves(bench: Bench) -> None:
    """The default folder of `--tokenizer endpoint` names the identity, not the port of the day."""
    table = EndpointSettings(spec="http://127.0.0.1:1/v1#m", identity="prod", tokenizer="endpoint")
    settings = bench.settings(endpoint=(table,), tokenizer=(), out="x")
    moved = replace(settings, endpoint=(replace(table, spec="http://127.0.0.1:2/v1#m"),))
    assert prepare(settings, {}).identity == prepare(moved, {}).identity
    assert (
        prepare(settings, {}).identity
        != prepare(replace(settings, endpoint=(replace(table, identity="other"),)), {}).identity
    )


async def test_tokenizers_of_each(bench: Bench) -> None:
    """Each endpoint is asked in the ids of its own table's tokenizer."""
    async with FakeEndpoint() as one, FakeEndpoint() as two:
        text = f"""
            [[endpoints]]
            spec = "a={one.base_url}#m"
            tokenizer = "tokenizer.json"
            [[endpoints]]
            spec = "b={two.base_url}#m"
            tokenizer = "endpoint"
            """
        values = read_suite(written(bench.folder, text))
        result = await bench.run(tokenizer=(), tasks="mmlu", limit=1, **values)
    assert result.exit is Exit.DONE
    assert not one.tokenized
    assert two.tokenized
    assert one.bodies
    assert two.bodies


async def test_tokens_go_to_their_own_endpoint_and_into_no_file(bench: Bench) -> None:
    """A named variable's token goes to its endpoint alone, the usual one to the other, and none is kept."""
    async with FakeEndpoint(token="flp_mine") as one, FakeEndpoint(token="flp_usual") as two:
        text = f"""
            endpoints = [
                {{spec = "{one.base_url}#m", token_env = "MY_TOKEN", team_env = "MY_TEAM"}},
                "{two.base_url}#m",
            ]
            """
        values = read_suite(written(bench.folder, text))
        result = await bench.run(environ=ENVIRON, tasks="mmlu", **values)
    assert result.exit is Exit.DONE
    assert {(each["authorization"], each["x-friendli-team"]) for each in one.headers} == {
        ("Bearer flp_mine", "mine")
    }
    assert {(each["authorization"], each["x-friendli-team"]) for each in two.headers} == {
        ("Bearer flp_usual", "usual")
    }
    kept = everything(bench.folder)
    assert b"flp_" not in kept
    assert b"MY_TOKEN" in kept


async def test_a_refused_token_is_called_by_its_variable(bench: Bench) -> None:
    """Where a table names the variable of the token, it is that one to look at."""
    async with FakeEndpoint(token="flp_right") as endpoint:
        table = EndpointSettings(spec=f"{endpoint.base_url}#m", token_env="MY_TOKEN")
        result = await bench.run(table, environ={**ENVIRON, "MY_TOKEN": "flp_wrong"})  # type: ignore[arg-type]
    assert result.exit is Exit.REFUSED
    assert result.parts[0].refused.endswith("Is MY_TOKEN set and valid?")


async def test_run_json_says_all_settings(bench: Bench) -> None:
    """The settings in `run.json` are those of the file, whole: what was asked for can be asked again."""
    async with FakeEndpoint() as endpoint:
        text = f'[[endpoints]]\nspec = "{endpoint.base_url}"\nname = "it"\nrpm = 1e9\n'
        values = read_suite(written(bench.folder, text))
        await bench.run(**values)
    settings = bench.manifest()["settings"]
    said = asdict(bench.settings(**values))
    assert settings == json.loads(json.dumps(said, default=str))
    assert settings["endpoint"][0]["rpm"] == 1e9


# -------------------------------------------------------------------------------------------- from Python


def test_a_suite_from_python(tmp_path: Path) -> None:
    """`evaluate(suite=...)` runs a file; what the call says wins."""
    text = 'tasks = "sample_hellaswag"\nlimit = 5\n[[endpoints]]\nspec = "embedded"\nname = "tiny"'
    run = evaluate(suite=written(tmp_path, text), limit=2, out=tmp_path / "run", progress=False)
    assert run.scores.n.tolist() == [2] * len(run.scores)
    assert set(run.scores.endpoint) == {"tiny"}


def test_wrong_suites_from_python(tmp_path: Path) -> None:
    """A file in an endpoint's place, a table with a wrong key, and what nobody said are each explained."""
    with pytest.raises(
        UsageError, match=r"suite\.toml is no endpoint; a suite file is given as suite='suite"
    ):
        evaluate("suite.toml")
    with pytest.raises(UsageError, match=r"evaluate: endpoint 2: no key 'spc'\. Did you mean spec"):
        evaluate("embedded", {"spc": "embedded"}, tasks="sample_hellaswag")
    with pytest.raises(UsageError, match=r"evaluate: no endpoint given: .*, or add some to .*suite\.toml"):
        evaluate(suite=written(tmp_path, "limit = 5"), tasks="sample_hellaswag")
    with pytest.raises(UsageError, match="evaluate: no tasks given"):
        evaluate("embedded")


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    """The suite file that README.md shows is one, and means what the text around it says."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Suite files")[1].split("\n## ")[0]
    example = section.split("```toml\n")[1].split("```")[0]
    found = settings_of(written(tmp_path, example))
    labels = [each.label for each in parse_endpoints(found.endpoint)]
    assert labels == ["base", "base:math", "base:law", "tiny"]
    assert found.limit == 200
    shown = set(tomllib.loads(example)["endpoints"][0])
    assert shown <= {each.name for each in fields(EndpointSettings)}
    assert all(f"`{each.name}" in section or each.name in shown for each in fields(EndpointSettings))


@pytest.mark.parametrize(
    "file", sorted((ROOT / "tasks/suites").glob("*.toml")), ids=lambda file: str(file.stem)
)
def test_a_named_suite_is_a_suite_file(file: Path) -> None:
    """The suites that ship are read by the same rules, and need nothing but endpoints."""
    values = read_suite(file)
    assert set(values) == {"tasks"}
    assert RunSettings(endpoint=("embedded",), **values).task_names
