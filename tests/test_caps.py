"""Caps hold exactly, whatever goes wrong, over all sessions; prices are what tables and flags say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import UsageError
from harness.caps import FREE, Caps, Price, Spending, Volume, told
from harness.earlier import earlier
from harness.endpoint_settings import EndpointSettings
from harness.endpoints import parse_endpoints
from harness.errors import StoreError
from harness.manifest import Exit
from harness.outlook import foreseen
from harness.prepare import prepare
from harness.prices import Prices, prices_of
from harness.saying import money
from harness.settings import RunSettings
from harness.showing import closing_lines
from harness.suitefile import beneath, read_suite
from tests.fake_endpoint import FakeEndpoint, Script, Status, first
from tests.running import Bench, bench

__all__ = ["bench"]

SPEC = "http://127.0.0.1:9/v1#m"
SIZES = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), max_size=60)


def settings(*endpoints: str | EndpointSettings, **changes: Any) -> RunSettings:
    """Settings with these endpoints."""
    return RunSettings(endpoint=endpoints or (SPEC,), tasks="hellaswag", **changes)


def prices(*endpoints: str | EndpointSettings, **changes: Any) -> Prices:
    """What these endpoints take."""
    given = settings(*endpoints, **changes)
    return prices_of(parse_endpoints(given.endpoint), given)


# ---------------------------------------------------------------------------------------------- spending


@given(SIZES, st.integers(1, 30), st.integers(1, 600), st.floats(0.01, 5))
def test_no_cap_is_passed(sizes: list[tuple[int, int]], requests: int, tokens: int, cost: float) -> None:
    """What is allowed never goes beyond any cap, the first no is the last word, and it names a cap that the
    refused request would have gone beyond."""
    price = Price(prompt=3000.0, forced=20_000.0)
    stopped: list[bool] = []
    spending = Spending(Caps(requests=requests, tokens=tokens, cost=cost), stop=lambda: stopped.append(True))
    meters = [spending.meter(price), spending.meter(price)]
    allowed = [meters[at % 2].allows(*size) for at, size in enumerate(sizes)]
    sent = meters[0].sent + meters[1].sent
    assert sent.requests == sum(allowed) <= requests
    assert sent.tokens <= tokens
    assert price.of(sent) <= cost * (1 + 1e-6)
    assert allowed == sorted(allowed, reverse=True)
    assert stopped == [True] * (not all(allowed))
    if all(allowed):
        assert spending.reason == ""
        return
    refused = sent + Volume(1, *sizes[sum(allowed)])
    flag = spending.reason.split()[0]
    assert {
        "--max-requests": refused.requests > requests,
        "--max-tokens": refused.tokens > tokens,
        "--max-cost": price.of(refused) > cost,
    }[flag]


def test_a_cap_is_used_up() -> None:
    """As much as a cap says is allowed, to the last request, token and cent."""
    for caps in (Caps(requests=10), Caps(tokens=110), Caps(cost=0.1 * 10 + 1e-12)):
        meter = Spending(caps).meter(Price(prompt=10_000.0, forced=0.0))
        assert [meter.allows(10, 1) for _ in range(12)] == [True] * 10 + [False] * 2


def test_earlier_sessions_count() -> None:
    """What was sent before is taken off the cap; it may be more than the cap already."""
    for before, allowed in ((Volume(7, 0, 0), 3), (Volume(10, 0, 0), 0), (Volume(99, 0, 0), 0)):
        spending = Spending(Caps(requests=10))
        spending.earlier(before, FREE)
        meter = spending.meter(FREE)
        assert sum(meter.allows(5, 5) for _ in range(20)) == allowed
        assert meter.sent == Volume(allowed, 5 * allowed, 5 * allowed)


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(0, 12), st.integers(1, 200))
def test_what_is_promised_to_one_is_not_promised_to_another(
    asked: list[int], sends: int, requests: int
) -> None:
    """Endpoints that ask at the same time whether there is room get together what one would alone; what they
    are told counts as sent only once it is."""
    spending = Spending(Caps(requests=requests))
    meters = [spending.meter(FREE) for _ in asked]
    promised = sum(n for n, meter in zip(asked, meters, strict=True) if meter.leaves(Volume(n, 0, 0)))
    assert promised <= requests
    assert promised == sum(asked) or promised + max(asked) > requests
    meter = spending.meter(FREE)
    assert sum(meter.allows(1, 1) for _ in range(sends)) == min(sends, requests)


def test_hours_cost() -> None:
    """An hour's price counts from the begin of the session, after the hours of earlier ones."""
    now = 100.0
    spending = Spending(Caps(cost=3.0), hourly=2.0, seconds=1800.0, clock=lambda: now)
    meter = spending.meter(Price(hour=2.0))
    assert meter.allows(1, 1)
    now += 3600.0
    assert meter.allows(1, 1)  # an hour and a half, at two an hour
    now += 1.0
    assert not meter.allows(1, 1)
    assert spending.reason == "--max-cost 3"


def test_without_caps_all_is_counted() -> None:
    """A run without caps counts what it sends, and stops for nothing."""
    meter = Spending(Caps()).meter(Price())
    assert all(meter.allows(7, 2) for _ in range(100))
    assert meter.sent == Volume(100, 700, 200)


def test_what_is_told() -> None:
    """The remark names the cap, what is left, and the way on."""
    assert told("--max-requests 1,000", 1) == (
        "stopped at --max-requests 1,000: 1 item is not tried; raise it and give the same command again"
    )
    assert "12,000 items are not tried" in told("--max-cost 2", 12_000)


# ------------------------------------------------------------------------------------------------ prices


def test_tables_win_over_flags() -> None:
    """A table of a suite file has its own price, key by key; an hour's price takes the place of tokens'."""
    found = prices(
        "plain=http://127.0.0.1:1/v1#m",
        EndpointSettings(spec="http://127.0.0.1:2/v1#m", name="dear", price_in=5.0),
        EndpointSettings(spec="http://127.0.0.1:3/v1#m", name="own", price_hour=4.0, adapters=("x",)),
        "embedded",
        price_in=1.0,
        price_out=2.0,
    )
    assert found.labels == {
        "plain": Price(prompt=1.0, forced=2.0),
        "dear": Price(prompt=5.0, forced=2.0),
        "own": Price(hour=4.0),
        "own:x": Price(hour=4.0),
        "embedded": FREE,
    }
    assert found.hourly == 4.0  # once for base and adapter
    assert found.of("gone") == Price(prompt=1.0, forced=2.0)


def test_flags_for_tokens_do_not_reach_an_endpoint_by_the_hour() -> None:
    """Nor does the flag for hours reach an endpoint whose table has prices of tokens."""
    found = prices(EndpointSettings(spec=SPEC, name="tokens", price_in=1.0, price_out=1.0), price_hour=3.0)
    assert found.labels["tokens"] == Price(prompt=1.0, forced=1.0)
    assert found.hourly == 0


def test_echoed_continuations_are_a_part_of_the_prompt() -> None:
    """OpenAI-style endpoints are sent the continuation with the prompt, and put out a token of their own."""
    price = prices("openai+http://127.0.0.1:9/v1#m", price_in=1.0, price_out=8.0).labels["m"]
    assert price.of(Volume(10, 1000, 50)) == pytest.approx((1050 * 1.0 + 10 * 8.0) / 1e6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"price_in": -1.0}, "--price-in -1: must be 0 or more"),
        ({"price_out": float("nan")}, "--price-out nan: must be 0 or more"),
        ({"price_hour": float("inf")}, "--price-hour inf: must be 0 or more"),
        ({"price_in": 1.0, "price_hour": 1.0}, "--price-in and --price-hour exclude each other"),
        ({"max_requests": 0}, "--max-requests 0: must be at least 1"),
        ({"max_tokens": -5}, "--max-tokens -5: must be at least 1"),
        ({"max_cost": 0.0}, "--max-cost 0: must be a number above 0"),
        ({"price_in": 1.0}, "--price-in without --price-out, for m: give both"),
        ({"price_out": 1.0}, "--price-out without --price-in, for m: give both"),
        ({"max_cost": 2.0}, "--max-cost: what m takes is not known; give --price-in and --price-out"),
    ],
)
def test_prices_and_caps_that_cannot_be_meant(changes: dict[str, Any], says: str) -> None:
    """A wrong amount is one line that names the flag and the way out."""
    with pytest.raises(UsageError) as caught:
        prices(**changes)
    assert str(caught.value).startswith(says)


def test_tables_that_disagree() -> None:
    """Base and adapter are one endpoint, with one price of an hour; tables refuse what flags refuse."""
    base = EndpointSettings(spec="dedicated:x", name="base", price_hour=2.0)
    with pytest.raises(UsageError, match=r"\[\[endpoints\]\] tuned, price_hour: 3 here, but 2 at base"):
        prices(base, EndpointSettings(spec="dedicated:x:a", name="tuned", price_hour=3.0))
    with pytest.raises(UsageError, match=r"\[\[endpoints\]\] e, price_in: -1: must be 0 or more"):
        EndpointSettings(spec=SPEC, name="e", price_in=-1)
    with pytest.raises(UsageError, match=r"\[\[endpoints\]\] e, price_hour: it and price_out exclude"):
        EndpointSettings(spec=SPEC, name="e", price_out=1, price_hour=1)


def test_prices_in_suite_files(tmp_path: Path) -> None:
    """A suite file has prices and caps by their names; a flag of one kind takes away those of the other."""
    file = tmp_path / "suite.toml"
    file.write_text(
        'tasks = ["hellaswag"]\nmax_requests = 500\nprice_in = 1\nprice_out = 2\n'
        f'[[endpoints]]\nspec = "{SPEC}"\nprice_in = 3\n'
    )
    said = read_suite(file)
    assert (said["max_requests"], said["price_in"], said["endpoint"][0].price_in) == (500, 1, 3)
    by_hour = beneath(said, {"price_hour": ["4"]})
    assert "price_in" not in by_hour and "price_out" not in by_hour
    assert by_hour["endpoint"][0].price_in is None
    cheaper = beneath(said, {"price_in": ["0.5"]})
    assert (cheaper["price_out"], cheaper["endpoint"][0].price_in) == (2, None)


# ------------------------------------------------------------------------------------------------- runs


def tokens_of(endpoint: FakeEndpoint) -> int:
    """Tokens of all that an endpoint was sent."""
    return sum(len(body["tokens"]) + len(body["forced_output_tokens"]) for body in endpoint.bodies)


def accounted(bench: Bench) -> int:
    """Requests that the files of a run know of, all sessions together."""
    manifest = bench.manifest()
    journals = sum(each["journal"]["attempts"] for each in manifest["counts"].values())
    beside = sum(each["requests"] for each in manifest["beside_journal"].values())
    return int(journals + beside)


@pytest.mark.parametrize("cap", [1, 7, 50])
async def test_requests_are_capped(bench: Bench, cap: int) -> None:
    """Exactly as many requests go out as the cap says, however many workers there are; the run stops with
    exit code 3 and says what is left, and with a higher cap it ends as if nothing had been."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        result = await bench.run(url, max_requests=cap)
        assert len(endpoint.bodies) == cap
        assert result.exit is Exit.UNSCORED
        manifest = bench.manifest()
        assert manifest["status"] == "incomplete"
        items = json.loads((bench.folder / "run/run.json").read_text())["counts"]["it"]["items"]
        left = int((result.accuracy.query("subject == '' and metric == 'acc'").unscored).iloc[:2].sum())
        assert manifest["remarks"][-1] == told(f"--max-requests {cap}", left)
        assert 0 < left <= items
        await bench.run(url, max_requests=cap)
        assert len(endpoint.bodies) == cap  # the same command again sends nothing
        result = await bench.run(url, max_requests=10_000)
        assert result.exit is Exit.DONE
        assert len({json.dumps(body) for body in endpoint.bodies}) == len(endpoint.bodies)
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", out="other")
    assert bench.scores() == bench.scores("other")


async def test_a_cap_that_is_enough_changes_nothing(bench: Bench) -> None:
    """A run that needs all of its cap and no more is done, with exit code 0."""
    async with FakeEndpoint() as endpoint:
        await bench.run(endpoint.base_url, out="first")
        needed = len(endpoint.bodies)
        result = await bench.run(endpoint.base_url, max_requests=needed)
        assert len(endpoint.bodies) == 2 * needed
    assert result.exit is Exit.DONE
    assert not any("stopped at" in remark for remark in result.remarks)


@pytest.mark.parametrize(
    "script",
    [
        lambda number, body: Status(429) if number % 3 == 0 else None,
        first(25, Status(503)),
        lambda number, body: Status(500) if body["tokens"][-1] % 2 else None,
        lambda number, body: Status(422) if number % 4 == 0 else None,
    ],
    ids=["429", "down", "some always fail", "422"],
)
async def test_every_attempt_counts(bench: Bench, script: Script) -> None:
    """Retries, and probes of an endpoint that is down, are within the cap too; after every session the files
    account for everything that was sent."""
    async with FakeEndpoint(script) as endpoint:
        for cap in (20, 40, 60):
            await bench.run(endpoint.base_url, max_requests=cap, attempts=3)
            assert len(endpoint.bodies) == cap
            assert accounted(bench) == cap


async def test_tokens_are_capped(bench: Bench) -> None:
    """Tokens of prompts and forced ones together stay within the cap, and come near it."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, max_tokens=3000)
        longest = max(len(body["tokens"]) + len(body["forced_output_tokens"]) for body in endpoint.bodies)
        assert 3000 - 2 * longest < tokens_of(endpoint) <= 3000
        assert result.exit is Exit.UNSCORED
        assert "--max-tokens 3,000" in result.remarks[-1]


async def test_money_is_capped(bench: Bench) -> None:
    """What is spent at the endpoints' own prices stays within the cap, over two sessions."""
    async with FakeEndpoint() as one, FakeEndpoint() as other:
        tables = (
            EndpointSettings(spec=f"{one.base_url}#a", price_in=1000.0, price_out=5000.0),
            EndpointSettings(spec=f"{other.base_url}#b", price_in=2000.0, price_out=0.0),
        )

        def spent() -> float:
            volumes = [
                (
                    sum(len(body["tokens"]) for body in each.bodies),
                    sum(len(body["forced_output_tokens"]) for body in each.bodies),
                )
                for each in (one, other)
            ]
            return (volumes[0][0] * 1000 + volumes[0][1] * 5000 + volumes[1][0] * 2000) / 1e6

        for cap in (2.0, 4.5):
            result = await bench.run(*tables, max_cost=cap)  # type: ignore[arg-type]
            assert cap - 1.0 < spent() <= cap
            assert result.exit is Exit.UNSCORED
        costs = [each["cost"] for each in bench.manifest()["counts"].values()]
        assert 0 < sum(costs) < 4.5  # of the last session


async def test_money_by_the_hour(bench: Bench) -> None:
    """Where the hours of the session are worth more than the cap, nothing more goes out."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, price_hour=1e12, max_cost=1e-6)
        assert endpoint.bodies == []
        assert result.exit is Exit.UNSCORED
        assert "stopped at --max-cost 1e-06" in result.remarks[-1]


async def test_sessions_add_up(bench: Bench) -> None:
    """Each session finds the time that those before took, and counts it at the price of an hour."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        taken = 0.0
        for cap in (10, 20, 30):
            await bench.run(url, max_requests=cap)
            timings = bench.manifest()["timings"]
            assert timings["earlier_s"] == pytest.approx(taken, abs=0.01)
            taken = timings["earlier_s"] + timings["sending_s"]
        assert earlier(bench.folder / "run").seconds == pytest.approx(taken, abs=0.01)
        hour = 3600.0 / taken  # so that these have cost 1
        for most, more in ((0.99, False), (1000.0, True)):
            await bench.run(url, price_hour=hour, max_cost=most)
            assert (len(endpoint.bodies) > 30) is more


async def test_a_killed_session_counts(bench: Bench) -> None:
    """What a session had in its journal when it was killed is taken off the cap of the next one, and is
    answered for the plan."""
    copied: list[int] = []

    def copy(number: int, body: Any) -> None:
        if number == 40:
            shutil.copytree(bench.folder / "run", bench.folder / "killed")
            copied.append(number)

    async with FakeEndpoint(copy) as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url)
        assert copied
        whole = len(endpoint.bodies)
        there = earlier(bench.folder / "killed").volume.requests
        assert 0 < there < 40
        prepared = prepare(bench.settings(url, out="killed"), {}, send=False)
        assert foreseen(prepared).left.requests == whole - there
        await bench.run(url, out="killed", max_requests=there + 5)
        assert len(endpoint.bodies) == whole + 5


async def test_what_is_said_at_the_end(bench: Bench) -> None:
    """The closing lines say what was sent and what it cost; after a cap they do not send people to the same
    command, which would be stopped at once."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        result = await bench.run(url, max_requests=20, price_in=100.0, price_out=0.0)
        said = "\n".join(closing_lines(result, program="x"))
        count = sum(len(body["tokens"]) for body in endpoint.bodies)
        assert f"sent 20 requests, {count:,} prompt tokens;" in said
        assert f"; cost {money(count / 10_000)}" in said
        assert "stopped at --max-requests 20: " in said
        assert "the same command tries the others again" not in said
        result = await bench.run(url, price_hour=3600.0)
        said = "\n".join(closing_lines(result, program="x"))
        assert f" at 3600 an hour: cost {money(result.sending)}" in said
        assert "forecast" in said and "(forecast" not in said


async def test_texts_to_be_tokenized_count(bench: Bench) -> None:
    """Requests to an endpoint's tokenizer are requests; where not even its probe is allowed, that is said."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        for cap in (40, 80):
            result = await bench.run(url, tokenizer=("endpoint",), max_requests=cap, tasks="hellaswag")
            assert len(endpoint.bodies) + len(endpoint.tokenized) == cap
            assert result.exit is Exit.UNSCORED
            assert accounted(bench) == cap
        with pytest.raises(StoreError, match="stopped at --max-requests 80: the tokenizer cannot be asked"):
            await bench.run(url, tokenizer=("endpoint",), max_requests=80, tasks="hellaswag")
        assert len(endpoint.bodies) + len(endpoint.tokenized) == 80
