"""What a user may name as a model: a directory, a preset, a model on the hub, or one of Bertram's own."""

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from bertram.baseline import linear
from bertram.config import PRESETS, TRANSFORMERS, EncoderConfig, TransformerConfig
from bertram.errors import BadInput, require
from bertram.formats.ctranslate2_file import is_ctranslate2
from bertram.formats.engine_file import is_engine, read_engine
from bertram.model_directory import FILES, PICKLED, ModelDirectory

OWN = Path(__file__).parent / "own"
ENGLISH, SENTIMENT = "bertram-english", "bertram-sentiment"
"""Models that come with Bertram: vectors of English texts, and how people feel who wrote them; docs/own-models.md."""
_ON_HUB = re.compile(r"bert-(base|large)-([a-z-]*cased|chinese)[a-z-]*|albert-(base|large|xlarge|xxlarge)-v[12]")
"""Published models that others call by their names alone."""
_TYPO = 0.87
"""How alike names are, of 1, where one is a mistyped other: bert_base and bert-base, not roberta-base and bert-base."""
_READABLE = (
    "Bertram reads BERT, ALBERT and MarianMT models: give a directory, owner/name on the hub, "
    f"{ENGLISH}, or a preset with random weights such as bert-mini"
)


@dataclass(frozen=True)
class Preset:
    """Sizes that go by a name, of a model with random weights; what a `ModelDirectory` is asked, it answers alike."""

    name: str

    path: ClassVar[None] = None
    allow_pickle: ClassVar[bool] = False

    def __str__(self) -> str:
        return self.name

    @property
    def argument(self) -> str:
        """The model argument that names it."""
        return self.name

    @property
    def identity(self) -> str:
        """What a training's settings keep of it."""
        return self.name

    @property
    def is_transformer(self) -> bool:
        """Whether it is an encoder–decoder model's."""
        return self.name in TRANSFORMERS

    @property
    def config(self) -> EncoderConfig:
        """The sizes of an encoder."""
        return PRESETS[self.name]

    @property
    def transformer_config(self) -> TransformerConfig:
        """The sizes of an encoder–decoder model."""
        return TRANSFORMERS[self.name]


def resolve(model: str | Path, *, allow_pickle: bool = False, answers: bool = False) -> ModelDirectory | Preset:
    """What a model argument names. Only a name with a slash reaches the hub.

    Pickled weights are fetched from there if they are allowed. What only `answers` may be named where this is wanted.

    Raises:
        BadInput: nothing goes by that name, or something that only answers.
    """
    if model == "":
        raise BadInput("'' names nothing")
    if model == ENGLISH:
        return ModelDirectory(OWN / ENGLISH, called=ENGLISH)
    if model == SENTIMENT:
        raise BadInput(f"{model}: an engine only answers; take {ENGLISH}, the model that it was made from")
    if isinstance(model, str) and model in (*PRESETS, *TRANSFORMERS):
        return Preset(model)
    path = Path(model)
    if exists(path):
        if path.is_dir():
            if is_ctranslate2(path) and not answers:
                raise BadInput(f"{path}: a CTranslate2 export only answers; give the model that it was made from")
            if linear.is_baseline(path) and not answers:
                raise BadInput(f"{path}: the tf-idf baseline of a comparison only answers")
            return ModelDirectory(path, allow_pickle=allow_pickle)
        if engine_of(path) is not None:
            raise BadInput(f"{path}: an engine only answers; give the model that it was made from")
        raise BadInput(f"{path}: this is a file; a model is a directory with config.json, or a preset")
    name = str(model)
    if path.suffix == ".engine":
        raise BadInput(f"{name}: no such engine file")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        return ModelDirectory(_from_hub(name, allow_pickle), called=name, from_hub=True, allow_pickle=allow_pickle)
    if _ON_HUB.fullmatch(name):
        owner = "albert" if name.startswith("albert") else "google-bert"
        raise BadInput(f"{name}: no such directory; on the hub it is {owner}/{name}, presets have random weights")
    near = difflib.get_close_matches(name, [*PRESETS, *TRANSFORMERS, ENGLISH], cutoff=_TYPO)
    hint = f"did you mean {' or '.join(near)}?" if near else _READABLE
    raise BadInput(f"{name}: no such directory or preset; {hint}")


def may_be(model: str) -> bool:
    """Whether a model argument names something here, or perhaps on the hub."""
    return "/" in model or model in (*PRESETS, *TRANSFORMERS, ENGLISH, SENTIMENT) or exists(Path(model))


def engine_of(model: str | Path) -> Path | None:
    """The engine file that a model argument names: a path, or one of Bertram's own; None where it names none."""
    path = OWN / f"{model}.engine" if model in (ENGLISH, SENTIMENT) else Path(model)
    return path if exists(path) and path.is_file() and is_engine(path) else None


def require_encoder(found: ModelDirectory | Preset) -> ModelDirectory | Preset:
    """What `resolve` found, where an encoder alone is wanted.

    Raises:
        BadInput: it is an encoder–decoder model.
    """
    if found.is_transformer:
        raise BadInput(f"{found}: an encoder–decoder model, for translation or summarization; this needs an encoder")
    return found


def require_writer(found: ModelDirectory | Preset) -> ModelDirectory | Preset:
    """What `resolve` found, where a model is to learn to write texts; an encoder's directory gets a decoder.

    Raises:
        BadInput: it is an encoder's preset.
    """
    if isinstance(found, Preset) and not found.is_transformer:
        raise BadInput(f"{found}: is an encoder's preset, with random weights; take transformer-tiny, or pre-train")
    return found


def require_trained(found: ModelDirectory | Preset) -> ModelDirectory:
    """What `resolve` found, where a preset will not do, which has learned nothing.

    Raises:
        BadInput: it is a preset.
    """
    if isinstance(found, ModelDirectory):
        return found
    if exists(Path(found.name)):
        hint = f"write ./{found} for the directory"
    elif found.is_transformer:
        hint = f"train it first: bertram train translation DATA DATA2 --model {found} --out DIR"
    else:
        hint = (
            f"train it first, on examples (bertram train TASK DATA --model {found} --out DIR) or on raw text (bertram "
            f"pretrain CORPUS --model {found} --out DIR)"
        )
    raise BadInput(f"{found} is a preset with random weights; {hint}")


def config_of(model: str | Path) -> EncoderConfig | TransformerConfig:
    """The sizes of a preset or directory of either kind, or of an engine file.

    Raises:
        BadInput: nothing goes by that name, its config.json or bertram.json cannot be used, or the engine file is
            damaged.
    """
    if (engine := engine_of(model)) is not None:
        return read_engine(engine).config
    found = resolve(model)
    return found.transformer_config if found.is_transformer else found.config


def exists(path: Path) -> bool:
    """Whether a path is there; a text may be no path at all."""
    try:
        return path.exists()
    except OSError:  # a text, too long for a name
        return False


@lru_cache
def _from_hub(name: str, allow_pickle: bool) -> Path:
    try:
        hub = require("huggingface_hub", "hub")
    except BadInput as error:
        raise BadInput(f"{name}: no such directory here, and for the Hugging Face hub {error}") from None
    wanted = [*linear.FILES, *FILES, *([PICKLED] if allow_pickle else [])]
    try:
        return Path(hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises errors of many libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{name}: no such directory, and the Hugging Face hub could not provide it: {reason}") from None
