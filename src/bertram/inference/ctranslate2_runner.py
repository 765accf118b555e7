"""The runner that writes texts with CTranslate2, which searches in native code and needs no torch.

Letters: B sources, T tokens of all of them together.
"""

import ctypes
import os
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakSet

from bertram.batch import Batch, check_positions
from bertram.environment import default_threads
from bertram.errors import BadInput, require
from bertram.formats.ctranslate2_file import describe
from bertram.search import Hypothesis, Search

_TEXTS = 8  # that a thread takes at a time, of like length; more are no faster and take more memory
_RUNNERS = WeakSet["CTranslate2Runner"]()


class CTranslate2Runner:
    """A directory that `bertram export --format ctranslate2` wrote, ready to search."""

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        """Load a directory; `threads` compute, by default `default_threads()`.

        Each takes some texts: two that share the products of a small model wait for one another longer than they work.

        Raises:
            BadInput: ctranslate2 is not installed, or the directory is damaged or not Bertram's.
        """
        self.directory, self.description = directory, describe(directory)
        self._ids = {token: token_id for token_id, token in enumerate(self.description.target_tokens)}
        self._threads = threads or default_threads()
        self._translator = self._load()
        _RUNNERS.add(self)

    def _load(self) -> Any:
        library = require("ctranslate2", "ctranslate2")
        try:
            return library.Translator(str(self.directory), device="cpu", inter_threads=self._threads, intra_threads=1)
        except (RuntimeError, ValueError, IndexError) as error:  # what its C++ exceptions become
            raise BadInput(f"{self.directory}: CTranslate2 cannot load it: {error}") from None

    def generate(self, batch: Batch, search: Search) -> list[list[Hypothesis]]:
        """The n_best hypotheses of each of the B sources, best first.

        The rules are those of `bertram.models.beam_search`, but for these. A source is done when `beam_size` hypotheses
        have ended, whatever the others promise. The rule against repeated n-grams does not see the start token. All
        sources are searched up to the batch's longest limit (`Search.limits`) and what is longer than its own is cut,
        with the score of the whole. A source of nothing but an end token has outputs of nothing, with a score of 0.

        Raises:
            BadInput: a source is a pair of texts, or longer than the positions that the model knows; or this is a fork,
                which loads the directory again, and cannot.
        """
        if not len(batch):
            return []
        known = self.description
        if batch.segment_ids.any():
            raise BadInput(f"{self.directory}: reads one text at a time, not pairs of texts")
        check_positions(int(batch.lengths.max()), known.source_positions)
        room = search.limits(batch.lengths, known.target_positions) - 1  # for all but the end token
        steps = int(room.max())
        if not steps:
            return [[Hypothesis([], 0.0)] for _ in range(len(batch))]
        if self._translator is None:
            self._translator = self._load()
        tokens = [known.source_tokens[token_id] for token_id in batch.token_ids.tolist()]
        results = self._translator.translate_batch(
            [tokens[start:end] for start, end in pairwise(batch.offsets.tolist())],
            max_input_length=0,
            max_batch_size=_TEXTS,
            beam_size=search.beam_size,
            num_hypotheses=search.n_best,
            length_penalty=search.length_penalty,
            no_repeat_ngram_size=search.no_repeat_ngram_size,
            min_decoding_length=min(search.min_length, steps),
            max_decoding_length=steps,
            suppress_sequences=[[known.pad_token]],
            use_vmap=known.has_vocabulary_map,
            return_scores=True,
        )
        # CTranslate2 counts the end token too, but not in a hypothesis that took all steps without ending.
        unended = (steps / (steps + 1)) ** search.length_penalty
        found = []
        for result, most in zip(results, room.tolist(), strict=True):
            hypotheses = []
            for words, score in zip(result.hypotheses, result.scores, strict=True):
                ids = [self._ids[word] for word in words]
                hypotheses.append(Hypothesis(ids[:most], score * unended if len(ids) == steps else score))
            found.append(sorted(hypotheses, key=lambda hypothesis: -hypothesis.score))
        return found


def _forked() -> None:
    """A fork has none of the translators' threads, and their ends would wait for those: they stay, but are not used."""
    for runner in _RUNNERS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runner._translator))  # not even Python's end is theirs
        runner._translator = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
