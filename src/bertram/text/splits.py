"""The splits of one training: what it learns from, what it is judged by meanwhile, and what it is tested on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput
from bertram.files import fingerprint
from bertram.text.rows import Columns

NAMES = ("train", "validation", "test")
HELD_OUT = 0.1

Files = str | Path | Sequence[str | Path]
"""A file, or several that belong together."""


class Selectable(Protocol):
    """Examples read from files."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each example."""

    def select(self, rows: Iterable[int] | NDArray[np.integer], /) -> Self:
        """The examples at these places, in their order."""


R = TypeVar("R", bound=Selectable)


@dataclass(frozen=True)
class Splits(Generic[R]):
    """Examples to train on, to choose the best weights by and, if there are any, to test these on."""

    train: R
    validation: R
    test: R | None
    description: dict[str, Any]
    """For each split its source in words; under "rows" their numbers, under "sha256" the fingerprints of the files."""

    @classmethod
    def of(
        cls,
        found: Mapping[str, R],
        sources: Mapping[str, str],
        files: Mapping[str, Sequence[Path]],
        seed: int,
        share: float = HELD_OUT,
    ) -> Self:
        """The splits of `found`, by their names; without validation a seeded share of the training split is held out.

        Raises:
            BadInput: one row is too few to hold some out, or two splits are the same files.
        """
        rows, sources = dict(found), dict(sources)
        if "validation" not in rows:
            rows["train"], rows["validation"] = split(rows["train"], share, seed)
            part = "a tenth" if share == HELD_OUT else f"a share of {share:g}"
            sources["validation"] = f"{part} of the training data, drawn with seed {seed}"
        fingerprints = {name: [fingerprint(path) for path in paths] for name, paths in files.items()}
        for one, other in combinations(fingerprints, 2):
            if fingerprints[one] == fingerprints[other]:
                raise BadInput(f"{files[other][0]}: the {one} and the {other} data are the same")
        description = {
            **{name: sources.get(name) for name in NAMES},
            "rows": {name: len(rows[name]) if name in rows else 0 for name in NAMES},
            "sha256": fingerprints,
        }
        return cls(rows["train"], rows["validation"], rows.get("test"), description)

    @classmethod
    def of_files(
        cls,
        found: Mapping[str, R],
        files: Mapping[str, Sequence[Path]],
        columns: Columns,
        seed: int,
    ) -> Self:
        """As `of`, of what was read from `files`, as `files_of` has them; the description names `columns` too."""
        names = {name: " and ".join(path.name for path in paths) for name, paths in files.items()}
        splits = cls.of(found, names, files, seed)
        splits.description["columns"] = dict(columns or {})
        return splits

    @property
    def judged(self) -> dict[str, R]:
        """The splits that scores are reported on."""
        return {"validation": self.validation} | ({} if self.test is None else {"test": self.test})

    @property
    def final(self) -> tuple[str, R]:
        """The split that a model is judged by in the end, after its name: test where there is one, else validation."""
        *_, last = self.judged.items()
        return last

    @property
    def all(self) -> dict[str, R]:
        """Every split by its name."""
        return {"train": self.train} | self.judged

    def longest(self, train: int, judged: int) -> Self:
        """So many rows of the training split and of each of the others, the longest in characters."""
        sizes = dict.fromkeys(self.judged, judged) | {"train": train}
        chosen: dict[str, Any] = {
            name: part.select(np.argsort(part.lengths, kind="stable")[::-1][: sizes[name]])
            for name, part in self.all.items()
        }
        return replace(self, **chosen)


def listed(files: Files, most: int | None = None) -> list[Path]:
    """A file or several as a list.

    Raises:
        BadInput: there is none, or more than `most`: 1 of labelled texts, 2 of pairs.
    """
    paths = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    if not paths:
        raise BadInput("no file is given")
    if most is not None and len(paths) > most:
        where = "labelled texts stand in one table" if most == 1 else "pairs stand in one table or in two files"
        raise BadInput(f"{paths[most]}: one file too many; {where}")
    return paths


def files_of(
    data: Files, validation: Files | None = None, test: Files | None = None, *, most: int
) -> dict[str, list[Path]]:
    """The files of each split that is given, by its name.

    Raises:
        BadInput: a split has more than `most`, as in `listed`, or there is nothing to train on.
    """
    others = {name: given for name, given in zip(NAMES[1:], (validation, test), strict=True) if given}
    return {name: listed(given, most) for name, given in {"train": data, **others}.items()}


def split(examples: R, share: float, seed: int) -> tuple[R, R]:
    """Hold out a share of the rows, drawn with `seed`; both parts keep the file's order.

    Raises:
        BadInput: there are too few rows for two parts.
    """
    held_out = min(max(1, round(len(examples) * share)), len(examples) - 1)
    if len(examples) < 2:
        raise BadInput("one row is too few to hold some out for validation; give a --validation file")
    chosen = np.zeros(len(examples), bool)
    chosen[np.random.default_rng([seed, len(examples)]).permutation(len(examples))[:held_out]] = True
    return examples.select(np.flatnonzero(~chosen)), examples.select(np.flatnonzero(chosen))
