"""Whole runs against a loopback endpoint that tells the truth or goes wrong as told."""

from __future__ import annotations

import asyncio
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness import UsageError
from harness.manifest import Exit
from tests.fake_endpoint import (
    Altered,
    Body,
    Cut,
    EchoToken,
    FakeEndpoint,
    Fault,
    Gzip,
    Hang,
    Reset,
    Script,
    Status,
    first,
    true_logprobs,
    values,
)
from tests.running import ROOT, Bench, bench

__all__ = ["bench"]

ITEMS = 12 + 3 * 4


def every(n: int, *faults: Fault) -> Script:
    """Every n-th request goes wrong, one fault after the other; its repetition mostly does not."""
    return lambda number, body: faults[number // n % len(faults)] if number % n == 0 else None


async def truth(bench: Bench, **changes: Any) -> bytes:
    """The accuracy table without faults."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", out="truth", **changes)
    return bench.scores("truth")


async def test_a_known_answer(bench: Bench) -> None:
    """Sums, predictions and the accuracy are those computed by hand from what the endpoint says."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url)
        asked = {tuple(b["tokens"]): b for b in endpoint.bodies}
    assert result.exit is Exit.DONE
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    texts = pd.read_parquet(bench.folder / "run/texts.parquet")
    assert len(items) == len(texts) == ITEMS
    right = 0
    for item, text in zip(items.to_dict("records"), texts.to_dict("records"), strict=True):
        assert tuple(text["context_ids"][0]) in asked
        sums = [
            math.fsum(true_logprobs([int(i) for i in context], [int(i) for i in forced]))
            for context, forced in zip(text["context_ids"], text["forced_ids"], strict=True)
        ]
        assert list(item["sums"]) == sums
        assert item["prediction_acc"] == sums.index(max(sums))
        right += int(sums.index(max(sums)) in item["gold"]) * (item["task"] == "mmlu")
    scores = pd.read_csv(bench.folder / "run/scores.csv", keep_default_na=False)
    whole = scores[(scores.task == "mmlu") & (scores.subject == "")].iloc[0]
    assert float(whole.value) == pytest.approx(right / 12)
    assert (whole.n, whole.unscored) == (12, 0)
    assert set(scores.task) == {"hellaswag", "mmlu", "mmlu_stem", "mmlu_other", "mmlu_humanities"}
    assert bench.manifest()["status"] == "complete"


async def test_run_json_is_as_specified(bench: Bench) -> None:
    """`run.json` has exactly the keys of its specification, in its order, before and after the run."""
    section = (ROOT / "results/README.md").read_text().split("## `run.json`")[1].split("## ")[0]
    specified = re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
    states = []
    async with FakeEndpoint(lambda number, body: states.append(bench.manifest())) as endpoint:
        await bench.run(endpoint.base_url, tasks="mmlu", limit=1)
    for manifest, status in ((states[0], "running"), (bench.manifest(), "complete")):
        assert list(manifest) == specified
        assert manifest["status"] == status
    (counts,) = bench.manifest()["counts"].values()
    assert counts["requests_sent"] == len(endpoint.bodies) == counts["journal"]["replies"]


async def test_requests_are_what_the_contract_says(bench: Bench) -> None:
    """Flat ids, forced ids, `logprobs`, `max_tokens` equal to the forced length, nothing that samples."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"{endpoint.base_url}#ep1:lora", limit=1)
    assert endpoint.bodies
    for body in endpoint.bodies:
        assert set(body) == {"model", "tokens", "forced_output_tokens", "logprobs", "max_tokens"}
        assert body["model"] == "ep1:lora"
        assert body["max_tokens"] == len(body["forced_output_tokens"])
    assert endpoint.connections <= 8
    assert endpoint.most_in_flight <= 8


@pytest.mark.parametrize(
    "script",
    [
        every(3, Status(429)),
        every(3, Status(429, {"retry-after-ms": "5"})),
        every(5, Status(429, {"Retry-After": "0"})),
        every(3, Status(500), Status(503, body=b"<html>")),
        every(4, Reset(), Reset(after_headers=True)),
        every(3, Cut()),
        every(2, Gzip()),
        first(30, Status(503)),
        every(
            3, Status(429), Status(500), Reset(), Cut(), Status(408), Status(502), Status(504), Status(599)
        ),
    ],
    ids=["429", "429 wait", "429 wait s", "5xx", "resets", "cut", "gzip", "down at first", "all"],
)
async def test_faults_change_no_number(bench: Bench, script: Script) -> None:
    """Whatever can be tried again leaves the same tables as an endpoint without faults."""
    async with FakeEndpoint(script) as endpoint:
        result = await bench.run(f"it={endpoint.base_url}", attempts=20)
    assert result.exit is Exit.DONE
    assert bench.scores() == await truth(bench)


async def test_hanging_requests_are_given_up_and_sent_again(bench: Bench) -> None:
    """A reply that does not come is not waited for beyond the time-out; the tables stay the same."""
    async with FakeEndpoint(every(20, Hang())) as endpoint:
        result = await bench.run(f"it={endpoint.base_url}", timeout=0.3, attempts=20)
    assert result.exit is Exit.DONE
    assert result.parts[0].progress.retries["timeout"] >= 3
    assert bench.scores() == await truth(bench)


@pytest.mark.parametrize(
    "fault",
    [
        Altered(lambda reply: reply["choices"][0]["tokens"].append(1)),
        Altered(lambda reply: reply["choices"][0].update(logprobs=None)),
        values(lambda found: found.append(-1.0)),
        values(lambda found: found.__setitem__(0, 0.5)),
        values(lambda found: found.__setitem__(0, math.nan)),
        values(lambda found: found.__setitem__(0, None)),
    ],
    ids=["ids", "no logprobs", "count", "positive", "nan", "null"],
)
async def test_a_broken_endpoint_is_no_answer(bench: Bench, fault: Fault) -> None:
    """Replies that must not be believed leave every item unscored, never at chance."""
    async with FakeEndpoint(lambda number, body: fault) as endpoint:
        result = await bench.run(endpoint.base_url)
    assert result.exit is Exit.UNSCORED
    assert result.accuracy["value"].isna().all()
    assert (result.accuracy["n"] == 0).all()
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert items["unscored"].str.startswith("protocol").all()
    whole = result.accuracy.iloc[0]
    assert (whole.low_bound, whole.high_bound) == (0, 1)


async def test_a_refusal_stops_that_endpoint_alone(bench: Bench) -> None:
    """401 stops its endpoint at once with one line and exit 4; the other endpoint finishes."""
    async with FakeEndpoint() as good, FakeEndpoint(token="other") as bad:
        result = await bench.run(f"bad={bad.base_url}", f"good={good.base_url}")
    assert result.exit is Exit.REFUSED
    assert len(bad.bodies) <= 8
    refused = {part.endpoint.label: part.refused for part in result.parts}
    assert refused["good"] == ""
    assert "401" in refused["bad"]
    assert "\n" not in refused["bad"]
    table = result.accuracy.groupby("endpoint").sum(numeric_only=True)
    assert list(table.index) == ["bad", "good"]
    assert (table["n"] == 0).tolist() == [True, False]
    assert (table["unscored"] == 0).tolist() == [False, True]
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert set(items[items.endpoint == "bad"].unscored) == {"not tried"}
    assert len(pd.read_parquet(bench.folder / "run/texts.parquet")) == ITEMS


async def test_one_bad_request_costs_one_item(bench: Bench) -> None:
    """A request that fails for good leaves its item unscored, with the reason and bounds; exit 3."""
    poison: list[Body] = []

    def script(number: int, body: Body) -> Fault | None:
        if not poison and len(body["forced_output_tokens"]) > 30:
            poison.append(body)
        return Status(400, body=b'{"message": "no such luck"}') if body in poison else None

    async with FakeEndpoint(script) as endpoint:
        result = await bench.run(f"it={endpoint.base_url}")
        assert result.exit is Exit.UNSCORED
        items = pd.read_parquet(bench.folder / "run/items.parquet")
        unscored = items[items.unscored.notna()]
        assert list(unscored.unscored) == ["400: no such luck"]
        row = result.accuracy.iloc[0]
        assert (row.n, row.unscored) == (11, 1)
        assert row.low_bound == pytest.approx(row.value * 11 / 12)
        assert row.high_bound == pytest.approx((row.value * 11 + 1) / 12)
        before = len(endpoint.bodies)
        poison[:] = [{}]
        again = await bench.run(f"it={endpoint.base_url}")
        assert again.exit is Exit.DONE
        assert len(endpoint.bodies) == before + 1, "a stored failure, and nothing else, is tried again"
    assert bench.scores() == await truth(bench)


async def test_attempts_run_out(bench: Bench) -> None:
    """A request that can be tried again is tried so often and no more; its neighbours do not suffer."""
    poison: list[Body] = []

    def script(number: int, body: Body) -> Fault | None:
        poison.extend([body] * (not poison))
        return Status(500) if body == poison[0] else None

    async with FakeEndpoint(script) as endpoint:
        result = await bench.run(endpoint.base_url, attempts=3)
        assert endpoint.bodies.count(poison[0]) == 3
    assert result.exit is Exit.UNSCORED
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert [reason.partition(":")[0] for reason in items.unscored.dropna()] == ["500"]


async def test_an_endpoint_that_stays_down_is_given_up(bench: Bench) -> None:
    """Beyond our patience an endpoint is stopped; its items are not tried, not failed."""
    async with FakeEndpoint(lambda number, body: Status(503) if number > 20 else None) as endpoint:
        result = await bench.run(endpoint.base_url, patience=0.0)
    assert result.exit is Exit.REFUSED
    assert "503" in result.parts[0].refused
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert set(items.unscored.dropna()) == {"not tried"}


async def test_the_same_command_sends_nothing_again(bench: Bench) -> None:
    """A second run is answered from the journal; a wider limit asks only for what is new."""
    async with FakeEndpoint() as endpoint:
        await bench.run(endpoint.base_url, limit=2)
        few = len(endpoint.bodies)
        assert few == 4 * (2 + 3 * 2)
        await bench.run(endpoint.base_url, limit=2)
        assert len(endpoint.bodies) == few
        await bench.run(endpoint.base_url)
        assert len(endpoint.bodies) == 4 * ITEMS
        result = await bench.run(endpoint.base_url, limit=2)
        assert len(endpoint.bodies) == 4 * ITEMS
    assert result.accuracy.iloc[0].n == 2


async def test_equal_requests_are_sent_once(bench: Bench) -> None:
    """Rows that are the same twice cost one request a choice, and both are scored."""
    file = bench.data / "hellaswag/validation.jsonl"
    file.write_text(file.read_text() * 3)
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, tasks="hellaswag")
    assert len(endpoint.bodies) == 4 * 12
    assert result.accuracy.iloc[0].n == 36


async def test_equal_endpoints_are_replicates(bench: Bench) -> None:
    """The same endpoint given twice is asked twice, each with its own journal, side by side in the table."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, f"again={endpoint.base_url}", limit=1)
        assert len(endpoint.bodies) == 2 * 4 * (1 + 3)
    assert len(list((bench.folder / "run/journal").glob("*.sqlite"))) == 2
    assert len(set(result.accuracy["endpoint"])) == 2


async def test_another_suite_is_refused(bench: Bench) -> None:
    """A folder of another suite is left alone, and what differs is named."""
    async with FakeEndpoint() as endpoint:
        await bench.run(endpoint.base_url, tasks="mmlu", limit=1)
        before = bench.scores()
        others: list[tuple[str, dict[str, Any]]] = [
            ("shots", {"shots": 1}),
            ("tasks", {"tasks": "hellaswag"}),
            ("seed", {"seed": 1}),
        ]
        for field, changes in others:
            with pytest.raises(UsageError, match=f"another suite: {field}"):
                await bench.run(endpoint.base_url, **{"tasks": "mmlu", "limit": 1, **changes})
    assert bench.scores() == before


async def test_shots_and_bound(bench: Bench) -> None:
    """With shots the prompts grow; a bound cuts them on the left, and the run says how many lost context."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, tasks="mmlu", shots=2, max_length=120)
    assert {len(b["tokens"]) + len(b["forced_output_tokens"]) for b in endpoint.bodies} == {120}
    assert any("12 items lost context on the left to --max-length 120" in remark for remark in result.remarks)


async def test_overflow_fails_before_the_first_request(bench: Bench) -> None:
    """`--on-overflow fail` names the first item that is too long, and nothing is sent."""
    async with FakeEndpoint() as endpoint:
        with pytest.raises(UsageError, match="--on-overflow fail: mmlu anatomy item 0"):
            await bench.run(endpoint.base_url, tasks="mmlu", max_length=100, on_overflow="fail")
        assert not endpoint.bodies


async def test_bad_rows_can_be_skipped_but_not_hidden(bench: Bench) -> None:
    """Rows that are no items are unscored items with the reason, and exit 3."""
    file = bench.data / "hellaswag/validation.jsonl"
    file.write_text(file.read_text().replace('"label": "3"', '"label": "7"', 1))
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, tasks="hellaswag", skip_bad_rows=True)
    assert result.exit is Exit.UNSCORED
    items = pd.read_csv(bench.folder / "run/items.csv")
    assert items.unscored.dropna().str.contains("line 4.*gold 7 is out of range").tolist() == [True]
    assert (result.accuracy.iloc[0].n, result.accuracy.iloc[0].unscored) == (11, 1)


async def test_rpm_is_held(bench: Bench) -> None:
    """Requests a minute are held for the account: adapters of one endpoint share them."""
    async with FakeEndpoint() as endpoint:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await bench.run(
            f"{endpoint.base_url}#m", f"{endpoint.base_url}#m:a", tasks="mmlu", limit=2, rpm=2400.0
        )
        seconds = loop.time() - begun
    assert len(endpoint.bodies) == 48
    assert seconds >= (48 - 20) / 40


async def test_stopping_keeps_what_is_in_flight(bench: Bench) -> None:
    """A run told to stop finishes what is in flight, writes its tables, and can be continued."""
    stop = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        if number == 20:
            stop.set()
        return None

    async with FakeEndpoint(script) as endpoint:
        result = await bench.run(f"it={endpoint.base_url}", stop=stop)
        assert result.exit is Exit.INTERRUPTED
        assert bench.manifest()["status"] == "interrupted"
        sent = len(endpoint.bodies)
        assert sent < 4 * ITEMS
        items = pd.read_parquet(bench.folder / "run/items.parquet")
        assert len(items) == ITEMS
        assert set(items.unscored.dropna()) == {"not tried"}
        again = await bench.run(f"it={endpoint.base_url}")
        assert again.exit is Exit.DONE
        assert len(endpoint.bodies) == 4 * ITEMS
    assert bench.scores() == await truth(bench)


async def test_stopping_does_not_wait_for_back_off(bench: Bench) -> None:
    """A worker that waits to try again, even for minutes, gives up at once when the run is stopped."""
    stop = asyncio.Event()

    def script(number: int, body: Body) -> Fault | None:
        stop.set()
        return Status(429, {"Retry-After": "200"})

    async with FakeEndpoint(script) as endpoint:
        async with asyncio.timeout(20):
            result = await bench.run(endpoint.base_url, stop=stop)
    assert result.exit is Exit.INTERRUPTED


async def test_the_token_is_nowhere(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A server that repeats the token in bodies and headers of errors gets it into no file and no line."""
    token = "flp_SECRETsecret0123456789+/="

    def script(number: int, body: Body) -> Fault | None:
        return EchoToken((400, 422, 500, 302)[number % 4]) if number % 3 == 0 else None

    async with FakeEndpoint(script) as one, FakeEndpoint(lambda number, body: EchoToken(403)) as two:
        result = await bench.run(
            f"one={one.base_url}", f"two={two.base_url}", environ={"FRIENDLI_TOKEN": token}, attempts=2
        )
        assert one.headers[0]["authorization"] == f"Bearer {token}"
    assert result.exit is Exit.REFUSED
    said = "\n".join([repr(result), caplog.text, *result.remarks, *(p.progress.line() for p in result.parts)])
    written = contents(bench.folder / "run")
    assert len(written) >= 8
    assert any(b"not with" in content for content in written), (
        "what the server said is kept, the token is not"
    )
    for content in [said.encode(), *written]:
        for form in (token, json.dumps(token)[1:-1], "SECRETsecret"):
            assert form.encode() not in content


def contents(folder: Path) -> list[bytes]:
    """The bytes of every file below a folder."""
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
