"""A decoder that writes token by token and keeps the keys and values of what it wrote.

Letters: B sources, k hypotheses of each, R = B * k, S tokens of the longest source, t tokens written, H width,
h heads of d = H / h, V vocabulary.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bertram.batch import check_positions
from bertram.models.layers import Attention, Layer
from bertram.models.tensors import PackedTensors
from bertram.models.transformer import Transformer

_CAPACITY = 16


class Decoding:
    """The hypotheses of a batch of sources under search, a `beam_search.StepwiseDecoder`.

    Keys and values of the sources stand once a source, whatever the number of its hypotheses, and once for all layers
    that share them.
    """

    def __init__(self, model: Transformer, sources: PackedTensors) -> None:
        """Encode the sources.

        Raises:
            BadInput: a source is longer than the positions that the model knows.
        """
        self.model, self.length = model, 0
        self.layers = cast(list[Layer], model.decoder.layers)
        memory = model.encode(sources)
        ends = torch.cat([sources.first[1:], sources.first.new_tensor([len(memory)])])
        places = torch.arange(int(sources.lengths.max()), device=memory.device)
        rows = sources.first[:, None] + places  # [B, S]
        real = rows < ends[:, None]
        rows = torch.where(real, rows, 0)
        self.mask = torch.where(real, 0.0, -math.inf).to(memory.dtype)[:, None, None]  # [B, 1, 1, S]
        self.sources: dict[Attention, Tensor] = {}
        for layer in self.layers:
            part = layer.cross_attention
            if part not in self.sources:
                key_value = part.key_value(memory)[rows]  # [B, S, 2H]
                self.sources[part] = key_value.view(*rows.shape, 2, part.heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        self.written: list[Tensor] = []  # [2, R, h, capacity, d] each

    def step(self, tokens: Tensor) -> Tensor:
        """Append tokens [B, k] to the B sources' k hypotheses; logits of what follows, [B, k, V].

        Raises:
            BadInput: the hypotheses are longer than the positions that the model knows.
        """
        decoder = self.model.decoder
        positions = torch.full_like(tokens.flatten(), self.length)
        check_positions(self.length + 1, decoder.config.max_position_embeddings)
        x = decoder.embeddings(tokens.flatten(), positions, None, decoder.precision)
        self._make_room(len(x), x)
        for layer, written in zip(self.layers, self.written, strict=True):
            x = layer.attention.add(x, self._attend(layer.attention, x, written))
            x = layer.cross_attention.add(x, self._attend_to_source(layer.cross_attention, x))
            x = layer.feed_forward(x)
        self.length += 1
        logits: Tensor = self.model.head(decoder.normalize(x))
        return logits.view(*tokens.shape, -1)

    def keep(self, sentences: Tensor, beams: Tensor) -> None:
        """Go on with the sources [b] of the B, whose new k hypotheses continue the old ones at `beams` [b, k]."""
        if self.written:
            before = self.written[0].shape[1] // len(self.mask)
            if before == beams.shape[1] == 1 and len(sentences) == len(self.mask):  # greedy: all go on as they are
                return
            rows = (sentences[:, None] * before + beams).flatten()
            for place, key_value in enumerate(self.written):  # one by one: together they would take twice the memory
                self.written[place] = key_value.index_select(1, rows)
        if len(sentences) < len(self.mask):
            self.mask = self.mask[sentences]
            self.sources = {part: key_value.index_select(1, sentences) for part, key_value in self.sources.items()}

    def _make_room(self, rows: int, like: Tensor) -> None:
        """Room for one more token."""
        if self.written and self.length < self.written[0].shape[3]:
            return
        if not self.written:
            for layer in self.layers:
                heads = layer.attention.heads
                self.written.append(like.new_empty(2, rows, heads, _CAPACITY, like.shape[1] // heads))
        else:
            for place, key_value in enumerate(self.written):
                self.written[place] = F.pad(key_value, (0, 0, 0, key_value.shape[3]))  # twice as many

    def _attend(self, part: Attention, x: Tensor, written: Tensor) -> Tensor:
        """Self-attention of the newest token, [R, H], whose keys and values join those written."""
        inner = part.normalized(x)
        query = part.query(inner).view(len(x), part.heads, 1, -1)
        written[:, :, :, self.length] = part.key_value(inner).view(len(x), 2, part.heads, -1).transpose(0, 1)
        keys, values = written[:, :, :, : self.length + 1]
        return F.scaled_dot_product_attention(query, keys, values).flatten(1)

    def _attend_to_source(self, part: Attention, x: Tensor) -> Tensor:
        """Attention of the newest token to its source, [R, H]; the hypotheses of a source ask together."""
        inner = part.normalized(x)
        query = part.query(inner).view(len(self.mask), -1, part.heads, x.shape[1] // part.heads).transpose(1, 2)
        keys, values = self.sources[part]
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=self.mask).transpose(1, 2).reshape(x.shape)
