"""Tokenizers, loaded from a `tokenizer.json`, a folder or a hub id, behind one small class.

Special tokens: of those that the tokenizer itself puts around a text only the leading ones are kept; they
are found once, on a probe text, and put in front of what is encoded without them. Encoding is batched and
releases the interpreter lock, so it belongs into a thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from harness.data.hub import offline_if_unreachable, why_not
from harness.errors import UsageError
from harness.modes import Bos
from harness.seams import Seams

# One thread encodes faster than endpoints answer. Several cost a third more processor time, and take it from
# the event loop. The library reads this whenever it encodes; who has set it otherwise has meant it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ENDPOINT = "endpoint"
"""As `--tokenizer`: the endpoint's own tokenize route, which another module asks."""

_PROBE = "a"
BOS_NAMES = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "[BOS]", "<|endoftext|>")
EOS_NAMES = ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>", "[EOS]")
"""What such tokens are usually called; tried in this order where nothing names them."""
SPECIAL_NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""What a `tokenizer_config.json` may name."""
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""What is fetched from the hub: one commit of all."""


class Tokenizer:
    """Text to ids, with the leading special tokens that `bos` states.

    Attributes:
        sha256: of the tokenizer's file and the leading ids: two tokenizers of equal hash encode alike.
        leading: ids put in front of every text.
        start_id: what stands for an empty context: BOS, else EOS; None where neither is known.
        seams: what is known of where it splits.
        revision: the commit that the hub resolved; empty where it is no file of the hub.
    """

    def __init__(
        self,
        definition: bytes,
        *,
        bos: Bos = "auto",
        special: Mapping[str, str] | None = None,
        revision: str = "",
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
        swallowing = any(
            each.lstrip or each.rstrip or each.single_word
            for each in self._backend.get_added_tokens_decoder().values()
        )  # what stands beside them: then no seam is safe
        self.seams = None if swallowing else Seams(self._pieces, self.encode_plain)
        self.revision = revision
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

    @property
    def id_limit(self) -> int:
        """One more than the highest id: ids may have gaps."""
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text of some ids."""
        return self._backend.decode(list(ids), skip_special_tokens=not keep_special)

    def decode_each(self, texts: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids, special tokens too; many at once are decoded in parallel."""
        return self._backend.decode_batch([list(ids) for ids in texts], skip_special_tokens=False)

    def piece(self, token_id: int) -> str | None:
        """The raw vocabulary piece of an id ("▁the"), None where there is none."""
        return self._backend.id_to_token(token_id)

    def _pieces(self) -> Iterator[str]:
        """All pieces of the vocabulary."""
        return iter(self._backend.get_vocab(with_added_tokens=True))

    def _named(self, name: str | None, usual: Sequence[str]) -> int | None:
        names = (name,) if name else usual
        return next((i for each in names if (i := self._backend.token_to_id(each)) is not None), None)

    def own_front(self) -> str:
        """What it puts in front of a text by itself, whatever `bos` states, as text; raises `UsageError`."""
        return "".join(self.piece(each) or "" for each in self._own_leading())

    def _leading(self, bos: Bos, bos_id: int | None) -> list[int]:
        if bos == "off":
            return []
        leading = self._own_leading()
        if leading or bos == "auto":
            return leading
        if bos_id is None:
            raise UsageError("--bos on: this tokenizer names no beginning-of-sequence token")
        return [bos_id]

    def _own_leading(self) -> list[int]:
        probed = self._backend.encode(_PROBE, add_special_tokens=True)
        plain = self._backend.encode(_PROBE, add_special_tokens=False).ids
        added = next((i for i, mask in enumerate(probed.special_tokens_mask) if not mask), len(probed.ids))
        if probed.ids[added : added + len(plain)] != plain:
            raise UsageError(
                "--tokenizer: special tokens change how this tokenizer splits text; pass --bos off"
            )
        return probed.ids[:added]


def in_front(leading: list[int], ids: list[int]) -> list[int]:
    """A text's ids with the leading ones in front, not doubled where the text itself begins with them."""
    return ids if leading and ids[: len(leading)] == leading else leading + ids


def load_tokenizer(source: str, *, bos: Bos = "auto") -> Tokenizer:
    """Load from a `tokenizer.json`, a folder that holds one, or a hub id.

    Raises:
        UsageError: nothing there, not a tokenizer, or the hub cannot be reached.
    """
    file = tokenizer_file(source)
    try:
        return Tokenizer(file.read_bytes(), bos=bos, special=_names_beside(file), revision=_commit(file))
    except UsageError:
        raise
    except Exception as error:  # `tokenizers` raises bare Exception for a malformed file
        raise UsageError(f"--tokenizer {source}: not a tokenizer.json ({_first_line(error)})") from error


def tokenizer_file(source: str) -> Path:
    """Where the `tokenizer.json` of a source is; what belongs to it stands beside it.

    Raises:
        UsageError: nothing there, or the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if not path.exists():
        path = _from_hub(source)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"--tokenizer {source}: no tokenizer.json in this folder")
    return file


def special_names(config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that a `tokenizer_config.json` names, by name ("bos_token")."""
    names = {name: config.get(name) for name in SPECIAL_NAMES}
    texts = {name: each.get("content") if isinstance(each, dict) else each for name, each in names.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _names_beside(file: Path) -> dict[str, str]:
    """The special tokens that the config beside a `tokenizer.json` names, where there is one."""
    try:
        config = json.loads((file.parent / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return special_names(config) if isinstance(config, dict) else {}


def _from_hub(source: str) -> Path:
    """Fetch `tokenizer.json` and what belongs to it into the local cache; their folder."""
    if source.startswith((".", "/", "~")) or source.endswith(".json") or source.count("/") > 1:
        raise UsageError(f"--tokenizer {source}: no such file or folder")
    from huggingface_hub import snapshot_download

    try:
        with offline_if_unreachable():
            folder = Path(snapshot_download(source, allow_patterns=list(_FILES)))
    except Exception as error:  # the hub client raises a dozen kinds; each ends here the same way
        said = why_not(error, "pass a tokenizer.json or a folder that holds one")
        raise UsageError(
            f"--tokenizer {source}: neither a local file or folder nor to be had from the hub: {said}"
        ) from error
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"--tokenizer {source}: has no tokenizer.json on the hub; pass one, or a folder that holds one"
        )
    return folder


def _commit(file: Path) -> str:
    """The commit of a file out of the hub's cache, whose folders are named so; empty elsewhere."""
    name = file.parent.name
    return name if file.parent.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", name) else ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
