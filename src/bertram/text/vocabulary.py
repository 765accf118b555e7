"""Learning a vocabulary from texts, by the trainers of the `tokenizers` library.

The library counts words in hash tables that are ordered anew in every run; what depends on that order is put right
here, so that the same texts give the same vocabulary.
"""

import json
from collections import Counter
from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from bertram.errors import BadInput
from bertram.text.backends import ALBERT_SPECIAL, BERT_SPECIAL, albert, bert

LEAST = 16
PAIR_FREQUENCY = 2
"""A pair of word pieces is merged if it occurs this often."""
ALONE = Regex(r"\p{Han}|[^\p{L}\p{M}\p{N}▁]")
"""Characters that stand singly in ALBERT's vocabulary: Chinese ones, as in BERT's, and whatever is no letter or digit,
as SentencePiece has it by splitting at changes of script."""


def learn_wordpieces(texts: Iterable[str], vocab_size: int) -> dict[str, int]:
    """BERT's vocabulary, token to id: special tokens, characters, then pieces in the order of their merging.

    Args:
        texts: texts as they are.
        vocab_size: the most tokens to learn. A character can take two, as a word's first and as a later one ("##").

    Raises:
        BadInput: the texts hold no characters or no valid Unicode, or `vocab_size` is below 16.
    """
    special = list(BERT_SPECIAL.values())
    backend = bert({name: place for place, name in enumerate(special)})
    normalized = _with_common_characters(backend, texts, vocab_size, (vocab_size - len(special)) // 2)
    # A first round without merges finds the characters; given an order, they give the merges of the second one theirs.
    characters = _train_wordpieces(backend, normalized, 1, special).keys() - special
    return _train_wordpieces(backend, normalized, vocab_size, special + sorted(characters))


def learn_pieces(texts: Iterable[str], vocab_size: int) -> list[tuple[str, float]]:
    """ALBERT's vocabulary, pieces with logarithmic probabilities: special tokens, then the most probable first.

    Args:
        texts: texts as they are.
        vocab_size: the most tokens to learn.

    Raises:
        BadInput: the texts hold no characters or no valid Unicode, or `vocab_size` is below 16.
    """
    special = [(name, 0.0) for name in ALBERT_SPECIAL.values()]
    backend = albert(special, unknown=1)
    backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, pre_tokenizers.Split(ALONE, "isolated")])
    # One place is the word boundary's, and the trainer forgets its limit when characters alone reach it.
    normalized = _with_common_characters(backend, texts, vocab_size, vocab_size - len(special) - 2)
    names = [name for name, _ in special]
    backend.train_from_iterator(
        normalized,
        trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=names, unk_token=ALBERT_SPECIAL["unk"], show_progress=False
        ),
    )
    scores = {piece: score for piece, score in json.loads(backend.to_str())["model"]["vocab"] if piece not in names}
    # Characters that longer pieces always covered share the lowest score in steps of 0.0001, in the order of a hash
    # table; sums in that order leave noise in the last digits of all scores.
    lowest = min(scores.values())
    stairs = lowest + 1e-4 * sum(len(piece) == 1 for piece in scores)
    for piece, score in scores.items():
        scores[piece] = round(lowest if len(piece) == 1 and score <= stairs else score, 6)
    return special + sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _train_wordpieces(
    backend: tokenizers.Tokenizer, texts: list[str], vocab_size: int, first: list[str]
) -> dict[str, int]:
    backend.model = models.WordPiece({BERT_SPECIAL["unk"]: 0}, unk_token=BERT_SPECIAL["unk"])
    backend.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=vocab_size, min_frequency=PAIR_FREQUENCY, special_tokens=first, show_progress=False
        ),
    )
    return dict(sorted(backend.get_vocab().items(), key=lambda item: item[1]))


def _with_common_characters(
    backend: tokenizers.Tokenizer, texts: Iterable[str], vocab_size: int, room: int
) -> list[str]:
    """The texts as the backend normalises them, with spaces for all but the `room` most frequent characters.

    The backend then trains without a normaliser.
    """
    if vocab_size < LEAST:
        raise BadInput(f"a vocabulary of {vocab_size} tokens is too small; {LEAST} is the least")
    try:
        normalized = [backend.normalizer.normalize_str(text) for text in texts]
    except UnicodeEncodeError:
        raise BadInput("a text to learn from holds half of a surrogate pair, which is no character") from None
    backend.normalizer = None
    counts: Counter[str] = Counter()
    for text in normalized:
        counts.update(text)
    ranked = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    if not ranked:
        raise BadInput("there is no text to learn a vocabulary from")
    if len(ranked) <= room:
        return normalized
    rare = str.maketrans(dict.fromkeys(ranked[room:], " "))
    return [text.translate(rare) for text in normalized]
