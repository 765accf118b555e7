"""Learning a vocabulary from texts, by the trainers of the `tokenizers` library.

The library counts words in hash tables that are ordered anew in every run; what depends on that order is put right
here, so that the same texts give the same vocabulary.

It would also normalise and split every text, three quarters of its work, though most words were seen before. Here the
stretches between spaces are counted as they stand, and each different one is normalised and split once.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from bertram.errors import BadInput
from bertram.text.backends import ALBERT_SPECIAL, BERT_SPECIAL, BOUNDARY, TRANSFORMER_SPECIAL, albert, bert, transformer

LEAST, MOST = 16, 2**24
PAIR_FREQUENCY = 2
"""A pair of pieces is merged if it occurs this often."""
_ALONE = Regex(rf"\p{{Han}}|[^\p{{L}}\p{{M}}\p{{N}}{BOUNDARY}]")
"""Characters that stand singly in ALBERT's vocabulary: Chinese ones, as in BERT's, and whatever is no letter or digit,
as SentencePiece has it by splitting at changes of script."""
_ALONE_REMOVED = pre_tokenizers.Split(_ALONE, "removed")
_CONTINUING = "##"
_HELD = 2**25
"""Characters read before the stretches among them are split into words, which bounds what texts without spaces take."""
_REPEATS = 1000


def learn_wordpieces(texts: Iterable[str], vocab_size: int, *, cased: bool = False) -> dict[str, int]:
    """BERT's vocabulary, token to id: special tokens, characters, then pieces in the order of their merging.

    Args:
        texts: texts as they are, read once; memory grows with the different words in them, not with their length.
        vocab_size: the most tokens to learn. A character can take two, as a word's first and as a later one ("##").
        cased: upper case and accents stay.

    Raises:
        BadInput: the texts hold no characters or no valid Unicode, or `vocab_size` is below 16 or above 2²⁴.
    """
    special = list(BERT_SPECIAL.values())
    backend = bert({name: token_id for token_id, name in enumerate(special)}, lowercase=not cased, compose=cased)
    words = _count_words(backend, texts, vocab_size, (vocab_size - len(special)) // 2)
    # Left to the trainer, characters would come in the order of a hash table, and so would merges of equal frequency.
    characters = set("".join(words)) | {_CONTINUING + character for character in set("".join(w[1:] for w in words))}
    backend.model = models.WordPiece({BERT_SPECIAL["unk"]: 0}, unk_token=BERT_SPECIAL["unk"])
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=PAIR_FREQUENCY,
        special_tokens=special + sorted(characters),
        continuing_subword_prefix=_CONTINUING,
        show_progress=False,
    )
    _train(backend, words, trainer)
    return dict(sorted(backend.get_vocab().items(), key=lambda item: item[1]))


def learn_pieces(texts: Iterable[str], vocab_size: int, *, cased: bool = False) -> list[tuple[str, float]]:
    """ALBERT's vocabulary, pieces with logarithmic probabilities: special tokens, then the most probable first.

    Args:
        texts: texts as they are, read once; memory grows with the different words in them, not with their length.
        vocab_size: the most tokens to learn.
        cased: upper case and accents stay.

    Raises:
        BadInput: the texts hold no characters or no valid Unicode, or `vocab_size` is below 16 or above 2²⁴.
    """
    special = [(name, 0.0) for name in ALBERT_SPECIAL.values()]
    names = [name for name, _ in special]
    backend = albert(special, unknown=1, lowercase=not cased, keep_accents=cased, compose=cased)
    backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, pre_tokenizers.Split(_ALONE, "isolated")])
    # One place is the word boundary's, and the trainer forgets its limit when characters alone reach it.
    words = _count_words(backend, texts, vocab_size, vocab_size - len(special) - 2, BOUNDARY)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=names, unk_token=ALBERT_SPECIAL["unk"], show_progress=False
    )
    _train(backend, words, trainer)
    scores = {piece: score for piece, score in json.loads(backend.to_str())["model"]["vocab"] if piece not in names}
    # Characters that longer pieces always covered share the lowest score in steps of 0.0001, in the order of a hash
    # table; sums in that order leave noise in the last digits of all scores.
    lowest = min(scores.values())
    stairs = lowest + 1e-4 * sum(len(piece) == 1 for piece in scores)
    for piece, score in scores.items():
        scores[piece] = round(lowest if len(piece) == 1 and score <= stairs else score, 6)
    return special + sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def learn_merges(texts: Iterable[str], vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The Transformer's vocabulary by byte-pair encoding (Sennrich et al. 2016), and the merges that it comes from.

    Args:
        texts: texts as they are, read once; memory grows with the different words in them, not with their length.
        vocab_size: the most tokens to learn.

    Returns:
        The vocabulary, token to id: special tokens, characters, then pieces in the order of their merging; and for each
        of the last the two tokens that it joins.

    Raises:
        BadInput: the texts hold no characters or no valid Unicode, or `vocab_size` is below 16 or above 2²⁴.
    """
    special = list(TRANSFORMER_SPECIAL.values())
    backend = transformer({name: token_id for token_id, name in enumerate(special)}, [])
    # One place is the word boundary's.
    words = _count_words(backend, texts, vocab_size, vocab_size - len(special) - 1, BOUNDARY)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=PAIR_FREQUENCY, special_tokens=special, show_progress=False
    )
    _train(backend, words, trainer)
    model = json.loads(backend.to_str())["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    return vocabulary, [(first, second) for first, second in model["merges"]]


def stands_alone(piece: str) -> bool:
    """Whether a piece of ALBERT's vocabulary holds nothing but characters that stand singly."""
    return not _ALONE_REMOVED.pre_tokenize_str(piece)


def check_size(vocab_size: int) -> None:
    """Refuse to learn a vocabulary of so many tokens, before there are texts to learn it from.

    Raises:
        BadInput: they are too few or too many.
    """
    if vocab_size < LEAST:
        raise BadInput(f"a vocabulary of {vocab_size} tokens is too small; it must have at least {LEAST}")
    if vocab_size > MOST:
        raise BadInput(f"a vocabulary of {vocab_size} tokens is too large; it must have at most {MOST}")


def _count_words(
    backend: tokenizers.Tokenizer, texts: Iterable[str], vocab_size: int, room: int, boundary: str = ""
) -> Mapping[str, int]:
    """How often each word stands in the texts, cut at all but their `room` most frequent characters.

    `boundary` is what the backend puts before words and counts as none of them.
    """
    check_size(vocab_size)
    words: Counter[str] = Counter()
    for stretches in _count_stretches(texts):
        for stretch, count in stretches.items():
            for word in _words(backend, stretch):
                words[word] += count
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    del characters[boundary]
    if not characters:
        raise BadInput("there is no text to learn a vocabulary from")
    ranked = sorted(characters, key=lambda c: (-characters[c], c))
    if len(ranked) <= room:
        return words
    rare = str.maketrans(dict.fromkeys(ranked[room:], " "))
    kept: Counter[str] = Counter()
    for word, count in words.items():
        for part in word.translate(rare).split():
            kept[part] += count
    return kept


def _count_stretches(texts: Iterable[str]) -> Iterator[Mapping[str, int]]:
    """How often each stretch between spaces or line ends stands in the texts, for every `_HELD` characters of them.

    All families take a space and a line end for the end of a word; what else ends one is theirs to say.
    """
    stretches: Counter[str] = Counter()
    held = 0
    for text in texts:
        stretches.update(text.replace("\n", " ").split(" "))
        held += len(text)
        if held >= _HELD:
            yield stretches
            stretches, held = Counter(), 0
    yield stretches


def _words(backend: tokenizers.Tokenizer, text: str) -> list[str]:
    """The words of a text as the backend normalises and splits it."""
    try:
        normalized = backend.normalizer.normalize_str(text)
    except UnicodeEncodeError:
        raise BadInput("a text to learn from holds an unpaired surrogate, which is not valid Unicode") from None
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized)]


def _train(backend: tokenizers.Tokenizer, words: Mapping[str, int], trainer: trainers.Trainer) -> None:
    """Have the library count the words again, which takes no counts but every word as often as it stands there."""
    lines = (
        f"{word} " * min(count - start, _REPEATS)
        for word, count in words.items()
        for start in range(0, count, _REPEATS)
    )
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.train_from_iterator(lines, trainer)
