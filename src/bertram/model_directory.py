"""A trained model's directory, read: weights, tokenizers, and what bertram.json and other libraries' files say."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertram.batch import checked_length
from bertram.config import EncoderConfig, TransformerConfig
from bertram.errors import BadInput, failing_in, require_all
from bertram.files import fingerprint
from bertram.formats.config_json import overrides_of
from bertram.formats.huggingface_config import Description, read_description
from bertram.formats.marian_config import read_search
from bertram.formats.sentence_transformers import has_pooling, read_max_length
from bertram.formats.transformer_config import is_marian, is_transformer, read_transformer_config
from bertram.formats.weights_file import find_weights
from bertram.run_directory import MANIFEST, read_manifest, trained_on_pairs
from bertram.search import Search
from bertram.tasks.classification import Classification
from bertram.tasks.fill_mask import FillMask
from bertram.tasks.registry import AnyTask, any_task_from_dict
from bertram.tasks.regression import Regression
from bertram.tasks.sequence_to_sequence import Translation
from bertram.tasks.similarity import Similarity
from bertram.tasks.tagging import Tagging
from bertram.tasks.task import Task
from bertram.text import marian
from bertram.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bertram.models.heads import Model
    from bertram.models.transformer import Transformer

logger = logging.getLogger(__name__)

TARGET = "target"
"""Where in a model directory the tokenizer of what is written stands, if it is another than that of what is read."""

FILES = (
    *("config.json", "generation_config.json", MANIFEST, "*.safetensors", "*.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "target_vocab.json", "spiece.model", "*.spm", f"{TARGET}/tokenizer*.json"),
    *("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
)
"""What a model directory is read from, pickled weights aside. Other files may lie there too, such as what was trained
from the model."""
PICKLED = "pytorch_model.bin"


class ModelDirectory:
    """A trained model's directory. Its small files are read on first use and then remembered.

    Attributes:
        path: where it stands.
        called: what it goes by if not by its path: owner/name on the hub, or the name of one of Bertram's own.
        from_hub: whether it was fetched from there.
        allow_pickle: read a pytorch_model.bin, tensors only, where there is no model.safetensors.
    """

    def __init__(
        self, path: Path, *, called: str | None = None, from_hub: bool = False, allow_pickle: bool = False
    ) -> None:
        self.path, self.called, self.from_hub, self.allow_pickle = path, called, from_hub, allow_pickle

    def __str__(self) -> str:
        return self.called or str(self.path)

    @property
    def name(self) -> str:
        """What it is called in short: the last part of what it goes by, also where that is "."."""
        path = Path(str(self))
        return (path if path.name.strip(".") else path.resolve()).name

    @property
    def argument(self) -> str:
        """The model argument that names it from everywhere: what it goes by, or its whole path."""
        return self.called or str(self.path.absolute())

    @cached_property
    def identity(self) -> str:
        """What a training's settings keep of it: its name on the hub, or a fingerprint of what it is read from.

        So a directory may be spelled otherwise, linked to or moved with what was trained of it.
        """
        if self.from_hub:
            return str(self)
        files = {file for pattern in (*FILES, PICKLED) for file in self.path.glob(pattern) if file.is_file()}
        prints = [f"{fingerprint(file)}  {file.name}\n" for file in sorted(files)]
        return hashlib.sha256("".join(prints).encode()).hexdigest()

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """bertram.json; empty where there is none.

        Raises:
            BadInput: it is damaged, or of a newer version of Bertram.
        """
        return read_manifest(self.path)

    @cached_property
    def is_transformer(self) -> bool:
        """Whether it holds an encoder–decoder model.

        Raises:
            BadInput: it holds no model, or its config.json cannot be read.
        """
        return is_transformer(self.path)

    def find_weights(self) -> Path:
        """The file of its weights.

        Raises:
            BadInput: there is none, or it would have to be unpickled.
        """
        return find_weights(self.path, allow_pickle=self.allow_pickle)

    @cached_property
    def _description(self) -> Description:
        return read_description(self.path, overrides_of(self.path))

    @property
    def config(self) -> EncoderConfig:
        """The sizes of an encoder.

        Raises:
            BadInput: its config.json or bertram.json cannot be used.
        """
        return self._description.config

    @cached_property
    def transformer_config(self) -> TransformerConfig:
        """The sizes of an encoder–decoder model.

        Raises:
            BadInput: its config.json or bertram.json cannot be used.
        """
        return read_transformer_config(self.path)

    @property
    def pairs(self) -> bool | None:
        """Whether it was trained on pairs of texts; None where bertram.json does not say."""
        return trained_on_pairs(self.manifest)

    @cached_property
    def max_length(self) -> int:
        """Tokens of a text that the model reads: as it was trained on or its files say, or as it has positions for.

        Raises:
            BadInput: bertram.json says what cannot be.
        """
        positions = (self.transformer_config.encoder if self.is_transformer else self.config).max_position_embeddings
        longest = self.manifest.get("max_length", min(read_max_length(self.path) or positions, positions))
        return checked_length(longest, f"{self.path / MANIFEST}: max_length", positions)

    @cached_property
    def search(self) -> Search:
        """How outputs are searched for: as bertram.json says, else generation_config.json.

        Raises:
            BadInput: it says what cannot be.
        """
        if "search" not in self.manifest:
            return read_search(self.path) if is_marian(self.path) else Search()
        try:
            return Search(**self.manifest["search"])
        except (TypeError, BadInput):
            raise BadInput(f"{self.path / MANIFEST}: search must be an object of search settings") from None

    @property
    def task(self) -> AnyTask:
        """The task that the model was trained for.

        Raises:
            BadInput: no file says, or the directory holds no model.
        """
        if (task := self.task_if_known) is not None:
            return task
        reason = "config.json has no known architecture"
        if not self.is_transformer:
            if self._description.unknown:
                raise BadInput(f"{self.path / 'config.json'}: {self._description.unknown}")
            if named := self._description.architecture:
                reason = f"config.json names {named}, which has no head for one"
        raise BadInput(
            f"{self}: unknown task: {MANIFEST} names none and {reason}; "
            f"train it first: bertram train TASK DATA --model {self}"
        )

    @cached_property
    def task_if_known(self) -> AnyTask | None:
        """The task that bertram.json names, or that other libraries' files imply; None where there is none.

        Raises:
            BadInput: bertram.json names none that is known, or the directory holds no model.
        """
        if "task" in self.manifest:
            with failing_in(self.path / MANIFEST):
                return any_task_from_dict(self.manifest["task"])
        if has_pooling(self.path):
            return Similarity()
        return Translation() if is_marian(self.path) else self._task_of_architecture()

    def _task_of_architecture(self) -> Task | FillMask | None:
        """What a published model is for, by the heads that config.json promises; numbers are in the labels' unit."""
        if self.is_transformer:
            return None
        said = self._description
        if "regression" in said.heads:
            if said.activation:
                logger.warning("%s: scores do not go through the %.40s of config.json", self, said.activation)
            return Regression(0.0, 1.0)
        if labelled := said.heads & {Classification.head, Tagging.head}:
            with failing_in(self.path / "config.json"):
                found = Classification(tuple(said.labels or (f"LABEL_{number}" for number in range(said.num_labels))))
            return Tagging(found) if Tagging.head in labelled else found
        return FillMask() if FillMask.head in said.heads else None

    def read_model(self, heads: dict[str, int] | None = None, *, labels: Sequence[str] | None = None) -> "Model":
        """An encoder with the named heads, of which those that the directory lacks start with random weights.

        Without `heads`, with those that the directory holds. A classification head is another if its `labels` are.

        Raises:
            BadInput: the directory holds no encoder, or a damaged one.
        """
        require_all(("torch", "safetensors"), "train")
        from bertram.formats.huggingface import read

        return read(
            self.path, heads=heads, labels=labels, overrides=overrides_of(self.path), allow_pickle=self.allow_pickle
        )

    def read_to_answer(self) -> "Model":
        """An encoder with what its task asks; one that makes vectors leaves the heads that it was pre-trained with.

        Raises:
            BadInput: as `read_model`, or the weights are not for the task.
        """
        task = self.task_if_known
        pooled = isinstance(task, Task) and task.apart and has_pooling(self.path)
        network = self.read_model({Similarity.head: 0} if pooled else None)
        if isinstance(task, Task | FillMask):
            check_head(self.path, task, network.labels())
        return network

    def read_transformer(self) -> "Transformer":
        """The encoder–decoder model.

        Raises:
            BadInput: the directory holds none, or a damaged one, or one whose weights are not finite.
        """
        require_all(("torch", "safetensors"), "train")
        from bertram.formats import transformer

        network = transformer.read_transformer(self.path, allow_pickle=self.allow_pickle)
        self.check_numbers(network)
        return network

    def check_numbers(self, network: "Model | Transformer") -> None:
        """Refuse a model that answers nothing. An encoder whose training diverged may still be measured, and is read.

        Raises:
            BadInput: a weight is not finite.
        """
        for name, weight in network.named_parameters():
            if not weight.isfinite().all():
                raise BadInput(f"{self}: {name} holds NaN or infinity: its training diverged, or the file is damaged")

    def read_tokenizer(self) -> Tokenizer:
        """The tokenizer of an encoder.

        Raises:
            BadInput: there is none, it is damaged, it counts further than the model's vocabulary, or is not the one
                that the model was saved with.
        """
        tokenizer, size = Tokenizer.load(self.path), self.config.vocab_size
        if tokenizer.vocab_size > size:
            raise BadInput(f"{self}: the tokenizer has {tokenizer.vocab_size:,} entries, the model only {size:,}")
        self._check_vocabularies(tokenizer)
        return tokenizer

    def read_tokenizers(self, sizes: tuple[int, int] | None = None) -> tuple[Tokenizer, Tokenizer]:
        """The tokenizers of what an encoder–decoder model reads and writes, which may be one.

        `sizes` are those of its vocabularies, by default as config.json has them.

        Raises:
            BadInput: one is missing or damaged, or of another vocabulary than the model's.
        """
        if sizes is None:
            sizes = self.transformer_config.encoder.vocab_size, self.transformer_config.decoder.vocab_size
        if (self.path / marian.FIRST_FILE).is_file():
            found = source, target = marian.read_marian(self.path)
        else:
            source = Tokenizer.load(self.path)
            target = Tokenizer.load(self.path / TARGET) if (self.path / TARGET).is_dir() else source
            found = source, target
        if source.vocab_size > sizes[0]:
            raise BadInput(f"{self}: the tokenizer has {source.vocab_size:,} entries, the model only {sizes[0]:,}")
        if target.vocab_size != sizes[1]:  # it could write what has no name
            raise BadInput(f"{self}: the tokenizer has {target.vocab_size:,} entries, the model writes {sizes[1]:,}")
        self._check_vocabularies(*found)
        return found

    def _check_vocabularies(self, *tokenizers: Tokenizer) -> None:
        """Tell a model's own tokenizers from others of the same size, where bertram.json has their fingerprints.

        Raises:
            BadInput: these are others.
        """
        expected = self.manifest.get("vocabularies")
        if isinstance(expected, list):  # an encoder–decoder's may be asked for the tokenizer of what it reads alone
            expected = expected[: len(tokenizers)]
        if expected is not None and expected != vocabularies(*tokenizers)["vocabularies"]:
            raise BadInput(f"{self}: the tokenizer's vocabulary is not the one that the model was saved with")


def check_head(source: Path, task: Task | FillMask, labels: Mapping[str, int]) -> None:
    """Refuse a model that cannot do its task: `labels` are its heads', 0 where a head counts none.

    Raises:
        BadInput: the task's head is not there, or has other outputs.
    """
    wanted = 0 if isinstance(task, FillMask) or task.apart else task.outputs
    if labels.get(task.head) != wanted:
        outputs = f" with {wanted} outputs" if wanted else ""
        raise BadInput(f"{source}: the weights are not those of a model for {task.name}{outputs}")


def vocabularies(*tokenizers: Tokenizer) -> dict[str, list[str]]:
    """What bertram.json says of a model's tokenizers."""
    return {"vocabularies": [tokenizer.fingerprint for tokenizer in tokenizers]}
