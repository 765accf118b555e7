"""Greedy and beam search over any decoder that goes on token by token; ids in and ids out.

Letters: B sentences still searched for, k hypotheses of each, V vocabulary, c candidates of each, t tokens so far.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bertram.search import Hypothesis, Search

_BLOCK = 64


class StepwiseDecoder(Protocol):
    """What decodes token by token and remembers what it needs of every hypothesis, as its keys and values."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append tokens [B, k] to the B sentences' k hypotheses.

        Returns the logits of what follows, [B, k, V], of any floating type; they are the caller's to overwrite.
        """

    def keep(self, sentences: Tensor, beams: Tensor) -> None:
        """Go on with the sentences [b] of the B, whose new k hypotheses continue the old ones at beams [b, k].

        Sentences stay in order; k may differ from the old one. It may come before the first step too.
        """


class _Beams(NamedTuple):
    """Hypotheses of B sentences, those of each best first; -inf scores one that does not exist."""

    ids: Tensor  # [B, k, t], from the start token on
    scores: Tensor  # [B, k], float32

    def of(self, sentences: Tensor) -> "_Beams":
        return _Beams(self.ids[sentences], self.scores[sentences])


@torch.inference_mode()
def search(
    decoder: StepwiseDecoder,
    sentences: int,
    *,
    start_id: int,
    eos_id: int,
    never: Sequence[int],
    max_lengths: Sequence[int],
    settings: Search,
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """The n_best hypotheses of each sentence, best first.

    At every step the 2k likeliest continuations of a sentence's k hypotheses are its candidates. Those among the first
    k that end are finished, and compete by log-probability / length ** length_penalty, where the length counts the end
    token; the best k that do not end go on. A sentence leaves the batch when k are finished and the likeliest of those
    that go on, divided by its present length ** length_penalty, is no better than the worst of them. (Ends that come
    later might still be better where the penalty is above 0; that is the common heuristic.) With a beam of 1 that is
    greedy search: the first end that is the likeliest token is the last. What is one token short of its maximum length
    ends there, at no cost. Probabilities are shared out among the tokens that may follow: a logit that means nothing,
    such as that of the padding in a model that Marian trained without one, takes nothing from them. Scores are float32.

    These are the rules of transformers' `generate` with early_stopping=False, forced_eos_token_id=eos_id,
    bad_words_ids=[[id] for id in never], renormalize_logits=True, min_new_tokens=min_length and
    max_new_tokens=max_length.

    Args:
        decoder: fresh; its first step has k = 1, the later ones k = beam_size (or as many as V offers).
        sentences: B.
        start_id: the token before the first. The rule against repeated n-grams sees it too.
        eos_id: the token that ends a hypothesis.
        never: tokens that no hypothesis holds, such as the padding.
        max_lengths: of each sentence's hypotheses in tokens, the end token counted, [B], 1 or more; settings.max_length
            where that is less.
        settings: see Search.
        device: where `decoder` wants its tokens.

    Returns fewer than n_best where fewer exist: none at all if logits were not numbers or every token was forbidden.
    """
    beam, penalty = settings.beam_size, settings.length_penalty
    found: list[list[Hypothesis]] = [[] for _ in range(sentences)]
    numbers = torch.arange(sentences, device=device)  # [B], which of `found`
    limits = torch.tensor([min(n, settings.max_length or n) for n in max_lengths], dtype=torch.long, device=device)
    going = _Beams(torch.full((sentences, 1, 1), start_id, device=device), torch.zeros(sentences, 1, device=device))
    ended = _Beams(going.ids.expand(-1, beam, -1), torch.full((sentences, beam), -math.inf, device=device))
    beams = torch.zeros(sentences, 1, dtype=torch.long, device=device)
    while True:
        length = going.ids.shape[2]  # in tokens, if all ended here: the start token does not count, the end token does
        closed = ended.scores[:, -1] >= going.scores[:, 0] / max(length - 1, 1) ** penalty
        full = limits <= length
        if full.any():
            scores = going.scores.masked_fill((closed | ~full)[:, None], -math.inf) / length**penalty
            ended = _best_of(ended, _Beams(F.pad(going.ids, (0, 1), value=eos_id), scores), eos_id)

        leaving = closed | full
        for number, hypotheses in zip(numbers[leaving].tolist(), _read(ended.of(leaving), eos_id), strict=True):
            found[number] = hypotheses[: settings.n_best]
        stay = (~leaving).nonzero().squeeze(1)
        if not len(stay):
            return found
        if length > 1 or len(stay) < sentences:
            decoder.keep(stay, beams[stay])
        numbers, limits, going, ended = numbers[stay], limits[stay], going.of(stay), ended.of(stay)

        logits = decoder.step(going.ids[:, :, -1]).float()
        _forbid(logits, going.ids, eos_id, never, settings)
        # Where nothing may follow, the peak is finite and the sum is 1, and every score stays -inf: never -inf + inf.
        peaks = logits.amax(-1, keepdim=True).clamp_min_(torch.finfo(logits.dtype).min)
        totals = (logits - peaks).exp_().sum(-1, keepdim=True).clamp_min_(1).log_()
        candidates, beams = _continue(going, logits, peaks, totals, 2 * beam)
        ends = candidates.ids[:, :, -1] == eos_id
        if ends[:, :beam].any():
            scores = candidates.scores.masked_fill(~ends, -math.inf)[:, :beam] / length**penalty
            ended = _best_of(ended, _Beams(candidates.ids[:, :beam], scores), eos_id)
        scores = candidates.scores.masked_fill(ends, -math.inf)
        scores, places = scores.topk(min(beam, scores.shape[1]))
        going, beams = _Beams(_rows(candidates.ids, places), scores), beams.gather(1, places)


def _forbid(logits: Tensor, ids: Tensor, eos_id: int, never: Sequence[int], settings: Search) -> None:
    """Set to -inf the logits [B, k, V] of what may not follow ids [B, k, t]."""
    logits.index_fill_(-1, torch.tensor(never, dtype=torch.long, device=logits.device), -math.inf)
    if ids.shape[2] <= settings.min_length:
        logits[:, :, eos_id] = -math.inf
    if 0 < (n := settings.no_repeat_ngram_size) <= ids.shape[2]:
        grams = ids.unfold(2, n, 1)  # [B, k, t - n + 1, n]
        last = ids[:, :, None, ids.shape[2] - n + 1 :]  # n - 1 tokens, which with the next make an n-gram
        sentence, beam, place = (grams[..., :-1] == last).all(-1).nonzero(as_tuple=True)
        logits[sentence, beam, grams[sentence, beam, place, -1]] = -math.inf


def _continue(going: _Beams, logits: Tensor, peaks: Tensor, totals: Tensor, count: int) -> tuple[_Beams, Tensor]:
    """The `count` likeliest continuations of every sentence and which of its k they continue, [B, c].

    A log-probability is a logit [B, k, V] less its row's `peaks` less `totals`, [B, k, 1] each: in this order, for a
    peak is large and most of the other two is near 0. Only the few highest of each row are needed.
    """
    top, tokens = _highest(logits, min(count, logits.shape[2]))
    scores = (going.scores[..., None] + (top - peaks - totals)).flatten(1)
    scores, places = scores.topk(min(count, scores.shape[1]))
    beams = places // top.shape[2]
    tokens = tokens.flatten(1).gather(1, places)
    return _Beams(torch.cat([_rows(going.ids, beams), tokens[..., None]], 2), scores), beams


def _highest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of each row [B, k, V] and their tokens, [B, k, count], highest first, as `Tensor.topk`.

    They stand in those `count` blocks of a row whose own highest are highest; to look there alone takes half the time.
    """
    blocks = logits.shape[2] // _BLOCK
    if blocks <= count:
        return logits.topk(count)
    whole = blocks * _BLOCK
    peaks = logits[..., :whole].reshape(*logits.shape[:2], blocks, _BLOCK).amax(3)
    within = torch.arange(_BLOCK, device=logits.device)
    tokens = (peaks.topk(count).indices[..., None] * _BLOCK + within).flatten(2)
    rest = torch.arange(whole, logits.shape[2], device=logits.device).expand(*tokens.shape[:2], -1)
    tokens = torch.cat([tokens, rest], 2)
    top, places = logits.gather(2, tokens).topk(count)
    return top, tokens.gather(2, places)


def _best_of(ended: _Beams, more: _Beams, eos_id: int) -> _Beams:
    """The best of those that ended before and those that end now; ids after an end are ends too."""
    padded = F.pad(ended.ids, (0, more.ids.shape[2] - ended.ids.shape[2]), value=eos_id)
    scores, places = torch.cat([ended.scores, more.scores], 1).topk(ended.scores.shape[1])
    return _Beams(_rows(torch.cat([padded, more.ids], 1), places), scores)


def _rows(ids: Tensor, places: Tensor) -> Tensor:
    """[B, k, t] at places [B, c]: [B, c, t]."""
    return ids.gather(1, places[..., None].expand(-1, -1, ids.shape[2]))


def _read(ended: _Beams, eos_id: int) -> list[list[Hypothesis]]:
    """The hypotheses of each sentence, best first."""
    read = []
    for rows, scores in zip(ended.ids[:, :, 1:].tolist(), ended.scores.tolist(), strict=True):
        pairs = zip(rows, scores, strict=True)
        read.append([Hypothesis(ids[: ids.index(eos_id)], score) for ids, score in pairs if score > -math.inf])
    return read
