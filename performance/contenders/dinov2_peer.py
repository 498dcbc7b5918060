"""The official DINOv2 code from a checkout, as its ``do_train`` steps, in float32 on a processor.

The checkout is on the path, and so is ``without_xformers``. What is not run: FSDP, gradient scaling, the copy to a GPU.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dinov2.train.ssl_meta_arch as theirs
import torch
import torch.distributed as dist
from dinov2.train.train import apply_optim_scheduler, build_optimizer, build_schedulers
from omegaconf import OmegaConf
from served import GLOBAL_PX, LOCAL_PX, LOCALS, PATCH_PX, Work, begin
from torch import Tensor, nn


def configuration(work: Work) -> Any:  # noqa: ANN401
    head = {
        "head_n_prototypes": work.prototypes,
        "head_bottleneck_dim": work.bottleneck,
        "head_nlayers": work.layers,
        "head_hidden_dim": work.hidden,
    }
    changed = {
        "compute_precision": {"grad_scaler": False},
        "dino": head,
        "ibot": {**head, "separate_head": True},
        "train": {"batch_size_per_gpu": work.batch, "centering": "sinkhorn_knopp"},
        "student": {"arch": "vit_small", "patch_size": PATCH_PX, "drop_path_rate": 0.0},
        "optim": {
            "lr": 0.004 * (work.batch / 1024) ** 0.5,
            "freeze_last_layer_epochs": 0,
            "clip_grad": work.clip,
            "layerwise_decay": work.layer_decay,
        },
        "crops": {"global_crops_size": GLOBAL_PX, "local_crops_size": LOCAL_PX, "local_crops_number": LOCALS},
    }
    defaults = Path(theirs.__file__).parents[1] / "configs" / "ssl_default_config.yaml"
    return OmegaConf.merge(OmegaConf.load(defaults), OmegaConf.create(changed))


def unsharded(module: nn.Module) -> list[SimpleNamespace]:
    """Stand for the list of FSDP units of a module: one, with its plain parameters."""
    return [SimpleNamespace(params=list(module.parameters()))]


def on_this_machine() -> None:
    """Put no-ops where the code insists on a GPU or FSDP; one process, as its Sinkhorn-Knopp insists on a group."""
    torch.Tensor.cuda = lambda self, **_: self  # type: ignore[assignment, method-assign]
    theirs.reshard_fsdp_model = lambda _: None
    theirs.get_fsdp_modules = unsharded
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def collated(work: Work) -> dict[str, Any]:
    """Return what its ``collate_data_and_cast`` returns, in float32."""
    globals_, locals_ = (torch.cat(views) for views in work.images())
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    masks = work.masks()
    hidden, weights = work.hidden_rows(masks)
    return {
        "collated_global_crops": (globals_ - mean) / std,
        "collated_local_crops": (locals_ - mean) / std,
        "collated_masks": masks,
        "mask_indices_list": hidden,
        "masks_weight": weights,
        "upperbound": len(hidden),
        "n_masked_patches": torch.tensor([len(hidden)]),
    }


def step(
    model: theirs.SSLMetaArch,
    optimizer: torch.optim.Optimizer,
    data: dict[str, Tensor],
    rates: tuple[float, ...],
    clip: float,
) -> dict[str, float]:
    """Do what ``do_train`` does with a batch, in its order, its reading of each loss from the device included."""
    lr, wd, momentum, temperature, last_layer_lr = rates
    apply_optim_scheduler(optimizer, lr, wd, last_layer_lr)
    optimizer.zero_grad(set_to_none=True)
    losses = model.forward_backward(data, teacher_temp=temperature)
    for module in model.student.values():
        nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimizer.step()
    model.update_teacher(momentum)
    return {name: loss.item() for name, loss in losses.items()}


def main() -> None:
    work, turns = begin(["omegaconf"])
    on_this_machine()
    cfg = configuration(work)
    model = theirs.SSLMetaArch(cfg)
    model.need_to_synchronize_fsdp_streams = False
    for name, student in model.student.items():
        model.teacher[name].load_state_dict(student.state_dict())
    model.train()
    optimizer = build_optimizer(cfg, model.get_params_groups())
    schedules = build_schedulers(cfg)
    data = collated(work)
    turns.ready(
        {
            "teacher tokens": model.teacher.backbone.blocks[0].norm1,
            "student tokens": model.student.backbone.blocks[0].norm1,
            "teacher class rows": model.teacher.dino_head.mlp,
            "student class rows": model.student.dino_head.mlp,
            "teacher patch rows": model.teacher.ibot_head.mlp,
            "student patch rows": model.student.ibot_head.mlp,
        }
    )
    done = 0
    while turns.next():
        turns.terms = step(model, optimizer, data, tuple(float(schedule[done]) for schedule in schedules), work.clip)
        done += 1


if __name__ == "__main__":
    main()
