"""The floors of docs/design.md: a room imports only from floors below its own, and the torch-free rooms need no torch.

A room is a module of the package's top folder, or a folder of it with all that is inside.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertram.inference.kernels import fastest
from torchless import WITHOUT_TORCH, run_python, run_without_torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "bertram"

FLOORS = {
    "__init__": 0,
    "errors": 0,
    "fields": 0,
    "interruption": 0,
    "memory": 0,
    "pages": 0,
    "processes": 0,
    "terminal": 0,
    "batch": 1,
    "config": 1,
    "environment": 1,
    "files": 1,
    "model_card": 1,
    "progress": 1,
    "search": 1,
    "models": 2,
    "run_directory": 2,
    "text": 2,
    "corpus": 3,
    "formats": 3,
    "tasks": 3,
    "baseline": 4,
    "inference": 4,
    "model_directory": 4,
    "training": 4,
    "evaluation": 5,
    "inspection": 5,
    "model_names": 5,
    "quantizing": 5,
    "saving": 5,
    "artifacts": 6,
    "asking": 6,
    "checking": 6,
    "exporting": 6,
    "pretraining": 6,
    "supervised": 6,
    "benchmark": 7,
    "comparison": 7,
    "sklearn": 7,
    "shrinking": 8,
    "cli": 9,
}
NEEDS_TORCH = {
    "models",
    *(
        f"formats.{name}"
        for name in ("ctranslate2", "engine", "huggingface", "loading", "marian", "residuals", "transformer", "weights")
    ),
    *(
        f"training.{name}"
        for name in (
            "checkpoint",
            "distributed",
            "evaluated",
            "held_out",
            "loop",
            "optimizers",
            "precision",
            "setup",
            "step",
            "torch_runner",
        )
    ),
    "pretraining.training",
    *(f"shrinking.{name}" for name in ("agreement", "distillation", "initial", "teaching")),
}
"""Rooms, and modules of rooms, that cannot be imported without torch."""
REACHES_TORCH = {
    *(
        "artifacts",
        "benchmark.contestants",
        "benchmark.subject",
        "benchmark.worker",
        "comparison.measure",
        "exporting",
        "model_directory",
        "pretraining.pretrain",
        "saving",
        "shrinking.outcome",
        "shrinking.plan",
        "shrinking.shrink",
        "supervised.base",
        "supervised.finetuning",
        "supervised.generation",
    ),
    "training.metrics_file",
}
"""Modules that import without torch and come to it in some of their functions."""

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room(module: str) -> str:
    return module.partition(".")[0]


def is_in(module: str, rooms: set[str]) -> bool:
    return module in rooms or room(module) in rooms


def imports(source: str, *, for_types: bool = True) -> Iterator[str]:
    """Every module that a source imports, wherever in it, or names in a string of its own, such as "bertram.config".

    Bertram's own come without "bertram."; the package's top is "__init__". `for_types` says whether to name what stands
    under `if TYPE_CHECKING` too.
    """
    nodes = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not for_types:
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not read here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and re.fullmatch(r"bertram(\.\w+)+", str(node.value)):
            names = [node.value]
        else:
            continue
        yield from map(without_prefix, names)


def without_prefix(name: str) -> str:
    if name != "bertram" and not name.startswith("bertram."):
        return name
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()  # a name inside a module
    return ".".join(parts) or "__init__"


def own_imports(module: str, **options: bool) -> set[str]:
    if module == "__init__":
        return set()  # names the public functions' rooms in strings, and imports them when a user asks
    return {name for name in imports(MODULES[module].read_text(encoding="utf-8"), **options) if name in MODULES}


EXTRAS = (
    *("torch", "safetensors", "sklearn", "scipy", "polars", "sacrebleu", "tensorboard"),
    *("huggingface_hub", "ctranslate2", "onnx"),
)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["classify", "what a film"], '"label": "positive"'),
        (["embed", "--text", "what a film"], '"embedding": ['),
        (["predict", PACKAGE / "own" / "bertram-sentiment.engine", "--text", "a film"], '"label": "positive"'),
        (["check", "TABLE", "--model", "albert-tiny"], "Nothing here needs a warning."),
        (["inspect", "bert-base"], "109,482,240"),  # Devlin et al. 2018: 110M
        (["version", "--json"], '"kernels"'),
    ],
)
def test_the_plain_installation_answers(tmp_path, arguments, answer):
    table = tmp_path / "table.tsv"
    table.write_text("text\tlabel\n" + "".join(f"text {i}\t{i % 2}\n" for i in range(40)))
    given = [str(table) if argument == "TABLE" else str(argument) for argument in arguments]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r}))\n"
    said = run_python(f"{blocked}from bertram.cli import main; main({given!r})")
    assert said.returncode == 0
    assert answer in said.stdout
    assert said.stderr == "" or not fastest()


SOURCE = """
import numpy as np, bertram.config
from bertram import __version__, artifacts
from bertram.text.tokenizer import Tokenizer
if TYPE_CHECKING:
    from bertram.models import heads
else:
    import json
def later():
    from bertram.errors import (
        BadInput,
    )
    run("-m", "bertram.comparison.worker", "bertram version")
"""


def test_imports_are_found_wherever_they_stand():
    always = {"numpy", "config", "__init__", "artifacts", "text.tokenizer", "json", "errors", "comparison.worker"}
    assert set(imports(SOURCE)) == always | {"models.heads"}
    assert set(imports(SOURCE, for_types=False)) == always


def test_no_test_module_imports_another():
    """What they share stands in modules beside them, such as tiny.py."""
    modules = Path(__file__).parent.glob("*.py")
    names = {name for path in modules for name in imports(path.read_text(encoding="utf-8"))}
    assert not [name for name in names if name.startswith("test_")]


def test_every_room_has_a_floor():
    assert FLOORS.keys() == {room(module) for module in MODULES}


def test_no_room_imports_from_its_own_floor_or_above():
    climbs = [
        f"{module} (floor {FLOORS[room(module)]}) imports {name} (floor {FLOORS[room(name)]})"
        for module in MODULES
        for name in own_imports(module)
        if room(name) != room(module) and FLOORS[room(name)] >= FLOORS[room(module)]
    ]
    assert climbs == []


def test_the_design_names_every_room_and_its_floor():
    documented = {}
    for line in (ROOT / "docs" / "design.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| (\d+) \|([^|]+)\|", line):
            documented |= dict.fromkeys(re.findall(r"`(\w+)(?:\.py|/)`", found[2]), int(found[1]))
    assert documented == FLOORS


def test_only_rooms_of_the_torch_side_need_torch():
    program = f"""{WITHOUT_TORCH}
from importlib import import_module
for module in {["bertram" if name == "__init__" else f"bertram.{name}" for name in MODULES]}:
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        assert error.name.startswith("torch"), error
        print(module.removeprefix("bertram."))
"""
    run = run_python(program)
    assert run.stderr == ""
    expected = {name for name in MODULES if is_in(name, NEEDS_TORCH) and MODULES[name].name != "__init__.py"}
    assert set(run.stdout.split()) == expected


def test_the_torch_free_rooms_come_to_torch_nowhere():
    reaching = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if not is_in(module, NEEDS_TORCH | REACHES_TORCH)
        for name in imports(path.read_text(encoding="utf-8"), for_types=False)
        if is_in(name, NEEDS_TORCH | {"torch"})
    ]
    assert reaching == []


def test_packages_import_nothing_heavy():
    for path in PACKAGE.rglob("__init__.py"):
        outside = {name.partition(".")[0] for name in imports(path.read_text(encoding="utf-8"))} - MODULES.keys()
        assert outside <= sys.stdlib_module_names, path
    heavy = {"numpy", "torch", "tokenizers", "rich", "polars", "sklearn", "scipy"}
    run = run_python(f"import bertram, sys; print(sorted({heavy} & sys.modules.keys()))")
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_help_loads_no_library_of_numbers():
    program = """
import sys
from bertram.cli import main
try:
    main(["--help"])
finally:
    sys.stderr.write(" ".join({"numpy", "torch", "tokenizers", "sklearn", "scipy", "polars"} & sys.modules.keys()))
"""
    run = run_python(program)
    assert (run.returncode, run.stderr) == (0, "")


class TestWithoutTorch:
    def test_help(self):
        run = run_without_torch("--help")
        assert (run.returncode, run.stderr) == (0, "")
        assert "inspect" in run.stdout

    def test_check(self, tmp_path):
        rows = "".join(f"text number {i}\t{i % 2}\n" for i in range(40))
        (tmp_path / "table.tsv").write_text("text\tlabel\n" + rows)
        run = run_without_torch("check", tmp_path / "table.tsv", "--model", "bert-tiny")
        assert (run.returncode, run.stderr) == (0, "")
        assert "Nothing here needs a warning." in run.stdout

    def test_train_says_what_is_missing(self, tmp_path):
        (tmp_path / "table.tsv").write_text("text\tlabel\n" + "a text\tgood\nanother\tbad\n" * 10)
        out = tmp_path / "out"
        run = run_without_torch("train", "classification", tmp_path / "table.tsv", "--model", "bert-tiny", "--out", out)
        assert run.returncode == 2
        assert run.stderr == "bertram: torch is not installed; it comes with: pip install 'bertram[train]'\n"

    def test_a_predictor_answers(self):
        program = f"""{WITHOUT_TORCH}
import numpy as np
from bertram.inference.predictor import Predictor
from bertram.tasks.classification import Classification
from bertram.text.tokenizer import Tokenizer

class LongIsGood:
    def run(self, batch):
        return {{"classification": np.stack([np.full(len(batch), 6), batch.lengths], 1).astype(np.float32)}}

tokenizer = Tokenizer.train(["good bad"] * 9, "bert", 40)
predictor = Predictor(Classification(("bad", "good")), tokenizer, LongIsGood(), 16)
print(*(answer["label"] for answer in predictor.predict(["good", "good good good good good"])))
"""
        run = run_python(program)
        assert (run.stdout, run.stderr) == ("bad good\n", "")
