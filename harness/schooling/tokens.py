"""The reference model's tokenizer: byte-level pairs, learnt from the training text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, repeat

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from harness.items import LETTERS

BOS, EOS = "<s>", "</s>"
VOCABULARY = 2560


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer that puts `<s>` in front, and in which " A" to " J" are one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    letters = repeat(" " + " ".join(LETTERS), 1_000)
    tokenizer.train_from_iterator(chain(letters, texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    lacking = [
        each for each in LETTERS if len(tokenizer.encode(f" {each}", add_special_tokens=False).ids) != 1
    ]
    if lacking:
        raise ValueError(f"these letters are no single tokens: {lacking}")
    return tokenizer
