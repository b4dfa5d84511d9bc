"""`doctor`: every probe fails on the fault that it is for, and passes without it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness import reference
from harness.cli import main
from harness.doctor.examining import examine
from harness.doctor.findings import Finding, any_wrong, fit, told
from harness.doctor.judging import (
    Chain,
    Pace,
    chain_holds,
    judged_chain,
    judged_flat,
    judged_pace,
    judged_same,
)
from harness.doctor.judging_wire import (
    Counts,
    Tokenized,
    judged_prompt,
    judged_sampling,
    judged_tokenizer,
    judged_top,
)
from harness.doctor.reporting import STYLES
from harness.doctor.settings import DoctorSettings
from harness.doctor.table import PROBES
from harness.doctor.varied import with_fields
from harness.doctor.waking import awake, management_url, stated_length
from harness.errors import EndpointRefused, UsageError
from harness.patience import ClientSettings
from harness.prepare import prepare
from harness.serving.faults.plan import read_faults
from harness.serving.lifecycle import Lifecycle
from harness.serving.server import Options, Served, listening, load
from harness.transport import Called
from tests.fake_endpoint import FakeClock, FakeEndpoint
from tests.ledger import note

# ------------------------------------------------------------------------------- an endpoint, and its doctor


@cache
def served() -> Served[Any]:
    """The reference model, loaded once."""
    return load(reference.FOLDER, reference.ADAPTERS)


@dataclass(frozen=True)
class Case:
    """An endpoint that has something, or nothing, and how it is examined."""

    faults: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    path: str = "/v1#"
    settings: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = "wrong"
    says: str = ""


ON_DEDICATED = "/dedicated/v1#ep"

FAULTS: Mapping[str, Sequence[Case]] = {
    "awake": [
        Case(options={"asleep": True, "startup": 3600.0}, path=ON_DEDICATED, settings={"wake": 0.0}),
    ],
    "reachable": [Case("reset"), Case("503"), Case("hang", settings={"timeout": 0.05, "attempts": 1})],
    "credentials": [
        Case("401"),
        Case("403"),
        Case(options={"token": "flp_secret"}, says="401"),
        Case(options={"team": "ours"}, says="403"),
        Case(path="/v1#ep:no_such_adapter", says="404"),
    ],
    "forced ids": [Case("other_ids"), Case("other_ids=0.3,seed=3", verdict="warning")],
    "count": [Case("count")],
    "log-probabilities": [Case("null"), Case("nan"), Case("positive"), Case("zero")],
    "not all equal": [Case("flat")],
    "chain rule": [Case("chain=2")],
    "prompt and tokens": [Case("bos=7", says="ids were sent"), Case("tokenizer", verdict="warning")],
    "tokenizer": [Case("tokenizer")],
    "sampling fields": [Case("moved_by_sampling", verdict="note")],
    "logprobs": [Case("top=3", verdict="warning", says="3"), Case("top=11", verdict="note", says="11")],
    "context limit": [
        Case("context=600", settings={"max_length": 900}, verdict="warning", says="600 tokens fit"),
        Case("context=600", path=ON_DEDICATED, verdict="warning", says="600 tokens fit; more is refused"),
        Case("shortened=300", says="it counted 300"),
    ],
    "same again": [Case("order=0.8", verdict="warning"), Case("order=5")],
    "shuffled": [Case("order=0.8", verdict="warning"), Case("order=5")],
    "in company": [Case("crowded=0.4", verdict="warning"), Case("crowded=3")],
    "pace": [Case("capacity=2", verdict="warning", says="sent again")],
}
"""By probe: what it must not pass."""

UNASKED: Mapping[str, Case] = {
    "awake": Case(),
    "prompt and tokens": Case("no_prompt"),
    "tokenizer": Case("no_tokenize"),
}
"""By probe: what it cannot be asked of, which fails nothing."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait milliseconds where real ones wait seconds."""
    settings = partial(ClientSettings, backoff_base=0.001, backoff_cap=0.002, probe_wait=0.001)
    monkeypatch.setattr("harness.clients.ClientSettings", settings)


@asynccontextmanager
async def spec_of(case: Case) -> AsyncIterator[str]:
    """An endpoint as a case has it, on loopback; its SPEC."""
    options = Options(faults=read_faults([case.faults]), **case.options)
    async with listening(served().app(options)) as url:
        yield f"x={url.removesuffix('/v1')}{case.path}"


async def found_by(probe: str, case: Case) -> Finding:
    """What one probe finds of such an endpoint."""
    async with spec_of(case) as spec:
        found = await doctored(spec, probes=[probe], **case.settings)
    return found[0]


async def doctored(
    spec: str, probes: Sequence[str] = (), environ: Mapping[str, str] | None = None, **changes: Any
) -> list[Finding]:
    """What some probes find of an endpoint; all, if none is named."""
    given = {"tokenizer": (str(reference.FOLDER),), "concurrency": 6, "patience": 0.0, **changes}
    settings = DoctorSettings(**given)
    prepared = prepare(settings.as_run([spec]), environ or {})
    asked = [each for each in PROBES if not probes or each.name in probes]
    found = await examine(prepared, settings, Console(file=io.StringIO()), lambda *_: None, asked)
    return found[prepared.endpoints[0].label]


# --------------------------------------------------------------------------------------------- the probes


@pytest.mark.parametrize("name", [each.name for each in PROBES])
async def test_every_probe_fails_on_its_fault(name: str) -> None:
    """No probe is in the table that has not been seen to fail on the fault that it is for."""
    found = [(case, await found_by(name, case)) for case in FAULTS[name]]
    missed = [(case, each) for case, each in found if each.verdict != case.verdict or not each.consequence]
    note("faults that a probe is for", tried=len(found), lost=len(missed), unit="faults")
    assert found
    assert not missed
    assert all(case.says in each.measured for case, each in found)


@pytest.mark.parametrize("name", [each.name for each in PROBES])
async def test_every_probe_passes_without(name: str) -> None:
    """On an endpoint that has nothing the same probe, asked in the same way, finds nothing."""
    for path in dict.fromkeys(case.path for case in FAULTS[name] if "adapter" not in case.path):
        finding = await found_by(name, Case(path=path))
        expected = "not checked" if name == "awake" and path != ON_DEDICATED else "ok"
        assert finding.verdict == expected, finding


@pytest.mark.parametrize("name", UNASKED)
async def test_what_cannot_be_asked_fails_nothing(name: str) -> None:
    """A route or a form of input that is not there is not checked, in one line that says why."""
    finding = await found_by(name, UNASKED[name])
    assert finding.verdict == "not checked"
    assert finding.measured


async def test_a_healthy_endpoint_passes_whole() -> None:
    """All probes one after another find nothing, on base and adapter."""
    for path in (ON_DEDICATED, f"{ON_DEDICATED}:science"):
        async with spec_of(Case(path=path)) as spec:
            found = await doctored(spec)
        assert {each.name: each.verdict for each in found} == {each.name: "ok" for each in PROBES}
        limit = next(each.measured for each in found if each.name == "context limit")
        assert limit.startswith("1,024 tokens fit; more is refused"), "what it states is tried, and one more"


async def test_who_refuses_is_asked_no_more() -> None:
    """Once an endpoint refuses, all other probes are not checked, and it hears no more of us."""
    async with FakeEndpoint(token="flp_other") as endpoint:
        found = await doctored(f"x={endpoint.base_url}#m")
        assert len(endpoint.headers) == 1
    verdicts = {each.name: each.verdict for each in found}
    assert verdicts.pop("credentials") == "wrong"
    assert verdicts.pop("reachable") == "ok"
    assert set(verdicts.values()) == {"not checked"}


async def test_who_is_not_awake_is_asked_no_more() -> None:
    """An endpoint that did not wake up in time may do so right after: what it says then would contradict."""
    async with spec_of(Case(options={"asleep": True, "startup": 0.05}, path=ON_DEDICATED)) as spec:
        found = await doctored(spec, wake=0.0, patience=5.0)
    assert [each.verdict for each in found] == ["wrong", *["not checked"] * (len(PROBES) - 1)]
    assert {each.measured for each in found[1:]} == {"see awake"}


@pytest.mark.parametrize("faults", ["not_json", "cut", "reset_midway"])
async def test_who_was_never_heard_is_not_fit(faults: str) -> None:
    """An endpoint of which no answer could be read is not called fit, though no probe found it wrong."""
    async with spec_of(Case(faults)) as spec:
        found = await doctored(spec, attempts=2)
    assert not fit(found), found
    assert not fit([])
    assert fit([Finding("log-probabilities", "ok", "7 replies have finite values")])


async def test_who_refuses_in_the_middle_is_not_fit() -> None:
    """What was well so far does not make an endpoint fit that refuses or goes down while it is examined."""
    for faults in ("403=0.15,seed=1", "blackout=3600@0.05"):
        async with spec_of(Case(faults)) as spec:
            found = await doctored(spec)
        assert found[1].verdict == "ok", "it answered at first"
        assert [each.verdict for each in found].count("wrong") == 1, found


@pytest.mark.parametrize("faults", ["other_ids", "nan"])
async def test_what_is_never_believed_has_no_limits(faults: str) -> None:
    """Replies that are not believed are no refusals: nothing is advised from them."""
    async with spec_of(Case(faults)) as spec:
        found = await doctored(spec, probes=["logprobs", "context limit"])
    assert {each.verdict for each in found} == {"not checked"}


async def test_chance_sets_no_limits() -> None:
    """A reply that fails now and then is asked for again before anything is said to be the largest."""
    async with spec_of(Case("nan=0.15,seed=4")) as spec:
        found = await doctored(spec, probes=["logprobs", "context limit"], attempts=1)
    assert {each.verdict for each in found} == {"ok"}
    assert "1,024 tokens fit" in found[1].measured


async def test_company_and_noise_are_called_by_their_names() -> None:
    """What company does is not laid on the chain rule, nor what noise does on sampling fields."""
    async with spec_of(Case("crowded=3")) as spec:
        found = await doctored(spec, probes=["chain rule", "in company"])
    assert [each.verdict for each in found] == ["ok", "wrong"]
    async with spec_of(Case("order=5")) as spec:
        found = await doctored(spec, probes=["sampling fields"])
    assert found[0].verdict == "not checked"


async def test_a_fault_now_and_then_is_a_warning_at_most() -> None:
    """What spoils a tenth of the replies does not make an endpoint unfit."""
    for faults in ("zero=0.1,seed=2", "other_ids=0.1", "429=0.1,retry_after=0,reset=0.1,503=0.1,cut=0.1"):
        async with spec_of(Case(faults)) as spec:
            found = await doctored(spec, probes=[each.name for each in PROBES[:8]], attempts=8)
        assert not any_wrong(found), (faults, found)


@pytest.mark.parametrize("kind", ["openai", "openai-text"])
async def test_openai_style_endpoints(kind: str) -> None:
    """What can be asked of them is asked; the rest is not checked, and says why."""
    async with FakeEndpoint() as endpoint:
        found = await doctored(f"x={kind}+{endpoint.base_url}#m", tokenizer=(str(_characters()),))
    by_name = {each.name: each for each in found}
    assert not any_wrong(found), found
    assert by_name["credentials"].verdict == "ok"
    assert by_name["log-probabilities"].verdict == "ok"
    assert by_name["tokenizer"].verdict == "not checked"
    assert "no tokenize route" in by_name["tokenizer"].measured
    assert by_name["chain rule"].verdict == ("ok" if kind == "openai" else "not checked")


@cache
def _characters() -> str:
    """A tokenizer file of the fake endpoint's own characters."""
    from pathlib import Path
    from tempfile import mkdtemp

    from tests.running import write_tokenizer

    return str(write_tokenizer(Path(mkdtemp())))


# ---------------------------------------------------------------------------------------------- judgments


@given(values=st.lists(st.floats(-30, -0.01), min_size=2, max_size=6), spoilt=st.integers(0, 5))
def test_a_chain_holds_if_it_once_did(values: list[float], spoilt: int) -> None:
    """However many spoilt answers come before a true one, a chain that holds once holds."""
    bad = [[-50.0 - n] * len(values) for n in range(spoilt)]
    chain = Chain(
        [*bad, values], [*(each[:1] for each in bad), values[:1]], [*(e[1:] for e in bad), values[1:]]
    )
    assert chain_holds(chain)
    assert judged_chain("c", chain).verdict == "ok"


@given(values=st.lists(st.floats(-30, -0.01), min_size=2, max_size=6), off=st.floats(2, 20))
def test_a_chain_that_never_holds_is_broken(values: list[float], off: float) -> None:
    """Where the rest is always worth something else, it is wrong; so is what was never answered."""
    chain = Chain([values], [values[:1]], [[each - off for each in values[1:]]])
    assert judged_chain("c", chain).verdict == "wrong"
    assert not chain_holds(Chain([values], [values[:1]], []))


def test_noise_is_no_fault() -> None:
    """A tenth of a nat is noted, the last digits are nothing, and another answer is wrong."""
    by_shift = {
        shift: judged_same("s", "again", [([-3.0], [-3.0 - shift])], 0) for shift in (0, 0.01, 0.3, 2)
    }
    assert [each.verdict for each in by_shift.values()] == ["ok", "note", "warning", "wrong"]
    assert judged_same("s", "again", [([-3.0], [-3.0])], 1).verdict == "warning"
    assert judged_same("s", "again", [], 0).verdict == "not checked"
    noisy = Chain([[-3.0, -4.0]], [[-3.2]], [[-4.0]])
    assert judged_chain("c", noisy).verdict == "note"


def test_one_flat_reply_of_many_is_a_warning() -> None:
    """Equal values are wrong where all replies have them."""
    assert judged_flat("f", [[-1.0, -1.0], [-1.0, -2.0]]).verdict == "warning"
    assert judged_flat("f", [[-1.0, -1.0]]).verdict == "wrong"
    assert judged_flat("f", [[-1.0]]).verdict == "not checked"


def test_an_endpoint_with_sampling_of_its_own_is_wrong() -> None:
    """Where fields that change nothing change values, the endpoint's own settings are in all of them."""
    same = ([-1.0], [-1.0])
    assert judged_sampling("s", same, [-2.0], {}).verdict == "wrong"
    assert judged_sampling("s", same, None, {}).verdict == "not checked"
    assert judged_sampling("s", same, [-1.0], {"top_p 0.3": [-1.0]}).verdict == "ok"
    assert judged_sampling("s", ([-1.0], [-2.0]), [-2.0], {}).verdict == "not checked", "it is noisy"


def test_tokenizers_differ_in_front_or_behind() -> None:
    """Special tokens around a text are told from the text; other ones in front than here are a warning."""
    same = [Tokenized("words", [5, 6], [1, 5, 6, 2]), Tokenized("digits", [7], [1, 7, 2])]
    assert judged_tokenizer("t", same, [1]).verdict == "ok"
    assert judged_tokenizer("t", same, []).verdict == "warning"
    assert judged_tokenizer("t", [*same, Tokenized("emoji", [8, 9], [1, 9, 8, 2])], [1]).verdict == "wrong"
    names = Tokenized("names", [8], [1, 9, 2], telling=False)
    assert judged_tokenizer("t", [*same, names], [1]).verdict == "note"


def test_a_context_is_what_was_sent() -> None:
    """Other counts than ids that were sent are told, and are wrong where the values show it too."""

    def judged(of_ids: int | None, text: float | None) -> Finding:
        return judged_prompt("p", [-1.0], None if text is None else [text], Counts(3, of_ids, 3), "no text")

    assert judged(3, -1.0).verdict == judged(None, -1.0).verdict == "ok"
    assert judged(3, None).measured == "no text"
    assert [judged(4, each).verdict for each in (-1.0, None, -2.0)] == ["warning", "warning", "wrong"]


def test_what_an_endpoint_names_counts_not_what_it_takes() -> None:
    """One that takes 100 and names 5 is of little more use than one that takes 5."""
    assert judged_top("l", 100, 5, "").verdict == "note"
    assert judged_top("l", 0, 0, "1: 422").verdict == "warning"


def test_paces() -> None:
    """The rate is of answered requests; one that answers none is wrong."""
    assert judged_pace("p", [Pace(1, 2.0, [0.5, 0.5])]).value == 1.0
    assert judged_pace("p", [Pace(1, 2.0, [], failed=3)]).verdict == "wrong"
    assert judged_pace("p", [Pace(1, 2.0, [0.1], failed=1)]).verdict == "warning"


def test_bodies_with_other_fields() -> None:
    """Fields are put in, changed, and taken out; all else stays."""
    body = with_fields(b'{"tokens": [1], "max_tokens": 1}', {"tokens": None, "prompt": "a", "max_tokens": 2})
    assert json.loads(body) == {"prompt": "a", "max_tokens": 2}


def test_what_a_run_says_of_its_probe() -> None:
    """What is amiss is a line each, what is not known one line together, and what is well nothing."""
    found = [
        Finding("a", "ok", "fine"),
        Finding("b", "not checked", "no route."),
        Finding("c", "not checked", "no text"),
        Finding("d", "warning", "odd", "So what", "Do this"),
    ]
    assert told("x", found) == [
        "x: probed before the run: d: odd. So what. Do this",
        "x: not checked before the run: b (no route); c (no text)",
    ]
    assert told("x", found[:1]) == []


# --------------------------------------------------------------------------------------------- waking up


class Managed:
    """The management API of an endpoint whose life passes on a fake clock."""

    def __init__(self, **details: Any) -> None:
        self.clock = FakeClock()
        self.life = Lifecycle(self.clock(), **details)
        self.calls: list[tuple[str, str]] = []
        self.said: list[str] = []

    async def call(self, method: str, url: str) -> Called:
        self.calls.append((method, url.rpartition("/")[2]))
        if method == "PUT":
            self.life.wake(self.clock())
        status, phase = self.life.status(self.clock())
        return Called(200, json.dumps({"status": status, "phase": phase}).encode())

    async def awake(self, patience: float = 900.0) -> Any:
        return await awake(
            "http://h/e",
            self.call,
            self.said.append,
            patience=patience,
            clock=self.clock,
            sleep=self.clock.sleep,
        )


async def test_who_sleeps_is_woken_and_waited_for() -> None:
    """It is woken once, each phase is told once, and the wait is over soon after it is up."""
    it = Managed(asleep=True, startup=120.0)
    found = await it.awake()
    assert found.state == "woken"
    assert 120 <= found.seconds <= 135
    assert [call for call in it.calls if call[0] == "PUT"] == [("PUT", "wake")]
    assert [line.partition(";")[0] for line in it.said] == [
        "it is asleep",
        "it is AWAKING (REQUESTING_VIRTUAL_MACHINE)",
        "it is AWAKING (DOWNLOADING_MODEL)",
        "it is AWAKING (ENGINE_INITIALIZING)",
        "awake after 2 min",
    ]


async def test_who_is_awake_is_left_alone() -> None:
    """One look, and nothing is said."""
    it = Managed()
    assert (await it.awake()).state == "awake"
    assert (it.calls, it.said) == ([("GET", "status")], [])


async def test_waking_has_an_end() -> None:
    """Who is not up in time is down, and nobody waits longer than was said."""
    it = Managed(asleep=True, startup=1e6)
    begun = it.clock()
    found = await it.awake(patience=60.0)
    assert found.state == "down"
    assert it.clock() - begun == 60.0


@pytest.mark.parametrize(
    ("came", "state"),
    [
        (Called(200, b'{"status": "READY"}'), "awake"),
        (Called(200, b'{"status": "FAILED", "errorCode": "OUT_OF_MEMORY"}'), "down"),
        (Called(200, b'{"status": "TERMINATED"}'), "down"),
        (Called(404, b"", "no such route"), "unknown"),
        (Called(403, b"", "no rights"), "unknown"),
        (Called(None, b"", "connection refused"), "unknown"),
        (Called(200, b"<html>"), "unknown"),
        (Called(200, b'{"status": 7}'), "unknown"),
        (Called(200, b"[" * 100_000), "unknown"),
    ],
)
async def test_a_route_that_fails_says_nothing(came: Called, state: str) -> None:
    """Only a status by which it will never answer is taken for one; all else is not known."""
    clock = FakeClock()

    async def call(method: str, url: str) -> Called:
        return came

    quiet = {"patience": 9.0, "clock": clock, "sleep": clock.sleep}
    found = await awake("http://h/e", call, lambda line: None, **quiet)  # type: ignore[arg-type]
    assert found.state == state
    assert found.told.isprintable()
    assert await stated_length("http://h/e", call) is None


def test_who_is_managed() -> None:
    """Dedicated endpoints are, under their own id without the adapter; others are not."""
    url = management_url("https://api.friendli.ai/dedicated/v1", "ep 1")
    assert url == "https://api.friendli.ai/dedicated/beta/endpoint/ep%201"
    assert management_url("https://api.friendli.ai/serverless/v1", "m") is None
    assert management_url("http://h/dedicated/v1", "") is None


# --------------------------------------------------------------------------------------------- the command


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a finding for people; with --json an object a finding on stdout, and nothing else there."""
    assert main(["doctor", "e=embedded", "--json"]) == 0
    said = capsys.readouterr()
    *lines, last = said.err.splitlines()
    assert len(lines) == len(PROBES)
    assert all(line.startswith(tuple(STYLES)) and "e: " in line for line in lines)
    assert last == "e: fit to be scored on."
    rows = json.loads(said.out)
    assert [row["probe"] for row in rows] == [each.name for each in PROBES]
    assert {row["endpoint"] for row in rows} == {"e"}


async def test_secrets_are_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token goes out as a run's does, and stands in no finding, whatever the endpoint repeats."""
    token = "flp_0123456789abcdef"
    async with spec_of(Case("leak", {"token": token})) as spec:
        found = await doctored(spec, environ={"FRIENDLI_TOKEN": token})
    assert any_wrong(found)
    assert token not in repr(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no endpoint given"),
        (["nonsense"], "not a SPEC"),
        (["http://127.0.0.1:1/v1#m"], "--tokenizer: none given"),
        (["embedded", "--concurrency", "0"], "--concurrency 0"),
        (["embedded", "--attempts", "0"], "--attempts 0"),
        (["embedded", "--wake", "-1"], "--wake -1"),
        (["dedicated:ep", "--tokenizer", str(reference.FOLDER)], "FRIENDLI_TOKEN"),
    ],
)
def test_wrong_settings_are_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 before anything is sent, and a line that names what is wrong."""
    assert main(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_endpoint_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 4, and the line says what was tried."""
    there = ["http://127.0.0.1:1/v1#m", "--tokenizer", str(reference.FOLDER), "--attempts", "1"]
    assert main(["doctor", *there, "--patience", "0"]) == 4
    assert "reachable" in capsys.readouterr().out


async def test_an_endpoint_that_cannot_tokenize_for_itself() -> None:
    """Where it was to, that ends the matter as in a run."""
    async with spec_of(Case("no_tokenize")) as spec:
        with pytest.raises(EndpointRefused, match="tokenize"):
            await doctored(spec, tokenizer=("endpoint",))
    with pytest.raises(UsageError):
        DoctorSettings(wake=float("inf"))
