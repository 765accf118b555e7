"""How a model is trained: every setting of the loop, in one frozen record that is kept with the result."""

import math
from dataclasses import dataclass, replace
from typing import Literal, cast

from bertram.errors import BadInput, bad_option
from bertram.fields import Interval, check_fields

TrainingPrecision = Literal["auto", "fp32", "bf16"]
Rule = Literal["adamw", "lamb"]
Schedule = Literal["polynomial", "inverse-sqrt"]

_BOUNDS = {
    **dict.fromkeys(("steps", "tokens", "batch_size", "batch_tokens", "max_tokens"), Interval(1, 10**12)),
    **dict.fromkeys(("patience", "save_every", "log_every"), Interval(1, 10**12)),
    **dict.fromkeys(("learning_rate", "encoder_learning_rate", "weight_decay"), Interval(0)),
    **dict.fromkeys(("decay_power", "max_grad_norm"), Interval(0, brackets="(]")),
    **dict.fromkeys(("epochs", "hours"), Interval(0, 10**6, "(]")),
    "warmup": Interval(0, 1),
    "label_smoothing": Interval(0, 0.99),
    "evaluations": Interval(1, 10_000),
    "average": Interval(1, 100),
    "seed": Interval(0, 2**31 - 1),
}

BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training. `bertram train --help` says what each means.

    The budget is the first of `steps`, `tokens`, `hours` and `epochs` that is given; by default 3 epochs.

    Raises:
        BadInput: a value is out of range.
    """

    epochs: float | None = None
    """Training budget in epochs. Without any budget `train` and `compare` take 3 epochs; `pretrain` and `shrink` need
    one: epochs, steps, tokens or hours."""
    steps: int | None = None
    """Training budget in optimizer steps. Of several budgets only the first of steps, tokens, hours, epochs counts."""
    tokens: int | None = None
    """Training budget in tokens; of an encoder–decoder model, those that it writes. Tokens and epochs are converted to
    steps before training starts; in pre-training by the contents of the first block of text, so both are met only
    roughly."""
    hours: float | None = None
    """Training budget in wall-clock hours, evaluations included. Speed is measured once, before the first step, and the
    hours are converted to steps. Of an encoder's evaluations only as many are made as fit into half of the time."""
    batch_size: int | None = None
    """Examples per optimizer step. In pre-training, a batch holds the tokens of this many sequences of full length.
    Default: 32; for an encoder–decoder model see --batch-tokens."""
    batch_tokens: int | None = None
    """Instead of a fixed number of examples, fill each optimizer step up to this many tokens; of a pair, the longer
    text counts. Default for an encoder–decoder model: 4,096."""
    max_tokens: int = 4096
    """Tokens per forward and backward pass. Gradients of larger batches are accumulated over several passes."""
    learning_rate: float | None = None
    """Peak learning rate. Default: 5e-5 for fine-tuning (Devlin et al. 2018, A.3), 1e-4 for pre-training a model
    directory further (A.2), 1e-3 for pre-training a preset, for encoder–decoder presets and for new decoders, 5e-4 for
    shrinking. An encoder's preset, whose weights are random, wants more than the first: 5e-4."""
    encoder_learning_rate: float | None = None
    """Separate learning rate for a pre-trained encoder under a new decoder or head (Liu & Lapata 2019). Default: a
    tenth of the learning rate under a new decoder, otherwise the same. Not for shrink."""
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from 0 to its peak, before it decays."""
    schedule: Schedule = "polynomial"
    """Decay of the learning rate: polynomial, down to 0, or inverse-sqrt, as 1 / √step (Vaswani et al.)."""
    decay_power: float = 1.0
    """Power of the polynomial decay; 1 is linear."""
    label_smoothing: float | None = None
    """Share of the target's probability that is spread evenly over all labels or output tokens (Szegedy et al. 2016).
    Default: 0.1 for an encoder–decoder model, otherwise 0. Not for pretrain and shrink."""
    optimizer: Rule = "adamw"
    """lamb is AdamW with each tensor's step scaled to the norm of its weights (You et al. 2020), for large batches."""
    weight_decay: float = 0.01
    """Weight decay of matrices, apart from the gradient; biases and layer norms have none."""
    max_grad_norm: float = 1.0
    """If the norm of all gradients together is larger, they are scaled down to it."""
    precision: TrainingPrecision = "auto"
    """bf16: matrix products in bfloat16, with float32 master weights. auto: bf16 if it is faster on this machine."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, to save memory."""
    compile: bool | None = None
    """Compile the layers with torch.compile on a GPU, which takes a while at first. Default: only in pre-training."""
    evaluations: int = 10
    """Number of evaluations on the validation data, evenly spread over training. The best checkpoint is kept."""
    average: int = 1
    """Also average the weights of this many last evaluations, and keep the average if it scores better."""
    patience: int | None = None
    """Early stopping: stop after this many evaluations without a better score."""
    save_every: int = 500
    """Steps between checkpoints. One is also written whenever the last is five minutes old."""
    log_every: int = 10
    """Steps between lines of OUT/metrics.jsonl; the last step of the budget and every evaluation have a line too."""
    seed: int = 0
    """Seed of weights, order, dropout and held-out texts. Torch draws for a whole process: trainings at once in several
    threads of one disturb each other's numbers."""

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS, bad_option)
        if self.batch_size is not None and self.batch_tokens is not None:
            raise BadInput("--batch-tokens: cannot be combined with --batch-size")
        if self.schedule != "polynomial" and self.decay_power != 1.0:
            raise BadInput(f"--decay-power {self.decay_power:g}: is for --schedule polynomial")
        if self.encoder_learning_rate is not None and self.learning_rate == 0:
            raise BadInput("--encoder-learning-rate: cannot be combined with --learning-rate 0")

    def require_budget(self) -> None:
        """Refuse a recipe that says no budget, where there is no usual one.

        Raises:
            BadInput: it says none.
        """
        if all(budget is None for budget in (self.epochs, self.steps, self.tokens, self.hours)):
            raise BadInput("no training budget: give --hours, --steps, --tokens or --epochs")

    @property
    def trial_rows(self) -> int:
        """Examples that a trial of one step is made on: a batch, or about as many as fill one counted in tokens."""
        return self.batch_size or max(BATCH_SIZE, (self.batch_tokens or 0) // BATCH_SIZE)

    @property
    def of_one_step(self) -> "Recipe":
        """This recipe for a trial: one step and one evaluation."""
        return replace(self, epochs=None, tokens=None, hours=None, steps=1, evaluations=1)

    def rate(self, step: int, total: int) -> float:
        """The learning rate of one of `total` steps, of a recipe that says its highest.

        Linear warm-up, then decay to 0 (Devlin et al. 2018, A.2), or by the step's root (Vaswani et al. 2017).
        """
        highest, warmup = cast(float, self.learning_rate), self.warmup * total
        if step < warmup:
            return highest * (step + 1) / (warmup + 1)
        if self.schedule == "inverse-sqrt":
            return highest * math.sqrt((warmup + 1) / (step + 1))
        left = (total - step) / (total - warmup)
        return highest * float(left**self.decay_power)

    def resolved(self, **defaults: float) -> "Recipe":
        """This recipe with `defaults` where it says nothing; a batch is of so many examples or of so many tokens."""
        sized = {"batch_size", "batch_tokens"} if self.batch_size or self.batch_tokens else set()
        missing = {name for name in defaults.keys() - sized if getattr(self, name) is None}
        return replace(self, **{name: defaults[name] for name in missing})  # type: ignore[arg-type]
