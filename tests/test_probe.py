"""The brief probe before a run: what it fails an endpoint on, what it only says, what it never delays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from harness import reference
from harness.doctor import brief
from harness.doctor.findings import not_checked, told
from harness.manifest import Exit
from harness.runner import RunResult
from harness.serving.faults.plan import read_faults
from harness.serving.server import Options, listening
from tests.fake_endpoint import Altered, Body, FakeEndpoint, Fault, Hang, Script, Status, first, values
from tests.ledger import note
from tests.running import Bench, bench
from tests.test_doctor import served

__all__ = ["bench"]

SOUND = 3
"""Requests by which an endpoint shows that it can be scored on."""
ALL = SOUND + 3
"""And those beside them: a text at the tokenize route, a text and its ids as a prompt."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is looked at beside the items: these tests count requests."""
    monkeypatch.setattr("harness.watching.session.moments_of", lambda *_: ())


async def probed(bench: Bench, endpoint: FakeEndpoint, **changes: Any) -> RunResult:
    """A run with its probe."""
    return await bench.run(f"it={endpoint.base_url}", probe=True, **changes)


def of(result: RunResult) -> str:
    """What a reader is told of the probe."""
    return "\n".join(each for each in result.remarks if "before the run" in each or "stopped, " in each)


def always(fault: Fault) -> Script:
    """Everything goes wrong so."""
    return lambda number, body: fault


def changed(change: Callable[[Body], object]) -> Script:
    """Every reply is changed in place."""
    return always(Altered(change))


def _flat(reply: Body) -> None:
    found = reply["choices"][0]["logprobs"]
    found["token_logprobs"] = [-2.0] * len(found["token_logprobs"])


def _unchained(reply: Body) -> None:
    found = reply["choices"][0]["logprobs"]["token_logprobs"]
    found[1:] = [value - 3 for value in found[1:]]


# ------------------------------------------------------------------------------------------ what it fails on


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (changed(lambda reply: reply["choices"][0].update(tokens=[1])), "forced ids"),
        (always(values(lambda found: found.pop())), "count"),
        (always(values(lambda found: found.__setitem__(0, 0.5))), "above 0"),
        (always(values(lambda found: found.__setitem__(0, None))), "log-probabilities"),
        (changed(_flat), "all values are equal"),
        (changed(_unchained), "chain rule"),
    ],
    ids=["ids", "count", "positive", "null", "equal", "chain"],
)
async def test_what_makes_every_score_wrong_ends_the_endpoint(
    bench: Bench, script: Script, said: str
) -> None:
    """Exit 4 before any item is sent; the reason is told, and the other endpoint goes on."""
    async with FakeEndpoint(script) as bad, FakeEndpoint() as good:
        result = await bench.run(f"bad={bad.base_url}", f"good={good.base_url}", probe=True)
        asked = len(bad.bodies)
    assert result.exit is Exit.REFUSED
    refused, fine = (part.refused for part in result.parts)
    assert refused.startswith("it failed its probe: ")
    assert said in refused
    assert "--no-probe" in refused
    assert fine == ""
    assert asked <= SOUND * brief.ROUNDS + 2
    counts = bench.manifest()["counts"]
    assert counts["bad"]["journal"]["replies"] == 0
    assert counts["good"]["items_done"] == 24
    assert counts["bad"]["probe"][0]["verdict"] == "wrong"


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_ends_it_at_once(bench: Bench, status: int) -> None:
    """Credentials that are not accepted are found by the probe, and the words are those of any refusal."""
    async with FakeEndpoint(always(Status(status))) as endpoint:
        result = await probed(bench, endpoint)
        assert len(endpoint.bodies) <= ALL
    assert result.exit is Exit.REFUSED
    assert result.parts[0].refused.startswith(f"{status} from ")


async def test_without_it_nothing_is_asked(bench: Bench) -> None:
    """`--no-probe` sends the items alone, and so nobody notices that tokens do not chain."""
    async with FakeEndpoint(changed(_unchained)) as endpoint:
        result = await bench.run(endpoint.base_url, probe=False)
        assert (
            len(endpoint.bodies)
            == bench.manifest()["counts"][result.parts[0].endpoint.label]["requests_sent"]
        )
        assert endpoint.tokenized == []
    assert result.exit is Exit.DONE


# --------------------------------------------------------------------------------------- what it only says


async def test_a_healthy_endpoint_is_asked_a_handful(bench: Bench) -> None:
    """Six requests more than without, no remark, and the same table."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", out="without")
        without = len(endpoint.bodies)
    async with FakeEndpoint() as endpoint:
        result = await probed(bench, endpoint)
        assert len(endpoint.bodies) + len(endpoint.tokenized) == without + ALL
    assert result.exit is Exit.DONE
    assert of(result) == ""
    assert bench.scores() == bench.scores("without")
    assert {each["verdict"] for each in bench.manifest()["counts"]["it"]["probe"]} == {"ok"}


async def test_missing_routes_are_said(bench: Bench) -> None:
    """No tokenize route and no text as a prompt: one line, and the run goes on."""
    nothing_there: Script = always(Status(404))
    no_text: Script = lambda number, body: Status(422) if "prompt" in body else None  # noqa: E731
    async with FakeEndpoint(no_text, tokenizing=nothing_there) as endpoint:
        result = await probed(bench, endpoint)
    assert result.exit is Exit.DONE
    (line,) = of(result).splitlines()
    assert line.startswith("it: not checked before the run: tokenizer (")
    assert "; prompt and tokens (" in line


async def test_another_tokenizer_is_said_loudly(bench: Bench) -> None:
    """A tokenizer that is not the endpoint's own fails nothing here, and is the first thing people read."""
    odd: Script = always(Altered(lambda reply: reply["tokens"].reverse()))
    async with FakeEndpoint(tokenizing=odd) as endpoint:
        result = await probed(bench, endpoint)
    assert result.exit is Exit.DONE
    assert "it: probed before the run: tokenizer: 0 of 1 texts have the same ids" in of(result)


# ------------------------------------------------------------------------------------------------- chance


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "faults",
    [
        "other_ids=0.1,count=0.1,null=0.1,positive=0.1",
        "flat=0.1,zero=0.1",
        "429=0.3,retry_after=0,503=0.3,reset=0.2",
        "cut=0.2,not_json=0.2,reset_midway=0.2",
    ],
)
async def test_chance_ends_no_run(bench: Bench, faults: str, seed: int) -> None:
    """What goes wrong now and then does not end an endpoint, whichever requests it strikes."""
    app = served().app(Options(faults=read_faults([faults, f"seed={seed}"])))
    async with listening(app) as url:
        result = await bench.run(
            f"it={url}",
            tokenizer=(str(reference.FOLDER),),
            tasks="sample_hellaswag",
            data_dir=None,
            limit=1,
            probe=True,
            attempts=30,
        )
    lost = bool(result.parts[0].refused)
    note("runs probed while faults strike by chance", tried=1, lost=lost, unit="runs")
    assert not lost, result.parts[0].refused
    assert result.parts[0].probed


async def test_an_endpoint_that_is_down_is_the_runs_matter(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 500 at first: not probed, with the reason; the run then sits it out as it would have."""
    async with FakeEndpoint(first(20, Status(500))) as endpoint:
        result = await probed(bench, endpoint, attempts=3)
    assert result.exit is Exit.DONE
    assert "not checked before the run: probe, prompt and tokens (500)" in of(result)
    monkeypatch.setattr(brief, "HOLD", 0.01)
    async with FakeEndpoint(first(30, Status(503))) as endpoint:
        result = await probed(bench, endpoint, attempts=3, out="away")
    assert result.parts[0].refused == ""


async def test_a_dead_endpoint_is_waited_for_once(bench: Bench) -> None:
    """Where the probe has waited as long as `--patience` says, the run does not begin to wait again; why is
    said once."""
    async with FakeEndpoint(always(Status(503))) as endpoint:
        result = await probed(bench, endpoint, patience=0.2)
        kinds = {str(sorted(body.items())) for body in endpoint.bodies}
    assert result.exit is Exit.REFUSED
    assert len(kinds) <= ALL - 1, "no item was sent"
    assert of(result).count("(--patience): 503") == 1
    assert of(result).startswith("it: stopped, no success for ")


def test_what_several_were_not_checked_for_is_said_once() -> None:
    """An endpoint that stays down is one reason, whatever was to be asked of it."""
    down = [not_checked(name, "no success for 1 min: 503.") for name in ("probe", "tokenizer")]
    (line,) = told("it", [*down, not_checked("awake", "401 from its route")])
    assert line.endswith(": probe, tokenizer (no success for 1 min: 503); awake (401 from its route)")


async def test_where_there_is_nothing_to_check_nothing_is_said_of_it(bench: Bench) -> None:
    """Of an OpenAI-style endpoint one line: it has no route that its tokenizer could be seen by."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(f"it=openai+{endpoint.base_url}#m", probe=True)
    (line,) = of(result).splitlines()
    assert line.count("(") == line.count("not checked") == 1
    assert "tokenizer (openai endpoints have no tokenize route" in line


async def test_a_probe_that_hangs_does_not_hold_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run begins after a moment, ends as it would, and the probe is let go."""
    monkeypatch.setattr(brief, "HOLD", 0.5)  # seconds: its requests are there before the first item's
    async with FakeEndpoint(first(SOUND + 1, Hang())) as endpoint:
        result = await probed(bench, endpoint)
    assert result.exit is Exit.DONE
    assert "probe (it was not answered while the run went on)" in of(result)


async def test_a_late_verdict_still_counts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that fails its probe while it is being scored is given up then."""
    monkeypatch.setattr(brief, "HOLD", 0.0)
    async with FakeEndpoint(changed(_unchained)) as endpoint:
        result = await probed(bench, endpoint, concurrency=1)
    assert result.exit is Exit.REFUSED
    assert "chain rule" in result.parts[0].refused


# ------------------------------------------------------------------------------------- caps, pace, and again


async def test_caps_count_it(bench: Bench) -> None:
    """Its requests count; where caps leave too little for it, it is left out, and that is said."""
    async with FakeEndpoint() as endpoint:
        result = await probed(bench, endpoint, max_requests=65, out="roomy")
        assert len(endpoint.bodies) + len(endpoint.tokenized) == 65
        assert "probe" not in of(result)
    async with FakeEndpoint() as endpoint:
        result = await probed(bench, endpoint, max_requests=ALL * brief.RESERVE - 1, out="tight")
        assert len(endpoint.bodies) == ALL * brief.RESERVE - 1
        assert endpoint.tokenized == []
    assert f"not checked before the run: probe (its {ALL} requests are too many for the caps)" in of(result)


async def test_many_endpoints_do_not_spend_a_cap_on_probes(bench: Bench) -> None:
    """What the caps leave room for is the probe of one endpoint: it is not made of all that ask at once."""
    async with FakeEndpoint() as endpoint:
        adapters = [f"{name}={endpoint.base_url}#m:{name}" for name in "abcdefgh"]
        result = await bench.run(*adapters, probe=True, max_requests=2 * ALL * brief.RESERVE - 1)
        probes = (
            len(endpoint.bodies)
            + len(endpoint.tokenized)
            - sum(each.progress.requests_done for each in result.parts)
        )
    assert probes == ALL
    assert of(result).count(f"probe (its {ALL} requests are too many for the caps)") == 7


async def test_a_finished_run_is_not_probed_again(bench: Bench) -> None:
    """Where there is nothing to send, nothing is sent."""
    async with FakeEndpoint() as endpoint:
        await probed(bench, endpoint)
        sent = len(endpoint.headers)
        result = await probed(bench, endpoint)
        assert len(endpoint.headers) == sent
    assert result.exit is Exit.DONE


async def test_it_keeps_to_the_pace(bench: Bench) -> None:
    """The account's budget holds for the probe too: at 600 a minute its requests do not come at once."""
    times: list[float] = []

    def note(number: int, body: Body) -> Fault | None:
        times.append(asyncio.get_running_loop().time())
        return None

    async with FakeEndpoint(note) as endpoint:
        await probed(bench, endpoint, rpm=1200.0, tasks="hellaswag", limit=1)
    assert len(times) == ALL - 1 + 4
    assert times[-1] - times[0] >= (len(times) - 1) / 20 - 0.55  # half a second's worth may go at once


# ------------------------------------------------------------------------------------------------- waking


async def test_a_sleeping_endpoint_is_woken_and_waited_for(bench: Bench, capsys: Any) -> None:
    """It sleeps when the run begins; it is woken first, and no request is answered with 503."""
    app = served().app(Options(asleep=True, startup=0.01))
    async with listening(app) as url:
        result = await bench.run(
            f"it={url.removesuffix('/v1')}/dedicated/v1#ep",
            tokenizer=(str(reference.FOLDER),),
            tasks="sample_hellaswag",
            data_dir=None,
            limit=2,
            probe=False,
        )
    assert result.exit is Exit.DONE
    assert not result.parts[0].progress.retries


async def test_a_management_route_that_refuses_says_nothing(bench: Bench) -> None:
    """Without rights for the management API the run goes on, and says that it was not checked."""
    async with FakeEndpoint() as endpoint:
        url = endpoint.base_url.removesuffix("/v1")
        result = await bench.run(f"it={url}/dedicated/v1#ep", probe=True)
    assert "not checked before the run: awake (404 from its management route" in of(result)


async def test_what_was_amiss_is_told_as_long_as_its_replies_count(bench: Bench) -> None:
    """A run that was probed on an endpoint with a fault says so in every later session, though the endpoint
    has none any more or is not asked at all; what is still amiss is told once, and of that endpoint alone."""
    more = 1

    def miscounted(reply: Body) -> None:
        reply["usage"]["prompt_tokens"] += more

    async with FakeEndpoint(changed(miscounted)) as endpoint, FakeEndpoint() as other:

        async def session(limit: int, **changes: Any) -> list[str]:
            result = await bench.run(f"it={endpoint.base_url}", **{"probe": True, "limit": limit, **changes})
            return [each.split(": ")[1] for each in result.remarks if "probed before" in each]

        assert await session(1) == ["probed before the run"]
        assert await session(2) == ["probed before the run"]
        more = 0
        assert await session(3) == ["probed before an earlier session"]
        assert await session(3, probe=False) == ["probed before an earlier session"]
        result = await bench.run(f"it={other.base_url}", probe=True, limit=3)
        assert not [each for each in result.remarks if "probed before" in each]
        assert await session(3) == ["probed before an earlier session"]
    (found,) = bench.manifest()["probes_amiss"]
    assert found["probe"] == "prompt and tokens"
    assert found["identity"] == bench.manifest()["endpoints"][0]["identity"]
