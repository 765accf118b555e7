"""What the ALBERT paper's tables 3 to 6 compare, at the size of a small machine; docs/experiments.md has the outcome.

    python scripts/objectives.py OUT --data ../shared/data

Pre-trains six small models on the same English text and fine-tunes each three times on SST-2. The models get the steps
that two cores once computed in 20 minutes, not compiled; with --hours as many as this machine computes in that time,
while nothing else may run. What is finished at OUT is not repeated, and what was stopped goes on.
"""

import argparse
import gzip
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

WIDE = "hidden_size=320,num_attention_heads=5,intermediate_size=1280"
RUNS: dict[str, tuple[int, list[str]]] = {
    "bert-mini, NSP": (2151, ["--model", "bert-mini"]),
    "albert-mini, SOP": (2481, ["--model", "albert-mini"]),
    "ALBERT 320 wide, SOP": (1851, ["--model", "albert-mini", "--config", WIDE]),
    "albert-mini, NSP": (2393, ["--model", "albert-mini", "--sentence-objective", "nsp"]),
    "albert-mini, none": (2739, ["--model", "albert-mini", "--sentence-objective", "none"]),
    "bert-mini sharing attention, NSP": (
        2093,
        ["--model", "bert-mini", "--config", "shared=attention,num_hidden_groups=1"],
    ),
}
"""Steps and arguments of each pre-training."""
SEEDS = 3


def bertram(*arguments: object) -> dict[str, Any]:
    """Run a command with --json; what it says."""
    command = [sys.executable, "-m", "bertram.cli", *map(str, arguments), "--json", "--resume"]
    print(shlex.join(["bertram", *command[3:]]), file=sys.stderr, flush=True)
    said: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return said


def reviews(data: Path, out: Path) -> Path:
    """The unlabelled reviews as JSONL, since their documents end otherwise than the novels do."""
    path = out / "reviews.jsonl"
    if not path.exists():
        text = gzip.decompress((data / "corpus_en_imdb" / "unsup_12k.txt.gz").read_bytes()).decode()
        documents = [document for document in text.split("\n\n") if document.strip()]
        path.write_text("".join(f"{json.dumps({'text': document})}\n" for document in documents))
    return path


def row(name: str, data: Path, out: Path, hours: float | None) -> dict[str, Any]:
    steps, arguments = RUNS[name]
    budget = ["--steps", steps, "--no-compile"] if hours is None else ["--hours", hours]
    folder = out / name.replace(", ", "-").replace(" ", "-")
    corpus = [data / "corpus_en_novels", reviews(data, out)]
    pretrained = bertram(
        *("pretrain", *corpus, "--documents", "file", *arguments, *budget, "--out", folder / "pretrained")
    )
    table, dev = data / "sst2" / "train.tsv.gz", data / "sst2" / "dev.tsv.gz"
    accuracies = []
    for seed in range(SEEDS):
        tuned = bertram(
            *("train", "classification", table, "--columns", "text=sentence,label=label", "--validation", dev),
            *("--model", folder / "pretrained", "--epochs", 3, "--learning-rate", 1e-4, "--evaluations", 1),
            *("--max-length", 128, "--seed", seed, "--out", folder / f"sst2-{seed}"),
        )
        accuracies.append(tuned["scores"]["validation"][0]["value"])
    scores = pretrained["scores"]
    return {
        "model": name,
        "steps": pretrained["steps"],
        "tokens": pretrained["tokens"],
        "tokens_per_second": pretrained["tokens_per_second"],
        "mlm_loss": scores["masked_language_model_loss"],
        "mlm_accuracy": scores["masked_language_model_accuracy"],
        "nsp_accuracy": scores.get("nsp_accuracy"),
        "sop_accuracy": scores.get("sop_accuracy"),
        "sst2": accuracies,
        "sst2_mean": statistics.mean(accuracies),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--hours", type=float, help="of each pre-training, in place of its steps")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.runs:
        print(json.dumps(row(name, options.data, options.out, options.hours)), flush=True)


if __name__ == "__main__":
    main()
