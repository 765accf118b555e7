"""Directories of Marian's tokenizers with models that SentencePiece trains here."""

import io
import json
from functools import cache

import pytest
import sentencepiece
from transformers import MarianTokenizer

# No letter or digit stands three times in a row: were "0" and "00" pieces, two ways to cut "000" would be equally
# probable, and SentencePiece's rounding would decide which is taken.
SOURCE = """
The café's naïve regulars — Zoë, José & co. — paid £12.50 (or ¥1,900) for "coffee".
A small dog runs over the lowest towers; it isn't far, it's 3,250 km.
Slowly the slower ones glow, and the lower tower shows a low light.
""".strip().splitlines()
TARGET = """
Ein kleiner Hund läuft über die niedrigsten Türme; es ist nicht weit, nur 3.250 km.
Die fröhlichen Gäste — „Zoë“, José & Co. — zahlten 12,50 £ für den Kaffee.
Langsam glühen die langsameren, und der niedrigere Turm zeigt ein schwaches Licht.
""".strip().splitlines()
CODES = [">>fr<<", ">>pt_br<<"]


@cache
def train(lines, vocab_size, **options):
    """A model file as SentencePiece trains one by default, with its own table of characters."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines] * 4),
        model_writer=model,
        vocab_size=vocab_size,
        hard_vocab_limit=options.get("model_type") == "bpe",
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def pieces(data):
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    return [processor.IdToPiece(place) for place in range(processor.GetPieceSize())]


def numbered(tokens):
    """A vocabulary as Marian makes it: </s> and <unk> first, the end filled up by transformers' conversion."""
    first = ["</s>", "<unk>"]
    rest = sorted(set(tokens) - {*first, "<s>"})
    return {token: place for place, token in enumerate([*first, *rest, "<pad>"])}


def write(directory, *, separate=False, config=(), **options):
    """A model directory; a seventh of the pieces that were learnt has no number."""
    source, target = (train(tuple(lines), 120, **options) for lines in (SOURCE, TARGET))
    kept = [[piece for place, piece in enumerate(pieces(data)) if place % 7 != 6] for data in (source, target)]
    if separate:
        vocabularies = [numbered([*kept[0], *CODES]), numbered(kept[1])]
        vocabularies[0].pop("<pad>")  # transformers looks the target's special tokens up here
        vocabularies[1] |= {"<pad>": len(vocabularies[1]) + 40}
        vocabularies[0]["<pad>"] = vocabularies[1]["<pad>"]
    else:
        vocabularies = [numbered([*kept[0], *kept[1], *CODES])]
    (directory / "source.spm").write_bytes(source)
    (directory / "target.spm").write_bytes(target)
    for name, vocabulary in zip(("vocab.json", "target_vocab.json"), vocabularies, strict=False):
        (directory / name).write_text(json.dumps(vocabulary))
    content = {"separate_vocabs": separate, "source_lang": "en", "target_lang": "de", **dict(config)}
    (directory / "tokenizer_config.json").write_text(json.dumps(content))
    return directory


def their_tokenizer(directory):
    """transformers' of a directory."""
    with pytest.warns(UserWarning, match="pip install sacremoses"):  # which it would not use for ids
        return MarianTokenizer.from_pretrained(directory)
