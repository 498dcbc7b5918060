"""Forward and backward passes of the backbones against timm's and transformers', and one packed pass against one pass a size.

    python performance/backbone_forward.py                        # processor: CPU seconds, one thread, float32
    python performance/backbone_forward.py --device cuda          # GPU: bfloat16, wall time, FLOPs used, memory of frozen heads

Every comparison is interleaved in one run: ours, peer, ours, peer, ...; what is printed is the median of the pairs' ratios
(peer's time over ours: above 1, ours is faster) beside the rate of a matrix product in the same run.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model

from cgeartheye.models.cost import cost
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.weights.layouts.huggingface import configuration

BATCH = {"small": 4, "base": 2, "large": 1, "huge": 1, "giant": 1}
GPU_BATCH = {("small", 224): 512, ("base", 224): 256, ("large", 224): 128, ("huge", 224): 64, ("giant", 224): 48}
GPU_BATCH |= {("small", 518): 64, ("base", 518): 32, ("large", 518): 16, ("huge", 518): 8, ("giant", 518): 8}
MIXES = {
    "2 x 224 + 8 x 98": {224: 2, 98: 8},
    "2 x 224 + 8 x 98 + 3 x 98": {224: 2, 98: 11},
    "2 x 224 + 8 x 98 + 3 x 224": {224: 5, 98: 8},
}
PEAK_FLOPS = 989e12
"""Dense bfloat16 of an H100 or H200 by its vendor."""


def timm_twin(config: VitConfig) -> nn.Module:
    name = {"huge": "large"}.get(config.name, config.name)
    options: dict[str, Any] = {"embed_dim": config.width, "depth": config.depth, "num_heads": config.heads}
    return timm.create_model(f"vit_{name}_patch14_dinov2", pretrained=False, num_classes=0, dynamic_img_size=True, **options)


def transformers_twin(config: VitConfig) -> nn.Module:
    return Dinov2Model(Dinov2Config(**configuration(config), attn_implementation="sdpa"))


def run_ours(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).class_token


def run_timm(model: nn.Module, images: Tensor) -> Tensor:
    return model.forward_features(images)[:, 0]  # type: ignore[operator]


def run_transformers(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).last_hidden_state[:, 0]


PEERS: dict[str, tuple[Callable[[VitConfig], nn.Module], Callable[[nn.Module, Tensor], Tensor]]] = {
    "ours": (lambda config: build(config, seed=0), run_ours),
    "timm": (timm_twin, run_timm),
    "transformers": (transformers_twin, run_transformers),
}


def step(model: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], images: Tensor, *, backward: bool) -> Callable[[], None]:
    """Return what is timed: a pass without gradients, or forward and backward."""

    def forward_only() -> None:
        with torch.no_grad():
            run(model, images)

    def both() -> None:
        run(model, images).float().square().sum().backward()
        for parameter in model.parameters():
            parameter.grad = None

    return both if backward else forward_only


def cpu_seconds(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def gpu_seconds(call: Callable[[], None], repeats: int = 5) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def paired(ours: Callable[[], None], theirs: Callable[[], None], pairs: int, clock: Callable[..., float]) -> tuple[float, float]:
    """Return the median of their time over ours, and the median of ours, over interleaved pairs after one of warming up."""
    ours(), theirs()
    times = [(clock(ours), clock(theirs)) if i % 2 else tuple(reversed((clock(theirs), clock(ours)))) for i in range(pairs)]
    return statistics.median(b / a for a, b in times), statistics.median(a for a, _ in times)


def matmul_rate(device: str) -> float:
    n, kind = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a = torch.randn(n, n, device=device, dtype=kind)
    clock = gpu_seconds if device == "cuda" else cpu_seconds
    times = [clock(lambda: torch.mm(a, a)) for _ in range(5)]
    return 2 * n**3 / statistics.median(times)


def peak_memory(peer: str, size: str, depth: int | None, px: int, *, backward: bool) -> float:
    """Return the largest resident memory in MiB of a process of its own that does one pass on the processor."""
    command = [sys.executable, __file__, "--one", peer, "--sizes", size, "--px", str(px)]
    command += ["--depth", str(depth)] if depth else []
    command += ["--backward"] if backward else []
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one_pass(peer: str, config: VitConfig, px: int, *, backward: bool) -> None:
    make, run = PEERS[peer]
    model = make(config).eval()
    images = torch.rand(BATCH[config.name], 3, px, px)
    step(model, run, images, backward=backward)()
    status = Path("/proc/self/status").read_text()  # getrusage would tell the parent's peak, which survives exec
    print(float(status.partition("VmHWM:")[2].split()[0]) / 1024)


def on_processor(sizes: Sequence[str], pxs: Sequence[int], depth: int | None, pairs: int) -> None:
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, timm {timm.__version__}; float32, 1 thread, "
        f"matrix product {matmul_rate('cpu') / 1e9:.0f} GFLOP/s"
    )
    print("ratio: CPU seconds of the peer over ours, median of pairs; memory: peak of a process that does one pass, MiB")
    for px in pxs:
        for size in sizes:
            config = dataclasses.replace(SIZES[size], depth=min(depth or SIZES[size].depth, SIZES[size].depth))
            models = {name: make(config).eval() for name, (make, _) in PEERS.items()}
            images = torch.rand(BATCH[size], 3, px, px)
            for backward in (False, True):
                calls = {name: step(models[name], PEERS[name][1], images, backward=backward) for name in PEERS}
                row = []
                for peer in ("timm", "transformers"):
                    ratio, seconds = paired(calls["ours"], calls[peer], pairs, cpu_seconds)
                    row.append(f"{peer} {ratio:.3f}")
                memory = {name: peak_memory(name, size, config.depth, px, backward=backward) for name in PEERS}
                kind = "forward + backward" if backward else "forward"
                told = ", ".join(f"{name} {value:,.0f}" for name, value in memory.items())
                rate = BATCH[size] / seconds
                print(
                    f"{size:6} depth {config.depth:2} {px} px {kind:18} {rate:7.2f} images/s  {'  '.join(row)}  memory {told}",
                    flush=True,
                )
            del models
    packed(sizes[0], "cpu", pairs, samples=2)
    attention_kernels(sizes[0], "cpu", pairs, samples=2)


def packed(size: str, device: str, pairs: int, samples: int) -> None:
    """Compare one packed pass, forward and backward, with one pass a size of view."""
    model = build(SIZES[size], seed=0).to(device).train()
    clock = gpu_seconds if device == "cuda" else cpu_seconds
    for name, mix in MIXES.items():
        views = [torch.rand(samples * count, 3, px, px, device=device) for px, count in mix.items()]

        def total(found: Sequence[Any]) -> Tensor:
            return torch.cat([features.class_token for features in found]).float().square().sum()

        def work(*, separate: bool, views: list[Tensor] = views) -> None:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                found = [model(view) for view in views] if separate else model.forward_views(views, [None] * len(views))
                loss = total(found)
            loss.backward()
            for parameter in model.parameters():
                parameter.grad = None

        ratio, seconds = paired(lambda: work(separate=False), lambda: work(separate=True), pairs, clock)
        print(
            f"packed {size} {name} of {samples} samples: separate passes take {ratio:.3f} of the packed one's {seconds:.3f} s",
            flush=True,
        )


def attention_kernels(size: str, device: str, pairs: int, samples: int) -> None:
    """Compare attention group by group with one variable-length call and, on a processor, one masked call, both ways."""
    config, clock = SIZES[size], gpu_seconds if device == "cuda" else cpu_seconds
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    for name, mix in MIXES.items():
        groups = [(samples * count, (px // config.patch_px) ** 2 + 1) for px, count in mix.items()]
        lengths = torch.tensor([length for rows, length in groups for _ in range(rows)], device=device)
        shape = (3, int(lengths.sum()), config.heads, config.width // config.heads)
        qkv = torch.randn(shape, device=device, dtype=kind, requires_grad=True)
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        row = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)

        def grouped(qkv: Tensor = qkv, groups: list[tuple[int, int]] = groups) -> Tensor:
            parts = qkv.split([rows * length for rows, length in groups], dim=1)
            found = []
            for part, (rows, length) in zip(parts, groups, strict=True):
                q, k, v = part.unflatten(1, (rows, length)).transpose(2, 3)
                found.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1))
            return torch.cat(found)

        def jagged(qkv: Tensor = qkv, offsets: Tensor = offsets) -> Tensor:
            q, k, v = (torch.nested.nested_tensor_from_jagged(x, offsets).transpose(1, 2) for x in qkv.unbind())
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).values()

        def masked(qkv: Tensor = qkv, row: Tensor = row) -> Tensor:
            q, k, v = (x.transpose(0, 1)[None] for x in qkv.unbind())
            return F.scaled_dot_product_attention(q, k, v, attn_mask=row[:, None] == row).squeeze(0).transpose(0, 1)

        def both(attend: Callable[[], Tensor], qkv: Tensor = qkv) -> Callable[[], None]:
            def call() -> None:
                attend().square().sum().backward()
                qkv.grad = None

            return call

        rivals = {"one variable-length call": jagged} | ({"one masked call": masked} if device == "cpu" else {})
        told = []
        for rival, attend in rivals.items():
            torch.testing.assert_close(attend(), grouped(), rtol=2e-2 if device == "cuda" else 1e-4, atol=1e-2)
            ratio, seconds = paired(both(grouped), both(attend), pairs, clock)
            told.append(f"{rival} takes {ratio:.2f}")
        print(
            f"attention {size} {name} of {samples} samples: of {1e3 * seconds:.1f} ms group by group, {'; '.join(told)}",
            flush=True,
        )


def on_gpu(sizes: Sequence[str], pxs: Sequence[int], pairs: int) -> None:
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, timm {timm.__version__}; bfloat16; matrix product "
        f"{matmul_rate('cuda') / 1e12:.0f} TFLOP/s; utilisation is of {PEAK_FLOPS / 1e12:.0f} TFLOP/s"
    )
    for size in sizes:
        config = SIZES[size]
        torch.compiler.reset()  # sizes compiled before count towards the limit of recompilations
        with torch.device("cuda"):
            theirs = timm_twin(config).to("cuda", torch.bfloat16).eval()
        ours = build_on_gpu(config).to(torch.bfloat16).eval()
        compiled = compiled_blocks(build_on_gpu(config)).to(torch.bfloat16).eval()
        for px in pxs:
            batch = GPU_BATCH[size, px]
            images = torch.rand(batch, 3, px, px, device="cuda", dtype=torch.bfloat16)
            flops = cost(config, height=px, width=px).forward_flops * batch
            peer = step(theirs, run_timm, images, backward=False)
            row = []
            for name, model in (("eager", ours), ("compiled", compiled)):
                ratio, seconds = paired(step(model, run_ours, images, backward=False), peer, pairs, gpu_seconds)
                row.append(f"{name} {batch / seconds:,.0f} images/s, {flops / seconds / PEAK_FLOPS:.0%}, {ratio:.2f} x timm")
            print(f"{size:6} {px} px batch {batch} forward: {'; '.join(row)}", flush=True)
            del images
        del theirs, ours, compiled
        training = compiled_blocks(build_on_gpu(config))
        for px in pxs:
            batch = max(1, GPU_BATCH[size, px] // (8 if size in ("huge", "giant") else 4))
            images = torch.rand(batch, 3, px, px, device="cuda")
            torch.cuda.reset_peak_memory_stats()

            def train(images: Tensor = images, model: VisionTransformer = training) -> None:
                with torch.autocast("cuda", torch.bfloat16):
                    loss = run_ours(model, images).float().square().sum()
                loss.backward()
                for parameter in model.parameters():
                    parameter.grad = None

            train()
            seconds = statistics.median(gpu_seconds(train, 3) for _ in range(3))
            used = 3 * cost(config, height=px, width=px).forward_flops * batch / seconds / PEAK_FLOPS
            peak = torch.cuda.max_memory_allocated() / 2**30
            print(
                f"{size:6} {px} px batch {batch} forward + backward, compiled blocks: {batch / seconds:,.0f} images/s, "
                f"{used:.0%} of peak, {peak:.1f} GiB",
                flush=True,
            )
        del training
        torch.cuda.empty_cache()
    packed("small", "cuda", pairs, samples=32)
    attention_kernels("small", "cuda", pairs, samples=32)
    frozen_heads()


def build_on_gpu(config: VitConfig) -> VisionTransformer:
    """Build without the seeded start, which is slow for a giant."""
    with torch.device("cuda"):
        model = VisionTransformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.02)
    return model


def compiled_blocks(model: VisionTransformer) -> VisionTransformer:
    for block in model.blocks:
        block.compile(dynamic=False)
    return model


def frozen_heads() -> None:
    """Measure the memory of training a head on a frozen giant, and hold the formula against it."""
    from transformers.models.upernet.modeling_upernet import UperNetConfig, UperNetHead

    config = SIZES["giant"]
    model = build_on_gpu(config).requires_grad_(requires_grad=False).eval()
    scales = (4.0, 2.0, 1.0, 0.5)
    with torch.device("cuda"):
        heads = {
            "linear head, batch 8": (8, nn.Conv2d(config.width, 20, 1)),
            "UperNet head, batch 2": (2, UperNetHead(UperNetConfig(num_labels=20), in_channels=[config.width] * 4)),
        }
    for name, (batch, head) in heads.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        images = torch.rand(batch, 3, 518, 518, device="cuda")
        target = torch.randint(0, 20, (batch, 518, 518), device="cuda")
        optimizer = torch.optim.AdamW(head.parameters())
        for _ in range(2):
            with torch.no_grad():
                levels = model.levels(images, (9, 19, 29, 39), "all")
            alone = torch.cuda.max_memory_allocated()
            maps = [level.patches.permute(0, 3, 1, 2) for level in levels]
            if isinstance(head, UperNetHead):
                maps = [F.interpolate(m, scale_factor=s, mode="bilinear") for m, s in zip(maps, scales, strict=True)]
                logits = head(maps)
            else:
                logits = head(maps[-1])
            loss = F.cross_entropy(F.interpolate(logits, size=(518, 518), mode="bilinear"), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        said = cost(config, height=518, width=518, batch=batch).frozen_bytes
        peak = torch.cuda.max_memory_allocated()
        print(
            f"frozen giant, float32, 518 px, {name}: {peak / 2**30:.2f} GiB; backbone alone at most {alone / 2**30:.2f}, "
            f"by formula {said / 2**30:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", nargs="+", default=list(BATCH), choices=list(BATCH))
    parser.add_argument("--px", nargs="+", type=int, default=[224])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--depth", type=int, help="at most so many blocks; more repeat the same work")
    parser.add_argument("--one", choices=list(PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--backward", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        torch.set_num_threads(1)
        size = given.sizes[0]
        config = dataclasses.replace(SIZES[size], depth=given.depth or SIZES[size].depth)
        one_pass(given.one, config, given.px[0], backward=given.backward)
    elif given.device == "cuda":
        on_gpu(given.sizes, given.px, given.pairs)
    else:
        on_processor(given.sizes, given.px, given.depth, given.pairs)


if __name__ == "__main__":
    main()
