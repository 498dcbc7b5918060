"""Seasonal views `add`, `off` and `replace` at the same compute, several training seeds each, and a table of the differences.

    python configs/pretraining/season_ablation.py configs/pretraining/season_rendered.yaml --seconds 300

The same compute means the same processor seconds of training. How many steps that is for each mode is measured first: every
mode trains for 30 steps, four times, in turn; `--seconds` is divided by the least of its processor seconds a step, because
other work on the machine makes a step dearer and never cheaper. The steps are kept in `OUT/steps.json`, and the seconds that
the real runs then took stand in the table. Then every mode is trained with every seed, two at a time on one core each,
evaluated, and the table is printed and written to `OUT/table.md`. What is finished is skipped and what was interrupted goes
on, so the same command may be given again.

Seeds pair up: with the same number, networks of all modes begin from the same weights. Intervals are 95 % bootstraps over
places and seeds.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from experiment import Row, Stage, predictions, run_stages, tables

from cgeartheye.files import read_json, write_json, write_text
from cgeartheye.settings.project import load_project

MODES = ("add", "off", "replace")
PAIRS = (("add", "off"), ("replace", "off"), ("add", "replace"))
CALIBRATION_STEPS, CALIBRATION_ROUNDS = 30, 4


def main() -> None:
    """Run what is missing, then gather."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="project file with the sections pretrain and evaluate")
    parser.add_argument("--out", type=Path, help="default: `out` of the project")
    parser.add_argument("--seconds", type=float, required=True, help="processor seconds of training a mode and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=2, help="processes, of one core each")
    given = parser.parse_args()
    out: Path = (given.out or load_project(given.project).out).absolute()
    steps = calibrated(given.project, out, given.seconds, given.at_once)
    cells = {(mode, seed): cell(out / mode / f"seed{seed}", mode, seed, steps[mode]) for seed in given.seeds for mode in MODES}
    run_stages(given.project, cells.values(), at_once=given.at_once)
    refuse_different_starts(cells, given.seeds)
    run_stages(given.project, [evaluation(out, mode, given.seeds) for mode in MODES], at_once=given.at_once)
    text = compute_table(cells, steps, given.seeds) + "\n" + tables(rows(out), load_project(given.project).evaluate)  # type: ignore[arg-type] # has one
    write_text(out / "table.md", text)
    print(text)


def cell(out: Path, mode: str, seed: int, steps: int) -> Stage:
    """Return the pre-training of one mode and seed."""
    sets = {"pretrain.season.mode": json.dumps(mode), "pretrain.seed": seed, "pretrain.steps": steps}
    return Stage("pretrain", out, "pretrained", tuple(f"--set={key}={value}" for key, value in sets.items()))


def evaluation(out: Path, mode: str, seeds: list[int]) -> Stage:
    """Return the evaluation of all seeds of a mode; the untrained networks are the same in all, and measured once."""
    backbones = tuple(f"--backbone={out / mode / f'seed{seed}' / 'pretrained'}" for seed in seeds)
    return Stage("evaluate", out / mode, "evaluated", (*backbones, f"--set=evaluate.untrained={str(mode == 'off').lower()}"))


def calibrated(project: Path, out: Path, seconds: float, at_once: int) -> dict[str, int]:
    """Return the steps of each mode, measured once and kept.

    Raises:
        SystemExit: if they were measured for another number of seconds.
    """
    kept = out / "steps.json"
    if not kept.exists():
        rounds = range(CALIBRATION_ROUNDS)
        trials = {(m, r): cell(out / "calibration" / f"{m}{r}", m, 0, CALIBRATION_STEPS) for r in rounds for m in MODES}
        run_stages(project, trials.values(), at_once=at_once)
        taken = {m: min(cpu_seconds(trials[m, r]) for r in rounds) / CALIBRATION_STEPS for m in MODES}
        steps = {mode: round(seconds / each) for mode, each in taken.items()}
        write_json(kept, {"seconds": seconds, "seconds_a_step": taken, "steps": steps})
    found: dict[str, Any] = read_json(kept)
    if found["seconds"] != seconds:
        raise SystemExit(f"{kept} was measured for {found['seconds']:g} seconds; choose another --out, or give those")
    return dict(found["steps"])


def cpu_seconds(stage: Stage) -> float:
    """Return the processor seconds that a finished training took."""
    return float(read_json(stage.path / "manifest.json")["summary"]["cpu_seconds"])


def refuse_different_starts(cells: dict[tuple[str, int], Stage], seeds: list[int]) -> None:
    """Stop unless the networks of all modes began from the same weights, seed by seed."""
    for seed in seeds:
        cards = [read_json(cells[mode, seed].path / "backbone.json") for mode in MODES]
        if len({json.dumps([card["config"], card["card"]["init_seed"]], sort_keys=True) for card in cards}) > 1:
            raise SystemExit(f"the networks of seed {seed} did not begin alike, so their differences would not be paired")


def compute_table(cells: dict[tuple[str, int], Stage], steps: dict[str, int], seeds: list[int]) -> str:
    """Return what each mode was given, as Markdown."""
    lines = ["| | steps of 32 | processor seconds of training, each seed |", "|---|--:|--:|"]
    for mode in MODES:
        taken = ", ".join(f"{cpu_seconds(cells[mode, seed]):.0f}" for seed in seeds)
        lines.append(f"| `{mode}` | {steps[mode]} | {taken} |")
    return "\n".join(lines) + "\n"


def rows(out: Path) -> list[Row]:
    """Return the rows of the tables: each mode, the untrained networks, and the paired differences."""

    def of(mode: str, method: str = "trained") -> partial[list[Path]]:
        return partial(_files, out / mode / "evaluated", method)

    untrained = of("off", "untrained")
    plain = [Row(f"`{mode}`", of(mode)) for mode in ("off", "add", "replace")]
    above = [Row(f"`{mode}` - untrained", of(mode), untrained) for mode in MODES]
    paired = [Row(f"`{one}` - `{other}`", of(one), of(other)) for one, other in PAIRS]
    return [*plain, Row("untrained", untrained), *paired, *above]


def _files(evaluated: Path, method: str, name: str, probe: tuple[str, str]) -> list[Path]:
    return predictions(evaluated, name, method, probe)


if __name__ == "__main__":
    main()
