"""What one step of self-distillation costs, by formula: FLOPs and memory, before anything is built.

B samples of one pass, G = 2 global views, L local views, S season slots, R hidden patches, K prototypes, D width, T tokens of the
student's pass, P parameters of the student. A step is one or more passes (microbatches) and one update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from cgeartheye.models.cost import BYTES, Precision, inner_width, parameters
from cgeartheye.models.vit import VitConfig

Recompute = Literal["nothing", "activations", "blocks"]
GLOBALS: Final = 2
SINKHORN_ROUNDS: Final = 3
FLOAT: Final = 4
CHUNK_NUMBERS: Final = 2**24
"""Most scores of the student in one chunk of its cross-entropy."""


class View(NamedTuple):
    """Views of one size in one pass: ``rows`` pictures of ``patches`` patches."""

    rows: int
    patches: int


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """The projection heads.

    Args:
        prototypes: K.
        hidden: width of the MLP.
        bottleneck: width of the unit vectors.
        layers: linear layers of the MLP.
        shared: one head for class tokens and patches, or one each.
        lengths: whether each prototype has a learned length.
    """

    prototypes: int
    hidden: int
    bottleneck: int
    layers: int
    shared: bool
    lengths: bool = False

    def widths(self, width: int) -> list[int]:
        """Return the widths between the linear layers for tokens of ``width`` D."""
        return [width, *[self.hidden] * (self.layers - 1), self.bottleneck]


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """What the student sees in one pass, and how a step is made of passes.

    Args:
        samples: B of one pass of one process.
        views: kinds of views in the student's pass; the first are the global ones, G B rows.
        hidden: R, hidden patches of one pass.
        passes: passes a step of one process, one after the other.
        recompute: what is computed again: nothing, the wide side of each activation, or all of a block but its input.
        precision: arithmetic of the networks.
        processes: that share the parameters' memory where they are sharded; 1 where each holds all.
        anchor: what an anchor of dense features sees in one pass, G B rows; None without one.
    """

    samples: int
    views: tuple[View, ...]
    hidden: int
    passes: int = 1
    recompute: Recompute = "nothing"
    precision: Precision = "float32"
    processes: int = 1
    anchor: View | None = None

    @property
    def class_rows(self) -> int:
        """Class tokens of the student's pass."""
        return sum(view.rows for view in self.views)


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """FLOPs of one step of one process: matrix products and convolutions, 2 a multiplication with its addition.

    Args:
        teacher: its backbone, forward, over whole global views.
        student: its backbone, forward and backward, and forward again where it recomputes.
        heads: the MLPs of teacher and student.
        prototypes: scores of teacher and student.
        targets: Sinkhorn's row and column sums, counted as matrix-vector products (PyTorch's own counter leaves them out).
        anchor: its forward pass, and the products of patches with patches; in steps in which it acts.
    """

    teacher: int
    student: int
    heads: int
    prototypes: int
    targets: int
    anchor: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.teacher + self.student + self.heads + self.prototypes + self.targets + self.anchor


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes of one process at the fullest moment of a step, by what they hold.

    Args:
        moment: ``scores`` (the student is compared with its targets), ``backward`` (gradients enter the last block) or
            ``update`` (of the parameters).
        parameters: of student, teacher and anchor.
        gradients: of the student, as far as they exist at that moment.
        moments: two of Adam a parameter.
        activations: of student's backbone and heads that the backward pass needs.
        working: gradients on their way through one block, casts of the weights in half precision, gathered blocks.
        targets: the teacher's probabilities, rows x K, once, of all passes.
        scores: one chunk of the student's scores, normalised prototypes and their gradients.
        views: pictures of all passes.
    """

    moment: str
    parameters: int
    gradients: int
    moments: int
    activations: int
    working: int
    targets: int
    scores: int
    views: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(value for value in vars(self).values() if isinstance(value, int))


def learner_parameters(config: VitConfig, head: HeadShape) -> int:
    """Return P, the parameters of the student: backbone and heads."""
    mlp = sum((a + 1) * b for a, b in pairwise(head.widths(config.width)))
    table = head.prototypes * (head.bottleneck + int(head.lengths))
    return parameters(config) + (1 if head.shared else 2) * (mlp + table)


def step_flops(config: VitConfig, head: HeadShape, shape: StepShape) -> StepFlops:
    """Return the FLOPs of one step of one process.

    The backward pass costs twice the forward one, but for the patch embedding, whose input needs no gradient. Resizing of
    positions, cutting of views and the spread term are left out: together below 1 % at the published sizes.

    Args:
        config: of the backbone; its ``drop_path`` is the student's.
        head: of teacher and student.
        shape: of a pass.
    """
    whole = shape.views[:1]
    embedding = _embedding_flops(config, shape.views)
    rows, taught = shape.class_rows + shape.hidden, GLOBALS * shape.samples + shape.hidden
    blocks = _block_flops(config, shape.views, drop_path=config.drop_path, wanted=rows)
    times = 4 if shape.recompute == "blocks" else 3
    mlp = 2 * sum(a * b for a, b in pairwise(head.widths(config.width)))
    score = 2 * head.prototypes * head.bottleneck
    return StepFlops(
        teacher=shape.passes * (_embedding_flops(config, whole) + _block_flops(config, whole, drop_path=0.0, wanted=taught)),
        student=shape.passes * (2 * embedding + times * blocks),
        heads=shape.passes * (taught + 3 * rows) * mlp,
        prototypes=shape.passes * (taught + 3 * rows) * score,
        targets=shape.passes * SINKHORN_ROUNDS * 2 * 2 * taught * head.prototypes,
        anchor=shape.passes * _anchor_flops(config, shape, times * blocks),
    )


def step_memory(config: VitConfig, head: HeadShape, shape: StepShape) -> StepMemory:
    """Return the memory of one process at the fullest moment of a step.

    Args:
        config: of the backbone; its ``drop_path`` is the student's.
        head: of teacher and student.
        shape: of a pass.
    """
    count = -(-learner_parameters(config, head) // shape.processes)
    of_heads = count - -(-parameters(config) // shape.processes)
    pixels = sum(view.rows * view.patches for view in shape.views) * len(config.bands) * config.patch_px**2
    held = 2 * count
    if shape.anchor is not None:
        pixels += shape.anchor.rows * shape.anchor.patches * len(config.bands) * config.patch_px**2
        held += -(-parameters(config) // shape.processes)
    always = {
        "parameters": FLOAT * held,
        "moments": 2 * FLOAT * count,
        "targets": shape.passes * (GLOBALS * shape.samples + shape.hidden) * head.prototypes * FLOAT,
        "views": shape.passes * pixels * FLOAT,
    }
    kept, casts = _kept_bytes(config, shape) + _gram_bytes(config, shape), _cast_bytes(config, head, shape)
    earlier = count if shape.passes > 1 else 0  # gradients of the passes before
    found = [
        StepMemory(
            moment="scores",
            gradients=earlier * FLOAT,
            activations=kept + _head_bytes(config, head, shape),
            working=casts,
            scores=_score_bytes(head, shape),
            **always,
        ),
        StepMemory(
            moment="backward",
            gradients=max(earlier, of_heads) * FLOAT,
            activations=kept,
            working=casts + _working_bytes(config, shape),
            scores=0,
            **always,
        ),
        StepMemory(moment="update", gradients=count * FLOAT, activations=0, working=0, scores=0, **always),
    ]
    return max(found, key=lambda memory: memory.total)


def kept_rows(rows: int, drop_path: float) -> int:
    """Return the rows of a group that one residual branch computes, as :func:`cgeartheye.models.blocks.draw_kept` draws them."""
    return max(1, int(rows * (1 - drop_path))) if drop_path and rows else rows


def _tokens(config: VitConfig, view: View) -> int:
    return view.patches + 1 + config.registers


def _embedding_flops(config: VitConfig, views: Sequence[View]) -> int:
    patches = sum(view.rows * view.patches for view in views)
    return 2 * patches * len(config.bands) * config.patch_px**2 * config.width


def _block_flops(config: VitConfig, views: Sequence[View], *, drop_path: float, wanted: int | None = None) -> int:
    """Return one forward pass of all blocks; what acts on single tokens is done for ``wanted`` ones in the last block.

    There all rows attend, dropped ones too.
    """
    D = config.width
    single = D * D + (3 if config.ffn == "swiglu" else 2) * D * inner_width(config)
    attending = [(view.rows, _tokens(config, view), 3 * D * D + 2 * _tokens(config, view) * D) for view in views]
    block = sum(kept_rows(rows, drop_path) * N * (attend + single) for rows, N, attend in attending)
    if wanted is None:
        return 2 * config.depth * block
    return 2 * ((config.depth - 1) * block + sum(rows * N * attend for rows, N, attend in attending) + wanted * single)


def _anchor_flops(config: VitConfig, shape: StepShape, student: int) -> int:
    """Return one pass of the anchor, both Gram matrices (N, N) and two products for the gradient of the student's.

    And what its blocks then take above ``student``, as all tokens leave the last one.
    """
    if shape.anchor is None:
        return 0
    view, seen = [shape.anchor], shape.views[0]
    products = 4 * 2 * seen.rows * seen.patches**2 * config.width
    more = (4 if shape.recompute == "blocks" else 3) * _block_flops(config, shape.views, drop_path=config.drop_path) - student
    return _embedding_flops(config, view) + _block_flops(config, view, drop_path=0.0) + products + more


def _gram_bytes(config: VitConfig, shape: StepShape) -> int:
    """Return the difference of the Gram matrices and the student's unit patches, which wait for the backward pass."""
    if shape.anchor is None:
        return 0
    seen = shape.views[0]
    return seen.rows * seen.patches * (seen.patches + config.width) * FLOAT


def _kept_bytes(config: VitConfig, shape: StepShape) -> int:
    """Return what the student's backbone keeps: of each block, or of each block only its input.

    Branches that drop rows also keep what they add to the stream. Of the last block, where nothing is anchored, most tokens
    leave only what attends.
    """
    size, D, inner = BYTES[shape.precision], config.width, inner_width(config)
    tokens = sum(view.rows * _tokens(config, view) for view in shape.views)
    kept = sum(kept_rows(view.rows, config.drop_path) * _tokens(config, view) for view in shape.views)
    streams = 2 * D * FLOAT  # inputs of the norms stay float32
    wide = 8 * D if config.drop_path else 6 * D
    sides = (4 if config.ffn == "swiglu" else 2) - (1 if shape.recompute == "activations" else 0)
    block = kept * (streams + (wide + sides * inner) * size) + _scaled_bytes(config, kept, size)
    last = block
    if shape.anchor is None:
        wanted = shape.class_rows + shape.hidden
        last = tokens * (D * FLOAT + 6 * D * size) + wanted * (D * FLOAT + (2 * D + sides * inner) * size)
        last += _scaled_bytes(config, wanted, size)
    if shape.recompute == "blocks":
        block = last = tokens * D * FLOAT
    return (config.depth - 1) * block + last + 3 * tokens * D * FLOAT


def _scaled_bytes(config: VitConfig, rows: int, size: int) -> int:
    """Return what both LayerScales of a block keep: outputs before them, or the scaled weights where those are smaller."""
    return config.width * size * sum(min(rows, inputs) for inputs in (config.width, inner_width(config)))


def _head_bytes(config: VitConfig, head: HeadShape, shape: StepShape) -> int:
    """Return what the student's heads keep: the input, both sides of each GELU, the vectors before and after their norm."""
    rows = shape.class_rows + shape.hidden
    return rows * (config.width + 2 * (head.layers - 1) * head.hidden + 3 * head.bottleneck) * BYTES[shape.precision]


def _score_bytes(head: HeadShape, shape: StepShape) -> int:
    """Return a chunk's buffers, and (K, bottleneck) prototypes and gradients that the heads' backward pass needs.

    A chunk has scores and targets, the second teacher's targets on their way, and the chunk before until it is replaced. The
    class head's prototypes meet global and other views apart; the patches' are normalised again.
    """
    rows = max(GLOBALS * shape.samples, shape.class_rows - GLOBALS * shape.samples, shape.hidden)
    numbers = rows * head.prototypes
    chunk = 3 * numbers if numbers <= CHUNK_NUMBERS else 4 * CHUNK_NUMBERS
    return FLOAT * (chunk + 5 * head.prototypes * head.bottleneck)


def _cast_bytes(config: VitConfig, head: HeadShape, shape: StepShape) -> int:
    """Return copies of the student's weights in half precision, and two whole blocks where parameters are sharded."""
    size = BYTES[shape.precision]
    count = learner_parameters(config, head)
    gathered = 0 if shape.processes == 1 else 2 * size * parameters(config) // config.depth
    return gathered + (count * size if size < FLOAT and shape.processes == 1 else 0)


def _working_bytes(config: VitConfig, shape: StepShape) -> int:
    """Return the gradients on both sides of a block's activation function and of its stream; and what it computes again."""
    size, D, inner = BYTES[shape.precision], config.width, inner_width(config)
    kept = sum(kept_rows(view.rows, config.drop_path) * _tokens(config, view) for view in shape.views)
    again = 10 * D + (4 if config.ffn == "swiglu" else 2) * inner if shape.recompute == "blocks" else 0
    return kept * (2 * inner + 2 * D + again) * size
