"""The files by which sentence-transformers says how a model makes a vector of a text; without torch.

modules.json lists what runs one behind the other: the Transformer, a Pooling, whose config.json stands in a folder of
its own, and perhaps Normalize. sentence_bert_config.json may say to how many tokens a text is cut, else
tokenizer_config.json does.
"""

import logging
from pathlib import Path
from typing import Any

from bertram.batch import checked_length
from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.files import read_if_there, read_json, write_json

_MODULES, _LENGTH, _TOKENIZER = "modules.json", "sentence_bert_config.json", "tokenizer_config.json"
_SETTINGS = "config_sentence_transformers.json"
logger = logging.getLogger(__name__)

_POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


def has_pooling(directory: Path) -> bool:
    """Whether a directory holds a model of sentence-transformers that makes vectors.

    One whose only module is a Transformer reads pairs of texts: its head is in config.json, as anybody's.
    """
    path = directory / _MODULES
    try:
        return path.is_file() and [kind for kind, _ in _modules(path)] != ["Transformer"]
    except BadInput:  # `read_pooling` will say it
        return True


def read_pooling(directory: Path) -> dict[str, Any]:
    """The fields of an EncoderConfig that the files say, `pooling` and `normalize_pooling`; none without the files.

    Raises:
        BadInput: a file is damaged, or the vectors are made in a way that we do not know.
    """
    if not has_pooling(directory):
        return {}
    path = directory / _MODULES
    modules = _modules(path)
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        found = ", ".join(kinds)
        raise BadInput(f"{path}: must list Transformer, Pooling and perhaps Normalize, not {found!r:.120}")
    if [place for _, place in modules[:2]] != ["", "1_Pooling"]:
        raise BadInput(f"{path}: the Transformer must stand beside it and the Pooling in 1_Pooling")
    _warn(directory)
    return {"pooling": _mode(directory / "1_Pooling" / "config.json"), "normalize_pooling": len(kinds) == 3}


def _warn(directory: Path) -> None:
    """Tell of settings by which sentence-transformers would give other vectors or similarities."""
    content = read_if_there(directory / _SETTINGS)
    prompts, name = content.get("prompts"), content.get("default_prompt_name")
    if isinstance(prompts, dict) and isinstance(name, str) and (prompt := prompts.get(name)):
        logger.warning("%s: its prompt %.80r is not added to texts; add it yourself", directory, prompt)
    if content.get("similarity_fn_name") not in (None, "cosine"):
        logger.warning(
            "%s: the similarity %.40r is ignored; Bertram uses the cosine", directory, content["similarity_fn_name"]
        )
    if content.get("truncate_dim") is not None:
        logger.warning("%s: truncate_dim is ignored; vectors keep their full width", directory)
    if read_if_there(directory / _LENGTH).get("do_lower_case"):
        logger.warning("%s: do_lower_case is ignored; the tokenizer alone decides about case", directory)


def read_max_length(directory: Path) -> int | None:
    """Tokens that a text is cut to, if sentence_bert_config.json says, or tokenizer_config.json.

    Raises:
        BadInput: the file is damaged.
    """
    for name, key in ((_LENGTH, "max_seq_length"), (_TOKENIZER, "model_max_length")):
        path = directory / name
        if not path.is_file():
            continue
        content = _read(path)
        length = content.get(key) if isinstance(content, dict) else 0
        if isinstance(length, float) and length.is_integer():  # 1e30, which says that there is no limit
            length = int(length)
        if length is not None:
            return checked_length(length, f"{path}: {key}")
    return None


def write_max_length(directory: Path, max_length: int) -> None:
    """Write sentence_bert_config.json: tokens that a text is cut to.

    Raises:
        OSError: the file cannot be written.
    """
    write_json(directory / _LENGTH, {"max_seq_length": max_length, "do_lower_case": False})


def write_pooling(directory: Path, config: EncoderConfig) -> None:
    """Write the files, for a model that is read from the same directory.

    Raises:
        OSError: a file cannot be written.
    """
    kinds = {"": "Transformer", "1_Pooling": "Pooling"} | (
        {"2_Normalize": "Normalize"} if config.normalize_pooling else {}
    )
    modes = {name: config.pooling == pooling for pooling, name in _POOLINGS.items()}
    others = dict.fromkeys(("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens"), False)
    write_json(
        directory / "1_Pooling" / "config.json", {"word_embedding_dimension": config.hidden_size, **modes, **others}
    )
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds.items())
    ]
    write_json(directory / _MODULES, modules)  # last: it says that the others are there


def _modules(path: Path) -> list[tuple[str, Any]]:
    """The kind of each module, and where it stands."""
    modules = _read(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise BadInput(f"{path}: must hold a list of modules")
    return [(str(module.get("type")).rpartition(".")[2], module.get("path")) for module in modules]


def _mode(path: Path) -> str:
    content = _read(path)
    if not isinstance(content, dict):
        raise BadInput(f"{path}: must hold one JSON object")
    if "pooling_mode" in content:  # the one name that newer files have in place of a switch for each mode
        modes = [content["pooling_mode"]]
    else:
        on = [name for name, value in content.items() if name.startswith("pooling_mode_") and value is True]
        modes = [next((mode for mode, known in _POOLINGS.items() if known == name), name) for name in on]
    if len(modes) != 1 or modes[0] not in list(_POOLINGS):
        raise BadInput(f"{path}: one of {' and '.join(_POOLINGS)} must be the pooling, not {modes!r:.120}")
    return str(modes[0])


def _read(path: Path) -> Any:
    if not path.is_file():
        raise BadInput(f"{path}: no such file, but {_MODULES} asks for it")
    return read_json(path)
