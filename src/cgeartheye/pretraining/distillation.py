"""Students that learn the features of a trained network, all from one pass of it.

The teacher sees whole global views and never changes. Every student sees all views, unmasked, and maps its tokens to the
teacher's width: on a global view its class token and patches meet the teacher's of the same view, on a local or a seasonal view
its class token meets the mean of the teacher's two. An average of each student is what is wanted in the end.

B samples of a microbatch, G = 2 global views, L local views in all sizes, S season slots, N patches, D width of the teacher.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cgeartheye.losses.features import cosine_distance, patch_distance
from cgeartheye.losses.unit import unit
from cgeartheye.models.vit import Features, VisionTransformer
from cgeartheye.pretraining.batch import GLOBALS, ViewBatch
from cgeartheye.pretraining.loop import Rates, rates_at
from cgeartheye.pretraining.objective import term_weights
from cgeartheye.seeding import derive
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.distributed import World
from cgeartheye.training.optimizer import AdamW, clip_and_step, set_rates
from cgeartheye.training.parameters import parameter_groups
from cgeartheye.training.wrapping import compile_blocks, recompute

PARTS = ("loss", "loss_global", "loss_local", "loss_season", "loss_patch")
"""What is logged of a student's loss."""
COLUMNS = (*PARTS, "grad_norm", "finite")
"""Columns of a student's table on the device."""


class Mapped(nn.Module):
    """A student's backbone with linear maps of its class token and patches to the teacher's width.

    Args:
        backbone: the network that is wanted in the end.
        width: D of the teacher.
        seed: of the maps' first values.
    """

    def __init__(self, backbone: VisionTransformer, *, width: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_map = _map(backbone.width, width, seed=seed, name="class")
        self.patch_map = _map(backbone.width, width, seed=seed, name="patch")


@dataclass(frozen=True, kw_only=True)
class Student:
    """One student with all that its training changes.

    Args:
        size: its name.
        mapped: what learns.
        average: of its backbone, no gradient; what is written.
        optimizer: of ``mapped``.
        table: (steps between looks, 7) float32 on the device, :data:`COLUMNS`.
        lr_factor: on the scheduled learning rate: a larger size learns slower.
    """

    size: str
    mapped: Mapped
    average: VisionTransformer
    optimizer: AdamW
    table: Tensor
    lr_factor: float = 1.0

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by name, the student's own; names are those of self-distillation, so exports know them."""
        learning = {f"networks.student.{name}": value for name, value in self.mapped.state_dict().items()}
        average = {f"networks.teacher.backbone.{name}": value for name, value in self.average.state_dict().items()}
        moments = {f"moments.{name}": value for name, value in self.optimizer.tensors().items()}
        return {**learning, **average, **moments, "table": self.table}


@dataclass(kw_only=True)
class Distilling:
    """A run of distillation.

    Args:
        teacher: frozen, in evaluation mode.
        students: the first is the stage's backbone.
        steps: where it ends.
        precision: arithmetic of the networks.
        world: the processes that share it.
        pieces: microbatches of a step, over all processes.
        step: steps done.
    """

    teacher: VisionTransformer
    students: Sequence[Student]
    steps: int
    precision: torch.dtype = torch.float32
    world: World = field(default_factory=World)
    pieces: int = 1
    step: int = 0

    @property
    def mine(self) -> range:
        """The microbatches of this process."""
        share = self.pieces // self.world.size
        return range(self.world.rank * share, (self.world.rank + 1) * share)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that training changes; the first student's names have no prefix."""
        found: dict[str, Tensor] = {}
        for number, student in enumerate(self.students):
            prefix = f"students.{student.size}." if number else ""
            found |= {f"{prefix}{name}": value for name, value in student.tensors().items()}
        return found


def student_of(
    size: str,
    backbone: VisionTransformer,
    settings: PretrainSettings,
    *,
    width: int,
    device: torch.device,
    lr_factor: float = 1.0,
) -> Student:
    """Return a student before its first step.

    Args:
        size: its name.
        backbone: with its first weights; becomes the student's.
        settings: seed, betas, layer decay.
        width: D of the teacher.
        device: where it learns.
        lr_factor: on the learning rate.
    """
    mapped = Mapped(backbone, width=width, seed=settings.seed).to(device)
    o = settings.optimizer
    groups = parameter_groups(mapped.named_parameters(), depth=backbone.config.depth, layer_decay=o.layer_decay)
    average = copy.deepcopy(mapped.backbone).requires_grad_(requires_grad=False).eval()
    recompute(mapped.backbone, settings.recompute)  # names and copies are taken, which wrapped blocks would change
    if settings.compile:
        compile_blocks(mapped.backbone)
    return Student(
        size=size,
        mapped=mapped,
        average=average,
        optimizer=AdamW(groups, betas=o.betas),
        table=torch.zeros(settings.watch.log_every, len(COLUMNS), device=device),
        lr_factor=lr_factor,
    )


def distil(
    run: Distilling,
    settings: PretrainSettings,
    *,
    views_at: Callable[[int, int], ViewBatch],
    after_step: Callable[[Distilling, Rates], None],
) -> None:
    """Train from ``run.step`` to ``run.steps``; what comes out depends on ``run``, ``settings`` and ``views_at`` alone.

    Args:
        run: changed in place.
        settings: schedules, weights, seed.
        views_at: the views of a step's microbatch.
        after_step: called after every step; logs, probes and checkpoints live there.
    """
    for student in run.students:
        student.mapped.train()
    while run.step < run.steps:
        rates = rates_at(settings, (run.step + 1) / run.steps)
        take_step(run, settings, rates, views_at)
        after_step(run, rates)


def take_step(run: Distilling, settings: PretrainSettings, rates: Rates, views_at: Callable[[int, int], ViewBatch]) -> None:
    """One pass of the teacher a microbatch, one of every student; then each steps and is averaged, by itself."""
    parts: list[list[Tensor]] = [[] for _ in run.students]
    for piece in run.mine:
        views = views_at(run.step, piece)
        taught = teach(run.teacher, views, precision=run.precision)
        for student, found in zip(run.students, parts, strict=True):
            student.mapped.backbone.reseed(derive(settings.seed, "drop path", run.step, piece))
            total, each = learn(student.mapped, views, taught, settings, precision=run.precision)
            torch.autograd.backward(total / len(run.mine))
            found.append(each)
    for student, found in zip(run.students, parts, strict=True):
        run.world.average_gradients(student.mapped.parameters())
        set_rates(student.optimizer, lr=rates.lr * student.lr_factor, weight_decay=rates.weight_decay)
        norm, finite = clip_and_step(student.optimizer, clip=settings.optimizer.clip)
        _follow(student, rates.ema)
        row = torch.stack([*torch.stack(found).mean(0), norm, finite.to(norm.dtype)])
        student.table[run.step % len(student.table)] = row
    run.step += 1


@torch.no_grad()
def teach(teacher: VisionTransformer, views: ViewBatch, *, precision: torch.dtype) -> Features:
    """Return the teacher's tokens of whole global views: (G B, D) and (G B, h, w, D)."""
    with _arithmetic(views.globals_, precision):
        features: Features = teacher(views.globals_.flatten(0, 1))
    return features


def learn(
    student: Mapped, views: ViewBatch, taught: Features, settings: PretrainSettings, *, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return what one microbatch costs a student, with gradient, and its (5,) parts, detached, as :data:`PARTS` names them.

    Args:
        student: in training mode.
        views: of B samples.
        taught: the teacher's tokens of their global views.
        settings: weights of the parts, shared out as in self-distillation.
        precision: arithmetic of the networks.

    Source: distances of AM-RADIO (arXiv 2312.06709); the averaged student, no masks: DINOv2 (arXiv 2304.07193), section 5;
    several students from one pass: DINOv3 (arXiv 2508.10104); seasonal views: ours, after CGEarthEye (arXiv 2507.00356).
    """
    G, B = views.globals_.shape[:2]
    L, S = sum(len(part) for part in views.locals_), len(views.season)
    kinds = [views.globals_.flatten(0, 1), *(part.flatten(0, 1) for part in views.locals_)] + ([views.season] if S else [])
    with _arithmetic(views.globals_, precision):
        features = student.backbone.forward_views(kinds, [None] * len(kinds))
        classes = student.class_map(torch.cat([f.class_token for f in features]))
        patches = student.patch_map(features[0].patches)
    each = cosine_distance(classes, _class_targets(taught.class_token, views))
    weights = term_weights(settings, locals_=L, season=S > 0)
    zero = each.new_zeros(())
    parts = {
        "loss_global": each[: G * B].mean(),
        "loss_local": each[G * B : (G + L) * B].mean() if L else zero,
        "loss_season": (each[(G + L) * B :] * views.season_weight).sum(),
        "loss_patch": patch_distance(patches, taught.patches).mean(),
    }
    total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    return total, torch.stack([total, *parts.values()]).detach()


def _class_targets(class_token: Tensor, views: ViewBatch) -> Tensor:
    """Return who teaches each row: (G B + L B + S, D) out of the teacher's (G B, D)."""
    L = sum(len(part) for part in views.locals_)
    tokens = unit(class_token.to(torch.promote_types(class_token.dtype, torch.float32)))
    mean = tokens.view(GLOBALS, -1, tokens.shape[-1]).mean(0)
    return torch.cat([tokens, mean.repeat(L, 1), mean[views.place]])


@torch.no_grad()
def _follow(student: Student, momentum: float) -> None:
    torch._foreach_lerp_(list(student.average.parameters()), list(student.mapped.backbone.parameters()), 1.0 - momentum)


@torch.no_grad()
def _map(width: int, taught: int, *, seed: int, name: str) -> nn.Linear:
    linear = nn.Linear(width, taught)
    generator = torch.Generator().manual_seed(derive(seed, f"initial map {name}"))
    nn.init.trunc_normal_(linear.weight, std=width**-0.5, generator=generator)
    nn.init.zeros_(linear.bias)
    return linear


def _arithmetic(value: Tensor, precision: torch.dtype) -> torch.autocast:
    half = precision != torch.float32
    return torch.autocast(value.device.type, dtype=precision if half else torch.bfloat16, enabled=half)
