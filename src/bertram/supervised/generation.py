"""From pairs of texts and a model argument to a trained encoder–decoder directory."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertram.batch import Batch, Examples, Ints, laid_out, ranges
from bertram.config import TransformerConfig, changed
from bertram.errors import BadInput, failing_in
from bertram.evaluation import evaluate_writing, score_writing
from bertram.inference.generator import Generator
from bertram.model_card import model_card
from bertram.model_directory import TARGET, ModelDirectory
from bertram.saving import learned_tokenizer, save_transformer
from bertram.search import Search
from bertram.supervised.base import Training
from bertram.tasks.registry import GENERATIONS
from bertram.tasks.sequence_to_sequence import Generation
from bertram.tasks.task import Score
from bertram.text.pairs import Pairs, read_pairs
from bertram.text.rows import Columns
from bertram.text.splits import Splits
from bertram.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bertram.models.transformer import Transformer
    from bertram.training.distributed import Processes
    from bertram.training.setup import TrainingSetup

logger = logging.getLogger(__name__)

_FINE_TUNING_RATE, _RATE = 5e-5, 1e-3  # of a trained model, and of random weights
_MOST_DECODER_LAYERS = 6


def read_splits(
    task: str,
    files: Mapping[str, Sequence[Path]],
    *,
    columns: Columns = None,
    seed: int = 0,
) -> Splits[Pairs]:
    """Read the pairs of each split, as `files_of` has them; without validation a seeded tenth is held out.

    Raises:
        BadInput: a file cannot be used.
    """
    names = GENERATIONS[task].columns
    found = {part: read_pairs(*paths, columns=columns, names=names) for part, paths in files.items()}
    splits = Splits.of_files(found, files, columns, seed)
    splits.description["empty_pairs"] = sum(pairs.dropped for pairs in found.values())
    return splits


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderTraining(Training[Generation, Splits[Pairs]]):
    """An encoder–decoder model's training on pairs of texts; an encoder's directory as `source` gets a new decoder."""

    separate_vocabularies: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)

    libraries = ("torch", "safetensors", "sacrebleu", "tensorboard")

    def __post_init__(self) -> None:
        source = self.source
        if isinstance(source, ModelDirectory):
            if self.vocab_size is not None or self.separate_vocabularies:
                raise BadInput(f"{source}: has its tokenizer already; --vocab-size and its like are for presets")
            if source.is_transformer and self.config:
                raise BadInput(f"{source}: is a trained encoder–decoder model, whose sizes cannot be changed")
        super().__post_init__()

    @property
    def positions(self) -> int:
        """As `Training.positions`; what is written may be shorter, by the decoder's."""
        source = self.source
        encoder = changed(source.transformer_config.encoder, self.config) if source.is_transformer else source.config
        return encoder.max_position_embeddings

    @property
    def defaults(self) -> Mapping[str, float]:
        """As `Training.defaults`: a pre-trained encoder learns at a tenth of its new decoder's rate."""
        found = {"label_smoothing": 0.1, "batch_tokens": 4096}
        source, rate = self.source, _RATE if self.recipe.learning_rate is None else self.recipe.learning_rate
        if isinstance(source, ModelDirectory):
            if source.is_transformer:
                return {**found, "learning_rate": _FINE_TUNING_RATE}
            if rate:
                return {**found, "learning_rate": rate, "encoder_learning_rate": rate / 10}
        return {**found, "learning_rate": rate}

    @property
    def settings(self) -> dict[str, Any]:
        """As `Training.settings`."""
        own = {"separate_vocabularies": self.separate_vocabularies, "config": dict(self.config)}
        return super().settings | own

    def begin(self, out: Path, processes: "Processes") -> "TrainingSetup":
        """As `Training.begin`.

        Evaluations while training are greedy; the finished model searches as the one it began with, if that says how.
        """
        from bertram.training.setup import Evaluation, TrainingSetup
        from bertram.training.torch_runner import TorchGenerator

        network, source, target = _start(self, out)
        network.head.label_smoothing = self.recipe.label_smoothing or 0.0
        search = Search()
        if isinstance(self.source, ModelDirectory) and self.source.is_transformer:
            search = self.source.search
        max_length = self.longest
        examples, truncated = pair_examples(self.splits.train, source, target, network.config, max_length)
        generator = Generator(self.task, source, target, TorchGenerator(network, processes.device), max_length, search)

        def evaluate() -> Evaluation:
            score = evaluate_writing(generator, self.splits.validation, Search(beam_size=1))[0].value
            return Evaluation(score, {f"validation_{self.task.metric}": score})

        def scores(name: str) -> list[Score]:
            pairs = self.splits.judged[name]
            written = generator.write(pairs.sources)
            if name == "validation" and not self.trial and not any(written):
                logger.warning(
                    "bertram: %s: the model writes nothing for any of the %d validation texts; try a higher "
                    "--learning-rate, more --epochs or more pairs",
                    *(out, len(written)),
                )
            return score_writing(self.task, written, pairs, search)

        return TrainingSetup(
            network=network,
            feed=self.feed(examples),
            evaluate=evaluate,
            results=lambda: self.results(scores),
            save=lambda manifest: save_transformer(network, source, target, out, manifest, model_card(manifest)),
            facts={**self.facts, "max_length": max_length, "truncated_texts": truncated, "search": asdict(search)},
            fewer_evaluations=False,  # an untrained decoder writes until it is stopped
        )


def pair_examples(
    pairs: Pairs, source: Tokenizer, target: Tokenizer, config: TransformerConfig, max_length: int
) -> tuple[Examples, int]:
    """Pairs as a decoder learns them: given the start token and the tokens so far, it predicts the next token, and
    finally the end.

    A text with several right ones stands there once for each. Longer texts are cut to `max_length` tokens, and what is
    written to the decoder's positions too.

    Returns the examples, and how many texts were cut.
    """
    from bertram.models.transformer import HEAD

    sources, targets = pairs.flat
    inputs, cut = source.encode(sources, max_length=max_length)
    most = min(max_length, config.decoder.max_position_embeddings) - 1
    pieces, lengths = target.pieces(targets, most)
    kept = np.minimum(lengths, most)
    offsets, positions = laid_out(kept + 1)
    written = np.full(offsets[-1], config.decoder_start_token_id, np.int32)
    written[ranges(offsets[:-1] + 1, kept)] = pieces
    following: Ints = np.full(offsets[-1], config.eos_token_id, np.int32)
    following[ranges(offsets[:-1], kept)] = pieces
    outputs = Batch(written, np.zeros_like(written), positions, offsets)
    return Examples(inputs, token_labels={HEAD: following}, inputs_b=outputs), cut + int((lengths > kept).sum())


def _start(training: EncoderDecoderTraining, out: Path) -> tuple["Transformer", Tokenizer, Tokenizer]:
    """The model to train, and the tokenizers of what it reads and of what it writes."""
    from bertram.models.transformer import Transformer

    given = training.source
    if isinstance(given, ModelDirectory):
        if not given.is_transformer:
            return _on_encoder(given, training.config)
        return given.read_transformer(), *given.read_tokenizers()
    preset = given.transformer_config
    source, target = _tokenizers(training, preset, out)
    encoder = replace(changed(preset.encoder, training.config), vocab_size=source.vocab_size)
    decoder = replace(changed(preset.decoder, training.config), vocab_size=target.vocab_size)
    with failing_in("--config"):
        sizes = TransformerConfig(
            encoder=encoder,
            decoder=decoder,
            share_encoder_decoder_embeddings=source is target,
            pad_token_id=target.pad_id,
            eos_token_id=target.end_id,
            decoder_start_token_id=target.pad_id,
        )
    return Transformer(sizes), source, target


def _tokenizers(training: EncoderDecoderTraining, preset: TransformerConfig, out: Path) -> tuple[Tokenizer, Tokenizer]:
    """A preset's tokenizers, learned from the training pairs once for every OUT; one for both sides if not told."""
    sides = [training.splits.train.sources, training.splits.train.flat[1]]
    texts = sides if training.separate_vocabularies else [[*sides[0], *sides[1]]]
    found = [
        learned_tokenizer(folder, side, "transformer", preset.decoder.vocab_size, training.vocab_size)
        for side, folder in zip(texts, (out, out / TARGET), strict=False)
    ]
    return found[0], found[-1]


def _on_encoder(directory: ModelDirectory, changes: Mapping[str, Any]) -> tuple["Transformer", Tokenizer, Tokenizer]:
    """A trained encoder under a new decoder, which embeds tokens as the encoder does where it is as wide."""
    from bertram.formats.residuals import untied
    from bertram.models.transformer import Transformer

    encoder, tokenizer = untied(directory.read_model({})).encoder, directory.read_tokenizer()
    layers = min(encoder.config.num_hidden_layers, _MOST_DECODER_LAYERS)
    groups = encoder.config.num_hidden_groups
    plain = replace(
        encoder.config,
        type_vocab_size=0,
        sentence_objective="none",
        num_hidden_layers=layers,
        num_hidden_groups=None if groups is None else min(groups, layers),
    )
    decoder = replace(changed(plain, changes), vocab_size=tokenizer.vocab_size)
    shapes = [(stack.vocab_size, stack.embedding_width) for stack in (encoder.config, decoder)]
    with failing_in("--config"):
        sizes = TransformerConfig(
            encoder=encoder.config,
            decoder=decoder,
            share_encoder_decoder_embeddings=shapes[0] == shapes[1],
            pad_token_id=tokenizer.pad_id,
            eos_token_id=tokenizer.end_id,
            decoder_start_token_id=tokenizer.cls_id,
        )
    network = Transformer(sizes)
    network.encoder.load_state_dict(encoder.state_dict())
    if encoder.config.embedding_width == decoder.embedding_width:  # of a vocabulary that may be padded
        rows = encoder.embeddings.tokens.weight[: decoder.vocab_size]
        network.decoder.load_state_dict({"embeddings.tokens.weight": rows}, strict=False)
    return network, tokenizer, tokenizer
