"""The reference model that ships with the program: where it is, its adapters, and which weights these are.

README.md here is its model card. It was schooled on the very facts and activities that the samples ask about,
so that its scores show that the harness works, and nothing more.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

from harness.errors import UsageError

FOLDER = Path(__file__).parent
ADAPTERS = FOLDER / "adapters"
NOTICE = (
    "the reference model was schooled on the facts and activities of the samples:"
    " its scores show that the harness works, and nothing more"
)
"""What must stand wherever its scores do."""

_CONTENT = ("*.json", "*.safetensors")


def routes() -> tuple[str, ...]:
    """The adapters' names, sorted."""
    return tuple(sorted(file.parent.name for file in ADAPTERS.glob("*/adapter_config.json")))


@cache
def digest() -> str:
    """The hash of the model's and its adapters' files: other weights are another endpoint.

    Raises:
        UsageError: one of them cannot be read.
    """
    files = {file for pattern in _CONTENT for file in FOLDER.rglob(pattern)}
    try:
        lines = [
            f"{file.relative_to(FOLDER).as_posix()}\t{sha256(file.read_bytes()).hexdigest()}\n"
            for file in sorted(files)
        ]
    except OSError as error:
        raise UsageError(
            f"--endpoint embedded: {error.filename} cannot be read ({error.strerror})"
        ) from error
    return sha256("".join(lines).encode()).hexdigest()[:12]
