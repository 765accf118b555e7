"""What an encoder and a decoder have in common: embeddings, and layers of which some share their parts.

Letters: T tokens, H hidden width.
"""

import os
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from shutil import which
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bertram.batch import check_positions
from bertram.config import EncoderConfig
from bertram.models.layers import Embeddings, Layer, LayerNorm, layers_of
from bertram.models.layout import Layout, Ragged
from bertram.models.tensors import PackedTensors

# The library below compiles a kernel for each new shape of a product, so products get few: rows of zeros that belong to
# no sequence fill T up. Measured in docs/experiments.md.
_ROW_MULTIPLE = 32


class Stack(nn.Module):
    """Embeddings and num_hidden_layers × inner_group_num layers, in run order.

    Attributes:
        gradient_checkpointing: whether activations are computed anew for gradients, to save memory.
        compiled: whether layers are compiled.
    """

    def __init__(self, config: EncoderConfig, memory_width: int | None = None) -> None:
        """With `memory_width` layers also attend to an encoder's output of that width."""
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(layers_of(config, memory_width))
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.normalize_before else None
        self.gradient_checkpointing = self.compiled = False

    @property
    def precision(self) -> torch.dtype:
        """The type that products are computed in."""
        return cast(Layer, self.layers[0]).attention.query.weight.dtype

    def embed(self, batch: PackedTensors, segment_ids: Tensor | None) -> Tensor:
        """What the first layer takes, [T, H].

        Raises:
            BadInput: a sequence is longer than the positions that the model knows.
        """
        check_positions(int(batch.lengths.max()), self.config.max_position_embeddings)
        embedded: Tensor = self.embeddings(batch.token_ids, batch.positions, segment_ids, self.precision)
        return embedded

    def run(self, layer: nn.Module, x: Tensor, own: Layout, **options: Any) -> Tensor:
        """One layer's output of [T, H], with options of `Layer.forward`.

        With `gradient_checkpointing` the backward pass computes activations again (Chen et al. 2016). With `compiled`
        the layer runs as kernels compiled for it, where attention reads packed rows and there is a compiler: blocks
        would be compiled anew for every batch.
        """
        compiled = self.compiled and isinstance(own, Ragged) and _has_compiler()
        run = partial(_compiled(), layer) if compiled else layer
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(run, x, own, **options, use_reentrant=False))
        return cast(Tensor, run(x, own, **options))

    def normalize(self, x: Tensor) -> Tensor:
        """The last layer's output as it leaves the stack: where layers normalize their input, nobody else has."""
        return x if self.norm is None else self.norm(x)


def fill_rows(x: Tensor) -> Tensor:
    """[T, H] with rows of zeros below, up to a multiple of 32; on a GPU as it is."""
    return x if x.is_cuda else F.pad(x, (0, 0, 0, -len(x) % _ROW_MULTIPLE))


@cache
def _compiled() -> Callable[..., Tensor]:
    """One for all layers, whose weights it takes as arguments."""
    return torch.compile(Layer.forward, dynamic=True)


@cache
def _has_compiler() -> bool:
    """Whether Triton is there, and what it looks for itself to build its launchers with."""
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return find_spec("triton") is not None and any(map(which, compilers))
