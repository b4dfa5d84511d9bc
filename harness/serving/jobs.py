"""From the fields of a request to jobs of the model: defaults, limits of the model, texts as ids."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

import numpy as np

from harness.serving.asking import MAX_CHOICES, CompletionRequest, check
from harness.serving.decoding.job import Beams, Ending, Job
from harness.serving.decoding.sampling import Sampling
from harness.serving.decoding.steering import Steering
from harness.serving.faults.plan import Faults
from harness.serving.models.seam import Model, P
from harness.serving.models.weights import Floats
from harness.serving.wire import invalid
from harness.tokenizing import Tokenizer

MAX_TEXT = 2**20
"""Characters of text in a request."""


MAX_IDS = 2**17
"""Ids to be decoded at once."""


class Jobs:
    """Makes jobs for one model, its tokenizer beside it."""

    def __init__(
        self, model: Model[P], tokenizer: Tokenizer, faults: Faults, note: Callable[[str], object]
    ) -> None:
        """Of the faults, those that only this side can inject; `note` is told which of them strike."""
        self._vocab_size = model.vocab_size
        self._hidden = model.hidden
        self._eos_ids = model.eos_ids
        self._stated_length = model.max_length
        self._tokenizer = tokenizer
        self._max_length = min(model.max_length, faults.context or model.max_length)
        self._moved = faults.moved_by_sampling
        self._note = note

    async def of(self, asked: CompletionRequest) -> list[Job]:
        """A job for each prompt.

        Raises:
            Refused: 422, naming the field.
        """
        check(asked)
        contexts = await self._contexts(asked)
        if len(contexts) * asked.outputs > MAX_CHOICES:
            field = "prompt" if asked.n is None else "n"
            raise invalid(
                field, f"{len(contexts)} prompts of {asked.outputs} outputs; at most {MAX_CHOICES} in all"
            )
        for field in ("forced_output_tokens", "token_index_to_replace"):
            if len(contexts) > 1 and getattr(asked, field):
                raise invalid(field, "goes with one prompt, not with several")
        self.in_vocabulary("forced_output_tokens", asked.forced_output_tokens or ())
        if asked.top_k is not None and asked.top_k > self._vocab_size:
            raise invalid("top_k", f"is more than the vocabulary of {self._vocab_size} ids")
        bad = await self._bad(asked)
        return [self._job(asked, context, bad) for context in contexts]

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of prompts, with the tokenizer's leading special tokens; off the event loop: it takes a while.

        Raises:
            Refused: 422, the texts are longer than what is served.
        """
        size = sum(map(len, texts))
        if size > MAX_TEXT:
            raise invalid("prompt", f"{size} characters; at most {MAX_TEXT} fit into a request")
        return await asyncio.to_thread(self._tokenizer.encode, texts)

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens; likewise.

        Raises:
            Refused: 422, there are more than are served, or one is none of the model's.
        """
        if len(ids) > MAX_IDS:
            raise invalid("tokens", f"{len(ids)} ids; at most {MAX_IDS} fit into a request")
        self.in_vocabulary("tokens", ids)
        return await asyncio.to_thread(self._tokenizer.decode, ids)

    def in_vocabulary(self, field: str, ids: Sequence[int]) -> None:
        """Raise `Refused` where an id is none of the model's."""
        if ids and max(ids) >= self._vocab_size:
            raise invalid(field, f"id {max(ids)} is outside the vocabulary of {self._vocab_size} ids")

    # -------------------------------------------------------------------------------------------- input

    async def _contexts(self, asked: CompletionRequest) -> list[Sequence[int]]:
        """The ids of each prompt."""
        if asked.tokens is not None:
            self.in_vocabulary("tokens", asked.tokens)
            return [asked.tokens]
        contexts = await self._prompts(asked.prompt)
        for ids in contexts:
            if not ids:
                raise invalid("prompt", "the text has no tokens")
            self.in_vocabulary("prompt", ids)
        return contexts

    async def _prompts(self, prompt: str | Sequence[int | str | Sequence[int]] | None) -> list[Sequence[int]]:
        given = [prompt] if isinstance(prompt, str) else prompt or []
        texts = [each for each in given if isinstance(each, str)]
        ids = [each for each in given if isinstance(each, int)]
        lists = [each for each in given if isinstance(each, list)]
        if len(given) not in (len(texts), len(ids), len(lists)):
            raise invalid("prompt", "a list holds texts, or ids, or lists of ids, not some of each")
        count = len(texts) + len(lists)
        if count > MAX_CHOICES:
            raise invalid("prompt", f"{count} prompts; at most {MAX_CHOICES} fit into a request")
        if texts:
            return list(await self.encode(texts))
        return [ids] if ids else list(lists)

    def _vectors(self, asked: CompletionRequest, context_ids: Sequence[int]) -> dict[int, Floats]:
        """What is read in place of some tokens' embeddings, by position."""
        places, numbers = asked.token_index_to_replace or [], asked.embedding_to_replace or []
        hidden = self._hidden
        if places and max(places) >= len(context_ids):
            raise invalid(
                "token_index_to_replace", f"{max(places)} is outside the {len(context_ids)} input tokens"
            )
        if len(numbers) != len(places) * hidden:
            raise invalid(
                "embedding_to_replace",
                f"{len(numbers)} numbers for {len(places)} tokens; each takes {hidden}",
            )
        vectors = np.asarray(numbers, np.float32).reshape(len(places), hidden)
        return dict(zip(places, vectors, strict=True))

    # ------------------------------------------------------------------------------------------- output

    def _job(
        self, asked: CompletionRequest, context_ids: Sequence[int], bad: tuple[tuple[int, ...], ...]
    ) -> Job:
        longest = self._max_tokens(asked, len(context_ids))
        least = self._min_tokens(asked, len(context_ids), longest)
        ending = self._ending(asked, least)
        sampling = _sampling(asked)
        moved = self._moved and sampling.temperature > 0 and sampling != Sampling()
        if moved:
            self._note("moved_by_sampling")
        return Job(
            context_ids=context_ids,
            max_tokens=longest,
            forced_ids=asked.forced_output_tokens or (),
            top=asked.top,
            echo=bool(asked.echo),
            vectors=self._vectors(asked, context_ids),
            seeds=_seeds(asked),
            sampling=sampling,
            steering=_steering(asked, ending, bad),
            ending=ending,
            beams=_beams(asked),
            after=sampling if moved else None,
        )

    def _max_tokens(self, asked: CompletionRequest, context_length: int) -> int:
        """The most tokens of output: as asked, else as many as are forced, else as the model has room for."""
        forced = len(asked.forced_output_tokens or ())
        room = self._max_length - context_length
        field = "max_tokens" if asked.max_total_tokens is None else "max_total_tokens"
        wanted = asked.max_tokens
        if asked.max_total_tokens is not None:
            wanted = asked.max_total_tokens - context_length
            if wanted < 1:
                raise invalid(field, f"leaves no output behind {context_length} tokens of input")
        if wanted is None:
            field = "forced_output_tokens" if forced else "prompt" if asked.tokens is None else "tokens"
            wanted = forced or max(room, 1)
        if forced > wanted:
            raise invalid(field, f"has no room for the {forced} forced_output_tokens")
        if wanted > room:
            if context_length + wanted <= self._stated_length:
                self._note("context")
            raise invalid(
                field,
                f"{context_length} tokens of input and {wanted} of output exceed the model's"
                f" maximum length of {self._max_length}",
            )
        return wanted

    @staticmethod
    def _min_tokens(asked: CompletionRequest, context_length: int, longest: int) -> int:
        field, least = "min_tokens", asked.min_tokens or 0
        if asked.min_total_tokens is not None:
            field, least = "min_total_tokens", max(asked.min_total_tokens - context_length, 0)
        if least > longest:
            raise invalid(field, f"asks for {least} tokens of output at least, where {longest} are the most")
        return least

    def _ending(self, asked: CompletionRequest, least: int) -> Ending:
        eos = self._eos_ids if asked.eos_token is None else frozenset(asked.eos_token)
        stop = frozenset(token for each in asked.stop_tokens or () for token in each.tokens or ())
        self.in_vocabulary("eos_token", [*eos] if asked.eos_token is not None else ())
        self.in_vocabulary("stop_tokens", [*stop])
        return Ending(tokens=eos, stop_tokens=stop, phrases=tuple(asked.stop or ()), min_tokens=least)

    async def _bad(self, asked: CompletionRequest) -> tuple[tuple[int, ...], ...]:
        """The sequences that must not come: phrases become ids as they stand, without special tokens."""
        words, ids = asked.bad_words or [], [list(each.tokens or ()) for each in asked.bad_word_tokens or ()]
        for sequence in ids:
            self.in_vocabulary("bad_word_tokens", sequence)
        if words:
            ids += await asyncio.to_thread(self._tokenizer.encode_plain, words)
        return tuple(tuple(sequence) for sequence in ids if sequence)


def _seeds(asked: CompletionRequest) -> Sequence[int]:
    """A seed for each output: as listed; else one that is given or drawn, and those that follow it."""
    if isinstance(asked.seed, list):
        return asked.seed
    first = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    return [(first + index) % 2**63 for index in range(asked.outputs)]


def _sampling(asked: CompletionRequest) -> Sampling:
    plain = Sampling()
    return Sampling(
        temperature=_given(asked.temperature, plain.temperature),
        top_k=asked.top_k or 0,
        top_p=_given(asked.top_p, plain.top_p),
        min_p=asked.min_p or 0.0,
        xtc_threshold=_given(asked.xtc_threshold, plain.xtc_threshold),
        xtc_probability=asked.xtc_probability or 0.0,
    )


def _steering(asked: CompletionRequest, ending: Ending, bad: tuple[tuple[int, ...], ...]) -> Steering:
    return Steering(
        repetition_penalty=_given(asked.repetition_penalty, 1.0),
        frequency_penalty=asked.frequency_penalty or 0.0,
        presence_penalty=asked.presence_penalty or 0.0,
        no_repeat_ngram=asked.no_repeat_ngram or 1,
        bad=bad,
        min_tokens=ending.min_tokens,
        ending=ending.tokens | ending.stop_tokens,
    )


def _beams(asked: CompletionRequest) -> Beams | None:
    if asked.num_beams is None:
        return None
    return Beams(
        width=asked.num_beams,
        kind=asked.beam_search_type or "DETERMINISTIC",
        length_penalty=_given(asked.length_penalty, 1.0),
        early_stopping=bool(asked.early_stopping),
        pre_normalization=bool(asked.beam_compat_pre_normalization),
        post_normalization=not asked.beam_compat_no_post_normalization,
    )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
