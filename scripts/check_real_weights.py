"""Compare Bertram with transformers on directories of real weights.

    python scripts/check_real_weights.py DIRECTORY…

For every output it prints the largest difference between the two in float32, and beside it how far transformers'
float32 is from its own float64: that much is rounding. Exits with 1 where a difference passes 1e-5 and twice the
rounding. Needs transformers; a pytorch_model.bin is read by torch's restricted unpickler.
"""

import argparse
import copy
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor

from bertram.batch import Batch
from bertram.formats import huggingface
from bertram.models.heads import Model
from bertram.models.tensors import to_tensors

TOLERANCE = 1e-5
CLASSES = {
    (): "Model",
    ("masked_language_model",): "ForMaskedLM",
    ("masked_language_model", "sentence_pair"): "ForPreTraining",
    ("sentence_pair",): "ForNextSentencePrediction",
    ("classification",): "ForSequenceClassification",
    ("regression",): "ForSequenceClassification",
    ("token_classification",): "ForTokenClassification",
}


def transformers_class(model: Model) -> type[transformers.PreTrainedModel]:
    """The class of transformers that has this model's heads."""
    family = {"bert": "Bert", "albert": "Albert"}[model.config.model_type]
    return getattr(transformers, family + CLASSES[tuple(sorted(model.heads.keys() - {"embedding"}))])


def random_batch(model: Model, lengths: list[int], seed: int) -> Batch:
    """Ragged sequences of random tokens and segments."""
    random = np.random.default_rng(seed)
    return Batch.pack(
        [random.integers(model.config.vocab_size, size=length).tolist() for length in lengths],
        [random.integers(model.config.type_vocab_size, size=length).tolist() for length in lengths],
    )


@torch.inference_mode()
def our_outputs(ours: Model, batch: Batch) -> dict[str, Tensor]:
    tensors = to_tensors(batch)
    return {"hidden": ours.eval().encoder(tensors), **ours(tensors)}


@torch.inference_mode()
def their_outputs(theirs: transformers.PreTrainedModel, heads: list[str], batch: Batch) -> dict[str, Tensor]:
    """What transformers makes of the padded batch, without the padding and under our names."""
    b, s = len(batch), int(batch.lengths.max())
    real = torch.arange(s) < torch.from_numpy(batch.lengths)[:, None]  # [b, s]
    token_ids, segment_ids = torch.zeros(b, s, dtype=torch.long), torch.zeros(b, s, dtype=torch.long)
    token_ids[real] = torch.from_numpy(batch.token_ids).long()
    segment_ids[real] = torch.from_numpy(batch.segment_ids).long()
    inputs = {"input_ids": token_ids, "token_type_ids": segment_ids, "attention_mask": real.long()}

    body, whole = theirs.eval().base_model(**inputs), theirs(**inputs)
    outputs = {"hidden": body.last_hidden_state}
    if body.pooler_output is not None:
        outputs["pooled"] = body.pooler_output
    if "embedding" in heads:  # as sentence-transformers computes it of the mean
        heads = [head for head in heads if head != "embedding"]
        sums = (body.last_hidden_state * real[:, :, None]).sum(1)
        outputs["embedding"] = torch.nn.functional.normalize(sums)
    if len(heads) == 2:
        outputs["masked_language_model"] = whole.prediction_logits
        outputs["sentence_pair"] = whole.sop_logits if "sop_logits" in whole else whole.seq_relationship_logits
    for head in heads[: len(heads) % 2]:
        outputs[head] = whole.logits
    return {name: value[real] if value.dim() == 3 else value for name, value in outputs.items()}


def differences(some: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, float]:
    """The largest absolute difference of every output that both have."""
    return {name: float((some[name] - others[name]).abs().max()) for name in others if name in some}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+", metavar="DIRECTORY")
    failed = False
    for directory in parser.parse_args(arguments).directories:
        ours = huggingface.read(Path(directory), allow_pickle=True)
        theirs = transformers_class(ours).from_pretrained(directory, attn_implementation="eager")
        batch, heads = random_batch(ours, [512, 1, 37, 128, 2, 64, 300], seed=0), sorted(ours.heads)
        expected = their_outputs(theirs, heads, batch)
        rounding = differences(expected, their_outputs(copy.deepcopy(theirs).double(), heads, batch))
        print(directory)
        for name, difference in differences(our_outputs(ours, batch), expected).items():
            agrees = difference <= max(TOLERANCE, 2 * rounding[name])
            failed |= not agrees
            verdict = "" if agrees else "  DIFFERS"
            print(f"  {name:22} {difference:.1e}  rounding {rounding[name]:.1e}{verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
