"""The Runner that computes with torch."""

import numpy as np
import torch
from numpy.typing import NDArray

from bertram.batch import Batch
from bertram.errors import BadInput
from bertram.models.heads import Model
from bertram.models.tensors import to_tensors
from bertram.training.interruption import check_stop


class TorchRunner:
    """Answers with a model as it stands, in evaluation mode."""

    def __init__(self, model: Model, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model, device

    @torch.inference_mode()
    def run(self, batch: Batch) -> dict[str, NDArray[np.float32]]:
        """Every head's logits by its name, and "hidden" and "pooled" as `Model.forward` states them.

        Raises:
            BadInput: a sequence is a pair of texts, and the model knows one segment only.
            Interrupted: a signal came.
        """
        check_stop()
        if batch.segment_ids.max(initial=0) >= self.model.config.type_vocab_size:
            raise BadInput("the model knows one segment only, so it cannot read pairs of texts")
        self.model.eval()
        out = self.model(to_tensors(batch, self.device))
        return {name: tensor.float().cpu().numpy() for name, tensor in out.items()}
