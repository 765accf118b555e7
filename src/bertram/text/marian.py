"""The two tokenizers of a Marian translation model, as transformers' MarianTokenizer has them.

A directory holds a SentencePiece unigram model for each side, `source.spm` and `target.spm`, which cut text into
pieces, and `vocab.json`, which numbers the pieces of both, or has `target_vocab.json` beside it for the target's. A
piece that has no number is unknown. Models of many languages are told which one to write by a first word such as
`>>fr<<`.

Ids and decoded texts are MarianTokenizer's, but for two things. SentencePiece adds up scores in single precision over
a whole text, so that of two ways to cut a word that are equally probable to six digits it may take the other. And with
two vocabularies MarianTokenizer looks up special tokens of both sides in the source's; here each side has its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers

from bertram.errors import BadInput, failing_in
from bertram.files import read_object
from bertram.text.backends import BOUNDARY, MAX_BYTES, TRANSFORMER_SPECIAL, read_settings
from bertram.text.sentencepiece import Charsmap, Kind, UnigramModel, read_unigram
from bertram.text.tokenizer import Tokenizer

FIRST_FILE = "source.spm"
_SETTINGS = "tokenizer_config.json"
_SPACES = re.compile(" +")
_UNKNOWN = " "
"""The unigram model's name of its unknown piece. No spaces are left in a text that is to be cut, so that neither this
nor a token that begins with one is found where it was not put."""


class MarianTokenizer(Tokenizer):
    """One side's tokenizer, which is kept as the files that it came from."""

    def __init__(self, backend: "_Backend", special: Mapping[str, str], files: Sequence[Path]) -> None:
        super().__init__(backend, special)
        self._files = {file.name: file.read_bytes() for file in files if file.is_file()}

    def split_code(self, text: str) -> tuple[str, str]:
        """A language code such as `>>fr<<` at the beginning of a text, or nothing, and the rest."""
        return _split_code(text)

    def files(self, *, max_length: int | None = None, segments: bool = False) -> dict[str, bytes]:
        """This side's files by name, the first of a directory's last; both sides' stand in one directory."""
        return self._files


def read_marian(directory: str | Path) -> tuple[Tokenizer, Tokenizer]:
    """Read the tokenizers of source and target; with one vocabulary for both, an id is the same token in both.

    Raises:
        BadInput: a file is missing or broken, a model is no unigram model or has pieces that stand for bytes or are
            the user's own, or a vocabulary lacks a special token.
    """
    directory = Path(directory)
    try:
        settings = read_settings(directory / _SETTINGS)
        names = {role: settings.get(f"{role}_token", name) for role, name in TRANSFORMER_SPECIAL.items()}
        target = "target_vocab.json" if settings.get("separate_vocabs") else "vocab.json"
        return (
            _read_side(directory / FIRST_FILE, directory / "vocab.json", names),
            _read_side(directory / "target.spm", directory / target, names),
        )
    except OSError as error:
        raise BadInput(f"{error.filename or directory}: cannot be read ({error.strerror})") from None


def _read_side(model_file: Path, vocabulary_file: Path, special: Mapping[str, str]) -> Tokenizer:
    model = read_unigram(model_file)
    if any(piece.kind in (Kind.USER_DEFINED, Kind.BYTE) for piece in model.pieces):
        raise BadInput(f"{model_file}: holds user-defined or byte pieces, as Marian's models do not")
    vocabulary = read_object(vocabulary_file, MAX_BYTES)
    for token, token_id in vocabulary.items():
        if type(token_id) is not int or token_id < 0:
            raise BadInput(f"{vocabulary_file}: the id of {token!r} must be a number from 0 on, not {token_id!r}")
    files = [model_file.with_name(_SETTINGS), vocabulary_file, model_file]
    with failing_in(vocabulary_file):
        return MarianTokenizer(_Backend(model, vocabulary, special), special, files)


class _Pieces(NamedTuple):
    ids: list[int]


class _Backend:
    """A SentencePiece model whose pieces a vocabulary numbers (`bertram.text.backends.Backend`).

    Special tokens and language codes are found in texts as they stand, everything between them is prepared as
    SentencePiece does, and all of it put together is what the library cuts into pieces.
    """

    def __init__(self, model: UnigramModel, vocabulary: Mapping[str, int], special: Mapping[str, str]) -> None:
        self._vocabulary = dict(vocabulary)
        self._special = set(special.values())
        self._silent = self._special | {piece.text for piece in model.pieces if piece.kind == Kind.CONTROL}
        self._codes = {token for token in vocabulary if token and _split_code(token) == (token, "")}
        self._unknown = special["unk"]
        longest_first = sorted(self._special, key=len, reverse=True)
        self._parts = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._prepare = _preparation(model)
        self._unigram = _unigram(model)
        self._unigram.add_special_tokens(
            [AddedToken(f" {token}", normalized=False, special=True) for token in self._special | self._codes]
        )
        self._tokens = {token_id: token for token, token_id in vocabulary.items()}

    @property
    def model(self) -> Any:
        return self._unigram.model

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        return {
            self._vocabulary[token]: AddedToken(token, special=token in self._special, normalized=False)
            for token in (self._special | self._codes) & self._vocabulary.keys()
        }

    def encode_batch_fast(self, input: Sequence[str], *, add_special_tokens: bool) -> list[_Pieces]:
        if add_special_tokens:
            raise NotImplementedError("special tokens around texts are the Tokenizer's")
        cut = self._unigram.encode_batch([self._written(text) for text in input], add_special_tokens=False)
        # By name, which the library's fast way leaves out: a character that is no piece may still have a number.
        unknown = self._vocabulary[self._unknown]
        return [
            _Pieces([self._vocabulary.get(token.removeprefix(" "), unknown) for token in encoding.tokens])
            for encoding in cut
        ]

    def decode(self, ids: Sequence[int]) -> str:
        tokens = [self._tokens.get(token_id, "") for token_id in ids]
        return "".join(token for token in tokens if token not in self._silent).replace(BOUNDARY, " ")

    def to_str(self, *, pretty: bool) -> str:
        raise NotImplementedError("no tokenizer.json holds a model's pieces and numbers of others")

    def _written(self, text: str) -> str:
        """What the unigram model is to see: special tokens and codes behind a space, the rest of the text prepared."""
        written = []
        for part in self._parts.split(text):
            if part in self._special:
                written.append(f" {part}")
                continue
            code, rest = _split_code(part)
            if code:
                written.append(f" {code if code in self._codes else self._unknown}")
            written.append(self._prepare(rest))
        return "".join(written)


def _split_code(text: str) -> tuple[str, str]:
    """A language code such as `>>fr<<` at the beginning of a text, or nothing, and the rest."""
    end = text.find("<<") + 2 if text.startswith(">>") else 0
    return (text[:end], text[end:]) if end > 1 else ("", text)


def _preparation(model: UnigramModel) -> Callable[[str], str]:
    """What SentencePiece does to a text before it is cut (google/sentencepiece `normalizer.cc`)."""
    replace = Charsmap(model.charsmap)
    mark = BOUNDARY if model.marks_first_word else ""

    def prepare(text: str) -> str:
        if not text:
            return ""
        text = replace(text)
        if model.folds_spaces:
            text = _SPACES.sub(" ", text).strip(" ")
        text = mark + text.replace(" ", BOUNDARY)
        return text.rstrip(BOUNDARY) if model.folds_spaces else text

    return prepare


def _unigram(model: UnigramModel) -> tokenizers.Tokenizer:
    """The model's normal pieces in the library's terms; the others are never cut out of a text."""
    pieces = {piece.text: piece.score for piece in model.pieces if piece.kind == Kind.NORMAL and " " not in piece.text}
    scores = [(_UNKNOWN, 0.0), *pieces.items()]
    backend = tokenizers.Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=False))
    if BOUNDARY in pieces and not any(BOUNDARY in piece[1:] for piece in pieces):
        # No piece reaches over the beginning of a word: words can be cut one by one, and repeated ones are remembered.
        backend.pre_tokenizer = pre_tokenizers.Split(BOUNDARY, "merged_with_next")
    return backend
