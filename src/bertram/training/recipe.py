"""How a model is trained: every setting of the loop, in one frozen record that is kept with the result."""

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from bertram.errors import BadInput

Precision = Literal["auto", "fp32", "bf16"]
Rule = Literal["adamw", "lamb"]

_HIGHEST = {"seed": 2**31 - 1, "warmup": 1.0, "evaluations": 10_000, "epochs": 10**6, "learning_rate": 1e300}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training.

    The budget is the first of `steps`, `tokens`, `hours` and `epochs` that is given.

    Raises:
        BadInput: a value is out of range.
    """

    epochs: float | None = None
    steps: int | None = None
    tokens: int | None = None
    """Tokens to train on. They and epochs are turned into steps before the first one; in pre-training by what the first
    block of text holds, so that both are met roughly."""
    hours: float | None = None
    """Wall-clock, evaluation included. The speed is measured once, before the first step, and turned into steps."""
    batch_size: int = 32
    """Examples an optimizer step; in pre-training, the tokens of so many of the greatest length."""
    max_tokens: int = 4096
    """Tokens of one forward and backward pass; a larger batch is accumulated over several."""
    learning_rate: float | None = None
    """The highest. By default 5e-5 in fine-tuning (Devlin et al. 2018, A.3) and 1e-3 in pre-training."""
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from 0; then it falls to 0."""
    decay_power: float = 1.0
    """It falls as this power of the share of steps that is left: 1 linearly, others by a polynomial."""
    optimizer: Rule = "adamw"
    """lamb: AdamW's steps scaled to each tensor's norm (You et al. 2020), for large batches."""
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    precision: Precision = "auto"
    """bf16: products in bfloat16 over float32 master weights. auto: bf16 where the processor multiplies it natively."""
    gradient_checkpointing: bool = False
    evaluations: int = 10
    """Evaluations on the validation part, spread evenly over the budget; the best one's weights are kept."""
    patience: int | None = None
    """Stop after this many evaluations without a better score."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in {"precision": Precision, "optimizer": Rule}.items():
            if getattr(self, name) not in get_args(choices):
                raise BadInput(f"--{name} {getattr(self, name)!r:.40}: must be one of {', '.join(get_args(choices))}")
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            low = 0 if field.name in ("seed", "warmup", "weight_decay", "learning_rate") else 1e-9
            high = _HIGHEST.get(field.name, 2**53)
            if not low <= value <= high:
                raise BadInput(f"--{field.name.replace('_', '-')} {value} is out of range")

    @property
    def bounded(self) -> bool:
        """Whether a budget was given."""
        return any(budget is not None for budget in (self.epochs, self.steps, self.tokens, self.hours))

    def resolved(self, *, learning_rate: float) -> "Recipe":
        """This recipe with `learning_rate` where none was given."""
        return self if self.learning_rate is not None else replace(self, learning_rate=learning_rate)
