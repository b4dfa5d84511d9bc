"""Ray itself: a connection to a cluster, or one that is started here, without a word of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import site
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import harness
from harness.errors import UsageError
from harness.redacting import in_a_line, redacted
from harness.secrets import secrets_of

LOOK = 10.0
"""Seconds within which something must answer at the address of a cluster."""
STORE = 80 * 2**20
"""Bytes of shared memory of a cluster that is started here: about the least; nothing of ours is put there."""
HOME = Path(harness.__path__[0]).parent
"""Where this very program is imported from."""


def imported() -> Any:
    """Ray, silent: it would print into the progress of the run, and report that it was used."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")  # what nodes say of actors; we say it ourselves
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray: Ray is not installed (pip install 'forced-choice[ray]')") from None
    return ray


def init(ray: Any, address: str | None, workers: int | None) -> None:
    """Connect to a cluster, or start one."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # only now: importing Ray sets it
    if address is not None and "://" in address:
        raise UsageError(
            f"--ray-address {redacted(address)}: Ray's client is too slow for this; start the run on a node"
            " of the cluster, there with --ray-address auto, or by `ray job submit`"
        )
    here = address in (None, "local")
    if not here and address != "auto":
        _look(ray, str(address))
    options: dict[str, Any] = {"address": "local" if here else address}
    if here:
        options |= {
            "num_cpus": workers,
            "object_store_memory": STORE,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",  # nobody else need reach it
        }
    try:
        ray.init(log_to_driver=False, configure_logging=False, job_config=_job(ray), **options)
    except Exception as error:  # of many kinds, none of which is ours
        where = "--engine ray" if here else f"--ray-address {redacted(str(address))}"
        raise UsageError(f"{where}: {in_a_line(error)}") from error


def _look(ray: Any, address: str) -> None:
    """Whether anything answers there: Ray itself asks for minutes, or for ever. It takes loopback for the
    address that this machine has for others, so that must answer too."""
    host, _, port = address.rpartition(":")
    hosts = [host.strip("[]")]
    if hosts[0] in ("127.0.0.1", "localhost", "::1"):
        hosts.append(ray.util.get_node_ip_address())
    for each in hosts:
        try:
            with socket.create_connection((each, int(port)), timeout=LOOK):
                pass
        except (OSError, ValueError) as error:
            what = (
                f"nothing answers at {each} ({error})" if isinstance(error, OSError) else "HOST:PORT, or auto"
            )
            raise UsageError(f"--ray-address {redacted(address)}: {what}") from error


def _job(ray: Any) -> Any:
    """Where workers find this program, where it is a checkout: elsewhere it has to be installed anyway."""
    installed = any(Path(each) == HOME for each in [*site.getsitepackages(), site.getusersitepackages()])
    return ray.job_config.JobConfig(_py_driver_sys_path=[] if installed else [str(HOME)])


@contextmanager
def without_secrets() -> Iterator[None]:
    """Hold back the variables that hold secrets: a cluster that is started here inherits all others."""
    held = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RAY_") and (redacted(value) != value or secrets_of({name: value}))
    }
    for name in held:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(held)


async def result(reference: Any) -> Any:
    """What a call of an actor gives."""
    return await asyncio.wrap_future(reference.future())


def kill(actor: Any) -> None:
    """End an actor, if it has not ended yet."""
    with suppress(Exception):  # of many kinds: it need not be there, nor the cluster
        imported().kill(actor)


def ray_errors() -> tuple[type[Exception], ...]:
    """What calls of actors raise."""
    return (imported().exceptions.RayError,)


def why_lost(error: BaseException) -> str:
    """Why a call of a worker failed, in few words: Ray's own are a page, with what a worker printed last."""
    kind = type(error).__name__
    known = {
        "ActorDiedError": "its process has ended",
        "ActorUnavailableError": "it cannot be reached",
        "NodeDiedError": "its node is gone",
        "OutOfMemoryError": "its node was out of memory",
    }
    return known.get(kind, f"Ray: {kind}")


def missing(error: BaseException) -> str:
    """What a node lacks on which an actor did not begin; empty where it did not begin for another reason."""
    lines = [line.strip() for line in str(error).splitlines()]
    found = [line for line in lines if line.startswith(("ModuleNotFoundError", "ImportError"))]
    return redacted(found[-1]) if found else ""
