"""lightly-train's DINOv2 method in Lightning's own trainer, on views and masks prepared before.

lightly-train is AGPL: it runs from an environment of its own, and nothing of it enters the package.
"""

from __future__ import annotations

from typing import Any

import lightly_train._methods.dinov2.dinov2 as theirs
import pytorch_lightning as lightning
import torch
from lightly_train._models.dinov2_vit.dinov2_vit_package import DINOV2_VIT_PACKAGE
from lightly_train._models.embedding_model import EmbeddingModel
from served import Turns, Work, begin
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

STEPS = 200_000
"""Length that its schedules are told; above its minimum, so that it does not complain."""


class FinishedError(Exception):
    """The parent wants no more steps."""


class TakeTurns(lightning.Callback):
    """Waits for the parent before each batch; everything up to the next one is the step: averaging, schedules, logging."""

    def __init__(self, turns: Turns, method: theirs.DINOv2) -> None:
        self.turns, self.method = turns, method

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Say that all is built."""
        m = self.method
        student, teacher = (e.wrapped_model.get_model() for e in (m.student_embedding_model, m.teacher_embedding_model))
        self.turns.ready(
            {
                "teacher tokens": teacher.blocks[0],
                "student tokens": student.blocks[0],
                "teacher class rows": m.teacher_head.dino_head.mlp,
                "student class rows": m.student_head.dino_head.mlp,
                "teacher patch rows": m.teacher_head.ibot_head.mlp,
                "student patch rows": m.student_head.ibot_head.mlp,
            }
        )

    def on_train_batch_start(self, trainer: lightning.Trainer, *args: Any) -> None:  # noqa: ANN401, ARG002
        """Tell of the last step, and wait."""
        self.turns.terms = trainer.callback_metrics
        if not self.turns.next():
            raise FinishedError


class OneBatch(Dataset[dict[str, list[Tensor]]]):
    """The same views again and again."""

    def __init__(self, batch: dict[str, list[Tensor]]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> dict[str, list[Tensor]]:
        return self.batch


def build(work: Work) -> theirs.DINOv2:
    model = DINOV2_VIT_PACKAGE.get_model("vits14-noreg-notpretrained", model_args={"drop_path_rate": 0.0}, load_weights=False)
    arguments = theirs.DINOv2Args(
        ibot_separate_head=True,
        hidden_dim=work.hidden,
        dino_bottleneck_dim=work.bottleneck,
        ibot_bottleneck_dim=work.bottleneck,
        output_dim=work.prototypes,
        center_method="sinkhorn_knopp",
        student_freeze_last_layer_steps=0,
        layerwise_decay=work.layer_decay,
        gradient_clip_val=work.clip,
        weight_decay_start=0.04,
    )
    return theirs.DINOv2(
        method_args=arguments,
        optimizer_args=theirs.DINOv2AdamWViTArgs(),
        embedding_model=EmbeddingModel(DINOV2_VIT_PACKAGE.get_model_wrapper(model)),
        global_batch_size=work.batch,
        num_input_channels=3,
    )


def main() -> None:
    work, turns = begin(["lightly-train", "pytorch-lightning"])
    masks = work.masks()
    hidden, weights = work.hidden_rows(masks)
    prepared = {"collated_masks": masks, "mask_indices_list": hidden, "masks_weight": weights}
    theirs.create_collated_masks = lambda **_: prepared  # its own fall short of their count and cost it time
    method = build(work)
    globals_, locals_ = work.images()
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    loader = DataLoader(OneBatch({"views": [(view - mean) / std for view in globals_ + locals_]}), batch_size=None)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        precision="32-true",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[TakeTurns(turns, method)],
    )
    try:
        trainer.fit(method, loader)
    except FinishedError:
        return


if __name__ == "__main__":
    main()
