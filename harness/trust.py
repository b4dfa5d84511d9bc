"""Whose certificates are believed: those the system knows, and a private authority that a person names.

Verification cannot be switched off; a host that shows a certificate nobody here vouches for is not spoken to.
"""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

from harness.errors import UsageError

HINTS = {
    10: "It must be renewed there; or is the clock of this machine wrong?",
    62: "Is the host in the URL the one that the certificate is for?",
    64: "Is the host in the URL the one that the certificate is for?",
}
"""What to do about a certificate, by OpenSSL's number of what is wrong: expired, another host or address."""
UNKNOWN = "Name the authority that signed it with --ca-file FILE (PEM), or in SSL_CERT_FILE."
"""The same of every other one: nobody here vouches for it."""


def trusting(file: Path, said: str) -> ssl.SSLContext:
    """What believes the authorities in a PEM file, and all that the system knows (or SSL_CERT_FILE names).

    Args:
        file: of one certificate or several.
        said: how messages begin: the flag or key that named the file, and the file.

    Raises:
        UsageError: it cannot be read, or holds no certificate.
    """
    try:
        size, changed = file.stat().st_size, file.stat().st_mtime_ns
        return _trusting(file, size, changed)
    except ssl.SSLError as error:
        raise UsageError(f"{said}: it holds no certificate in PEM form; name one that does") from error
    except OSError as error:
        raise UsageError(f"{said}: it cannot be read: {error.strerror or error}; name another") from error


def what_to_do(problem: BaseException) -> str:
    """About a certificate that was not believed."""
    return HINTS.get(getattr(problem, "verify_code", 0), UNKNOWN)


@cache  # a run has many clients, and the system's authorities are many
def _trusting(file: Path, size: int, changed: int) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=file)
    return context
