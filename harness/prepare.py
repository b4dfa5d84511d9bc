"""Everything a run needs, checked before any endpoint is contacted.

What can be wrong is found here: settings, secrets, tokenizers, rows. The texts of the errors name the flag.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from harness import reference
from harness.encoding import Bound, encode_prompts
from harness.endpoints import Credentials, Endpoint, credentials, parse_endpoints
from harness.errors import UsageError, did_you_mean
from harness.prompts import Prompt, Selection
from harness.runs import SuiteIdentity
from harness.settings import RunSettings
from harness.suite import Suite, prepare_suite
from harness.tokenizing import Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run, checked and ready; no endpoint has been contacted."""

    settings: RunSettings
    endpoints: tuple[Endpoint, ...]
    secrets: Mapping[str, Credentials]
    """By label."""
    tokenizers: Mapping[str, Tokenizer]
    """By label."""
    suite: Suite
    identity: SuiteIdentity

    @property
    def bound(self) -> Bound:
        """The bound on length."""
        return Bound(self.settings.max_length, self.settings.on_overflow)

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        names = "-".join(self.settings.task_names).replace(":", "_")
        return self.settings.out or Path("results") / f"{names}-{self.identity.digest()}"


def prepare(settings: RunSettings, environ: Mapping[str, str] = os.environ) -> Prepared:
    """Check everything a run needs without contacting an endpoint.

    Raises:
        UsageError: the settings or the data are wrong; the text names the flag.
    """
    endpoints = tuple(_with_weights(endpoint) for endpoint in parse_endpoints(settings.endpoint))
    secrets = {endpoint.label: credentials(endpoint, environ) for endpoint in endpoints}
    tokenizers, default = _tokenizers(settings, endpoints)
    suite = prepare_suite(
        settings.task_names,
        shots=settings.shots,
        data_dir=settings.data_dir,
        selection=Selection(limit=settings.limit, sample=settings.sample, seed=settings.seed),
        skip_bad_rows=settings.skip_bad_rows,
    )
    identity = SuiteIdentity(
        {
            "tasks": {each.task.name: each.task.version for each in suite.tasks},
            "shots": {each.task.name: each.shots for each in suite.tasks},
            "seed": settings.seed,
            "tokenizer": default.sha256 if default else "one for each endpoint",
            "bos": settings.bos,
            "max_length": settings.max_length,
        }
    )
    prepared = Prepared(
        settings=settings,
        endpoints=endpoints,
        secrets=secrets,
        tokenizers=tokenizers,
        suite=suite,
        identity=identity,
    )
    if settings.on_overflow == "fail" and settings.max_length is not None:
        _fail_on_overflow(prepared)
    return prepared


def _with_weights(endpoint: Endpoint) -> Endpoint:
    """An embedded endpoint with the hash of its weights as address; any other as it is."""
    if not endpoint.embedded:
        return endpoint
    if endpoint.adapter and endpoint.adapter not in reference.routes():
        hint = did_you_mean(endpoint.adapter, reference.routes())
        raise UsageError(f"--endpoint {endpoint.label}: no adapter {endpoint.adapter!r}. {hint}")
    return replace(endpoint, base_url=f"{endpoint.base_url}:{reference.digest()}")


def _tokenizers(
    settings: RunSettings, endpoints: Sequence[Endpoint]
) -> tuple[dict[str, Tokenizer], Tokenizer | None]:
    """The tokenizer of each label, and the one of the run, if there is one."""
    labels = [endpoint.label for endpoint in endpoints]
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
    for endpoint in endpoints:
        if endpoint.embedded and endpoint.label not in sources:
            sources[endpoint.label] = str(reference.FOLDER)
    if "" in sources and all(label in sources for label in labels):
        raise UsageError(
            f"--tokenizer {sources['']}: no endpoint is left to use it; leave it out (embedded has its own)"
        )
    loaded = {source: load_tokenizer(source, bos=settings.bos) for source in dict.fromkeys(sources.values())}
    lacking = [label for label in labels if label not in sources and "" not in sources]
    if lacking:
        raise UsageError(
            f"--tokenizer: none given for {lacking[0]}; pass the endpoint's own: a tokenizer.json, a folder"
            " that holds one, or the model's hub id"
        )
    by_label = {label: loaded[sources.get(label, sources.get("", ""))] for label in labels}
    if "" in sources:
        return by_label, loaded[sources[""]]
    return by_label, next(iter(loaded.values())) if len(loaded) == 1 else None


def _fail_on_overflow(prepared: Prepared) -> None:
    """Encode everything once before the first request, so that `--on-overflow fail` costs nothing."""
    for tokenizer in {id(each): each for each in prepared.tokenizers.values()}.values():
        prompts = (prompt for _, prompt in prepared.suite.prompts() if isinstance(prompt, Prompt))
        while batch := list(islice(prompts, 128)):
            encode_prompts(batch, tokenizer, prepared.bound)
