"""The figures of docs/article.md: the popular account of attention and of sharing, computed.

    python scripts/article.py literal DIRECTORY          the formula as it is told, on a model's embeddings
    python scripts/article.py scaling DIRECTORY          entropy of attention with and without the division by √d
    python scripts/article.py forward bert-mini albert-mini
    python scripts/article.py disk bert-mini albert-mini bert-base albert-base

DIRECTORY is a Hugging Face directory of pretrained weights with its tokenizer; the other two take presets, whose
weights are random.

Letters: n tokens of one text, D width of a vector, h heads of d = D / h.
"""

import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cyclopts import App
from torch import Tensor

from bertram.batch import Batch
from bertram.errors import BadInput
from bertram.formats.huggingface import write
from bertram.model_directory import ModelDirectory
from bertram.model_names import config_of
from bertram.models.encoder import Encoder
from bertram.models.heads import Model
from bertram.models.layers import Attention
from bertram.models.tensors import to_tensors

SENTENCES = [
    "The ferry left an hour late because the captain would not sail before the fog had lifted from the harbour.",
    "She kept her grandfather's letters in a biscuit tin under the stairs and read one of them every winter.",
    "Prices of wheat fell again in March, although the harvest had been poor in three of the five provinces.",
    "Nobody at the meeting could say who had signed the contract or why it was never sent to the lawyers.",
    "If you boil the beans without soaking them first, they take twice as long and the skins stay tough.",
    "The new bridge carries trains above and cars below, and it sways a little when the wind is from the west.",
    "He had studied the violin for eleven years before he admitted that what he loved was repairing them.",
    "Our survey found that most readers skip the first chapter, and that those who do not seldom finish the second.",
]
LENGTHS = [8, 16, 32, 64, 128]
WIDTHS = [8, 32, 128, 512]
SEQUENCES, TOKENS, ROUNDS = 16, 64, 40

app = App(help_format="plaintext", help=__doc__.splitlines()[0])


def literal_weights(v: Tensor) -> Tensor:
    """The account's A[i][j] = VᵢVⱼ / (‖Vᵢ‖‖Vⱼ‖), then A / √D: [n, D] → [n, n]."""
    unit = F.normalize(v, dim=-1)
    return unit @ unit.mT / math.sqrt(v.shape[-1])


def attention_weights(q: Tensor, k: Tensor, *, scaled: bool = True) -> Tensor:
    """softmax(QKᵀ / √d), or softmax(QKᵀ): [h, n, d] twice → [h, n, n]."""
    scores = q @ k.mT
    return torch.softmax(scores / math.sqrt(q.shape[-1]) if scaled else scores, -1)


def entropies(weights: Tensor) -> Tensor:
    """Of every row, in nats: [..., n, n] → [..., n]. 0 where one token takes all, ln n where all take as much."""
    entropy: Tensor = torch.special.entr(weights).sum(-1)
    return entropy


def queries_and_keys(encoder: Encoder, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """What every layer in turn makes of one text: queries and keys by head, [h, n, d] each."""
    queries: list[Tensor] = []
    pairs: list[Tensor] = []  # keys and values side by side
    hooks = []
    for module in encoder.modules():  # layers that share their attention hold one module, which then runs often
        if isinstance(module, Attention):
            hooks.append(module.query.register_forward_hook(lambda _module, _inputs, out: queries.append(out)))
            hooks.append(module.key_value.register_forward_hook(lambda _module, _inputs, out: pairs.append(out)))
    encoder(to_tensors(batch))
    for hook in hooks:
        hook.remove()
    n, h = len(batch.token_ids), encoder.config.num_attention_heads  # the encoder adds rows that belong to no text

    def by_head(rows: Tensor) -> Tensor:
        return rows[:n].view(n, h, -1).transpose(0, 1)

    return [(by_head(query), by_head(pair.chunk(2, -1)[0])) for query, pair in zip(queries, pairs, strict=True)]


@app.command
@torch.inference_mode()
def literal(directory: Path) -> None:
    """The account's formula on the embeddings of a text that grows: no projections, no softmax."""
    encoder, texts = _pretrained(directory, [" ".join(SENTENCES)])
    batch = to_tensors(texts)
    v = encoder.embeddings(batch.token_ids, batch.positions, batch.segment_ids, torch.float32)
    print("        literal formula             with a softmax")
    print("tokens  row sum  norm of output     row sum  norm of output")
    for n in LENGTHS:
        told = literal_weights(v[:n])
        normalised = torch.softmax(told, -1)
        sums = [float(weights.sum(-1).mean()) for weights in (told, normalised)]
        norms = [float((weights @ v[:n]).norm(dim=-1).mean()) for weights in (told, normalised)]
        print(f"{n:6}  {sums[0]:7.3f}  {norms[0]:14.3f}  {sums[1]:10.3f}  {norms[1]:14.3f}")
    print(f"A / √{v.shape[-1]} is {list(told.shape)}, as A is")
    own = told.argmax(-1) == torch.arange(n)
    symmetric = "equals" if torch.allclose(told, told.mT) else "differs from"
    print(
        f"A[i][j] {symmetric} A[j][i]; a token's largest weight is its own in {float(own.float().mean()):.0%} of rows"
    )


@app.command
@torch.inference_mode()
def scaling(directory: Path) -> None:
    """Entropy in nats, and largest weight, of attention's rows with and without the division by √d."""
    encoder, texts = _pretrained(directory, SENTENCES)
    by_text = [queries_and_keys(encoder, texts.select([text])) for text in range(len(texts))]
    layers = [torch.cat([_spread(q, k) for q, k in layer], 1).mean(1) for layer in zip(*by_text, strict=True)]
    uniform = np.average(np.log(texts.lengths), weights=texts.lengths)
    d = by_text[0][0][0].shape[-1]
    print("              entropy         largest weight")
    print("          scaled  unscaled   scaled  unscaled")
    print(f"{len(texts)} sentences, {len(texts.token_ids)} tokens, d = {d}; equal weights: {uniform:.2f} nats")
    for number, means in enumerate(layers, 1):
        _print_spread(f"layer {number}", means)
    _print_spread("all", torch.stack(layers).mean(0))
    print(f"normal random queries and keys of {TOKENS} tokens; equal weights: {math.log(TOKENS):.2f} nats")
    generator = torch.Generator().manual_seed(0)
    for width in WIDTHS:
        q, k = torch.randn(2, 64, TOKENS, width, generator=generator)
        _print_spread(f"d = {width}", _spread(q, k).mean(1))


@app.command
@torch.inference_mode()
def forward(first: str, second: str) -> None:
    """Time of one batch through the encoders of two presets, in turns."""
    encoders = {name: Encoder(config_of(name)).eval() for name in (first, second)}
    random = np.random.default_rng(0)
    vocabulary = min(encoder.config.vocab_size for encoder in encoders.values())
    batch = to_tensors(Batch.pack(random.integers(vocabulary, size=(SEQUENCES, TOKENS)).tolist()))
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(ROUNDS + 3):
        for name, encoder in encoders.items():
            began = time.perf_counter()
            encoder(batch)
            if turn >= 3:  # the first ones compile kernels
                times[name].append(time.perf_counter() - began)
    print(f"medians of {ROUNDS} batches of {SEQUENCES} × {TOKENS} tokens")
    for name, taken in times.items():
        print(f"{name:14} {statistics.median(taken) * 1e3:8.1f} ms")
    ratios = [b / a for a, b in zip(times[first], times[second], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{second} takes {middle:.2f} of {first}'s time (half of the turns: {low:.2f} to {high:.2f})")


@app.command
def disk(*presets: str) -> None:
    """Bytes of the directories that the presets are written to, as transformers would read them."""
    for name in presets:
        with tempfile.TemporaryDirectory() as directory:
            write(Model(config_of(name)), Path(directory))
            taken = sum(file.stat().st_size for file in Path(directory).iterdir())
        print(f"{name:14} {taken:13,} bytes")


def _spread(q: Tensor, k: Tensor) -> Tensor:
    """Entropy and largest weight of every row, scaled and then unscaled: [h, n, d] twice → [4, h * n]."""
    found = []
    for scaled in (True, False):
        weights = attention_weights(q, k, scaled=scaled)
        found += [entropies(weights).flatten(), weights.amax(-1).flatten()]
    return torch.stack(found)


def _print_spread(name: str, means: Tensor) -> None:
    entropy, largest, entropy_unscaled, largest_unscaled = means.tolist()
    print(f"{name:8} {entropy:7.2f}  {entropy_unscaled:8.2f}  {largest:7.2f}  {largest_unscaled:8.2f}")


def _pretrained(directory: Path, texts: list[str]) -> tuple[Encoder, Batch]:
    """A directory's encoder, and the texts in its tokens."""
    encoder = ModelDirectory(directory).read_model().eval().encoder
    tokenizer = ModelDirectory(directory).read_tokenizer()
    return encoder, tokenizer.encode(texts, max_length=encoder.config.max_position_embeddings)[0]


if __name__ == "__main__":
    try:
        app()
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)
