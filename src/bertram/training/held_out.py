"""How well a model predicts targets that it does not learn from."""

from typing import cast

import torch

from bertram.interruption import check_stop
from bertram.models.heads import Head, Model
from bertram.models.tensors import targets_of, to_tensors
from bertram.training.distributed import Processes
from bertram.training.feed import Feed, first_epoch

_EVALUATED_TOKENS = 2**16


def scores_on(network: Model, feed: Feed, processes: Processes) -> dict[str, float]:
    """Mean loss and accuracy of every head that `feed` has targets for, over about 65,000 of its tokens.

    Masks and pairs are the same at every call. Several processes share the work.
    """
    network.eval()
    sums: dict[str, list[float]] = {name: [0.0, 0.0, 0.0] for name in network.heads}  # losses, right answers, answers
    for number, batch in enumerate(first_epoch(feed, _EVALUATED_TOKENS), 1):
        if number % processes.size != processes.rank:
            continue
        if processes.size == 1:
            check_stop()
        targets = {name: t for name, t in targets_of(batch, processes.device).items() if name in network.heads}
        with torch.inference_mode():
            logits = network.targeted(to_tensors(batch.inputs, processes.device), targets)
            for name, (_, values) in targets.items():
                loss = cast(Head, network.heads[name]).loss(logits[name], values)
                correct = (logits[name].argmax(-1) == values).sum()
                for place, value in enumerate((float(loss) * len(values), float(correct), len(values))):
                    sums[name][place] += value
    scores: dict[str, float] = {}
    for name, own in sums.items():
        total, right, count = processes.sums(own)
        if count:
            scores |= {f"{name}_loss": total / count, f"{name}_accuracy": right / count}
    return scores
