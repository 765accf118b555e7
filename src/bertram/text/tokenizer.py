"""Text to token ids and back, by the `tokenizers` library.

BERT's tokenizer is WordPiece: text is cleaned, lower-cased and stripped of accents (unless told otherwise), split at
white space, punctuation and around every Chinese character, and each word is cut greedily into the longest pieces
known (Devlin et al. 2018). ALBERT's is a unigram language model: text is lower-cased and stripped of accents, split at
white space only, and each word is cut into its most probable pieces (Kudo 2018, Lan et al. 2019). The Transformer's,
which must write what it reads, is byte-pair encoding of text as it stands (Sennrich et al. 2016); published translation
models have Marian's (`bertram.text.marian`).

Ids are those of transformers' AutoTokenizer on the same files; should a tokenizer_config.json contradict a
tokenizer.json, the latter counts here. For spiece.model that means that user-defined pieces (in ALBERT's: brackets,
quotes, dashes, full stops and currency signs) are cut out before text is split into words, where Google's own code
keeps the word around them.

Letters: B rows, T tokens of all of them together.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray

from bertram.batch import Batch, laid_out, ranges
from bertram.errors import BadInput, failing_as, failing_in
from bertram.files import replacing
from bertram.text.backends import (
    ALBERT_SPECIAL,
    BERT_SPECIAL,
    BOUNDARY,
    FILES,
    TRANSFORMER_SPECIAL,
    Backend,
    add_special,
    albert,
    bert,
    border,
    ids_by_role,
    json_backend,
    read_backend,
    read_settings,
    rejoined,
    settings_of,
    special_names,
    start_and_end,
    transformer,
)
from bertram.text.lines import is_unicode
from bertram.text.vocabulary import MOST, learn_merges, learn_pieces, learn_wordpieces, stands_alone

_UNUSABLE = "this tokenizer cannot be used"

Lengths = NDArray[np.int64]
Flags = NDArray[np.bool_]

Family = Literal["bert", "albert", "transformer"]
_FAMILIES: dict[Family, tuple[Callable[[Iterable[str], int, bool], tokenizers.Tokenizer], dict[str, str]]] = {
    "bert": (
        lambda texts, size, cased: bert(learn_wordpieces(texts, size, cased=cased), lowercase=not cased, compose=cased),
        BERT_SPECIAL,
    ),
    "albert": (
        lambda texts, size, cased: albert(
            learn_pieces(texts, size, cased=cased),
            unknown=list(ALBERT_SPECIAL).index("unk"),
            lowercase=not cased,
            keep_accents=cased,
            compose=cased,
        ),
        ALBERT_SPECIAL,
    ),
    "transformer": (lambda texts, size, cased: transformer(*learn_merges(texts, size)), TRANSFORMER_SPECIAL),
}


class Tokenizer:
    """A vocabulary and the rules that go with it.

    Attributes:
        vocab_size: one more than the highest token id.
        pad_id, unk_id: ids of the special tokens that every vocabulary has.
        end_id: the id of what stands after a text, [SEP] or </s>.
    """

    def __init__(self, backend: Backend, special: Mapping[str, str], *, takes_pairs: bool = True) -> None:
        """Take a backend and the names of special tokens in its vocabulary: pad, unk, and cls, sep and mask or eos.

        Without `takes_pairs` a pair of texts is refused.

        Raises:
            BadInput: a special token is not in the vocabulary, or an id is beyond any model's.
        """
        vocabulary = backend.get_vocab()
        self._ids = ids_by_role(vocabulary, special)
        self.vocab_size = 1 + max(vocabulary.values())
        if self.vocab_size > MOST:
            raise BadInput(f"the vocabulary counts up to {self.vocab_size}, beyond any model's {MOST}")
        self.pad_id, self.unk_id = self._ids["pad"], self._ids["unk"]
        self._start, self.end_id = start_and_end(self._ids)
        if self._start is None and isinstance(backend, tokenizers.Tokenizer):
            backend.encode_special_tokens = True  # what a text to be written says is text, not where it ends
        self._backend = backend
        self._special = dict(special)
        self._takes_pairs = takes_pairs

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer.json, vocab.txt or spiece.model, or the first of these in a directory.

        A tokenizer_config.json beside it names special tokens and says for the latter two whether upper case and
        accents stay; without one they are folded.

        Raises:
            BadInput: there is no such file or it is broken, lacks a special token or holds a regular expression.
        """
        path = Path(path)
        try:
            file = next((path / name for name in FILES if (path / name).is_file()), None) if path.is_dir() else path
            if file is None:
                raise BadInput(f"{path}: no tokenizer in this directory (looked for {', '.join(FILES)})")
            settings = read_settings(file.with_name("tokenizer_config.json"))
            backend = read_backend(file, settings)
        except OSError as error:
            raise BadInput(f"{error.filename or path}: cannot be read ({error.strerror})") from None
        with failing_in(file):
            return cls._of(backend, file, settings)

    @classmethod
    def of_json(cls, tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> "Tokenizer":
        """Make what a tokenizer.json and the tokenizer_config.json beside it say.

        Raises:
            BadInput: as `load`.
        """
        return cls._of(json_backend(tokenizer), Path(FILES[0]), settings_of(config))

    @classmethod
    def _of(cls, backend: tokenizers.Tokenizer, file: Path, settings: Mapping[str, Any]) -> "Tokenizer":
        special = special_names(file, backend.get_vocab(), settings)
        return cls(backend, special, takes_pairs=add_special(backend, special))

    @classmethod
    def train(cls, texts: Iterable[str], family: Family, vocab_size: int, *, cased: bool = False) -> "Tokenizer":
        """Learn a vocabulary of at most `vocab_size` tokens, fewer where the texts do not support as many.

        In BERT's and ALBERT's, Chinese characters stand singly, and upper case and accents stay if `cased`, as they
        always do in the Transformer's; the vowel and voicing marks of many scripts are accents. Where there is no room
        for every character, the rarest are left to the unknown token. The texts are read once, and memory grows with
        the different words in them, not with their length. The same texts give the same tokenizer.

        Raises:
            BadInput: the texts hold no characters or no valid Unicode, or `vocab_size` is below 16 or above 2²⁴.
        """
        learn, special = _FAMILIES[family]
        backend = learn(texts, vocab_size, cased)
        add_special(backend, special)
        return cls(backend, special)

    @property
    def cls_id(self) -> int:
        """The id of what stands before a text and is pooled; BadInput where nothing does."""
        return self._id("cls")

    @property
    def sep_id(self) -> int:
        """The id of what stands after each text of a pair; BadInput where there is no such token."""
        return self._id("sep")

    @property
    def mask_id(self) -> int:
        """The id of what stands for a token to be guessed; BadInput where there is no such token."""
        return self._id("mask")

    def _id(self, role: str) -> int:
        try:
            return self._ids[role]
        except KeyError:
            raise BadInput(f"this tokenizer has no {role} token, only {', '.join(self._ids)}") from None

    @property
    def added(self) -> int:
        """How many special tokens stand around a text."""
        return 1 if self._start is None else 2

    @cached_property
    def tokens(self) -> list[str]:
        """Every token by its id, [vocab_size]; an id without one has an empty name."""
        names = [""] * self.vocab_size
        for name, token_id in self._backend.get_vocab().items():
            names[token_id] = name
        return names

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary, in hexadecimal: of every token by its id, whatever file they stand in."""
        return hashlib.sha256(json.dumps(self.tokens).encode()).hexdigest()

    @cached_property
    def special(self) -> Flags:
        """Which ids are pad, unk, cls, sep, mask or eos, [vocab_size]."""
        flags = np.zeros(self.vocab_size, np.bool_)
        flags[list(self._ids.values())] = True
        return flags

    @cached_property
    def starts_word(self) -> Flags:
        """Which ids begin a word, [vocab_size]: in a text, each continuation belongs to what stands before it.

        WordPiece's continuations begin with "##". Of other pieces, those begin a word that begin with "▁", or are
        Chinese characters or punctuation. Tokens outside the model, and ids without a token, begin one.

        Raises:
            BadInput: the vocabulary has neither mark, as that of a byte-level BPE.
        """
        added = self._backend.get_added_tokens_decoder()
        pieces = {piece: token_id for piece, token_id in self._backend.get_vocab().items() if token_id not in added}
        prefix = getattr(self._backend.model, "continuing_subword_prefix", None)
        if not prefix and not any(piece.startswith(BOUNDARY) for piece in pieces):
            raise BadInput(f"this tokenizer does not mark where words begin: no '##' or '{BOUNDARY}' in its tokens")

        def continues(piece: str) -> bool:
            return piece.startswith(prefix) if prefix else not (piece.startswith(BOUNDARY) or stands_alone(piece))

        flags = np.ones(self.vocab_size, np.bool_)
        for piece, token_id in pieces.items():
            flags[token_id] = not continues(piece)
        return flags

    def check_pairs(self) -> None:
        """Refuse to read pairs of texts where this tokenizer's file does so in another way.

        Raises:
            BadInput: it says that pairs get other tokens or segments than `encode` gives them.
        """
        if not self._takes_pairs:
            raise BadInput("this tokenizer puts other tokens or segments around pairs of texts than BERT and ALBERT do")

    def encode(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None, *, max_length: int
    ) -> tuple[Batch, int]:
        """Make one packed batch of [CLS] text [SEP], or of [CLS] text [SEP] text_b [SEP] with segment 1 after text.

        A tokenizer without [CLS] and [SEP] puts nothing before and </s> after each text.

        A row of more than `max_length` tokens, the special ones counted, loses the end of its text; in a pair the
        longer text is cut down to the other's length first, then both (transformers' "longest_first").

        Returns:
            The batch, and how many of its rows were cut.

        Raises:
            BadInput: `max_length` is below 3, or 2 without [CLS], a text is no valid Unicode, the tokenizer's file
                was damaged, or says that pairs get other tokens or segments than these.
        """
        if texts_b is not None:
            self.check_pairs()
        before = 0 if self._start is None else 1
        least = before + 2
        if max_length < least:
            raise BadInput(
                f"a maximum length of {max_length} tokens leaves no room for text; it must be at least {least}"
            )
        parts = [texts] if texts_b is None else [texts, texts_b]
        budget = max_length - before - len(parts)
        encoded = [self.pieces(part, budget) for part in parts]
        lengths = np.stack([length for _, length in encoded])
        if len(parts) > 1 and budget % 2:  # which of two long texts is the longer, their beginnings do not tell
            both = np.flatnonzero((lengths > budget).all(0)).tolist()
            for part, length in zip(parts, lengths, strict=True):
                length[both] = self.pieces([part[row] for row in both])[1]
        kept = _longest_first(lengths, budget)

        rows = before + kept.sum(0) + len(parts)
        if (tokens := int(rows.sum())) >= 2**31:
            raise BadInput(f"{tokens} tokens are more than one batch holds; use fewer texts or a smaller length")
        offsets, positions = laid_out(rows)
        token_ids = np.full(offsets[-1], self.end_id, np.int32)
        segment_ids = np.zeros_like(token_ids)
        if self._start is not None:
            token_ids[offsets[:-1]] = self._start
        starts = offsets[:-1] + before
        for segment, (pieces, length) in enumerate(encoded):
            stored = np.minimum(length, budget)
            token_ids[ranges(starts, kept[segment])] = pieces[ranges(np.cumsum(stored) - stored, kept[segment])]
            segment_ids[ranges(starts, kept[segment] + 1)] = segment
            starts = starts + kept[segment] + 1
        batch = Batch(token_ids, segment_ids, positions, offsets)
        return batch, int((lengths.sum(0) > budget).sum())

    def pieces(self, texts: Sequence[str], limit: int = sys.maxsize) -> tuple[NDArray[np.int32], Lengths]:
        """Ids of the texts' pieces end to end, without special tokens; of each text the first `limit` or all.

        Of a text that is much longer than that only a beginning is looked at.

        Returns:
            The ids, and how many pieces each text has in all, [B]; or of one with more than `limit`, some number above.

        Raises:
            BadInput: what is looked at is no valid Unicode, or the tokenizer's file was damaged.
        """
        pieces, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for start, end in _chunks(texts):
            chunk = list(texts[start:end])
            try:
                with failing_as(_UNUSABLE):
                    ids = self._encoded(chunk, limit)
            except BadInput:  # of an unpaired surrogate the library says that it is no string
                for row, text in enumerate(chunk, start + 1):
                    if not is_unicode(text):
                        raise BadInput(f"text {row}: an unpaired surrogate, which is not valid Unicode") from None
                raise
            pieces.append(np.fromiter(chain.from_iterable(text[:limit] for text in ids), np.int32))
            lengths.append(np.array([len(text) for text in ids], np.int64))
        return np.concatenate(pieces), np.concatenate(lengths)

    def _encoded(self, texts: list[str], limit: int, characters: int = 8) -> list[list[int]]:
        """Ids of every text's pieces; of one with more than `limit`, of its beginning, which has more too.

        A beginning has so many `characters` for each of these pieces, and more where those are too few.
        """
        heads = [self._head(text, (limit + 1) * characters) for text in texts]
        found = [encoding.ids for encoding in self._backend.encode_batch_fast(heads, add_special_tokens=False)]
        short = [
            place
            for place, (ids, head, text) in enumerate(zip(found, heads, texts, strict=True))
            if len(ids) <= limit and len(head) < len(text)
        ]
        if short:
            longer = self._encoded([texts[place] for place in short], limit, 4 * characters)
            for place, ids in zip(short, longer, strict=True):
                found[place] = ids
        return found

    def _head(self, text: str, characters: int) -> str:
        """A text up to where it can be cut behind so many characters; all of it if it cannot."""
        if len(text) <= characters or self._border is None:
            return text
        end = self._border.search(text, characters)
        return text[: end.start()] if end else text

    @cached_property
    def _border(self) -> re.Pattern[str] | None:
        return border(self._backend)

    def split_code(self, text: str) -> tuple[str, str]:
        """What a model of many languages is told first in a text, and the rest; nothing but in Marian's tokenizers."""
        return "", text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens and white space at the ends left out."""
        with failing_as(_UNUSABLE):
            return self._backend.decode([int(token) for token in ids]).strip()

    def written(self, ids: Sequence[int]) -> str:
        """The same for a person to read.

        WordPiece does not say where spaces stood beside punctuation: they are left out where that is nearly certain,
        and stay around hyphens and quotation marks.
        """
        model = getattr(self._backend, "model", None)
        return rejoined(self.decode(ids)) if isinstance(model, tokenizers.models.WordPiece) else self.decode(ids)

    def save(self, directory: Path, *, max_length: int | None = None, segments: bool = False) -> None:
        """Write `files` into a directory; the last counts as the tokenizer."""
        for name, content in self.files(max_length=max_length, segments=segments).items():
            with replacing(directory / name) as temporary:
                temporary.write_bytes(content)

    def files(self, *, max_length: int | None = None, segments: bool = False) -> dict[str, bytes]:
        """tokenizer_config.json and tokenizer.json by name, which transformers' AutoTokenizer reads with equal ids.

        Args:
            max_length: tokens that the model reads, to which transformers then truncates when asked to.
            segments: whether it tells the second text of a pair by segments, which transformers then counts too.
        """
        # Of the classes that transformers knows this one alone takes tokenizer.json as it is; BertTokenizer and
        # AlbertTokenizer rebuild normalisation from settings of their own.
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {f"{role}_token": name for role, name in self._special.items()}
        if max_length is not None:
            config["model_max_length"] = max_length
        if segments:  # or each text would be of segment 0, without a word
            config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        files = {
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
            "tokenizer.json": self._backend.to_str(pretty=True),
        }
        return {name: content.encode() for name, content in files.items()}


def _chunks(texts: Sequence[str], max_texts: int = 4096, max_characters: int = 2**22) -> Iterator[tuple[int, int]]:
    """Ranges that together cover `texts` and bound what the library holds at once, some 200 bytes a token."""
    start = characters = 0
    for place, text in enumerate(texts):
        if place > start and (place - start == max_texts or characters + len(text) > max_characters):
            yield start, place
            start, characters = place, 0
        characters += len(text)
    if start < len(texts):
        yield start, len(texts)


def _longest_first(lengths: Lengths, budget: int) -> Lengths:
    """How many tokens to keep of each text so that a row has at most `budget`; both arrays [texts a row, B].

    Of two texts the shorter keeps at most half and the longer the rest; equal ones count the second as the longer
    (tokenizers `utils/truncation.rs`).
    """
    if len(lengths) == 1:
        return np.minimum(lengths, budget)
    shorter = np.minimum(lengths.min(0), budget // 2)
    halves = np.where(lengths[0] <= lengths[1], [shorter, budget - shorter], [budget - shorter, shorter])
    return np.where(lengths.sum(0) <= budget, lengths, halves)


def _before_fork() -> None:
    """Have a forked child tokenize on one thread: the library's pool dies in it, and it warns unless it was told."""
    global _told
    _told = "TOKENIZERS_PARALLELISM" not in os.environ
    if _told:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _after_fork_in_parent() -> None:
    if _told:
        del os.environ["TOKENIZERS_PARALLELISM"]


_told = False
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
