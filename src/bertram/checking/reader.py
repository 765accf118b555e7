"""A model argument as far as it decides about the lengths of texts."""

from dataclasses import dataclass
from typing import Any

from bertram.model_directory import ModelDirectory
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

    @property
    def described(self) -> dict[str, Any]:
        """What a check says of the model."""
        return {
            "name": self.name,
            "vocab_size": self.source.vocab_size,
            "learned_here": self.learned_here,
            "max_length": self.max_length,
        }
