"""A text for each text: its translation or its summary.

Letters: N texts.
"""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, ClassVar, Self

from bertram.errors import require
from bertram.tasks.rouge import HAN, KINDS, SOUTHEAST_ASIAN, SYLLABLES, rouge, unknown_to_rouge_score
from bertram.tasks.task import Score


class Generation(ABC):
    """A kind of text to write from another. What is to be learned about it is in the model and its tokenizers."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, str]]
    """What a table calls a text and what is to be written from it."""
    metric: ClassVar[str]
    """The primary metric, 0 to 100; more is better."""
    splits: ClassVar[bool]
    """Whether the parts of a text that is too long can be written one by one; else its end is not read."""

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Take up what `to_dict` gave."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """What bertram.json keeps of the task: its name."""
        return {"name": self.name}

    def answers(self, texts: Sequence[str], scores: Sequence[float]) -> list[dict[str, Any]]:
        """{"text", "score"} for each text that was written and its score by the search, higher is better."""
        return [{"text": text, "score": score} for text, score in zip(texts, scores, strict=True)]

    @abstractmethod
    def scores(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        """Scores of the texts that were written, [N], N above 0, the primary one first.

        Args:
            hypotheses: the texts.
            references: one or several right ones for each.

        Raises:
            BadInput: the library that computes them is not installed.
        """


@dataclass(frozen=True)
class Translation(Generation):
    """The same in another language, a sentence or some at a time."""

    name: ClassVar[str] = "translation"
    columns: ClassVar[tuple[str, str]] = ("source", "target")
    metric: ClassVar[str] = "bleu"
    splits: ClassVar[bool] = True

    def scores(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        """BLEU (Papineni et al. 2002) of cased words, and chrF2 (Popović 2015), as sacrebleu prints them.

        Words are cut by 13a, but where most references are Chinese by "zh", and where they are Japanese, Korean, Thai,
        Lao, Burmese or Khmer by "char": 13a takes a sentence without spaces for one word.
        """
        sacrebleu = require("sacrebleu.metrics", "train")
        hypotheses, references, form = _composed(hypotheses, references)
        metrics = sacrebleu.BLEU(tokenize=_words(references)), sacrebleu.CHRF()
        # sacrebleu takes all texts' first references, then their second ones, and None where there is none.
        ranked = [list(texts) for texts in zip_longest(*references)]
        return [_by_sacrebleu(metric, hypotheses, ranked, form) for metric in metrics]


@dataclass(frozen=True)
class Summarization(Generation):
    """The gist of a document, or a headline for it."""

    name: ClassVar[str] = "summarization"
    columns: ClassVar[tuple[str, str]] = ("document", "summary")
    metric: ClassVar[str] = "rouge"
    splits: ClassVar[bool] = False

    def scores(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        """Mean F1 over the texts by ROUGE-1, ROUGE-2 and ROUGE-L, in percent, and before them the mean of the three.

        Papers report all three and select by one or another of them; by their mean, a model is not the best for a
        gain in one that the others pay for. Where texts hold words that rouge-score does not know, the signature says
        how they are counted.
        """
        hypotheses, references, form = _composed(hypotheses, references)
        kinds = (100 * rouge(hypotheses, references).mean(0)).tolist()
        counts = {len(texts) for texts in references}
        words = "".join(f"|{kind}" for kind in unknown_to_rouge_score(chain(hypotheses, *references)))
        nrefs = counts.pop() if len(counts) == 1 else "var"
        facts = f"f1|as:rouge-score-0.1.2{words}{form}|stemmer:porter|nrefs:{nrefs}"
        named = zip((self.metric, *KINDS), (sum(kinds) / len(kinds), *kinds), strict=True)
        return [Score(metric, value, f"{metric}|{facts}|n:{len(hypotheses)}") for metric, value in named]


def _composed(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]], str]:
    """The texts in the form in which models write (Unicode's NFC), and what a signature says of it where it differs."""
    written = [unicodedata.normalize("NFC", text) for text in hypotheses]
    right = [[unicodedata.normalize("NFC", text) for text in texts] for texts in references]
    same = written == [*hypotheses] and right == [[*texts] for texts in references]
    return written, right, "" if same else "|norm:nfc"


def _words(references: Sequence[Sequence[str]]) -> str:
    """How sacrebleu is to cut texts like these to words. They alone decide, so that every model is scored alike."""
    texts = list(chain(*references))
    scripts = HAN, f"{SYLLABLES}|{SOUTHEAST_ASIAN}"
    han, others = (sum(bool(re.search(script, text)) for text in texts) for script in scripts)
    if max(han, others) <= len(texts) / 2:
        return "13a"
    return "char" if others > han / 2 else "zh"


def _by_sacrebleu(metric: Any, hypotheses: list[str], ranked: list[list[str | None]], form: str) -> Score:
    found = metric.corpus_score(hypotheses, ranked)
    return Score(found.name.lower(), found.score, f"{found.name}|{metric.get_signature()}{form}|n:{len(hypotheses)}")
