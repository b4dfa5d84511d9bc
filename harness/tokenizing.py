"""Tokenizers, loaded from a `tokenizer.json`, a folder or a hub id, behind one small class.

Special tokens: of those that the tokenizer itself puts around a text only the leading ones are kept; they
are found once, on a probe text, and put in front of what is encoded without them. Encoding is batched and
releases the interpreter lock, so it belongs into a thread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer as Backend

from harness.errors import UsageError

Bos = Literal["auto", "on", "off"]
"""auto: what the tokenizer itself does; on, off: a beginning-of-sequence token always, or never."""

ENDPOINT = "endpoint"
"""As `--tokenizer`: the endpoint's own tokenize route, which another module asks."""

_PROBE = "a"
BOS_NAMES = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "[BOS]", "<|endoftext|>")
EOS_NAMES = ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>", "[EOS]")
"""What such tokens are usually called; tried in this order where nothing names them."""


class Tokenizer:
    """Text to ids, with the leading special tokens that `bos` states.

    Attributes:
        sha256: of the tokenizer's file and the leading ids: two tokenizers of equal hash encode alike.
        leading: ids put in front of every text.
        start_id: what stands for an empty context: BOS, else EOS; None where neither is known.
    """

    def __init__(
        self, definition: bytes, *, bos: Bos = "auto", special: dict[str, str] | None = None
    ) -> None:
        """Take the bytes of a `tokenizer.json`; `special` may name `bos_token` and `eos_token`."""
        self._backend = Backend.from_str(definition.decode())
        self._backend.no_padding()
        self._backend.no_truncation()
        special = special or {}
        bos_id = self._named(special.get("bos_token"), BOS_NAMES)
        eos_id = self._named(special.get("eos_token"), EOS_NAMES)
        self.leading = self._leading(bos, bos_id)
        self.start_id = next((i for i in (*self.leading[:1], bos_id, eos_id) if i is not None), None)
        self.sha256 = hashlib.sha256(definition + repr(self.leading).encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """How many ids there are, added tokens included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text with the leading special tokens, which are not doubled where the text has them."""
        return [in_front(self.leading, ids) for ids in self.encode_plain(texts)]

    def encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no special tokens added."""
        return [each.ids for each in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text of some ids."""
        return self._backend.decode(list(ids), skip_special_tokens=not keep_special)

    def piece(self, token_id: int) -> str | None:
        """The raw vocabulary piece of an id ("▁the"), None where there is none."""
        return self._backend.id_to_token(token_id)

    def _named(self, name: str | None, usual: Sequence[str]) -> int | None:
        names = (name,) if name else usual
        return next((i for each in names if (i := self._backend.token_to_id(each)) is not None), None)

    def _leading(self, bos: Bos, bos_id: int | None) -> list[int]:
        if bos == "off":
            return []
        probed = self._backend.encode(_PROBE, add_special_tokens=True)
        plain = self._backend.encode(_PROBE, add_special_tokens=False).ids
        added = next((i for i, mask in enumerate(probed.special_tokens_mask) if not mask), len(probed.ids))
        if probed.ids[added : added + len(plain)] != plain:
            raise UsageError(
                "--tokenizer: special tokens change how this tokenizer splits text; pass --bos off"
            )
        leading = probed.ids[:added]
        if leading or bos == "auto":
            return leading
        if bos_id is None:
            raise UsageError("--bos on: this tokenizer names no beginning-of-sequence token")
        return [bos_id]


def in_front(leading: list[int], ids: list[int]) -> list[int]:
    """A text's ids with the leading ones in front, not doubled where the text itself begins with them."""
    return ids if leading and ids[: len(leading)] == leading else leading + ids


def load_tokenizer(source: str, *, bos: Bos = "auto") -> Tokenizer:
    """Load from a `tokenizer.json`, a folder that holds one, or a hub id.

    Raises:
        UsageError: nothing there, not a tokenizer, or the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if not path.exists():
        path = _from_hub(source)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"--tokenizer {source}: no tokenizer.json in this folder")
    try:
        return Tokenizer(file.read_bytes(), bos=bos, special=_special_names(file.parent))
    except UsageError:
        raise
    except Exception as error:  # `tokenizers` raises bare Exception for a malformed file
        raise UsageError(f"--tokenizer {source}: not a tokenizer.json ({_first_line(error)})") from error


def _special_names(folder: Path) -> dict[str, str]:
    """`bos_token` and `eos_token` of a `tokenizer_config.json`, where there is one."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    names = {key: config.get(key) for key in ("bos_token", "eos_token")}
    texts = {key: each.get("content") if isinstance(each, dict) else each for key, each in names.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _from_hub(source: str) -> Path:
    """Fetch `tokenizer.json` (and its config) of a hub id into the local cache; its path."""
    if source.startswith((".", "/", "~")) or source.endswith(".json") or source.count("/") > 1:
        raise UsageError(f"--tokenizer {source}: no such file or folder")
    from huggingface_hub import hf_hub_download

    try:
        file = Path(hf_hub_download(source, "tokenizer.json"))
    except Exception as error:  # the hub client raises a dozen kinds; each ends here the same way
        raise UsageError(
            f"--tokenizer {source}: neither a local file or folder nor to be had from the hub"
            f" ({type(error).__name__}: {_first_line(error)})"
        ) from error
    with suppress(Exception):  # an optional file: without it the usual names of BOS and EOS are tried
        hf_hub_download(source, "tokenizer_config.json")
    return file


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
