"""The management routes of a dedicated endpoint: how it is, wake it, put it to sleep. Any id is ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
from aiohttp import web

from harness.serving.lifecycle import Lifecycle, Phase, Status

BETA = "/dedicated/beta/endpoint/{endpoint_id}"


class EndpointStatus(msgspec.Struct, frozen=True, rename="camel"):
    """How the endpoint is."""

    status: Status
    created_at: datetime
    updated_at: datetime
    error_code: str | None = None
    phase: Phase | None = None


class EndpointSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What the endpoint states of itself: it runs on a processor, for nobody in particular."""

    name: str
    max_context_length: int
    max_batch_size: int
    gpu_type: str = "none"
    num_gpu: int = 0
    project_id: str = ""
    creator_id: str = ""
    team_id: str = ""
    autoscaling_min: int = 0
    autoscaling_max: int = 1
    autoscaling_cooldown: int = 0
    tokenizer_skip_special_tokens: bool = True
    tokenizer_add_special_tokens: bool = True


class Management:
    """Handlers for one endpoint's life."""

    def __init__(self, spec: EndpointSpec, lifecycle: Lifecycle, clock: Callable[[], float]) -> None:
        self._spec = spec
        self._lifecycle = lifecycle
        self._clock = clock
        self._created = clock()
        self._origin = datetime.now(UTC) - timedelta(seconds=self._created)
        """The date at which the clock stood at 0."""

    async def spec(self, request: web.Request) -> web.Response:
        """What it states of itself."""
        return _json(self._spec)

    async def status(self, request: web.Request) -> web.Response:
        """How it is."""
        return self._now()

    async def wake(self, request: web.Request) -> web.Response:
        """Begin to wake it up."""
        self._lifecycle.wake(self._clock())
        return self._now()

    async def sleep(self, request: web.Request) -> web.Response:
        """Put it to sleep."""
        self._lifecycle.sleep(self._clock())
        return self._now()

    def _now(self) -> web.Response:
        status, phase = self._lifecycle.status(self._clock())
        created, changed = (
            self._origin + timedelta(seconds=moment) for moment in (self._created, self._lifecycle.changed)
        )
        return _json(EndpointStatus(status, created, changed, phase=phase))


def _json(body: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
