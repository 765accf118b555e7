"""BERT's, ALBERT's and the Transformer's tokenizers as the `tokenizers` library builds them, and the files of such.

A backend normalises text, splits it and cuts it into pieces; special tokens around the pieces and truncation are
`bertram.text.tokenizer`'s. The first two builders do what transformers' BertTokenizer and AlbertTokenizer do.
"""

import base64
import json
import logging
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bertram.errors import BadInput, failing_as, failing_in
from bertram.files import read_if_there, read_object
from bertram.text.sentencepiece import Kind, check_charsmap, read_unigram

FILES = ("tokenizer.json", "vocab.txt", "spiece.model")
MAX_BYTES = 128 * 2**20
HARMLESS_PATTERN = " {2,}"
"""Runs of spaces: the one regular expression taken from a file, since older tokenizer.json files of ALBERT hold it."""

BERT_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ALBERT_SPECIAL = {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
TRANSFORMER_SPECIAL = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
"""Marian's names. There is none for the start: decoding begins with pad."""
BOUNDARY = "▁"
"""What a word begins with in ALBERT's and the Transformer's vocabularies."""

_SPECIAL = {f"{role}_token" for role in BERT_SPECIAL.keys() | TRANSFORMER_SPECIAL.keys()}
_ADDED = ("extra_special_tokens", "additional_special_tokens", "added_tokens_decoder")
_FLAGS = ("do_lower_case", "keep_accents", "strip_accents", "tokenize_chinese_chars", "separate_vocabs")
_CUT = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
_PLAIN = ("BertTokenizer", "AlbertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "PreTrainedTokenizer")
"""The classes, "Fast" behind them or not, of which a vocab.txt or spiece.model says everything."""
_SPLITTING = ("BertPreTokenizer", "WhitespaceSplit")
"""Pre-tokenizers that part words at white space."""
_LOCAL = ("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Lowercase", "Replace")
"""Normalizers that leave white space as such and see nothing across it."""
_WIDE = "[\u3000-\u9fff\uf900-\ufaff\uff00-\uffef]"
_PARTED = re.compile(
    r"(?<=\w) (') (?=(?:s|t|d|m|ll|re|ve)\b)|(?<=\b[cdjlmnst]) (') (?=\w)"  # it's, don't; l'eau
    r"|(?<=\d) ?([.:]) (?=\d)|(?<=\d)(,) (?=\d{3}\b)|(?<=[(\[{$€£#@]) | (?=[)\]}%])"  # 3.50, 10:30, 1,000; (5%), $3
    rf"|(?<={_WIDE}) (?={_WIDE})",
    re.IGNORECASE,
)
"""Spaces that WordPiece put where none stood, with what is kept between them."""
_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class Pieces(Protocol):
    """What a backend makes of one text."""

    @property
    def ids(self) -> list[int]: ...


class Backend(Protocol):
    """What a Tokenizer asks of its backend: some of `tokenizers.Tokenizer`, or Marian's two models in its place."""

    @property
    def model(self) -> Any: ...

    def get_vocab(self) -> dict[str, int]: ...

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]: ...

    def encode_batch_fast(self, input: Sequence[str], *, add_special_tokens: bool) -> Sequence[Pieces]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def to_str(self, *, pretty: bool) -> str: ...


def bert(
    vocabulary: Mapping[str, int],
    unknown: str = BERT_SPECIAL["unk"],
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    split_chinese: bool = True,
    compose: bool = False,
) -> tokenizers.Tokenizer:
    """WordPiece over `vocabulary`, token to id. Accents go where upper case goes unless `strip_accents` says.

    `compose` makes one of a letter and its accents, which come as one or as several characters (Unicode's NFC).
    """
    backend = tokenizers.Tokenizer(models.WordPiece(dict(vocabulary), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=split_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    if compose:
        backend.normalizer = normalizers.Sequence([normalizers.NFC(), backend.normalizer])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def albert(
    pieces: Sequence[tuple[str, float]],
    unknown: int,
    *,
    lowercase: bool = True,
    keep_accents: bool = False,
    charsmap: bytes = b"",
    compose: bool = False,
) -> tokenizers.Tokenizer:
    """A unigram model over `pieces`, each with its logarithmic probability; `unknown` is the unknown piece's id.

    `compose` makes one of the forms that a character has (Unicode's NFKC, SentencePiece's own default).
    """
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if compose:
        steps.append(normalizers.NFKC())
    if not keep_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if lowercase:
        steps.append(normalizers.Lowercase())
    if charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    backend = tokenizers.Tokenizer(models.Unigram(list(pieces), unk_id=unknown, byte_fallback=False))
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    return backend


def transformer(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> tokenizers.Tokenizer:
    """Byte-pair encoding, over characters (Sennrich et al. 2016), by `merges` of tokens in the order of their learning.

    Case and accents stay. Punctuation and digits stand singly, and the mark of the word that they begin stands before
    them, so that decoded text has spaces where they were.
    """
    backend = tokenizers.Tokenizer(
        models.BPE(dict(vocabulary), list(merges), unk_token=TRANSFORMER_SPECIAL["unk"], fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(BOUNDARY, " ")])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    backend.decoder = decoders.Metaspace()
    return backend


def rejoined(text: str) -> str:
    """What WordPiece decoded, without the spaces that it surely put beside punctuation and between wide characters."""
    return _PARTED.sub(r"\1\2\3\4", text)


def ids_by_role(vocabulary: Mapping[str, int], special: Mapping[str, str]) -> dict[str, int]:
    """The ids of the special tokens, whose names are given by role.

    Raises:
        BadInput: one is not in the vocabulary.
    """
    for role, name in special.items():
        if name not in vocabulary:
            raise BadInput(f"the vocabulary lacks the {role} token {name!r:.80}")
    return {role: vocabulary[name] for role, name in special.items()}


def start_and_end(by_role: Mapping[str, _T]) -> tuple[_T | None, _T]:
    """Of names or ids by role, the one before a text and the one after it: cls and sep, or nothing and eos."""
    return by_role.get("cls"), by_role["sep" if "sep" in by_role else "eos"]


def add_special(backend: tokenizers.Tokenizer, special: Mapping[str, str]) -> bool:
    """Have the backend know the special tokens, by role, where they stand in texts, and put them around texts.

    Bertram puts them there itself; what is written here is for others who read the saved file. A file that puts them
    otherwise around pairs keeps its own, and one whose post-processor adds nothing, or that has none, gets these: such
    is what trainers of vocabularies leave. What a post-processor does is seen by what becomes of the unknown token.

    Returns whether pairs of texts get what Bertram gives them.

    Raises:
        BadInput: one is not in the vocabulary, or is no name that the library takes, or the file puts other tokens
            around a text.
    """
    ids = ids_by_role(backend.get_vocab(), special)
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([name for name in special.values() if name not in known])
    start, end = start_and_end(special)
    before = [f"{start}:0"] if start else []
    try:
        usual = processors.TemplateProcessing(
            single=[*before, "$A:0", f"{end}:0"],
            pair=[*before, "$A:0", f"{end}:0", "$B:1", f"{end}:1"],
            special_tokens=[(name, ids[role]) for role, name in special.items() if name in (start, end)],
        )
    except ValueError as error:  # a name with a colon, or a dollar before it
        raise BadInput(f"not a name for a special token: {error}") from None
    given, text = backend.post_processor, special["unk"]
    said, nothing, ours = (_processed(backend, processor, text) for processor in (given, None, usual))  # which stays
    if said in (nothing, ours):
        return True
    if said[0] != ours[0]:
        names = " and ".join(f"{role}_token" for role in ("cls", "sep", "eos") if role in special)
        raise BadInput(f"it puts other tokens around a text than {names}; a tokenizer_config.json may name them")
    backend.post_processor = given
    return False


def _processed(
    backend: tokenizers.Tokenizer, processor: processors.PostProcessor | None, text: str
) -> list[tuple[list[int], list[int]]]:
    """Have the backend process what it encodes so; ids and segments of a text, and of a pair that has it twice."""
    backend.post_processor = processor
    with failing_as("its post-processor cannot be used"):  # one that names what it does not define panics
        return [(found.ids, found.type_ids) for found in (backend.encode(text), backend.encode(text, text))]


def border(backend: Backend) -> re.Pattern[str] | None:
    """Characters before which a text can be cut: its beginning gets the pieces that the whole begins with.

    White space, where it parts words that are cut into pieces one by one, and Chinese characters that are words. None
    where neither is known: of Marian's models, of SentencePiece's own tables of characters, which may hold white space.
    """
    if not isinstance(backend, tokenizers.Tokenizer):
        return None
    content = json.loads(backend.to_str())
    splits, changes = _steps(content["pre_tokenizer"]), _steps(content["normalizer"])
    if not splits or splits[0]["type"] not in _SPLITTING or not all(step["type"] in _LOCAL for step in changes):
        return None
    chinese = any(step.get("handle_chinese_chars") for step in changes)
    found = re.compile(f"[ \t\n\r{'一-龥' if chinese else ''}]")
    added = backend.get_added_tokens_decoder().values()
    # What is looked for in texts must not reach over the border, nor look at what stands behind it.
    sought = [sought for step in changes if step["type"] == "Replace" for sought in step["pattern"].values()]
    sought += [token.content for token in added]
    if backend.normalizer:
        sought += [backend.normalizer.normalize_str(token.content) for token in added]
    return None if any(map(found.search, sought)) or any(token.single_word for token in added) else found


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What a normalizer or a pre-tokenizer, as in a tokenizer.json, does one after the other."""
    if part is None or part["type"] != "Sequence":
        return [part] if part else []
    return [step for child in part.get("normalizers", part.get("pretokenizers", [])) for step in _steps(child)]


def read_settings(file: Path) -> dict[str, Any]:
    """The settings in a tokenizer_config.json that are known here, their types checked; none if there is no such file.

    As `settings_of`.
    """
    content = read_if_there(file, MAX_BYTES)
    if content.get("truncation_side") == "left":
        logger.warning("%s: truncation_side is left, but Bertram cuts texts at their end", file)
    with failing_in(file):
        return settings_of(content)


def settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a tokenizer_config.json holds of the settings that are known here.

    Special tokens are keyed "pad_token" and so on and given by name; "added" has all tokens that are cut out of texts.

    Raises:
        BadInput: one is of another type.
    """
    settings: dict[str, Any] = {"added": [token for key in _ADDED for token in _added(key, content.get(key))]}
    for key, value in content.items():
        if key in _FLAGS and value is not None:
            if not isinstance(value, bool):
                raise BadInput(f"{key} must be true or false, not {value!r:.80}")
            settings[key] = value
        elif (key in _SPECIAL or key == "tokenizer_class") and value is not None:
            settings[key] = value.get("content") if isinstance(value, dict) else value
            if not isinstance(settings[key], str):
                raise BadInput(f"{key} must be a string, not {value!r:.80}")
    return settings


def _added(key: str, value: Any) -> list[AddedToken]:
    """Tokens that are cut out of texts: each a name, or an object that says how. Numbers or names may be their keys."""
    tokens = [] if value is None else list(value.values()) if isinstance(value, dict) else value
    if not isinstance(tokens, list):
        raise BadInput(f"{key} must be a list or an object of tokens, not {value!r:.80}")
    objects = [token if isinstance(token, dict) else {"content": token, "special": True} for token in tokens]
    try:
        return [AddedToken(**{name: value for name, value in token.items() if name in _CUT}) for token in objects]
    except (TypeError, ValueError) as error:
        raise BadInput(f"{key}: {error}") from None


def special_names(file: Path, vocabulary: Container[str], settings: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens by role: as the settings call them, else as vocabularies usually do.

    Only a tokenizer.json can be without [CLS], as the Transformer's is: it alone says how its text is split.
    """
    usual = BERT_SPECIAL
    if ALBERT_SPECIAL["unk"] in vocabulary and BERT_SPECIAL["unk"] not in vocabulary:
        encoder = file.suffix != ".json" or "cls_token" in settings or ALBERT_SPECIAL["cls"] in vocabulary
        usual = ALBERT_SPECIAL if encoder else TRANSFORMER_SPECIAL
    return {role: settings.get(f"{role}_token", name) for role, name in usual.items()}


def read_backend(file: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Read a tokenizer.json, or a vocab.txt or spiece.model with the settings that go with it.

    Raises:
        BadInput: the file is of no such kind, is broken, holds a regular expression, or is not all that its tokenizer
            consists of.
        OSError: the file cannot be read.
    """
    match file.suffix:
        case ".json":
            content = read_object(file, MAX_BYTES)
            with failing_in(file):
                return json_backend(content)
        case ".txt":
            backend = _read_vocabulary(file, settings)
        case ".model":
            backend = _read_sentencepiece(file, settings)
        case _:
            raise BadInput(f"{file}: not a tokenizer; known are {', '.join(FILES)}")
    _complete(file, settings, backend)
    return backend


def _complete(file: Path, settings: Mapping[str, Any], backend: tokenizers.Tokenizer) -> None:
    """Have the backend cut out of texts what stands in its vocabulary, and beside it as added to it.

    Raises:
        BadInput: what stands beside a vocabulary says that there is more to its tokenizer.
    """
    hint = "save the tokenizer with transformers, so that there is a tokenizer.json"
    config = file.with_name("config.json")
    said = settings if "tokenizer_class" in settings else read_if_there(config)
    name = str(said.get("tokenizer_class") or _PLAIN[0])
    if name.removesuffix("Fast") not in _PLAIN:
        raise BadInput(f"{file}: holds only the vocabulary of a {name:.80}; {hint}")
    special = special_names(file, backend.get_vocab(), settings).values()
    older = [AddedToken(name, special=name in special) for name in read_if_there(file.with_name("added_tokens.json"))]
    mapped = read_settings(file.with_name("special_tokens_map.json"))["added"]
    tokens = {token.content: token for token in (*older, *mapped, *settings["added"])}  # the last says how
    if lacking := [name for name in tokens if backend.token_to_id(name) is None]:
        raise BadInput(f"{file}: lacks {lacking[0]!r:.80}, which was added to it; {hint}")
    backend.add_tokens(list(tokens.values()))


def json_backend(content: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """What a tokenizer.json holds.

    Raises:
        BadInput: it is broken, or holds a regular expression.
    """
    with failing_as("not a usable tokenizer"):
        for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            _check_part(content.get(part))
        # What was checked is what is read: another parser may take a repeated key differently.
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.no_truncation()
    backend.no_padding()
    return backend


def _check_part(part: Any) -> None:
    """Raise ValueError where a regular expression or a broken table of characters would reach native code."""
    if isinstance(part, dict):
        if part.get("Regex", HARMLESS_PATTERN) != HARMLESS_PATTERN:
            raise ValueError(f"it holds the regular expression {part['Regex']!r}; none is taken from a file")
        if "precompiled_charsmap" in part:
            check_charsmap(base64.b64decode(part["precompiled_charsmap"]))
    for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _check_part(child)


def _read_vocabulary(file: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    if file.stat().st_size > MAX_BYTES:
        raise BadInput(f"{file}: larger than {MAX_BYTES:,} bytes")
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not UTF-8 at byte {error.start}") from None
    # The library's reader, so that stray white space and repeated lines count as they do in transformers.
    vocabulary = models.WordPiece.read_file(str(file))
    return bert(
        vocabulary,
        special_names(file, vocabulary, settings)["unk"],
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        split_chinese=settings.get("tokenize_chinese_chars", True),
    )


def _read_sentencepiece(file: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    model = read_unigram(file)
    backend = albert(
        [(piece.text, piece.score) for piece in model.pieces],
        [piece.kind for piece in model.pieces].index(Kind.UNKNOWN),
        lowercase=settings.get("do_lower_case", True),
        keep_accents=settings.get("keep_accents", False),
        charsmap=model.charsmap,
    )
    backend.add_tokens(
        [
            AddedToken(piece.text, normalized=False, special=piece.kind == Kind.CONTROL)
            for piece in model.pieces
            if piece.kind in (Kind.CONTROL, Kind.USER_DEFINED)
        ]
    )
    return backend
