"""Pearson's correlation as a function of means over examples, so that it can be resampled by products of matrices.

Letters: N examples.
"""

import numpy as np

from bertram.tasks.task import Floats

_ROUNDING = 1e-14  # a spread below this part of the numbers' size is rounding


def moments(x: Floats, y: Floats) -> Floats:
    """What each of N examples adds to a correlation: x, y, x², y², xy, [N, 5]."""
    # Correlation does not mind a shift, and centred numbers lose least to rounding.
    x, y = x - x.mean(), y - y.mean()
    return np.stack([x, y, x * x, y * y, x * y], axis=-1)


def correlation(means: Floats) -> Floats:
    """Correlation from means of `moments`, [..., 5] → [...], 0.0 where it is not defined."""
    x, y, xx, yy, xy = np.moveaxis(means, -1, 0)
    x_variance, y_variance = xx - x * x, yy - y * y
    defined = (x_variance > _ROUNDING * xx) & (y_variance > _ROUNDING * yy)
    scale = np.sqrt(np.where(defined, x_variance * y_variance, 1.0))
    return np.where(defined, (xy - x * y) / scale, 0.0)


def ranks(values: Floats) -> Floats:
    """The place of each of N values in ascending order from 1, equal ones sharing the mean of theirs, [N]."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: Floats = (ends - (counts - 1) / 2)[places]
    return found
