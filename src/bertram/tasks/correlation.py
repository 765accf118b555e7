"""Pearson's correlation as a function of means over examples, so that it can be resampled by products of matrices.

Letters: N examples.
"""

import numpy as np

from bertram.tasks.task import Floats, Logits

ROUNDING = 1e-14
"""A spread below this part of the numbers' size is rounding."""


def moments(x: Floats, y: Floats) -> Floats:
    """What each of N examples adds to a correlation: x, y, x², y², xy, [N, 5]."""
    # Correlation does not mind a shift, and centred numbers lose least to rounding.
    x, y = x - x.mean(), y - y.mean()
    return np.stack([x, y, x * x, y * y, x * y], axis=-1)


def correlation(means: Floats) -> Floats:
    """Correlation from means of `moments`, [..., 5] → [...], 0.0 where it is not defined."""
    x, y, xx, yy, xy = np.moveaxis(means, -1, 0)
    x_variance, y_variance = xx - x * x, yy - y * y
    defined = (x_variance > ROUNDING * xx) & (y_variance > ROUNDING * yy)
    scale = np.sqrt(np.where(defined, x_variance * y_variance, 1.0))
    return np.where(defined, (xy - x * y) / scale, 0.0)


def finite(logits: Logits) -> Floats:
    """[N, 1] → [N], 0 where a logit is not finite."""
    return np.where(np.isfinite(logits[:, 0]), logits[:, 0], 0.0).astype(np.float64)
