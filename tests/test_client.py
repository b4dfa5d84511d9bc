"""One endpoint asked until it answers, has failed for good, or is given up: attempts, waits, outages."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness.client import Client, Event
from harness.dialects import dialect
from harness.errors import EndpointRefused
from harness.exchange import Outcome, ScoreRequest
from harness.pacing import Budget, Capacity, Level
from harness.patience import ClientSettings
from harness.secrets import Secret
from tests.fake_endpoint import (
    Altered,
    Cut,
    EchoToken,
    FakeClock,
    FakeEndpoint,
    Fault,
    Gzip,
    Hang,
    Reset,
    Script,
    Status,
    completion,
    first,
    true_logprobs,
    values,
)
from tests.virtual_time import Refusing, client_of, in_virtual_time

TOKEN = "flp_0123456789abcdefghij"


def request(n: int = 0) -> ScoreRequest:
    """The n-th request."""
    return ScoreRequest(b"%016d" % n, [1, 2, n], [40, 50])


def is_right(outcome: Outcome) -> bool:
    """Whether the reply is the truthful one."""
    asked = outcome.request
    truth = true_logprobs(asked.context_ids, asked.forced_ids)
    return outcome.reply is not None and outcome.reply.token_logprobs == truth


class Bench:
    """A client of a fake endpoint on a clock of its own, and everything it told."""

    def __init__(self, endpoint: FakeEndpoint, **changes: Any) -> None:
        self.endpoint = endpoint
        self.clock = FakeClock()
        self.events: list[Event] = []
        given: dict[str, Any] = {
            "base_url": endpoint.base_url,
            "dialect": dialect("friendli"),
            "model": "ep:route",
            "headers": {"Authorization": f"Bearer {TOKEN}"},
            "secrets": [Secret(TOKEN)],
            "settings": ClientSettings(),
            "budget": None,
            "gate": Capacity(4).gate(),
            "clock": self.clock,
            "sleep": self.clock.sleep,
            "jitter": lambda low, high: high,
            "on_event": self.events.append,
        }
        self.client = Client(**{**given, **changes})

    @property
    def retries(self) -> list[str]:
        return [event.retry for event in self.events if event.retry]

    async def score_all(self, n: int, workers: int = 4) -> list[Outcome]:
        """Score requests 0 to n-1, so many at once."""
        todo = iter(range(n))
        outcomes: list[Outcome] = []

        async def work() -> None:
            for each in todo:
                outcome = await self.client.score(request(each))
                outcomes.append(outcome)

        await asyncio.gather(*(work() for _ in range(workers)))
        return outcomes


@asynccontextmanager
async def bench(script: Script = lambda number, body: None, **changes: Any) -> AsyncIterator[Bench]:
    """A bench whose endpoint follows a script."""
    async with FakeEndpoint(script) as endpoint:
        made = Bench(endpoint, **changes)
        async with made.client:
            yield made


async def test_a_truthful_reply() -> None:
    """One request is one body, sent once with the headers given, and its reply is the outcome."""
    async with bench() as it:
        outcome = await it.client.score(request())
    assert is_right(outcome)
    assert (outcome.attempts, outcome.failure, it.events) == (1, None, [])
    assert it.endpoint.bodies == [
        {
            "model": "ep:route",
            "tokens": [1, 2, 0],
            "forced_output_tokens": [40, 50],
            "logprobs": 1,
            "max_tokens": 2,
        }
    ]
    headers = it.endpoint.headers[0]
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["content-type"] == "application/json"
    assert "x-friendli-team" not in headers


async def test_connections_are_kept_and_bounded() -> None:
    """Workers share as many connections as there are workers, whatever the number of requests."""
    async with bench() as it:
        outcomes = await it.score_all(100)
    assert all(map(is_right, outcomes))
    assert it.endpoint.connections <= 4
    assert it.endpoint.most_in_flight <= 4


TRANSIENT: list[tuple[Fault, str]] = [
    (Status(429), "429"),
    (Status(429, {"Retry-After": "3"}), "429"),
    (Status(408), "408"),
    (Status(500, body=b"<html>oops"), "500"),
    (Status(502), "502"),
    (Status(503, {"Retry-After": "garbage"}), "503"),
    (Status(529), "529"),
    (Reset(), "connection"),
    (Reset(after_headers=True), "cut body"),
    (Cut(), "cut body"),
    (Status(200, body=b'{"id": "cmpl'), "cut body"),
    (Status(200), "cut body"),
    (Status(200, {"Content-Encoding": "gzip"}, b"no gzip"), "cut body"),
]


@pytest.mark.parametrize(("fault", "reason"), TRANSIENT, ids=lambda each: str(each)[:40])
async def test_passing_faults_change_nothing(fault: Fault, reason: str) -> None:
    """After two attempts that went wrong the third gives the same reply as an endpoint without faults."""
    async with bench(first(2, fault)) as it:
        outcome = await it.client.score(request())
    assert is_right(outcome)
    assert outcome.attempts == 3
    assert it.retries == [reason, reason]


async def test_an_endpoint_that_hangs_is_asked_again() -> None:
    """An attempt without an answer ends by our own time-out, and the next one counts."""
    async with bench(first(1, Hang()), settings=ClientSettings(timeout=0.05)) as it:
        outcome = await it.client.score(request())
    assert is_right(outcome)
    assert set(it.retries) == {"timeout"}


async def test_compressed_replies_are_read() -> None:
    """A gzipped reply is a reply."""
    async with bench(first(1, Gzip())) as it:
        assert is_right(await it.client.score(request()))


async def test_backoff_doubles_up_to_a_cap() -> None:
    """Waits between attempts have a doubling upper end, cut at the cap, under full jitter."""
    asked: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 2

    settings = ClientSettings(backoff_cap=5)
    async with bench(first(6, Status(503)), settings=settings, jitter=jitter) as it:
        assert is_right(await it.client.score(request()))
    assert asked == [(0, 0.5), (0, 1), (0, 2), (0, 4), (0, 5), (0, 5)]
    assert it.clock.slept == [0.25, 0.5, 1, 2, 2.5, 2.5]


async def test_retry_after_is_obeyed_by_all() -> None:
    """What a 429 asks for holds its own request back, and every other of the account."""
    budget = Budget()
    async with bench(first(1, Status(429, {"Retry-After": "7"})), budget=budget) as it:
        begun = it.clock.now
        assert is_right(await it.client.score(request()))
        assert it.clock.slept == [7]
        assert budget.paused(begun + 6.9)
        assert not budget.paused(begun + 7)


async def test_the_budget_paces_every_attempt() -> None:
    """Attempts after the first take their turn in the budget too."""
    budget = Budget(rpm=60)
    async with bench(first(1, Status(500)), budget=budget, jitter=lambda low, high: 0.0) as it:
        outcomes = await it.score_all(2, workers=1)
    assert all(map(is_right, outcomes))
    assert it.clock.now == pytest.approx(1000 + 2 / 0.985)


def with_headers(headers: Mapping[str, str], status: int = 200) -> Script:
    """The first request gets these headers, on a truthful reply or with another status."""
    return lambda number, body: (
        Status(status, headers, json.dumps(completion(body)).encode()) if number == 1 else None
    )


@pytest.mark.parametrize("status", [200, 400, 429])
async def test_a_limit_that_a_reply_tells_paces_what_follows(status: int) -> None:
    """Whatever a reply is, what its headers say of the account holds for all that follows."""
    budget = Budget()
    script = with_headers({"x-ratelimit-limit-requests": "60"}, status)
    async with bench(script, budget=budget, jitter=lambda low, high: 0.0) as it:
        await it.score_all(1)
        begun = it.clock.now
        assert all(map(is_right, await it.score_all(4, workers=2)))
    assert it.clock.now - begun == pytest.approx((4 - (status != 429)) / 0.985)


async def test_nothing_left_is_waited_out_and_cuts_no_level() -> None:
    """A 429 that says when there is more is a matter of the rate: all wait for that, and no level is cut."""
    gate = Capacity(Level()).gate()
    headers = {"X-RateLimit-Remaining-Tokens": "0", "X-RateLimit-Reset-Tokens": "6m40.5s"}
    async with bench(with_headers(headers, 429), gate=gate, jitter=lambda low, high: 0.0) as it, gate:
        assert is_right(await it.client.score(request()))
    assert it.clock.slept == [0, 300]
    assert gate.level == Level().number


async def test_a_refusal_that_says_nothing_cuts_the_level() -> None:
    """A 429 without such headers is taken for too many at once."""
    gate = Capacity(Level()).gate()
    async with bench(first(1, Status(429)), gate=gate) as it, gate:
        assert is_right(await it.client.score(request()))
    assert gate.level < Level().number


async def test_without_limits_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget that allows everything costs a request nothing: no turn, no clock, no task switch."""
    monkeypatch.delattr("harness.pacing.budget.Share.wait")
    async with bench() as it:
        assert is_right(await it.client.score(request()))


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "Is FRIENDLI_TOKEN set"), (403, "FRIENDLI_TEAM"), (404, "endpoint id")]
)
async def test_a_refusal_stops_the_endpoint_at_once(status: int, hint: str) -> None:
    """401, 403 and 404 are raised after one request, in one line that says what to do."""
    body = json.dumps({"message": f"bad token {TOKEN}."}).encode()
    async with bench(first(9, Status(status, body=body))) as it:
        with pytest.raises(EndpointRefused) as caught:
            await it.client.score(request())
    said = str(caught.value)
    assert said.startswith(f"{status} from {it.endpoint.base_url}/completions: bad token ***. ")
    assert hint in said
    assert "\n" not in said
    assert len(it.endpoint.bodies) == 1


@pytest.mark.parametrize("status", [400, 422, 413, 204])
async def test_a_bad_request_fails_alone(status: int) -> None:
    """Statuses that another attempt would not change fail one request after one attempt."""
    script = first(1, Status(status, body=b'{"detail": "too long"}' if status != 204 else b""))
    async with bench(script) as it:
        failed, fine = await it.score_all(2, workers=1)
    assert failed.failure is not None
    assert (failed.failure.reason, failed.failure.status, failed.attempts) == (str(status), status, 1)
    assert failed.failure.detail == ("too long" if status != 204 else "")
    assert is_right(fine)


def drop_logprobs(reply: dict[str, Any]) -> None:
    """Leave the log-probabilities out."""
    del reply["choices"][0]["logprobs"]


def swap_ids(reply: dict[str, Any]) -> None:
    """Say other ids than the forced ones."""
    reply["choices"][0]["tokens"] = [41, 50]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (Altered(swap_ids), "[41, 50]"),
        (values(lambda found: found.pop()), "1 log-probabilities for 2"),
        (values(lambda found: found.append(-1.0)), "3 log-probabilities for 2"),
        (values(lambda found: found.__setitem__(0, float("nan"))), "NaN"),
        (values(lambda found: found.__setitem__(0, 0.25)), "above 0"),
        (values(lambda found: found.__setitem__(1, None)), "null"),
        (Altered(drop_logprobs), "no log-probabilities"),
        (Altered(lambda reply: reply["choices"].append({})), "tokens"),
        (Altered(lambda reply: reply.pop("choices")), "choices"),
    ],
)
async def test_an_unbelievable_reply_is_no_score(fault: Fault, named: str) -> None:
    """A whole reply that does not answer the request fails it, and the failure names what is wrong."""
    async with bench(first(1, fault)) as it:
        outcome = await it.client.score(request())
    assert outcome.reply is None
    assert outcome.failure is not None
    assert outcome.failure.reason == "protocol"
    assert named in outcome.failure.detail
    assert len(it.endpoint.bodies) == 1


async def test_a_huge_reply_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond the limit is a protocol error, however it would go on."""
    monkeypatch.setattr("harness.posting.LARGEST_REPLY", 2**20)
    async with bench(first(1, Status(200, body=b" " * 2**22))) as it:
        outcome = await it.client.score(request())
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.detail) == ("protocol", "the reply is larger than 1 MiB")


async def test_attempts_are_used_up() -> None:
    """A request that keeps failing on a healthy endpoint ends as a failure with the last reason, after its
    attempts and the one that shows that no outage had used them up."""
    script: Script = lambda number, body: Status(503, body=b"later") if body["tokens"][2] == 1 else None  # noqa: E731
    async with bench(script, settings=ClientSettings(attempts=3)) as it:
        fine, failed, also_fine = await it.score_all(3, workers=1)
    assert is_right(fine)
    assert is_right(also_fine)
    assert failed.failure is not None
    assert (failed.failure.reason, failed.failure.detail, failed.failure.status) == ("503", "later", 503)
    assert failed.attempts == 3 + 1
    assert it.retries == ["503", "503"]


async def test_a_request_has_a_deadline() -> None:
    """Waits between attempts do not go beyond what one request may take in all."""
    settings = ClientSettings(attempts=100, deadline=60)
    async with bench(first(100, Status(500, {"Retry-After": "25"})), settings=settings) as it:
        outcome = await it.client.score(request())
    assert outcome.failure is not None
    assert (outcome.attempts, it.clock.slept) == (3, [25, 25])


async def test_being_told_to_wait_uses_up_no_attempt() -> None:
    """A request answered "too busy" for long, among others that are answered, gets through in the end."""
    turns = iter(range(20))
    script: Script = lambda number, body: (  # noqa: E731
        Status(429) if body["tokens"][2] == 1 and next(turns, None) is not None else None
    )
    async with bench(script, settings=ClientSettings(attempts=3)) as it:
        outcomes = await it.score_all(30)
    assert all(map(is_right, outcomes))
    assert max(outcome.attempts for outcome in outcomes) == 21


async def test_being_told_to_wait_forever_ends_with_the_deadline() -> None:
    """What is always "too busy", while others are answered, fails as that once its time is over."""
    script: Script = lambda number, body: (  # noqa: E731
        Status(429, {"Retry-After": "25"}) if body["tokens"][2] == 1 else None
    )
    async with bench(script, settings=ClientSettings(attempts=3, deadline=200)) as it:
        await it.client.score(request(0))
        late = await it.client.score(request(1))
    assert late.failure is not None
    assert (late.failure.reason, late.attempts) == ("429", 9)


async def test_an_endpoint_that_is_not_there() -> None:
    """A port nobody listens on is sat out as an outage from the first request on, and said in words."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        async with bench(base_url=url, settings=ClientSettings(attempts=2)) as it:
            with pytest.raises(EndpointRefused, match=r"\(--patience\): connection: Connect call failed"):
                await it.client.score(request())


# ------------------------------------------------------------------------------------------------- outage


def down(begin: int, end: int, fault: Fault = Status(503)) -> Script:  # noqa: B008
    """Down from one request to another, by number."""
    return lambda number, body: fault if begin <= number < end else None


@pytest.mark.parametrize("workers", [1, 4])
async def test_an_outage_is_sat_out(workers: int) -> None:
    """An endpoint that fails for longer than all attempts last loses no request, with many workers or one."""
    async with bench(down(10, 35), settings=ClientSettings(attempts=3)) as it:
        outcomes = await it.score_all(30, workers)
    assert all(map(is_right, outcomes))
    assert len(outcomes) == 30
    assert any("waiting, next try in" in event.message for event in it.events)
    assert it.events[-1].message == ""


async def test_an_outage_at_the_very_beginning_is_sat_out() -> None:
    """One worker whose first request meets an endpoint that is down loses nothing either."""
    async with bench(down(1, 30, Reset()), settings=ClientSettings(attempts=3)) as it:
        outcomes = await it.score_all(5, workers=1)
    assert all(map(is_right, outcomes))
    assert it.events[-1].message == ""


@pytest.mark.parametrize("begin", [1, 10])
async def test_an_outage_that_ends_with_the_attempts(begin: int) -> None:
    """Where it is over before anybody has probed, a request that used up its attempts in it gets one more."""
    async with bench(down(begin, begin + 3, Reset()), settings=ClientSettings(attempts=3)) as it:
        outcomes = await it.score_all(20, workers=1)
    assert all(map(is_right, outcomes))
    assert max(outcome.attempts for outcome in outcomes) == 4


async def test_an_endpoint_that_stays_down_is_given_up() -> None:
    """After the patience without a success the endpoint is refused, with the last failure."""
    settings = ClientSettings(patience=600)
    async with bench(down(5, 10**9, Status(503, body=b"asleep")), settings=settings) as it:
        with pytest.raises(EndpointRefused, match=r"no success for 10 min \(--patience\): 503: asleep"):
            await it.score_all(30)


async def test_a_false_alarm_fails_the_requests_that_are_to_blame() -> None:
    """Where requests that succeeded before still do, the failing ones end with their own attempts."""
    script: Script = lambda number, body: Status(500) if body["tokens"][2] >= 20 else None  # noqa: E731
    async with bench(script) as it:
        outcomes = await it.score_all(32)
    assert sum(map(is_right, outcomes)) == 20
    assert {outcome.attempts for outcome in outcomes if outcome.reply is None} == {8}
    assert not any(event.message for event in it.events)


async def test_fresh_attempts_are_bounded() -> None:
    """A request that outlives outages only to fail again ends at some time."""
    alive = iter([True, *[False, True] * 50])

    def script(number: int, body: dict[str, Any]) -> Fault | None:
        if body["tokens"][2] == 0:  # the request that probes: down and up in turn
            return None if next(alive) else Status(503)
        return Status(503)

    async with bench(script, settings=ClientSettings(attempts=2)) as it:
        fine, failed = await it.score_all(2, workers=1)
    assert is_right(fine)
    assert failed.failure is not None
    assert failed.attempts == 2 * (1 + 3)


async def test_a_refusal_during_an_outage_is_raised() -> None:
    """An endpoint that comes back refusing stops at once."""
    script: Script = lambda number, body: Status(503) if number < 40 else Status(401)  # noqa: E731
    async with bench(script) as it:
        with pytest.raises(EndpointRefused, match="401"):
            await it.score_all(30)


# ----------------------------------------------------------------------------------------- stopping, secrets


async def test_cancellation_passes_through() -> None:
    """A cancelled request ends at once and leaves nothing open."""
    all_there = asyncio.Event()

    def script(number: int, body: dict[str, Any]) -> Fault:
        if number == 3:
            all_there.set()
        return Hang()

    async with bench(script) as it:
        scoring = [asyncio.create_task(it.client.score(request(n))) for n in range(3)]
        await all_there.wait()
        for each in scoring:
            each.cancel()
        ended = await asyncio.gather(*scoring, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended)


@pytest.mark.parametrize("script", [first(99, Status(503)), first(99, Status(429, {"Retry-After": "9"}))])
async def test_what_sleep_raises_passes_through(script: Script) -> None:
    """A run that is being stopped ends every wait by an exception of its own, which arrives as it is."""

    class StoppedForTest(Exception):
        pass

    async def sleep(seconds: float) -> None:
        raise StoppedForTest

    async with bench(script, sleep=sleep) as it:
        with pytest.raises(StoppedForTest):
            await it.client.score(request())


async def test_a_redirect_is_not_followed() -> None:
    """No other host sees the request, and least of all the token."""
    async with FakeEndpoint() as other:
        target = Status(307, {"Location": f"{other.base_url}/completions?{TOKEN}"})
        async with bench(first(1, target)) as it:
            outcome = await it.client.score(request())
        assert other.bodies == []
    assert outcome.failure is not None
    assert outcome.failure.reason == "307"
    assert outcome.failure.detail.startswith(f"a redirect to {other.base_url}/completions?***")


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422, 429, 500])
async def test_a_token_that_is_echoed_stays_secret(status: int) -> None:
    """A server that repeats our token does not get it into outcomes, errors, events or any repr."""
    settings = ClientSettings(attempts=2)
    shown: list[object] = []
    async with bench(first(99, EchoToken(status)), settings=settings) as it:
        try:
            shown.append(await it.client.score(request()))
        except EndpointRefused as error:
            shown += [error, *error.args, error.__cause__, error.__context__]
        shown += [it.client, vars(it.client), it.client._transport, vars(it.client._transport), it.events]
    for each in shown:
        assert "0123456789" not in f"{each!r} {each!s}"


async def test_the_team_is_sent_where_given() -> None:
    """Headers given are sent with every request."""
    async with bench(headers={"X-Friendli-Team": "team"}) as it:
        await it.score_all(2)
    assert [headers["x-friendli-team"] for headers in it.endpoint.headers] == ["team", "team"]


async def test_parallel_clients_share_a_budget() -> None:
    """The endpoints of one account do not exceed together what one of them may."""
    clock = FakeClock()
    budget = Budget(rpm=600)
    shared: dict[str, Callable[..., Any]] = {"clock": clock, "sleep": clock.sleep}
    async with bench(budget=budget, **shared) as one, bench(budget=budget, **shared) as two:
        for n in range(20):
            assert is_right(await (one, two)[n % 2].client.score(request(n)))
    assert clock.now - 1000 >= (20 - 5) / (0.985 * 10) - 1e-6


# ------------------------------------------------------------------------------------------- what is told


def told(it: Bench, name: str) -> list[dict[str, Any]]:
    """The fields of all events of a name."""
    return [dict(event.fields) for event in it.events if event.name == name]


async def test_a_retry_is_told_with_its_wait() -> None:
    """Each retry names its request as the journal does, the attempts so far, and the wait that follows."""
    async with bench(first(2, Status(503, {"Retry-After": "2"}))) as it:
        outcome = await it.client.score(request())
    key = outcome.request.key.hex()
    same = {"key": key, "reason": "503", "status": 503, "wait": 2.0}
    assert told(it, "retry") == [{**same, "attempt": 1}, {**same, "attempt": 2}]


async def test_a_failure_is_told_once() -> None:
    """A request that failed for good is told of with what the endpoint said of it, whether it was tried again
    or not."""
    refused = Status(422, body=b'{"message": "no such token"}')
    async with bench(lambda number, body: refused) as it:
        outcome = await it.client.score(request())
    assert told(it, "failed") == [
        {
            "key": outcome.request.key.hex(),
            "reason": "422",
            "status": 422,
            "attempt": 1,
            "detail": "no such token",
        }
    ]
    assert told(it, "retry") == []


def test_pauses_and_limits_are_told_once() -> None:
    """Of many refusals at once the pause is told once, and limits that every reply repeats too."""
    endpoint, events = Refusing(1, seconds=0.01), list[Event]()
    endpoint.headers = {"Retry-After": "5", "X-RateLimit-Limit-Requests": "60"}

    async def work() -> None:
        client = client_of(endpoint, Capacity(4).gate())
        client._on_event = events.append
        await asyncio.gather(*(client.score(request(each)) for each in range(4)))

    in_virtual_time(work())
    assert len(endpoint.refused) == 3
    paused = [event.fields for event in events if event.name == "paused"]
    limits = [event.fields for event in events if event.name == "limits"]
    assert paused == [{"seconds": 5.0, "reason": "Retry-After"}]
    assert limits == [{"requests_a_minute": 60.0, "tokens_a_minute": None, "reason": "X-RateLimit-Limit"}]


async def test_an_outage_is_told_from_begin_to_end() -> None:
    """It begins with the first probe that fails, and ends with one that does not, after so many seconds."""
    async with bench(first(26, Status(503))) as it:
        await it.score_all(4)
    names = [event.name for event in it.events if event.name.startswith("outage")]
    assert names == ["outage_begun", *["outage_probe"] * (len(names) - 2), "outage_ended"]
    assert len(names) > 2
    assert all("failures in a row (503" in each["said"] for each in told(it, "outage_probe"))
    assert told(it, "outage_ended")[0]["seconds"] > 1
    assert it.events[-1].message == ""


async def test_who_waits_is_counted() -> None:
    """Requests that rest before another try, or wait for the budget, are not on their way."""
    seen = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)
        seen.append(it.client.waiting)

    async with bench(first(4, Status(500)), sleep=sleep) as it:
        assert it.client.waiting == 0
        await it.score_all(4)
        assert it.client.waiting == 0
    assert max(seen) >= 2
