"""Accuracy over the steps of a run: its checkpoints, measured as `evaluate` measures any backbone.

    python configs/pretraining/learning_curve.py configs/pretraining/three_sets.yaml --seeds 0 1

Curates, pre-trains with every seed (two at a time on one core each), exports the teacher at every step asked for, measures all
seeds of a step together, and prints the curve with 95 % intervals over pictures and seeds; it is written to `OUT/curve.md`.
Step 0 is the untrained network. What is finished is skipped and what was interrupted goes on.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from experiment import Row, Stage, predictions, run_stages, tables

from cgeartheye.files import write_text
from cgeartheye.settings.project import load_project
from cgeartheye.weights.checkpoints import keep_names, load_step
from cgeartheye.weights.export import export
from cgeartheye.weights.store import CARD


def main() -> None:
    """Run what is missing, then gather."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="project file with the sections curate, pretrain and evaluate")
    parser.add_argument("--out", type=Path, help="default: `out` of the project")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 400, 800, 1200, 1800], help="multiples of checkpoint_every")
    parser.add_argument("--at-once", type=int, default=2, help="processes, of one core each")
    given = parser.parse_args()
    project = load_project(given.project)
    out: Path = (given.out or project.out).absolute()
    curated = Stage("curate", out, "curated", ())
    run_stages(given.project, [curated], at_once=1)
    runs = [training(out, seed, curated.path) for seed in given.seeds]
    run_stages(given.project, runs, at_once=given.at_once)
    stages = [evaluation(out, step, [run.path for run in runs], last=step == given.steps[-1]) for step in given.steps]
    run_stages(given.project, stages, at_once=given.at_once)
    text = tables(rows(out, given.steps), project.evaluate)  # type: ignore[arg-type] # has one
    write_text(out / "curve.md", text)
    print(text)


def training(out: Path, seed: int, curated: Path) -> Stage:
    """Return the pre-training with one seed."""
    sets = (f"--set=pretrain.seed={seed}", f"--set=pretrain.curated={curated}")
    return Stage("pretrain", out / f"seed{seed}", "pretrained", sets)


def evaluation(out: Path, step: int, runs: list[Path], *, last: bool) -> Stage:
    """Export every run's teacher at a step and return the evaluation of them; the last one measures the untrained too."""
    folder = out / "steps" / f"{step:06d}"
    exported = [folder / run.parent.name for run in runs]
    for run, to in zip(runs, exported, strict=True):
        if not (to / CARD).exists():
            export(load_step(run, step), "own", to)
            keep_names(run, to)
    sets = (*(f"--backbone={to}" for to in exported), f"--set=evaluate.untrained={str(last).lower()}")
    return Stage("evaluate", folder, "evaluated", sets)


def rows(out: Path, steps: list[int]) -> list[Row]:
    """Return the rows of the tables: step 0, each step, and the paired gain of each step over step 0."""

    def of(step: int, method: str = "trained") -> partial[list[Path]]:
        return partial(_files, out / "steps" / f"{step:06d}" / "evaluated", method)

    untrained = of(steps[-1], "untrained")
    curve = [Row("0 (untrained)", untrained), *(Row(f"{step}", of(step)) for step in steps)]
    return [*curve, *(Row(f"{step} - untrained", of(step), untrained) for step in steps)]


def _files(evaluated: Path, method: str, name: str, probe: tuple[str, str]) -> list[Path]:
    return predictions(evaluated, name, method, probe)


if __name__ == "__main__":
    main()
