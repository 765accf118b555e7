"""Dropout (Srivastava et al. 2014) that does not wait for the random numbers."""

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zero each element with `probability` and scale the rest by 1 / (1 - probability); 0 returns `x` itself.

    On a CPU four 16-bit decisions are cut from each 64-bit random number, so the probability is exact to 1/65,536;
    torch draws one number an element, on one core, which is a tenth of a small model's training step. The numbers come
    from torch's default generator.
    """
    if probability == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    threshold = round(probability * 65536) - 32768
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = (words.view(torch.int16)[: x.numel()] >= threshold).view(x.shape)
    return x * (keep * torch.tensor(65536 / (32768 - threshold), dtype=x.dtype))
