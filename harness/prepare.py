"""Everything a run needs, checked before any endpoint is contacted.

What can be wrong is found here: settings, secrets, tokenizers, rows. The texts of the errors name the flag.

An endpoint that tokenizes for itself (`--tokenizer endpoint`) is not contacted either: its tokenizer comes
when the run begins (`probing`), and `with_tokenizers` then completes what was prepared. Until then the
suite's identity names the endpoint in the tokenizer's place, and the default folder is called after that: if
the endpoint gets another tokenizer the same command finds the same folder, and is refused.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from harness import reference
from harness.accounts import Allowance, allowances
from harness.chatting.chat import Chat
from harness.chatting.checking import chat_identity, chats_of, tried
from harness.checked import NOTHING_KNOWN, Known
from harness.choosing.catalogue import suite_identity
from harness.dialects import dialect
from harness.encoding import Bound, encode_prompts
from harness.endpoints import Account, Credentials, Endpoint, credentials, parse_endpoints, refuse_secrets
from harness.errors import UsageError, did_you_mean
from harness.learning import Lesson
from harness.pairs import Tokenizes
from harness.places import shard_folder
from harness.plan import KeyMaker
from harness.planning import Asked
from harness.prices import Prices, caps_of, prices_of
from harness.prompts import Selection
from harness.runs import SuiteIdentity
from harness.scoring.metrics import EMPTY, METRICS
from harness.settings import RunSettings
from harness.sharding import Shard, parse_shard
from harness.shards import one_shard
from harness.shortcut import Names
from harness.suite import Suite, prepare_suite, with_metrics
from harness.tokencache import cache_file
from harness.tokenizing import ENDPOINT, Tokenizer, load_tokenizer
from harness.trust import trusting

Address = tuple[str, str, str]
"""Wire format, URL (or what stands for it) and model of an endpoint that tokenizes, shared by adapters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run, checked and ready; no endpoint has been contacted."""

    settings: RunSettings
    endpoints: tuple[Endpoint, ...]
    secrets: Mapping[str, Credentials]
    """By label; none where nothing is to be sent."""
    trusted: Mapping[str, ssl.SSLContext]
    """Whose certificates are believed, by label; none where those are that the system knows."""
    allowances: Mapping[Account, Allowance]
    """What each account allows a minute."""
    prices: Prices
    tokenizers: Mapping[str, Tokenizes]
    """By label; those of endpoints that tokenize for themselves are added when the run begins."""
    asked: Mapping[str, Address]
    """The endpoints that tokenize for themselves, by label."""
    token_cache: Path | None
    """Where the ids that they give are kept."""
    chats: Mapping[str, Chat]
    """How endpoints are asked in chats, by label; none where prompts are plain text."""
    chat_remarks: Sequence[str]
    """What their templates do to prompts, one sentence each."""
    suite: Suite
    """What is asked: of a shard, its part of the whole."""
    whole: Suite
    shard: Shard | None
    """The part of the run that this is; None: it is all of it."""
    identity: SuiteIdentity
    identity_label: str
    """The endpoint whose tokenizer stands in the identity; empty: each has its own."""

    @property
    def bound(self) -> Bound:
        """The bound on length."""
        return Bound(self.settings.max_length, self.settings.on_overflow)

    @property
    def folder(self) -> Path:
        """Where the run is written, or the shard."""
        return shard_folder(self.whole_folder, self.shard) if self.shard else self.whole_folder

    @property
    def whole_folder(self) -> Path:
        """Where the whole run is written."""
        return self.settings.out or Path("results") / f"{self.suite.title}-{self.identity.digest()}"


def prepare(
    settings: RunSettings,
    environ: Mapping[str, str] = os.environ,
    *,
    send: bool = True,
    known: Mapping[str, Known] = NOTHING_KNOWN,
) -> Prepared:
    """Check everything a run needs without contacting an endpoint.

    Args:
        settings: of the run.
        environ: where secrets come from.
        send: the run is to take place; else it is only thought about, and no secrets are needed.
        known: what the run that this process works for has found in the rows of its tasks; it has looked for
            items that are too long too.

    Raises:
        UsageError: the settings or the data are wrong; the text names the flag.
    """
    endpoints = tuple(_with_weights(endpoint) for endpoint in parse_endpoints(settings.endpoint))
    shard = None if settings.shard is None else parse_shard(settings.shard)
    allowed = allowances(endpoints, rpm=settings.rpm, tpm=settings.tpm, shards=shard.of if shard else 1)
    prices = prices_of(endpoints, settings)
    caps_of(settings)  # which says where there is too little for a shard
    secrets = {endpoint.label: credentials(endpoint, environ) for endpoint in endpoints if send}
    refuse_secrets(endpoints, secrets.values())
    trusted = _trusted(settings, endpoints)
    sources = _sources(settings, endpoints)
    asked = {each.label: _address(each) for each in endpoints if sources[each.label] == ENDPOINT}
    files = dict.fromkeys(source for source in sources.values() if source != ENDPOINT)
    loaded = {source: load_tokenizer(source, bos=settings.bos) for source in files}
    tokenizers = {label: loaded[source] for label, source in sources.items() if label not in asked}
    chats = chats_of(settings.chat_template, endpoints, sources, tokenizers)
    of_suite = _label_of_suite(settings, sources, asked)
    suite = prepare_suite(
        settings.task_names,
        shots=settings.shots,
        data_dir=settings.data_dir,
        selection=Selection(limit=settings.limit, sample=settings.sample, seed=settings.seed),
        skip_bad_rows=settings.skip_bad_rows,
        known=known,
    )
    suite = with_metrics(suite, settings.metric_names, orders=settings.permute_choices == "cyclic")
    _check_sendable(endpoints, suite)
    if settings.compare_until_decided:
        _check_comparable(endpoints, suite)
    identity = SuiteIdentity(
        {
            "tasks": {each.task.name: suite_identity(each) for each in suite.tasks},
            "shots": {each.task.name: each.shots for each in suite.tasks},
            "seed": settings.seed,
            "tokenizer": _tokenizer_of_suite(of_suite, tokenizers, asked),
            "bos": settings.bos,
            "max_length": settings.max_length,
            **chat_identity(chats, of_suite),
        }
    )
    prepared = Prepared(
        settings=settings,
        endpoints=endpoints,
        secrets=secrets,
        trusted=trusted,
        allowances=allowed,
        prices=prices,
        tokenizers=tokenizers,
        asked=asked,
        token_cache=cache_file(environ),
        chats=chats,
        chat_remarks=tried(suite, chats),
        suite=one_shard(suite, shard) if shard else suite,
        whole=suite,
        shard=shard,
        identity=identity,
        identity_label=of_suite,
    )
    if not known:
        fail_on_overflow(prepared, prepared.tokenizers.values())
    return prepared


def with_tokenizers(prepared: Prepared, found: Mapping[str, Tokenizes]) -> Prepared:
    """What was prepared, completed by the tokenizers of endpoints that tokenize for themselves."""
    tokenizers = {**prepared.tokenizers, **found}
    of_suite = _tokenizer_of_suite(prepared.identity_label, tokenizers, prepared.asked)
    identity = SuiteIdentity({**prepared.identity.fields, "tokenizer": of_suite})
    return replace(prepared, tokenizers=tokenizers, identity=identity)


def asked_of(prepared: Prepared, endpoint: Endpoint) -> Asked:
    """How an endpoint is asked, once its tokenizer is there."""
    return Asked(
        tokenizer=prepared.tokenizers[endpoint.label],
        bound=prepared.bound,
        chat=prepared.chats.get(endpoint.label),
        as_text=dialect(endpoint.dialect).wants_text,
        keys=KeyMaker(endpoint.identity),
    )


def names_of(prepared: Prepared, endpoint: Endpoint, lesson: Lesson) -> Names | None:
    """What its tokens may be called, where choices can be read off alternatives; `lesson` says why not."""
    tokenizer = prepared.tokenizers[endpoint.label]
    if not prepared.settings.shortcut:
        lesson.why = "--no-shortcut"
    elif not dialect(endpoint.dialect).names_tokens:
        lesson.why = f"{endpoint.dialect} endpoints name no alternatives at little cost"
    elif not isinstance(tokenizer, Tokenizer):
        lesson.why = "what its tokens are called is not known without a tokenizer file"
    else:
        return Names(tokenizer)
    return None


def _check_sendable(endpoints: Iterable[Endpoint], suite: Suite) -> None:
    """Raise `UsageError` where a metric needs what an endpoint cannot be asked."""
    for endpoint in endpoints:
        if dialect(endpoint.dialect).wants_text and any(EMPTY in needs for needs in suite.needs.values()):
            raise UsageError(
                f"--metrics acc_mutual_info: {endpoint.label} is sent text, and no text can follow nothing at"
                " all; take acc_pmi"
            )


def _check_comparable(endpoints: Sequence[Endpoint], suite: Suite) -> None:
    """Raise `UsageError` where there is nothing to decide."""
    if len(endpoints) < 2:
        raise UsageError("--compare-until-decided: give --endpoint twice or more; the first is the baseline")
    for task in suite.tasks:
        if not METRICS[task.task.metrics[0]].compared:
            raise UsageError(
                f"--compare-until-decided: {task.task.name} reports {task.task.metrics[0]} first, which is no"
                " value between 0 and 1 of each item; leave it out"
            )


def fail_on_overflow(prepared: Prepared, tokenizers: Iterable[Tokenizes]) -> None:
    """Encode everything once before the first request, so that `--on-overflow fail` costs nothing.

    Raises:
        UsageError: an item is too long, and that was to end the run.
    """
    if prepared.settings.on_overflow != "fail" or prepared.settings.max_length is None:
        return
    chats = {id(prepared.tokenizers[label]): chat for label, chat in prepared.chats.items()}
    for tokenizer in {id(each): each for each in tokenizers}.values():
        prompts = prepared.suite.everything()
        while batch := list(islice(prompts, 128)):
            encode_prompts(batch, tokenizer, prepared.bound, chat=chats.get(id(tokenizer)))


def _with_weights(endpoint: Endpoint) -> Endpoint:
    """An embedded endpoint with the hash of its weights as address; any other as it is."""
    if not endpoint.embedded:
        return endpoint
    if endpoint.adapter and endpoint.adapter not in reference.routes():
        hint = did_you_mean(endpoint.adapter, reference.routes())
        raise UsageError(f"--endpoint {endpoint.label}: no adapter {endpoint.adapter!r}. {hint}")
    return replace(endpoint, base_url=f"{endpoint.base_url}:{reference.digest()}")


def _trusted(settings: RunSettings, endpoints: Sequence[Endpoint]) -> dict[str, ssl.SSLContext]:
    """Whose certificates are believed where a file says so; an endpoint's own file goes before the flag's."""
    trusted = {}
    for each in endpoints:
        if each.own.ca_file:
            said = str(each.own.error("ca_file", each.own.ca_file))
            trusted[each.label] = trusting(Path(each.own.ca_file).expanduser(), said)
        elif settings.ca_file is not None:
            trusted[each.label] = trusting(settings.ca_file, f"--ca-file {settings.ca_file}")
    return trusted


def _sources(settings: RunSettings, endpoints: Sequence[Endpoint]) -> dict[str, str]:
    """Where the tokenizer of each label comes from."""
    labels = [endpoint.label for endpoint in endpoints]
    sources = _given(settings, labels)
    for endpoint in endpoints:
        if endpoint.own.tokenizer:
            sources.setdefault(endpoint.label, endpoint.own.tokenizer)
        if endpoint.embedded and endpoint.label not in sources:
            sources[endpoint.label] = str(reference.FOLDER)
    if "" in sources and all(label in sources for label in labels):
        raise UsageError(
            f"--tokenizer {sources['']}: no endpoint is left to use it; leave it out (embedded has its own)"
        )
    lacking = [label for label in labels if label not in sources and "" not in sources]
    if lacking:
        raise UsageError(
            f"--tokenizer: none given for {lacking[0]}; pass the endpoint's own: a tokenizer.json, a folder"
            " that holds one, or the model's hub id"
        )
    return {label: sources.get(label, sources.get("", "")) for label in labels}


def _given(settings: RunSettings, labels: Sequence[str]) -> dict[str, str]:
    """What `--tokenizer` says, by label; an empty one stands for all that are not named."""
    sources: dict[str, str] = {}
    for given in settings.tokenizer:
        name, equals, source = given.partition("=")
        if not equals:
            name, source = "", given
        elif name not in labels:
            raise UsageError(
                f"--tokenizer {given}: no endpoint has the label {name!r}; labels: {', '.join(labels)}"
            )
        if name in sources:
            raise UsageError(f"--tokenizer {given}: given twice for {name or 'all endpoints'}")
        sources[name] = source
    return sources


def _address(endpoint: Endpoint) -> Address:
    """Whom to ask for the ids of texts.

    Raises:
        UsageError: nobody can be asked there.
    """
    if endpoint.embedded:
        raise UsageError(f"--tokenizer {endpoint.label}=endpoint: leave it out, embedded has its own")
    if dialect(endpoint.dialect).tokenize_route is None:
        raise UsageError(
            f"--tokenizer endpoint: {endpoint.label} cannot be asked, as {endpoint.dialect} endpoints have no"
            " tokenize route that is known here; give a tokenizer file, a folder or a hub id"
        )
    return endpoint.dialect, endpoint.identity.base_url, endpoint.model


def _label_of_suite(settings: RunSettings, sources: Mapping[str, str], asked: Mapping[str, Address]) -> str:
    """The label whose tokenizer is the suite's: that of all, or the only one; empty where there is none."""
    default = _given(settings, list(sources)).get("")
    if default not in (None, ENDPOINT):
        return next(label for label, source in sources.items() if source == default)
    distinct: dict[str | Address, str] = {}
    for label, source in sources.items():
        distinct.setdefault(asked.get(label, source), label)
    return next(iter(distinct.values())) if len(distinct) == 1 else ""


def _tokenizer_of_suite(label: str, tokenizers: Mapping[str, Tokenizes], asked: Mapping[str, Address]) -> str:
    """What the suite's identity says of its tokenizer."""
    if not label:
        return "one for each endpoint"
    return tokenizers[label].sha256 if label in tokenizers else f"of the endpoint {' '.join(asked[label])}"
