"""What is to be pre-trained, on what and how."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from bertram.batch import NO_PAIRS, checked_length
from bertram.config import EncoderConfig, Objectives, SentenceObjective
from bertram.corpus.source import Corpus
from bertram.errors import BadInput, failing_in
from bertram.model_directory import ModelDirectory
from bertram.model_names import Preset
from bertram.text.tokenizer import Tokenizer
from bertram.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """All that a pre-training is asked for; objectives and recipe say everything, none of their fields is None.

    Raises:
        BadInput: the settings do not go together.
    """

    corpus: Corpus
    held_out: Corpus | None
    """None: a part of the corpus."""
    source: ModelDirectory | Preset
    config: EncoderConfig
    """What is trained, but for the size of a tokenizer that is yet to be learned."""
    objectives: Objectives
    recipe: Recipe
    tokenizer: str | Path | None
    vocab_size: int | None
    cased: bool

    def __post_init__(self) -> None:
        with failing_in(self.source):
            checked_length(self.objectives.max_length, "--max-length", self.config.max_position_embeddings)
        if self.sentence_objective != "none" and self.config.type_vocab_size < 2:
            raise BadInput(f"{NO_PAIRS}: take --sentence-objective none")
        if self.tokenizer is not None and isinstance(self.source, ModelDirectory):
            raise BadInput(f"--tokenizer: {self.source} has its own; another's tokens would get the wrong embeddings")
        if self.vocab_size is not None and not self._learns_tokenizer:
            raise BadInput(f"--vocab-size {self.vocab_size}: there is a tokenizer already, which has its own size")
        if self.cased and not self._learns_tokenizer:
            raise BadInput("--cased: there is a tokenizer already, which keeps upper case and accents or does not")

    @property
    def sentence_objective(self) -> SentenceObjective:
        """The one that is trained."""
        return cast(SentenceObjective, self.objectives.sentence_objective)

    @property
    def _learns_tokenizer(self) -> bool:
        return self.tokenizer is None and isinstance(self.source, Preset)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the training depends on, for training.json."""
        return {
            "corpus": self.corpus.description(),
            "validation": self.held_out.description() if self.held_out else None,
            "documents": self.corpus.documents,
            "model": self.source.identity,
            "config": asdict(self.config),
            "tokenizer": None if self.tokenizer is None else Tokenizer.load(Path(self.tokenizer)).fingerprint,
            "vocab_size": self.vocab_size,
            "cased": self.cased,
            "objectives": asdict(self.objectives),
            "recipe": asdict(self.recipe),
        }
