"""English sentences of many kinds, for an experiment with `bertram shrink` that docs/experiments.md describes.

    python scripts/mixed_texts.py TEXTS OUT [--data ../shared/data]

TEXTS is what `own_models.py texts` writes. The other sets are for research only, so no model that is shipped may learn
from them. What stands in STS-B's training part, compared by letters and digits, is left out: students are judged on it.
"""

import argparse
import csv
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertram.text.sentences import split_sentences

LEAST_CHARACTERS, MOST_CHARACTERS = 12, 160
MOST = {"own": 130_000, "reviews": 90_000, "snippets": 30_000, "dialogues": 70_000, "mails": 60_000}
"""The most sentences drawn of a kind; of kinds not named, all are taken."""


def kinds(texts: Path, data: Path) -> dict[str, Iterator[str]]:
    return {
        "own": iter(texts.read_text(encoding="utf-8").splitlines()),
        "reviews": sentences(lines(data / "corpus_en_imdb" / "unsup_12k.txt.gz")),
        "snippets": (row["sentence"] for row in table(data / "sst2" / "train.tsv.gz")),
        "captions": lines(data / "multi30k_en_de" / "train.en.gz"),
        "dialogues": dialogues(data / "dialogsum" / "train.jsonl.gz"),
        "mails": mails(data / "aeslc" / "train.jsonl.gz"),
        "paraphrases": cells(data / "glue" / "MRPC" / "msr_paraphrase_train.txt.gz", "#1 String", "#2 String"),
        "entailment": sentences(cells(data / "glue" / "RTE" / "train.tsv.gz", "sentence1", "sentence2")),
        "grammar": (line.split("\t")[3] for line in lines(data / "glue" / "CoLA" / "train.tsv.gz")),
    }


def lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8-sig") as file:
        for line in file:
            yield line.rstrip("\n")


def table(path: Path) -> Iterator[dict[str, Any]]:
    return csv.DictReader(lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)


def cells(path: Path, *columns: str) -> Iterator[str]:
    return (row[column] or "" for row in table(path) for column in columns)


def sentences(texts: Iterator[str]) -> Iterator[str]:
    return (sentence for text in texts for sentence in split_sentences(text))


def dialogues(path: Path) -> Iterator[str]:
    for line in lines(path):
        said = json.loads(line)
        turns = (re.sub(r"^#Person\d#:", "", turn) for turn in said["dialogue"].splitlines())
        yield from (text for text in sentences(turns) if "#" not in text)


def mails(path: Path) -> Iterator[str]:
    for line in lines(path):
        mail = json.loads(line)
        yield mail["subject"]
        yield from sentences(iter(mail["body"].splitlines()))


def key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    judged = lines(options.data / "glue" / "STS-B" / "train.tsv.gz")
    unwanted = {key(text) for line in judged for text in line.split("\t")[7:9]}
    draw, found = random.Random(0), dict[str, None]()
    for kind, texts in kinds(options.texts, options.data).items():
        clean = dict.fromkeys(" ".join(text.split()) for text in texts)
        kept = [t for t in clean if LEAST_CHARACTERS <= len(t) <= MOST_CHARACTERS and key(t) not in unwanted]
        kept = draw.sample(kept, min(len(kept), MOST.get(kind, len(kept))))
        print(f"{kind}: {len(kept):,}")
        found |= dict.fromkeys(kept)
    mixed = list(found)
    draw.shuffle(mixed)
    options.out.write_text("".join(f"{text}\n" for text in mixed), encoding="utf-8")
    print(f"{len(mixed):,} texts")


if __name__ == "__main__":
    main()
