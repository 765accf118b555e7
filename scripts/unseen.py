"""The rows of a table whose text does not also stand in another, for a score on nothing that was trained on.

    python scripts/unseen.py TRAIN TABLE --column text > unseen.tsv

TRAIN and TABLE are TSV with a header or JSONL, .gz or not; lines are written as they stand in TABLE. Texts are equal
character by character or, with --letters, in their letters and digits; with --first 60 in the first 60 of these.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path


def rows(path: Path, column: str) -> Iterator[tuple[str, str | None]]:
    """Every line, and the text in its column; the header of a TSV has none."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        if ".jsonl" in path.suffixes:
            yield from ((line, json.loads(line)[column]) for line in file)
            return
        header = next(file)
        yield header, None
        place = header.rstrip("\n").split("\t").index(column)
        yield from ((line, line.rstrip("\n").split("\t")[place]) for line in file)


def main() -> None:
    """Write the unseen lines to standard output, and how many they are to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--column", required=True)
    parser.add_argument("--letters", action="store_true")
    parser.add_argument("--first", type=int)
    options = parser.parse_args()

    def key(text: str) -> str:
        if options.letters:
            text = "".join(filter(str.isalnum, text.lower()))
        return text[: options.first]

    seen = {key(text) for _, text in rows(options.train, options.column) if text is not None}
    kept = 0
    for line, text in rows(options.table, options.column):
        if text is None or key(text) not in seen:
            sys.stdout.write(line)
            kept += text is not None
    print(f"{kept:,} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
