"""Twenty steps on made-up views, by as many processes as were started; writes losses and features of the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "pretraining"))
from synthetic import HEAD, batch_of, converted, pair_of, with_anchor

from cgeartheye.pretraining.build import begin
from cgeartheye.pretraining.loop import Training, fit
from cgeartheye.pretraining.stage import whole_backbone
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.distributed import World, world


class Deaf(World):
    """A world whose sums are of one process only."""

    def total(self, value: Tensor) -> Tensor:
        return value

    def greatest(self, value: Tensor) -> Tensor:
        return value


class Apart(World):
    """A world that does not average gradients."""

    def average_gradients(self, parameters: Any) -> None:
        del parameters


def main(out: Path, choices: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    dtype = getattr(torch, choices["dtype"])
    torch.set_default_dtype(dtype)  # networks, moments and the table of losses are made in it
    settings = PretrainSettings(
        head=HEAD,
        batch=8,
        steps=20,
        shard=choices.get("shard", False),
        drop_path=0.25,
        loss={"targets": choices.get("targets", "sinkhorn")},
        optimizer={"warm_up": 0.1, "freeze_last": 0.1, "clip": 1e9 if dtype == torch.float64 else 3.0},  # it is single precision
        gram=choices.get("gram", {}),
        watch={"log_every": 1},
    )
    with world(torch.device("cpu")) as processes:
        kind = {"targets": Deaf, "gradients": Apart}.get(choices.get("without", ""), World)
        mine = kind(processes.rank, processes.size, processes.device, processes.background)
        backbone = pair_of(settings, apart=0.0, dtype=dtype).student.backbone
        training = begin(settings, backbone, prototypes=16, places=8, world=mine, pieces=2)
        losses: list[dict[str, float]] = []

        def note(training: Training, *_: object) -> None:
            losses.append(training.state.look(processes).means)

        fit(training, settings, views_at=lambda step, piece: converted(with_anchor(2 * step + piece), dtype), after_step=note)
        result = whole_backbone(training).to(dtype)
        if processes.leads:
            out.mkdir(parents=True)
            features = result(converted(batch_of(99), dtype).globals_.flatten(0, 1))
            (out / "losses.json").write_text(json.dumps(losses))
            shown = {"class": features.class_token, "patches": features.patches}
            save_file(
                {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in shown.items()},
                out / "features.safetensors",
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
