"""What the contenders of ``pretrain_step.py`` share: the work of a step, and turns taken at the word of the parent process.

It runs in the environment of each contender, so it needs torch and nothing else.

B samples, G = 2 global views of 224 px, L = 8 local views of 98 px, N = 256 patches of a global view.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

GLOBALS, LOCALS = 2, 8
GLOBAL_PX, LOCAL_PX, PATCH_PX = 224, 98, 14
PATCHES = (GLOBAL_PX // PATCH_PX) ** 2
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "_reshape_alias"}
FREE |= {"lift_fresh", "is_same_size", "_local_scalar_dense", "set_", "resize_", "promote_types", "scalar_tensor"}
"""Calls that start nothing on a device, besides views: they make room, look at what is there, or make a number on the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every contender does in a step: the same views, masks, heads and optimizer settings."""

    batch: int
    prototypes: int
    hidden: int = 2048
    bottleneck: int = 256
    layers: int = 3
    clip: float = 3.0
    layer_decay: float = 0.9

    def images(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return G global views (B, 3, 224, 224) and L local views (B, 3, 98, 98), float32 in [0, 1]."""
        generator = torch.Generator().manual_seed(0)
        shapes = [(GLOBAL_PX, GLOBALS), (LOCAL_PX, LOCALS)]
        found = [[torch.rand(self.batch, 3, px, px, generator=generator) for _ in range(n)] for px, n in shapes]
        return found[0], found[1]

    def hidden_counts(self) -> list[int]:
        """Return the hidden patches of each of the G B global views: half of the views, 10 to 50 % of each.

        The counts are the upper edges of DINOv2's bins, so its buffer for hidden patches is filled without padding.
        """
        masked = GLOBALS * self.batch // 2
        shares = torch.linspace(0.1, 0.5, masked + 1)[1:].tolist()
        return [int(PATCHES * share) for share in shares] + [0] * (GLOBALS * self.batch - masked)

    def masks(self) -> Tensor:
        """Return (G B, N) bool, True where the student's global view is hidden: rows of patches, in drawn order of the views."""
        generator = torch.Generator().manual_seed(1)
        counts = torch.tensor(self.hidden_counts())[torch.randperm(GLOBALS * self.batch, generator=generator)]
        return torch.arange(PATCHES) < counts[:, None]

    def hidden_rows(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions (R,) int64 of the hidden patches of ``masks`` flattened, and 1 / (hidden of the same view) (R,)."""
        each = (1 / masks.sum(-1).clamp(min=1)).unsqueeze(-1).expand_as(masks)
        return masks.flatten().nonzero().flatten(), each[masks]


class Kernels(TorchDispatchMode):
    """Counts kernel-like ATen calls: every one but views (an output is an input's memory, unwritten) and :data:`FREE`.

    A call on a list of tensors (``_foreach_*``, ``_fused_*``) is one, as is attention by a fused kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        name = func.overloadpacket.__name__
        if func.namespace == "aten" and not func.is_view and name not in FREE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Rows:
    """Counts the rows that go through some modules: tokens through a backbone, class tokens and patches through heads."""

    def __init__(self, watched: Mapping[str, nn.Module]) -> None:
        self.counts = dict.fromkeys(watched, 0)
        self._handles = [module.register_forward_pre_hook(self._counter(name)) for name, module in watched.items()]

    def _counter(self, name: str) -> Any:  # noqa: ANN401
        def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.counts[name] += inputs[0].numel() // inputs[0].shape[-1]

        return count

    def remove(self) -> None:
        """Count no more."""
        for handle in self._handles:
            handle.remove()


def memory(key: str) -> float:
    """Return a memory line of this process in MiB: ``VmRSS`` now, ``VmHWM`` at most."""
    status = Path("/proc/self/status").read_text()  # getrusage would tell the parent's peak, which survives exec
    return float(status.partition(f"{key}:")[2].split()[0]) / 1024


class Turns:
    """The parent's word, taken between steps: ``while turns.next(): one step``.

    Args:
        replies: descriptor that answers are written to, one JSON value a line.
        packages: whose versions are told.
        imported: MiB of this process before anything was built.
    """

    def __init__(self, replies: int, packages: Iterable[str], imported: float) -> None:
        self._replies = os.fdopen(replies, "w")
        self._imported = imported
        self._built = 0.0
        self._watched: Mapping[str, nn.Module] = {}
        self._packages = packages
        self._begun: float | None = None
        self._modes: tuple[Kernels, Rows] | None = None
        self.terms: Mapping[str, Any] = {}
        """Terms of the loss of the step that has just ended, to be told with its time."""

    def ready(self, watched: Mapping[str, nn.Module]) -> None:
        """Tell the parent that everything is built; ``watched`` are the modules whose rows are counted."""
        self._watched = watched
        self._built = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on is that of the steps
        versions = {name: version(name) for name in self._packages}
        self._say({"python": platform.python_version(), "torch": torch.__version__, **versions})

    def next(self) -> bool:
        """Report the step that has ended, if any, and wait; returns whether to do another."""
        if self._begun is not None:
            self._report(time.process_time() - self._begun)
        for line in sys.stdin:
            if line.strip() == "memory":
                self._say({"imported": self._imported, "built": self._built, "peak": memory("VmHWM")})
                continue
            if line.strip() == "calls":
                self._modes = (Kernels(), Rows(self._watched))
                self._modes[0].__enter__()
            self._begun = time.process_time()
            return True
        return False

    def _report(self, seconds: float) -> None:
        told: dict[str, Any] = {"seconds": seconds}
        if self._modes is not None:
            kernels, rows = self._modes
            kernels.__exit__(None, None, None)
            rows.remove()
            told |= {"calls": sum(kernels.counts.values()), "by_name": dict(kernels.counts.most_common()), "rows": rows.counts}
            self._modes = None
        self._say({**told, "terms": {name: float(value) for name, value in self.terms.items()}})

    def _say(self, value: object) -> None:
        self._replies.write(json.dumps(value) + "\n")
        self._replies.flush()


def begin(packages: Iterable[str]) -> tuple[Work, Turns]:
    """Read the command line of a contender and return its work and its turns; computation gets one thread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=json.loads, required=True)
    parser.add_argument("--replies", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Work(**given.work), Turns(given.replies, packages, memory("VmRSS"))
