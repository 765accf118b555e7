"""The runners that compute with torch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from bertram.batch import Batch
from bertram.interruption import check_stop
from bertram.models.beam_search import search as beam_search
from bertram.models.decoding import Decoding
from bertram.models.heads import Model
from bertram.models.tensors import to_tensors
from bertram.models.transformer import Transformer
from bertram.search import Hypothesis, Search

_FEWEST_SOURCES = 32  # that are worth a thread of their own, measured on two cores


class TorchRunner:
    """Answers with a model as it stands, in evaluation mode."""

    def __init__(self, model: Model, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model, device

    @torch.inference_mode()
    def run(self, batch: Batch, asked: NDArray[np.integer] | None = None) -> dict[str, NDArray[np.float32]]:
        """Every head's logits by its name, and "hidden" and "pooled", as `Model.forward` states them.

        Raises:
            BadInput: as `Batch.check`.
            Interrupted: a signal came.
        """
        check_stop()
        config = self.model.config
        batch.check(config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
        self.model.eval()
        places = None if asked is None else torch.as_tensor(asked, device=self.device)
        out = self.model(to_tensors(batch, self.device), places)
        return {name: tensor.float().cpu().numpy() for name, tensor in out.items()}


class TorchGenerator:
    """Writes with an encoder–decoder model as it stands, in evaluation mode."""

    def __init__(self, model: Transformer, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model, device

    def generate(self, batch: Batch, search: Search) -> list[list[Hypothesis]]:
        """The n_best hypotheses of each of the B sources, best first, by the rules of `beam_search.search`.

        On a CPU many sources are shared out among threads that search side by side: the products of a step are small,
        and threads that share a product mostly wait for each other.

        Raises:
            BadInput: a source is longer than the positions that the model knows.
            Interrupted: a signal came.
        """
        check_stop()
        if not len(batch):
            return []
        self.model.eval()
        threads = 1 if torch.device(self.device).type != "cpu" else torch.get_num_threads()
        parts = max(1, min(threads, len(batch) // _FEWEST_SOURCES))
        if parts == 1:
            return self._search(batch, search)
        found: list[list[Hypothesis]] = [[]] * len(batch)

        def search_part(first: int) -> None:
            rows = slice(first, None, parts)
            found[rows] = self._search(batch.select(range(len(batch))[rows]), search)

        with _side_by_side(parts, max(1, threads // parts)) as pool:
            list(pool.map(search_part, range(parts)))  # raises what any raises
        return found

    @torch.inference_mode()
    def _search(self, batch: Batch, search: Search) -> list[list[Hypothesis]]:
        config = self.model.config
        limits = search.limits(batch.lengths, config.decoder.max_position_embeddings)
        return beam_search(
            Decoding(self.model, to_tensors(batch, self.device)),
            len(batch),
            start_id=config.decoder_start_token_id,
            eos_id=config.eos_token_id,
            never=(config.pad_token_id,),
            max_lengths=limits.tolist(),
            settings=search,
            device=self.device,
        )


@contextmanager
def _side_by_side(count: int, threads: int) -> Iterator[ThreadPoolExecutor]:
    """So many workers, in each of which torch computes with so many threads."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)  # torch gives every new thread the number that any thread set last
