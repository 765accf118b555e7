"""The README.md of a trained model, with the metadata that the Hugging Face hub reads."""

import json
from typing import Any

from bertram import __version__

_HUB_TASKS = {"classification": "text-classification", "regression": "text-classification"}


def model_card(manifest: dict[str, Any]) -> str:
    """Write the card of a run from what its bertram.json will say."""
    task, data, recipe = manifest["task"], manifest["data"], manifest["recipe"]
    hub_task = _HUB_TASKS.get(task["name"], task["name"])
    judged = "test" if "test" in manifest["scores"] else "validation"
    metrics = [
        f"      - type: {_quoted(score['metric'])}\n        value: {score['value']:.4f}\n"
        f"        name: {_quoted(score['signature'])}"
        for score in manifest["scores"][judged]
    ]
    front = [
        "---",
        "library_name: bertram",
        f"pipeline_tag: {hub_task}",
        "model-index:",
        f"- name: {_quoted(manifest['base_model'])}",
        "  results:",
        "  - task:",
        f"      type: {hub_task}",
        "    dataset:",
        f"      name: {_quoted(data['train'])}",
        f"      type: {_quoted(data['train'])}",
        f"      split: {judged}",
        "    metrics:",
        *metrics,
        "---",
    ]
    given = {name: value for name, value in recipe.items() if value is not None}
    body = [
        "",
        f"# {manifest['base_model']}, trained for {task['name']}",
        "",
        f"Trained by Bertram {__version__} in {manifest['steps']:,} steps over {manifest['tokens']:,} tokens"
        f" ({manifest['seconds']:,.0f} s). Status: {manifest['status']}. {manifest['reason']}".rstrip(),
        "",
        "## Data",
        "",
        *(
            f"- {name}: {data['rows'][name]:,} rows ({data[name]})"
            for name in ("train", "validation", "test")
            if data[name]
        ),
        f"- texts longer than {manifest['max_length']} tokens are cut; in training {manifest['truncated_texts']:,}",
        "",
        "## Scores",
        "",
        "| split | metric | value | signature |",
        "|---|---|---|---|",
        *(
            f"| {name} | {score['metric']} | {score['value']:.4f} | `{score['signature']}` |"
            for name, scores in manifest["scores"].items()
            for score in scores
        ),
        "",
        "## Recipe",
        "",
        *(f"- {name}: {value}" for name, value in given.items()),
        "",
        "## Use",
        "",
        "```python",
        "import bertram",
        "",
        'bertram.load("this/directory").predict(["a text"])',
        "```",
        "",
    ]
    return "\n".join(front + body)


def _quoted(text: str) -> str:
    """A YAML scalar: JSON's strings are a part of YAML."""
    return json.dumps(text, ensure_ascii=False)
