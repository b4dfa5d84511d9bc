"""What is going to be sent: counted as the run sends it, nobody being asked, and compared with the fact."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness import UsageError
from harness.accounts import Allowance
from harness.caps import Price, Volume
from harness.cli import main
from harness.earlier import Earlier, earlier
from harness.endpoint_settings import EndpointSettings
from harness.endpoints import parse_endpoints
from harness.exchange import ScoreRequest
from harness.forecast import Fact, Forecast, Fresh, Prefixes, compared
from harness.foretold import outlook_table, remarks
from harness.outlook import Outlook, foreseen
from harness.pacing import Budget
from harness.planning import Batch, planned
from harness.prepare import prepare
from harness.prices import prices_of
from harness.reckoning import Counted, figures, in_all, seconds_at
from harness.saying import money, tokens
from harness.sending import BLOCK
from harness.settings import RunSettings
from harness.showing import closing_lines
from tests.fake_endpoint import FakeClock, FakeEndpoint, Status
from tests.running import Bench, bench

__all__ = ["bench"]


def request(key: int, context: int = 10, forced: int = 1, also: int = 0) -> ScoreRequest:
    """A request of so many ids, with others to be read off it."""
    others = tuple(request(key + 1 + at, context) for at in range(also))
    return ScoreRequest(key.to_bytes(16, "big"), [5] * context, [6] * forced, also=others)


# ------------------------------------------------------------------------------------------------ counting


def spared_for_sure(contexts: list[list[int]]) -> list[int]:
    """What `Prefixes` promises, without bound on memory, in as plain words as can be."""
    computed: set[tuple[int, ...]] = set()
    found = []
    for ids in contexts:
        usable = [end for end in range(BLOCK, len(ids), BLOCK) if tuple(ids[:end]) in computed]
        found.append(max(usable, default=0))
        computed.update(tuple(ids[:end]) for end in range(BLOCK, len(ids) + 1, BLOCK))
    return found


@given(st.lists(st.tuples(st.lists(st.integers(1, 2), max_size=4), st.integers(0, BLOCK)), max_size=25))
def test_shared_prefixes(shapes: list[tuple[list[int], int]]) -> None:
    """Of each context those blocks are spared that an earlier one began with, never the one it ends in."""
    contexts = [[each for each in blocks for _ in range(BLOCK)] + [3] * tail for blocks, tail in shapes]
    prefixes = Prefixes()
    assert [prefixes.spared(each) for each in contexts] == spared_for_sure(contexts)


def test_what_was_met_long_ago_is_forgotten() -> None:
    """As many tokens as the window are remembered for sure, and of what was met long before nothing is."""
    prefixes = Prefixes(window=40 * BLOCK)
    contexts = [[each] * (4 * BLOCK + 1) for each in range(100)]
    for at, each in enumerate(contexts):
        assert prefixes.spared(each) == 0
        assert prefixes.spared(contexts[max(0, at - 4)]) == 4 * BLOCK
    assert prefixes.spared(contexts[0]) == 0


def test_equal_requests_count_once() -> None:
    """A request is fresh only the first time, in one batch or later, unless too many came between."""
    fresh = Fresh(generation=10)
    assert [each.key[-1] for each in fresh.of(map(request, (1, 2, 1, 3)))] == [1, 2, 3]
    assert fresh.of(map(request, (3, 2, 1))) == []
    assert len(fresh.of(map(request, range(10, 17)))) == 7
    assert fresh.of(map(request, (1, 10))) == []
    assert len(fresh.of(map(request, range(20, 60)))) == 40
    assert len(fresh.of([request(2)])) == 1


def test_what_is_read_off_is_not_sent() -> None:
    """A request that tells of others counts once, with its own tokens."""
    forecast = Forecast()
    forecast.add([request(1, context=30, also=3), request(9, context=20, forced=4)])
    assert (forecast.volume, forecast.read) == (Volume(2, 50, 5), 3)


# ------------------------------------------------------------------------------------------ time and money


@pytest.mark.parametrize(("rpm", "tpm"), [(600, None), (None, 60_000), (3000, 90_000), (100, 10_000_000)])
async def test_the_time_is_that_of_the_budget(rpm: float | None, tpm: float | None) -> None:
    """A budget lets as much through in the time foreseen, within a second and a hundredth."""
    clock = FakeClock()
    begun = clock.now
    sizes = [20 + 13 * at % 90 for at in range(2000)]
    share = Budget(rpm, tpm).share()
    for each in sizes:
        await share.wait(each, clock, clock.sleep)
    expected = seconds_at(Volume(len(sizes), sum(sizes), 0), Allowance(rpm, tpm))
    assert expected is not None
    assert clock.now - begun == pytest.approx(expected, rel=0.01, abs=1.0)


def test_endpoints_of_an_account_share_its_time() -> None:
    """An account needs the time of all its endpoints together; accounts work side by side; an hour's price is
    paid once for an account, and its endpoints have their shares of it."""
    given = RunSettings(
        endpoint=(
            EndpointSettings(spec="dedicated:x", name="a", adapters=("s",), price_hour=36.0),
            EndpointSettings(spec="http://127.0.0.1:1/v1#m", name="b", price_in=2.0, price_out=10.0),
        ),
        tasks="any",
    )
    endpoints = parse_endpoints(given.endpoint)
    sizes = {"a": (30, 300), "a:s": (90, 900), "b": (50, 500)}
    counted = {name: Counted(volume=Volume(*size, 0), shared=7) for name, size in sizes.items()}
    allowed = {each.account: Allowance(60 / 0.985, None) for each in endpoints}
    found = figures(endpoints, counted, allowed, prices_of(endpoints, given))
    assert [found[name].seconds for name in sizes] == pytest.approx([120, 120, 50])
    assert [found[name].cost for name in sizes] == pytest.approx([0.3, 0.9, 0.001])
    whole = in_all(list(found.values()))
    assert (whole.requests, whole.prompt_tokens, whole.shared_prefix_tokens) == (170, 1700, 21)
    assert (whole.seconds, whole.cost) == pytest.approx((120, 1.201))


def test_what_is_not_known_is_not_told() -> None:
    """Without a budget there is no time, and so no price by the hour; what is unknown of one is so in all."""
    given = RunSettings(endpoint=("a=dedicated:x", "embedded"), tasks="any", price_hour=1.0)
    endpoints = parse_endpoints(given.endpoint)
    counted = {each.label: Counted(volume=Volume(5, 50, 5), shared=0) for each in endpoints}
    allowed = {each.account: Allowance(None, None) for each in endpoints}
    found = figures(endpoints, counted, allowed, prices_of(endpoints, given))
    assert (found["a"].seconds, found["a"].cost) == (None, None)
    assert (found["embedded"].seconds, found["embedded"].cost) == (None, 0.0)
    assert (in_all(list(found.values())).seconds, in_all(list(found.values())).cost) == (None, None)


# ---------------------------------------------------------------------------------- forecast against fact


def fact(**changes: Any) -> Fact:
    """What a session sent: as foreseen, but for the changes."""
    usual: dict[str, Any] = {"retries": 0, "read": 300, "counted": None, "cached": None, "cost": None}
    return Fact(**{"sent": Volume(100, 5000, 100), **usual, **changes})


FORESEEN = Forecast(Volume(100, 5000, 100), read=300, whole=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "forecast 100 requests, 5,000 prompt tokens; sent 100 requests, 5,000 prompt tokens"),
        (
            {"sent": Volume(103, 5150, 103), "retries": 3},
            "forecast 100 requests, 5,000 prompt tokens; sent 103 requests, 5,150 prompt tokens (retries 3)",
        ),
        (
            {"sent": Volume(112, 5600, 112), "retries": 3, "read": 295},
            "forecast 100 requests, 5,000 prompt tokens; sent 112 requests, 5,600 prompt tokens"
            " (retries 3, choices forced on their own 5, checks 4)",
        ),
        (
            {"counted": 9_860_000, "cached": 7_100_000, "cost": 1.5},
            "forecast 100 requests, 5,000 prompt tokens; sent 100 requests, 5,000 prompt tokens;"
            " the endpoint counted 9.86 M prompt tokens, 7.10 M of them cached; cost 1.5 (forecast 1.25)",
        ),
    ],
)
def test_forecast_and_fact(changes: dict[str, Any], says: str) -> None:
    """One line tells both, and why they differ."""
    assert compared(FORESEEN, fact(**changes), 1.25) == says


def test_no_forecast_of_half_a_plan() -> None:
    """Where planning was broken off there is nothing to compare with: the fact alone is told."""
    half = Forecast(Volume(100, 5000, 100), read=300)
    assert compared(half, fact(sent=Volume(40, 2000, 40), read=9, cost=0.5), 1.25) == (
        "sent 40 requests, 2,000 prompt tokens; cost 0.5"
    )


def test_amounts() -> None:
    """Tokens are told in full below a million, money in cents where it is large."""
    assert [tokens(each) for each in (999_999, 1_000_000, 9_863_045)] == ["999,999", "1.00 M", "9.86 M"]
    assert [money(each) for each in (0.0, 0.004123, 2.5, 1234.567)] == ["0.00", "0.00412", "2.5", "1,234.57"]


# --------------------------------------------------------------------------------------- the whole outlook


def looked(bench: Bench, *urls: str | EndpointSettings, **changes: Any) -> Outlook:
    """The outlook of a bench's run, with no secrets at hand."""
    return foreseen(prepare(bench.settings(*urls, **changes), {}, send=False))  # type: ignore[arg-type]


def said(bench: Bench, *urls: str | EndpointSettings, spent: Earlier | None = None, **changes: Any) -> str:
    """What must be known beside it."""
    prepared = prepare(bench.settings(*urls, **changes), {}, send=False)  # type: ignore[arg-type]
    before = earlier(prepared.folder) if spent is None else spent
    return "\n".join(remarks(prepared, foreseen(prepared), before))


def sent_to(endpoint: FakeEndpoint) -> tuple[int, int, int]:
    """Requests, prompt tokens and forced tokens that an endpoint was sent."""
    return (
        len(endpoint.bodies),
        sum(len(body["tokens"]) for body in endpoint.bodies),
        sum(len(body["forced_output_tokens"]) for body in endpoint.bodies),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"metrics": "acc_pmi"},
        {"tasks": "mmlu", "shots": 1},
        {"permute_choices": "cyclic", "tasks": "mmlu"},
    ],
    ids=["plain", "asides", "shots", "orders"],
)
async def test_what_is_foreseen_is_sent(bench: Bench, changes: dict[str, Any]) -> None:
    """A run sends exactly what was foreseen, says so at its end, and keeps both in run.json."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        outlook = looked(bench, url, **changes)
        assert endpoint.bodies == []
        assert not (bench.folder / "run").exists()
        result = await bench.run(url, **changes)
        whole = outlook.whole
        assert sent_to(endpoint) == (whole.requests, whole.prompt_tokens, whole.forced_tokens)
    counts = bench.manifest()["counts"]["it"]
    amounts = {"requests": whole.requests, "prompt_tokens": whole.prompt_tokens}
    amounts["forced_tokens"] = whole.forced_tokens
    assert counts["forecast"] == {**amounts, "whole": True}
    assert counts["sent"] == amounts
    assert bench.manifest()["beside_journal"] == {}
    (line,) = [each for each in closing_lines(result, program="x") if "forecast" in each]
    assert line == (
        f"it: forecast {whole.requests:,} requests, {tokens(whole.prompt_tokens)} prompt tokens; sent"
        f" {whole.requests:,} requests, {tokens(whole.prompt_tokens)} prompt tokens;"
        f" the endpoint counted {tokens(whole.prompt_tokens)} prompt tokens"
    )


async def test_what_is_answered_already(bench: Bench) -> None:
    """The outlook of a run that has begun says what is answered and what is left, for each endpoint; the
    whole stays what it was."""
    async with FakeEndpoint() as one, FakeEndpoint() as other:
        urls = (f"one={one.base_url}", f"other={other.base_url}")
        before = looked(bench, *urls, price_in=1000.0, price_out=0.0)
        await bench.run(urls[0], max_requests=20)
        outlook = looked(bench, *urls, price_in=1000.0, price_out=0.0)
        assert [part.whole for part in outlook.parts] == [part.whole for part in before.parts]
        assert [part.answered for part in outlook.parts] == [20, 0]
        text = said(bench, *urls, price_in=1000.0, price_out=0.0)
        left = outlook.parts[0].left
        assert (
            f"one: 20 of these requests are answered already; left are {left.requests} requests,"
            f" {left.prompt_tokens:,} prompt tokens, cost {money(left.prompt_tokens / 1000)}."
        ) in text
        first = sent_to(one)
        await bench.run(*urls)
        more = [now - then for now, then in zip(sent_to(one), first, strict=True)]
        assert more == [left.requests, left.prompt_tokens, left.forced_tokens]
        assert looked(bench, *urls).left.requests == 0


async def test_failed_requests_are_left(bench: Bench) -> None:
    """What failed is tried again, and so is left."""
    async with FakeEndpoint(lambda number, body: Status(422) if number % 5 == 0 else None) as endpoint:
        await bench.run(f"it={endpoint.base_url}")
        failed = len(endpoint.bodies) // 5
        assert looked(bench, f"it={endpoint.base_url}").left.requests == failed


def test_equal_endpoints_are_planned_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second adapter costs no second look at the rows, and has the same figures."""
    calls = []

    def counted(*given: Any) -> Iterator[Batch]:
        calls.append(1)
        return planned(*given)

    monkeypatch.setattr("harness.outlook.planned", counted)
    outlook = looked(bench, "dedicated:x", "dedicated:x:law", "dedicated:x")
    assert len(calls) == 1
    assert len({part.whole.requests for part in outlook.parts}) == 1
    assert outlook.whole.requests == 3 * outlook.parts[0].whole.requests


def test_the_shortcut_is_assumed(tmp_path: Path) -> None:
    """Where choices are single tokens one request is counted for all of an item, and this is said; not with
    --no-shortcut, nor where an earlier session learnt that it cannot be."""
    asked: dict[str, Any] = {"endpoint": ("embedded",), "tasks": "sample_mmlu", "limit": 2, "out": tmp_path}
    asked["probe"] = False

    def found(**changes: Any) -> Outlook:
        return foreseen(prepare(RunSettings(**asked, **changes), {}, send=False))

    short, forced = found(), found(shortcut=False)
    (part,) = short.parts
    assert part.whole.requests * 4 == part.choices == forced.whole.requests
    assert forced.whole.prompt_tokens == 4 * short.whole.prompt_tokens
    assert forced.whole.shared_prefix_tokens > 3 * short.whole.shared_prefix_tokens
    prepared = prepare(RunSettings(**asked), {}, send=False)
    said = "\n".join(remarks(prepared, short, Earlier()))
    assert (
        f"among the 20 likeliest tokens, where each is one token; with --no-shortcut {part.choices}" in said
    )
    learnt = {"used": False, "why": "its alternatives differ"}
    manifest = {
        "identity": prepared.identity.fields,
        "settings": {"shortcut": True},
        "counts": {"embedded": {"shortcut": learnt}},
    }
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert found().whole == forced.whole
    manifest["settings"] = {"shortcut": False}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert found().whole == short.whole


def test_real_questions(shared: Path) -> None:
    """Of five-shot MMLU a request an item is counted, and of its prompt tokens a subject's shots once."""
    settings = RunSettings(
        endpoint=("m=http://127.0.0.1:9/v1#m",),
        tasks="mmlu",
        shots=5,
        limit=2,
        tokenizer=(str(shared / "tokenizers/gpt-neox-olmo"),),
        data_dir=shared / "data",
        probe=False,
    )
    outlook = foreseen(prepare(settings, {}, send=False))
    assert outlook.whole.requests == outlook.whole.forced_tokens == 57 * 2
    assert 0.3 < outlook.whole.shared_prefix_tokens / outlook.whole.prompt_tokens < 0.5


def test_what_is_said_beside(bench: Bench) -> None:
    """What is assumed, what is not known, and which cap is in the way."""
    plain = said(bench, "a=dedicated:x", max_requests=10)
    assert "Each request is taken to be answered the first time" in plain
    assert "a: how long it takes is not known before it runs: neither --rpm nor --tpm bounds it." in plain
    assert (
        "a: no price is known; give --price-in and --price-out (per million tokens), or --price-hour" in plain
    )
    assert "This is beyond --max-requests 10: the run would stop there, with exit code 3." in plain
    hours = said(bench, "a=dedicated:x", price_hour=2.0)
    assert "how long it takes, nor what its hours cost, is not known before it runs" in hours
    bounded = said(bench, "a=dedicated:x", price_hour=2.0, rpm=60.0)
    assert "Time: at 98.5% of --rpm and --tpm" in bounded
    assert "not known" not in bounded.replace("is not known;", "")
    echoed = said(bench, "o=openai+http://127.0.0.1:9/v1#m", price_in=1.0, price_out=1.0)
    assert "o: what is forced is sent, and paid, as a part of the prompt" in echoed
    needed = looked(bench, "a=dedicated:x").whole.requests
    assert "beyond" not in said(bench, "a=dedicated:x", max_requests=needed)
    spent = Earlier(beside={"a": Volume(5, 5, 5)})
    assert f"beyond --max-requests {needed}, with the 5 requests sent already" in said(
        bench, "a=dedicated:x", max_requests=needed, spent=spent
    )


def test_money_that_was_spent(bench: Bench) -> None:
    """Earlier sessions weigh on the cap of money with their tokens, or with their hours."""
    spent = Earlier(beside={"gone": Volume(10, 2_000_000, 0)}, seconds=7200.0)
    tokens_cap = {"price_in": 1.0, "price_out": 0.0, "max_cost": 2.1}
    assert "beyond" not in said(bench, "dedicated:x", spent=spent, **tokens_cap)
    assert "beyond --max-cost 1.9" in said(
        bench, "dedicated:x", spent=spent, **{**tokens_cap, "max_cost": 1.9}
    )
    hours = {"price_hour": 3.0, "rpm": 1e6}
    assert "beyond" not in said(bench, "dedicated:x", spent=spent, max_cost=6.1, **hours)
    assert "beyond --max-cost 5.9" in said(bench, "dedicated:x", spent=spent, max_cost=5.9, **hours)


def test_the_table(bench: Bench) -> None:
    """An endpoint a row, and all together; what is not known is a question mark."""
    outlook = looked(bench, "a=dedicated:x", "b=dedicated:x:y", rpm=600.0)
    out = io.StringIO()
    Console(file=out, width=120).print(outlook_table(outlook))
    rows = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    requests = outlook.parts[0].whole.requests
    assert [row[:3] for row in rows[-2:]] == [
        ["b", str(outlook.parts[0].items), str(requests)],
        ["in", "all", str(2 * outlook.parts[0].items)],
    ]
    assert rows[-1][-1] == "?"


def test_a_folder_of_another_suite(bench: Bench) -> None:
    """A folder that the run would refuse is refused here too."""
    folder = bench.folder / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"identity": {"tasks": {"other": "1"}}}))
    with pytest.raises(UsageError, match="holds a run of another suite"):
        looked(bench, "dedicated:x")


# -------------------------------------------------------------------------------------------- the command


@pytest.fixture
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects fails the test."""

    def refuse(*given: object) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


def command(bench: Bench, *more: str) -> list[str]:
    """The command line of a bench's run, as a plan."""
    return ["plan", *bench.command(extra=more)[3:]]


@pytest.mark.usefixtures("nobody_is_asked")
def test_plan_prints(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A table on stdout, what is assumed on stderr, no folder, no request, no token needed."""
    assert main(command(bench, "--endpoint", "dedicated:abc:law")) == 0
    printed = capsys.readouterr()
    assert "abc:law" in printed.out
    assert "Each request is taken to be answered the first time" in printed.err
    assert not (bench.folder / "run").exists()


@pytest.mark.usefixtures("nobody_is_asked")
def test_plan_as_json(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the sums, each endpoint, what is left and what is assumed, for programs."""
    flags = ["--rpm", "600", "--price-in", "1", "--price-out", "2", "--json"]
    assert main(command(bench, "--endpoint", "a=dedicated:x", "--endpoint", "b=dedicated:x:l", *flags)) == 0
    found = json.loads(capsys.readouterr().out)
    one = found["endpoints"][0]
    numbers = ("requests", "prompt_tokens", "forced_tokens", "shared_prefix_tokens", "cost")
    assert [found[name] for name in numbers] == pytest.approx([2 * one[name] for name in numbers])
    assert found["seconds"] == one["seconds"] == pytest.approx(2 * one["requests"] / 9.85, abs=0.1)
    assert one["cost"] == pytest.approx(one["prompt_tokens"] / 1e6 + 2 * one["forced_tokens"] / 1e6)
    assert found["left"] == {name: found[name] for name in found["left"]}
    assert found["items"] == 2 * one["items"]
    assert any("answered the first time" in each for each in found["remarks"])


@pytest.mark.usefixtures("nobody_is_asked")
def test_plan_of_a_suite_file(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite file serves as it serves `run`; flags win."""
    file = tmp_path / "suite.toml"
    file.write_text(
        f'tasks = "mmlu"\ntokenizer = "{bench.tokenizer}"\ndata_dir = "{bench.data}"\nlimit = 1\n'
        '[[endpoints]]\nspec = "dedicated:x"\nname = "x"\nrpm = 6\nprice_hour = 3\n'
    )
    found = []
    for flags in ([], ["--limit", "2"]):
        assert main(["plan", str(file), "--json", "--no-probe", *flags]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[1]["requests"] == 2 * found[0]["requests"] > 0
    assert found[0]["cost"] == pytest.approx(3 * found[0]["seconds"] / 3600, abs=1e-3)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--endpoint", "dedicated:x", "--tokenizer", "endpoint"],
            "--tokenizer endpoint: x would have to be",
        ),
        (
            ["--endpoint", "dedicated:x", "--price-in", "1"],
            "--price-in without --price-out, for x: give both",
        ),
        (["--endpoint", "dedicated:x", "--max-cost", "1"], "--max-cost: what x takes is not known"),
    ],
)
def test_plans_that_cannot_be_made(
    bench: Bench, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be told without asking, or is said by halves, is one line and exit 2."""
    whole = command(bench, *flags)
    if "--tokenizer" in flags:
        at = whole.index("--tokenizer")
        del whole[at : at + 2]
    assert main(whole) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_a_broken_journal(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A journal that cannot be read is named, and is no reason to guess."""
    folder = bench.folder / "run/journal"
    folder.mkdir(parents=True)
    (folder / "x.sqlite").write_text("this is no journal" * 100)
    assert main(command(bench, "--endpoint", "dedicated:x")) == 2
    assert "x.sqlite: is no journal of this program" in capsys.readouterr().err


def test_prices_by_token_are_told_of(bench: Bench) -> None:
    """A price of 0 is a price."""
    assert looked(bench, "dedicated:x", price_in=0.0, price_out=0.0).whole.cost == 0.0
    assert Price(prompt=0.0, forced=0.0).known and not Price(prompt=1.0).known
