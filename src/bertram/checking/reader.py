"""A model argument as far as it decides about the lengths of texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertram.model_directory import ModelDirectory
from bertram.model_names import require_encoder, resolve
from bertram.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reader:
    """What a model reads with, and of an encoder–decoder model what it writes with; of others the same."""

    name: str
    source: Tokenizer
    target: Tokenizer
    max_length: int
    """Tokens that it cuts texts to."""
    learned_here: bool = False
    """Whether the tokenizer was learned from the training texts, as `train` does for a preset."""

    @classmethod
    def of_encoder(cls, directory: ModelDirectory) -> "Reader":
        """A trained encoder, which reads alone."""
        tokenizer = directory.read_tokenizer()
        return cls(directory.name, tokenizer, tokenizer, directory.max_length)

    @classmethod
    def of_labelled(cls, model: str | Path, texts: Sequence[str], vocab_size: int | None, cased: bool) -> "Reader":
        """What is trained on labels: an encoder, or a preset, which learns a tokenizer from these training texts.

        Raises:
            BadInput: `model` is neither, or cannot be read.
        """
        source = require_encoder(resolve(model))
        if isinstance(source, ModelDirectory):
            return cls.of_encoder(source)
        config = source.config
        size = config.vocab_size if vocab_size is None else vocab_size
        tokenizer = Tokenizer.train(texts, config.model_type, size, cased=cased)
        return cls(source.name, tokenizer, tokenizer, config.max_position_embeddings, learned_here=True)

    @property
    def described(self) -> dict[str, Any]:
        """What a check says of the model."""
        return {
            "name": self.name,
            "vocab_size": self.source.vocab_size,
            "learned_here": self.learned_here,
            "max_length": self.max_length,
        }
