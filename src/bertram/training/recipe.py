"""How a model is trained: every setting of the loop, in one frozen record that is kept with the result."""

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from bertram.errors import BadInput

Precision = Literal["auto", "fp32", "bf16"]
Rule = Literal["adamw", "lamb"]
Schedule = Literal["polynomial", "inverse-sqrt"]

_CHOICES = {"precision": Precision, "optimizer": Rule, "schedule": Schedule}
_FROM_0 = ("seed", "warmup", "weight_decay", "learning_rate", "encoder_learning_rate", "label_smoothing")
_HIGHEST = {
    **{"seed": 2**31 - 1, "warmup": 1.0, "evaluations": 10_000, "epochs": 10**6, "learning_rate": 1e300},
    **{"encoder_learning_rate": 1e300, "label_smoothing": 0.99, "average": 100},
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training.

    The budget is the first of `steps`, `tokens`, `hours` and `epochs` that is given; by default 3 epochs.

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
    batch_tokens: int | None = None
    """Fill an optimizer step with examples up to so many tokens instead, of a pair those of the longer text; with an
    encoder–decoder model by default 4,096."""
    max_tokens: int = 4096
    """Tokens of one forward and backward pass; a larger batch is accumulated over several."""
    learning_rate: float | None = None
    """The highest. By default 5e-5 in fine-tuning (Devlin et al. 2018, A.3); in pre-training and for an encoder–decoder
    model 1e-3; in shrinking 5e-4."""
    encoder_learning_rate: float | None = None
    """Another for the encoder, which may have been trained before what stands on it (Liu & Lapata 2019)."""
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from 0; then it falls."""
    schedule: Schedule = "polynomial"
    """It falls to 0, as a power of the share of steps that is left; or inverse-sqrt, as 1 / √step (Vaswani et al.)."""
    decay_power: float = 1.0
    """The polynomial's power: 1 falls linearly."""
    label_smoothing: float | None = None
    """Share of a target's probability that goes to all others alike (Szegedy et al. 2016), of labels and of tokens that
    are written. By default 0.1 for an encoder–decoder model and 0 for others."""
    optimizer: Rule = "adamw"
    """lamb: AdamW's steps scaled to each tensor's norm (You et al. 2020), for large batches."""
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    precision: Precision = "auto"
    """bf16: products in bfloat16 over float32 master weights. auto: bf16 where this machine multiplies it faster."""
    gradient_checkpointing: bool = False
    compile: bool | None = None
    """Compile the layers for a GPU, which takes a while. By default in pre-training."""
    evaluations: int = 10
    """Evaluations on the validation part, spread evenly over the budget; the best one's weights are kept."""
    average: int = 1
    """Also try the mean of the weights at the last so many evaluations, and keep it if it scores better."""
    patience: int | None = None
    """Stop after this many evaluations without a better score."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise BadInput(f"--{name} {getattr(self, name)!r:.40}: must be one of {', '.join(get_args(choices))}")
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            low = 0 if field.name in _FROM_0 else 1e-9
            high = _HIGHEST.get(field.name, 2**53)
            if not low <= value <= high:
                raise BadInput(f"--{field.name.replace('_', '-')} {value} is out of range")

        if self.encoder_learning_rate is not None and self.learning_rate == 0:
            raise BadInput("--encoder-learning-rate: is a share of --learning-rate inside, which must not be 0")

    @property
    def bounded(self) -> bool:
        """Whether a budget was given."""
        return any(budget is not None for budget in (self.epochs, self.steps, self.tokens, self.hours))

    @property
    def of_one_step(self) -> "Recipe":
        """This recipe for a trial: one step and one evaluation."""
        return replace(self, epochs=None, tokens=None, hours=None, steps=1, evaluations=1)

    def resolved(self, **defaults: float) -> "Recipe":
        """This recipe with `defaults` where it says nothing."""
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})  # type: ignore[arg-type]
