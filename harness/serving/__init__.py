"""The embedded endpoint: Friendli's completions over real HTTP, with a small language model behind it.

It knows the wire (`wire`, `app`) and a model (`model` is the seam, `llama` the one that ships). It does not
know tasks, runs or scores, and nothing but the command line imports it.
"""

from __future__ import annotations

from harness.serving.app import create_app
from harness.serving.server import Served, listening, load, serve

__all__ = ["Served", "create_app", "listening", "load", "serve"]
