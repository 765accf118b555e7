"""How a model is trained: every setting of the loop, in one frozen record that is kept with the result."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

from bertram.errors import BadInput

Precision = Literal["auto", "fp32", "bf16"]

_HIGHEST = {"seed": 2**31 - 1, "warmup": 1.0, "evaluations": 10_000, "epochs": 10**6, "learning_rate": 1e300}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training. The defaults fine-tune (Devlin et al. 2018, A.3).

    The budget is the first of `steps`, `tokens`, `hours` and `epochs` that is given; without any, 3 epochs.

    Raises:
        BadInput: a value is out of range.
    """

    epochs: float | None = None
    steps: int | None = None
    tokens: int | None = None
    hours: float | None = None
    """Wall-clock, evaluation included. The speed is measured once, before the first step, and turned into steps."""
    batch_size: int = 32
    """Examples an optimizer step."""
    max_tokens: int = 4096
    """Tokens of one forward and backward pass; a larger batch is accumulated over several."""
    learning_rate: float = 5e-5
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from 0; then it falls to 0 linearly."""
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
        if self.precision not in get_args(Precision):
            raise BadInput(f"--precision {self.precision!r:.40}: must be one of {', '.join(get_args(Precision))}")
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            low = 0 if field.name in ("seed", "warmup", "weight_decay", "learning_rate") else 1e-9
            high = _HIGHEST.get(field.name, 2**53)
            if not low <= value <= high:
                raise BadInput(f"--{field.name.replace('_', '-')} {value} is out of range")
