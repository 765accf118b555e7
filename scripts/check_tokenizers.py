"""Compare Bertram's token ids with those of transformers' AutoTokenizer, line by line, on whole data sets.

    python scripts/check_tokenizers.py TOKENIZER … [--data ../shared/data]

TOKENIZER is a directory or file with a tokenizer.json, vocab.txt or spiece.model; every such file in a directory is
compared on its own. Beside these, tokenizers are trained for both families on SST-2 and ChnSentiCorp, saved, and read
again by AutoTokenizer. Where a directory has a tokenization.json (texts with the tokens of Google's own code), ids are
compared with it too, and differences shown. Exits 1 if an id differs from AutoTokenizer's.
"""

import argparse
import csv
import gzip
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from bertram.text.backends import FILES
from bertram.text.tokenizer import Tokenizer

LENGTHS = (16, 512)


def corpora(data: Path) -> dict[str, list[str]]:
    """SST-2 dev, ChnSentiCorp dev and 1,000 lines of the novels."""
    novels = (line for file in sorted((data / "corpus_en_novels").glob("*.gz")) for line in lines(file))
    return {
        "SST-2 dev": column(data / "sst2/dev.tsv.gz", "sentence"),
        "ChnSentiCorp dev": column(data / "chnsenticorp/dev.tsv.gz", "text_a"),
        "novels": list(islice((line for line in novels if line), 1000)),
    }


def column(file: Path, name: str) -> list[str]:
    rows = csv.DictReader(lines(file), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [row[name] for row in rows]


def lines(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8", newline="\n") as stream:
        for line in stream:
            yield line.rstrip("\r\n")


def differing(ours: Tokenizer, theirs: AutoTokenizer, texts: list[str]) -> int:
    """Rows of texts, alone and in pairs with their neighbours, that differ in ids or segments at any length."""
    count = 0
    for texts_b in (None, texts[1:] + texts[:1]):
        for length in LENGTHS:
            batch, _ = ours.encode(texts, texts_b, max_length=length)
            rows = theirs(texts, texts_b, truncation="longest_first", max_length=length, return_token_type_ids=True)
            expected = zip(rows["input_ids"], rows["token_type_ids"], strict=True)
            for start, end, (ids, segments) in zip(batch.offsets, batch.offsets[1:], expected, strict=False):
                same = np.array_equal(batch.token_ids[start:end], ids)
                count += not (same and np.array_equal(batch.segment_ids[start:end], segments))
    return count


def alone(file: Path, folder: Path) -> Path:
    """A directory with only this tokenizer file, its settings, and a config.json that names the family."""
    folder.mkdir()
    for name in (file.name, "tokenizer_config.json"):
        if (file.parent / name).is_file():
            shutil.copy(file.parent / name, folder)
    family = "albert" if file.suffix == ".model" else "bert"
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", nargs="*", type=Path, metavar="TOKENIZER")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    arguments = parser.parse_args()
    texts = corpora(arguments.data)
    training = {
        "SST-2": column(arguments.data / "sst2/train.tsv.gz", "sentence"),
        "ChnSentiCorp": column(arguments.data / "chnsenticorp/train.tsv.gz", "text_a"),
    }
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        candidates: list[tuple[str, Path]] = []
        for path in arguments.tokenizers:
            files = [path / name for name in FILES if (path / name).is_file()] if path.is_dir() else [path]
            for file in files:
                candidates.append((str(file), alone(file, Path(temporary) / str(len(candidates)))))
        for family in ("bert", "albert"):
            for name, source in training.items():
                folder = Path(temporary) / f"{family} {name}"
                Tokenizer.train(source, family, 30000).save(folder)
                (folder / "config.json").write_text(json.dumps({"model_type": family}))
                candidates.append((f"{family} trained on {name}", folder))
        for name, folder in candidates:
            ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
            print(f"{name}: {type(theirs).__name__}, {ours.vocab_size} tokens")
            for corpus, rows in texts.items():
                different = differing(ours, theirs, rows)
                failures += different
                print(f"  {corpus}: {len(rows)} lines, alone and in pairs, cut to {LENGTHS}: {different} differ")
    for path in arguments.tokenizers:
        golden = path / "tokenization.json"
        if golden.is_file():
            compare_golden(Tokenizer.load(path), golden)
    return min(failures, 1)


def compare_golden(ours: Tokenizer, file: Path) -> None:
    examples = json.loads(file.read_text(encoding="utf-8"))
    batch, _ = ours.encode([example["text"] for example in examples], max_length=512)
    print(f"{file}: {len(examples)} texts")
    for example, start, end in zip(examples, batch.offsets, batch.offsets[1:], strict=False):
        ids = batch.token_ids[start + 1 : end - 1].tolist()
        if ids != example["ids"]:
            print(f"  differs: {example['text']!r}\n    Google  {example['ids']}\n    Bertram {ids}")


if __name__ == "__main__":
    sys.exit(main())
