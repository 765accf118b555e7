"""How far a model is shrunken: the four sizes of the student that may differ from its teacher's."""

from dataclasses import dataclass, replace

from bertram.config import EncoderConfig, check_published
from bertram.errors import BadInput
from bertram.pages.figures import several

LEAST_WIDTH = 4
"""Of the embeddings: two directions of them go to the layer norm."""

_EMBEDDING_SIZE = 128


def highest_rank(teacher: EncoderConfig) -> int:
    """The rank of the smallest of a model's matrices."""
    return min(teacher.hidden_size, teacher.intermediate_size)


@dataclass(frozen=True, kw_only=True)
class Dial:
    """The sizes of a student, those that are given."""

    groups: int | None = None
    """Number of groups of layers that share weights, from 1 (the default) to the number of layers."""
    embedding_size: int | None = None
    """Width of the factorised embeddings. Default: 128, or that of the model if it is narrower."""
    rank: int | None = None
    """Rank of the residual that each layer adds to its shared weights. Default: 0, none."""
    depth: int | None = None
    """Number of layers. Default: as many as the model has."""

    @classmethod
    def at(cls, student: EncoderConfig) -> "Dial":
        """The dial that gives a student's sizes, all of them."""
        return cls(
            groups=student.groups,
            embedding_size=student.embedding_width,
            rank=student.residual_rank,
            depth=student.num_hidden_layers,
        )

    def of(self, teacher: EncoderConfig) -> EncoderConfig:
        """The student's configuration: the teacher's but for these sizes.

        Raises:
            BadInput: the teacher shares or factorises already, is no BERT, or the sizes do not fit it.
        """
        width = teacher.hidden_size
        groups = 1 if self.groups is None else self.groups
        embedding_size = min(_EMBEDDING_SIZE, width) if self.embedding_size is None else self.embedding_size
        rank = 0 if self.rank is None else self.rank
        layers = teacher.num_hidden_layers if self.depth is None else self.depth
        if teacher.model_type != "bert":
            raise BadInput("the model shares layers or has factorised embeddings already; shrink takes a BERT")
        check_published(teacher)
        if not 1 <= layers <= teacher.num_hidden_layers:
            raise BadInput(f"--depth {layers}: the model has {teacher.num_hidden_layers} layers")
        if not 1 <= groups <= layers:
            raise BadInput(f"--groups {groups}: must lie in 1 to the {layers} layers")
        if not LEAST_WIDTH <= embedding_size <= width:
            raise BadInput(
                f"--embedding-size {embedding_size}: must lie in {LEAST_WIDTH} to the hidden width of {width}"
            )
        if not 0 <= rank <= (highest := highest_rank(teacher)):
            raise BadInput(f"--rank {rank}: must lie in 0 to {highest}, the rank of the model's matrices")
        if rank and groups == layers:
            raise BadInput(
                f"--rank {rank}: is for layers that share, and {several(groups, 'group')} of "
                f"{several(layers, 'layer')} do not"
            )
        whole = embedding_size == width
        if whole and groups == layers == teacher.num_hidden_layers:
            raise BadInput("--groups and --embedding-size are the model's own: nothing would shrink")
        return replace(
            teacher,
            num_hidden_layers=layers,
            num_hidden_groups=None if whole and groups == layers else groups,
            embedding_size=None if whole else embedding_size,
            shared="all",  # a BERT may say anything, for it shares nothing
            residual_rank=rank,
        )
