"""A hub on this machine: as much of it as `datasets` and `huggingface_hub` ask for."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Repo:
    """What stands under one name, at one commit."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    gated: int = 0
    """The status that a request for it gets: 401, 403; 0: anybody may have it."""


class _Handler(http.server.BaseHTTPRequestHandler):
    repos: Mapping[str, Repo]
    """By "datasets/NAME" or "models/NAME"."""

    def do_GET(self) -> None:
        """Files of a commit, their list, and the commit itself."""
        kind, _, rest = unquote(self.path.partition("?")[0]).strip("/").removeprefix("api/").partition("/")
        if kind not in ("datasets", "models"):
            kind, rest = "models", f"{kind}/{rest}"  # addresses of files leave it out
        parts = rest.split("/")
        name, what, path = "/".join(parts[:2]), parts[2:3], "/".join(parts[4:])
        repo = self.repos.get(f"{kind}/{name}")
        if repo is None:
            self._answer(401, error="RepoNotFound")
        elif repo.gated:
            self._answer(repo.gated, error="GatedRepo")
        elif what == ["resolve"]:
            body = repo.files.get(path)
            self._answer(404, error="EntryNotFound") if body is None else self._answer(200, body)
        elif what == ["tree"]:
            self._answer(200, json.dumps(self._tree(repo, path)).encode())
        elif what in ([], ["revision"]):
            self._answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())
        else:
            self._answer(404, error="EntryNotFound")

    do_HEAD = do_GET

    def _tree(self, repo: Repo, folder: str) -> list[dict[str, Any]]:
        return [
            {"type": "file", "oid": hashlib.sha1(body).hexdigest(), "path": name, "size": len(body)}
            for name, body in repo.files.items()
            if name.startswith(folder)
        ]

    def _answer(self, status: int, body: bytes = b"", error: str = "") -> None:
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def hub(repos: Mapping[str, Repo]) -> Iterator[str]:
    """Serve repositories while the block runs; its address."""
    handler = type("Handler", (_Handler,), {"repos": repos})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
