"""Wrappings of a backbone for large machines: compiled blocks, recomputed activations, sharded parameters.

Order matters: recompute, then compile, then shard, as each wraps what the one before made.
"""

from __future__ import annotations

import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from cgeartheye.models.vit import VisionTransformer


def recompute_blocks(model: VisionTransformer) -> VisionTransformer:
    """Keep only the input of every block for the backward pass and compute the rest again: a third more FLOPs."""
    for number, block in enumerate(model.blocks):
        model.blocks[number] = checkpoint_wrapper(block)
    return model


def compile_blocks(model: VisionTransformer, *, backend: str = "inductor") -> VisionTransformer:
    """Compile each block by itself: all blocks share one program, which is made in seconds whatever the depth."""
    for block in model.blocks:
        block.compile(backend=backend, dynamic=False)
    return model


def shard(model: VisionTransformer, mesh: DeviceMesh, *, precision: torch.dtype | None = None) -> VisionTransformer:
    """Shard parameters, gradients and optimizer state over the processes of ``mesh`` (FSDP2), block by block.

    Args:
        model: on the device it will work on.
        mesh: one-dimensional.
        precision: of parameters while they work and of gradients while they travel; None leaves float32.
    """
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for name in ("forward_views", "levels"):  # else the root's own parameters would stay sharded there
        register_fsdp_forward_method(model, name)
    return model
