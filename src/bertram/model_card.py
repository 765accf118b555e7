"""The README.md of a trained model, with the metadata that the Hugging Face hub reads."""

import json
import re
from collections.abc import Mapping
from typing import Any

from bertram import __version__

_HUB_TASKS = {
    "classification": "text-classification",
    "regression": "text-classification",
    "similarity": "sentence-similarity",
    "tagging": "token-classification",
}
_FILL_MASK = "bertram fill-mask this/directory 'It was a [MASK] day.'"


def model_card(manifest: dict[str, Any]) -> str:
    """Write the card of a run from what its bertram.json will say."""
    task, data = manifest["task"], manifest["data"]
    judged = "test" if "test" in manifest["scores"] else "validation"
    scores = [
        (name, score["metric"], score["value"], score["signature"])
        for name, found in manifest["scores"].items()
        for score in found
    ]
    rows = [
        f"- {name}: {data['rows'][name]:,} rows ({data[name]})"
        for name in ("train", "validation", "test")
        if data[name]
    ]
    cut = "read in parts" if task["name"] == "tagging" else f"cut; in training {manifest['truncated_texts']:,}"
    asked = '{"text": "a text", "text_b": "another"}' if manifest.get("pairs") else '"a text"'
    rows += _unit(task)
    use = ["import bertram", "", f'bertram.load("this/directory").predict([{asked}])']
    return _card(
        manifest,
        hub_task=_HUB_TASKS.get(task["name"], task["name"]),
        purpose=f"trained for {task['name']}",
        data_name=data["train"],
        judged=judged,
        data_lines=[*rows, f"- texts longer than {manifest['max_length']} tokens are {cut}"],
        scores=scores,
        use=use,
    )


def pretraining_card(manifest: dict[str, Any], *, anew: bool) -> str:
    """Write the card of a model pre-trained `anew`, or else further, from what its bertram.json will say."""
    objectives, data = manifest["pretraining"], manifest["data"]
    rows = [f"- {name}: {data[name]['tokens']:,} tokens ({data[name]['source']})" for name in ("train", "validation")]
    how = f"- masked by {objectives['masking']}; sentence objective: {objectives['sentence_objective']}"
    beyond = "untrained" if anew else f"as {manifest['base_model']} had them"
    length = f"- sequences of at most {objectives['max_length']} tokens; positions beyond are {beyond}"
    signature = (
        f"masking:{objectives['masking']}|max_length:{objectives['max_length']}"
        f"|split:validation|seed:{manifest['recipe']['seed']}"
    )
    scores = [("validation", name, value, signature) for name, value in manifest["scores"].items()]
    use = [_FILL_MASK, "bertram train classification reviews.csv --model this/directory --out out/reviews"]
    return _card(
        manifest,
        hub_task="fill-mask",
        purpose="pre-trained",
        data_name=data["train"]["source"],
        judged="validation",
        data_lines=[*rows, how, length],
        scores=scores,
        use=use,
    )


def shrinking_card(manifest: dict[str, Any], name: str, metadata: Mapping[str, str] | None = None) -> str:
    """Write the card of a shrunken model called `name` from what its bertram.json will say.

    `metadata` is what the hub is told besides: the licence, the language.
    """
    made, data, count = manifest["shrinking"], manifest["data"], manifest["parameters"]
    teacher, groups = manifest["base_model"], made["groups"]
    rows = [
        f"- taught by {teacher} on {data['rows']['train']:,} texts ({data['train']})",
        f"- {count['student']:,} parameters of {count['teacher']:,}: {groups} group{'s'[: groups > 1]} of layers, "
        f"embeddings {made['embedding_size']} wide" + (f", residuals of rank {made['rank']}" if made["rank"] else ""),
        f"- texts longer than {manifest['max_length']} tokens are cut; of these {manifest['truncated_texts']:,}",
    ]
    scores = [
        (
            "validation",
            f"agreement of {name}",
            found["value"],
            f"low:{found['low']:.4f}|high:{found['high']:.4f}|n:{found['n']}",
        )
        for name, found in manifest["agreement"].items()
    ]
    rows += _unit(manifest.get("task", {}))
    task = manifest.get("task", {}).get("name")
    use = ["bertram train classification reviews.csv --model this/directory --out out/reviews"]
    if task == "tagging":
        use = ["bertram tag this/directory texts.txt"]
    elif task == "similarity":
        use.insert(0, "bertram embed this/directory texts.txt --out vectors.npy")
    elif task == "fill-mask":
        use.insert(0, _FILL_MASK)
    elif task is not None:
        use.insert(0, f"bertram predict this/directory {'pairs.csv' if manifest.get('pairs') else 'texts.txt'}")
    return _card(
        manifest,
        hub_task="feature-extraction" if task is None else _HUB_TASKS.get(task, task),
        purpose=f"shrunken from {teacher}",
        data_name=data["train"],
        judged="validation",
        data_lines=rows,
        scores=scores,
        use=use,
        name=name,
        metadata=metadata,
    )


Scores = list[tuple[str, str, float, str]]
"""Split, metric, value and signature of each."""


def _unit(task: Mapping[str, Any]) -> list[str]:
    """What whoever reads a regression's logits must know, as a list's line; nothing for other tasks."""
    if task.get("name") != "regression":
        return []
    return [f"- transformers' logits count deviations: a value is {task['std']} × logit + {task['mean']}"]


def _card(
    manifest: dict[str, Any],
    *,
    hub_task: str,
    purpose: str,
    data_name: str,
    judged: str,
    data_lines: list[str],
    scores: Scores,
    use: list[str],
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """A card titled `name`, by default that of the model the training began with."""
    name = name or manifest["base_model"]
    metrics = [
        f"      - type: {_quoted(metric)}\n        value: {value:.4f}\n        name: {_quoted(signature)}"
        for split, metric, value, signature in scores
        if split == judged
    ]
    index = [
        "model-index:",
        f"- name: {_quoted(name)}",
        "  results:",
        "  - task:",
        f"      type: {hub_task}",
        "    dataset:",
        f"      name: {_quoted(data_name)}",
        f"      type: {_quoted(data_name)}",
        f"      split: {judged}",
        "    metrics:",
        *metrics,
    ]
    table = [  # a cell ends at every bar, also within backticks
        f"| {split} | {metric} | {value:.4f} | `{signature.replace('|', chr(92) + '|')}` |"
        for split, metric, value, signature in scores
    ]
    told = [f"{key}: {_quoted(value)}" for key, value in (metadata or {}).items()]
    front = ["---", *told, "library_name: bertram", f"pipeline_tag: {hub_task}", *(index if metrics else []), "---"]
    body = [
        "",
        f"# {name}, {purpose}",
        "",
        f"Trained by Bertram {__version__} in {manifest['steps']:,} steps over {manifest['tokens']:,} tokens"
        f" ({manifest['seconds']:,.0f} s). Status: {manifest['status']}. {manifest['reason']}".rstrip(),
        "",
        "## Data",
        "",
        *data_lines,
        "",
        "## Scores",
        "",
        *(["| split | metric | value | signature |", "|---|---|---|---|", *table] if table else ["None."]),
        "",
        "## Recipe",
        "",
        *(f"- {name}: {value}" for name, value in manifest["recipe"].items() if value is not None),
        "",
        "## Use",
        "",
        "```" + ("python" if use[0].startswith("import") else "shell"),
        *use,
        "```",
        "",
    ]
    return "\n".join(front + body)


def _quoted(text: str) -> str:
    """A YAML scalar: JSON's strings are a part of YAML, but for control characters beyond ASCII's first ones."""
    written = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", written)
