"""Curated against random at equal size and equal training steps, on real pictures with an artificial imbalance.

    python configs/pretraining/curated_against_random.py configs/pretraining/imbalanced.yaml --steps 300

The bank is made of the training part (70 % by hash of class and name) of the pictures that `curate.include` names, where sets
have classes of one name one class, and only of the classes that the project evaluates. Classes in order of size keep from all of
the largest down to 1 in 100 of as many; pictures of the larger half of the classes get two near copies each: recompressed,
halved, brightened, shifted by 2 %, turned, flipped, in turn. Of it, `curated` keeps `--keep` pictures by clusters after near
duplicates are dropped, `random` as many by chance. Both are trained for as many steps, with several seeds (of draw and training),
and read by the test part. What is finished is skipped, so the same command may be given again.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from experiment import Row, Stage, predictions, run_stages, tables
from PIL import Image, ImageEnhance

from cgeartheye.files import write_json, write_text
from cgeartheye.seeding import hash_share
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.settings.project import Project, load_project

WAYS = ("curated", "random")
TEST_SHARE = 0.3
LEAST = 0.01
"""Pictures of the rarest class for one of the commonest: 100:1."""
KINDS = ("recompressed", "halved", "brightened", "shifted", "turned", "flipped")
COPIES = 2


def main() -> None:
    """Run what is missing, then gather."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="project file with the sections curate, pretrain and evaluate")
    parser.add_argument("--out", type=Path, help="default: `out` of the project")
    parser.add_argument("--keep", type=int, default=64, help="pictures that both ways keep")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=1, help="processes, of one core each")
    given = parser.parse_args()
    project = load_project(given.project)
    out: Path = (given.out or project.out).absolute()
    bank = evaluated_bank(project, out)
    cells = [(way, seed) for seed in given.seeds for way in WAYS]
    run_stages(given.project, [curation(out, way, seed, bank, given.keep) for way, seed in cells], at_once=given.at_once)
    text = selection_table(out, bank, given.seeds)
    write_text(out / "selection.md", text)
    print(text, flush=True)
    run_stages(given.project, [training(out, way, seed, given.steps) for way, seed in cells], at_once=given.at_once)
    run_stages(given.project, [evaluation(out, way, given.seeds) for way in WAYS], at_once=given.at_once)
    text += "\n" + tables(rows(out), project.evaluate)  # type: ignore[arg-type] # has one
    write_text(out / "table.md", text)
    print(text)


def evaluated_bank(project: Project, out: Path) -> Path:
    """Write the bank of the classes that the project evaluates."""
    classes = {class_of(path) for path in Path(project.evaluate.datasets[0].root).glob("*/*")}  # type: ignore[union-attr] # has one
    found = training_pictures(project.curate)  # type: ignore[arg-type] # has one
    return make_bank({name: files for name, files in found.items() if name in classes}, out / "bank")


def make_bank(found: Mapping[str, Sequence[Path]], bank: Path) -> Path:
    """Write the imbalanced bank of the pictures of each class with its planted copies, once."""
    if (bank.parent / "bank.json").exists():
        return bank
    shutil.rmtree(bank, ignore_errors=True)
    classes = sorted(found, key=lambda name: (-len(found[name]), name))
    most, turn = len(found[classes[0]]), cycle(range(0, len(KINDS), COPIES))
    counts: dict[str, dict[str, int]] = {}
    for number, name in enumerate(classes):
        chosen = found[name][: max(1, round(most * LEAST ** (number / (len(classes) - 1))))]
        (bank / name).mkdir(parents=True)
        for at, file in enumerate(chosen):  # sets have files of one name
            shutil.copy(file, bank / name / f"{name}_{at:03d}.jpg")
            for kind in KINDS[(start := next(turn)) : start + COPIES] if number < len(classes) // 2 else ():
                changed(Image.open(file).convert("RGB"), kind).save(bank / name / f"{name}_{at:03d}-{kind}.jpg", quality=90)
        counts[name] = {"pictures": len(chosen), "with_copies": len(list((bank / name).iterdir()))}
    write_json(bank.parent / "bank.json", counts)
    return bank


def training_pictures(settings: CurateSettings) -> dict[str, list[Path]]:
    """Return the pictures of each class that are in no test part, in order of a hash so that sets of one class mix."""
    root: Path = settings.images  # type: ignore[assignment] # the project has one
    found: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.jpg")):
        named = any(fnmatch(file.relative_to(root).as_posix(), pattern) for pattern in settings.include)
        if named and hash_share(f"{file.parent.name}/{file.name}") >= TEST_SHARE:
            found.setdefault(class_of(file), []).append(file)
    return {name: sorted(files, key=lambda file: hash_share(file.name, "bank")) for name, files in found.items()}


def class_of(file: Path) -> str:
    """Return the class of a picture; RESISC45's `commercial_area` and AID's `Commercial` are one."""
    return file.parent.name.lower().removesuffix("_area")


def changed(image: Image.Image, kind: str) -> Image.Image:
    """Return a near copy of a picture."""
    if kind == "recompressed":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=40)
        return Image.open(buffer)
    if kind == "halved":
        return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    if kind == "brightened":
        return ImageEnhance.Brightness(image).enhance(1.2)
    if kind == "shifted":
        by = round(0.02 * image.width)
        moved = np.pad(np.asarray(image), ((by, 0), (by, 0), (0, 0)), "reflect")
        return Image.fromarray(moved[: image.height, : image.width])
    return image.transpose(Image.Transpose.ROTATE_90 if kind == "turned" else Image.Transpose.FLIP_LEFT_RIGHT)


def curation(out: Path, way: str, seed: int, bank: Path, keep: int) -> Stage:
    """Return the selection of one way and seed; `random` is one cluster, of which as many are kept by a hash."""
    sets = {"curate.images": bank, "curate.include": "[]", "curate.seed": seed, "curate.clusters.keep_places": keep}
    if way == "random":
        sets |= {"curate.clusters.levels": "[1]", "curate.duplicates.enabled": "false"}
    return Stage("curate", out / way / f"seed{seed}", "curated", tuple(f"--set={key}={value}" for key, value in sets.items()))


def training(out: Path, way: str, seed: int, steps: int) -> Stage:
    """Return the pre-training on one selection."""
    arguments = (f"--set=pretrain.seed={seed}", f"--set=pretrain.steps={steps}")
    return Stage("pretrain", out / way / f"seed{seed}", "pretrained", arguments)


def evaluation(out: Path, way: str, seeds: list[int]) -> Stage:
    """Return the evaluation of all seeds of a way; the untrained networks are the same in both, and measured once."""
    backbones = tuple(f"--backbone={out / way / f'seed{seed}' / 'pretrained'}" for seed in seeds)
    return Stage("evaluate", out / way, "evaluated", (*backbones, f"--set=evaluate.untrained={str(way == 'curated').lower()}"))


def selection_table(out: Path, bank: Path, seeds: list[int]) -> str:
    """Return what was kept, as Markdown: balance of the true classes, and planted copies beside another picture of the same."""
    lines = [
        "| | kept, each seed | entropy of the classes, bits | effective classes | pictures shown again |",
        "|---|--:|--:|--:|--:|",
    ]
    every = [path.relative_to(bank).as_posix() for path in sorted(bank.rglob("*.jpg"))]
    lines.append(_line("the bank", [every]))
    for way in WAYS:
        scenes = [pq.read_table(out / way / f"seed{seed}" / "curated" / "index.parquet")["scene"].to_pylist() for seed in seeds]
        lines.append(_line(f"`{way}`", scenes))
    return "\n".join(lines) + "\n"


def _line(title: str, selections: list[list[str]]) -> str:
    bits, again = [], []
    for scenes in selections:
        _, counts = np.unique([Path(scene).parts[0] for scene in scenes], return_counts=True)
        shares = counts / counts.sum()
        bits.append(float(-(shares * np.log2(shares)).sum()))
        again.append(len(scenes) - len({scene.split("-")[0].split(".")[0] for scene in scenes}))
    cells = [
        ", ".join(str(len(scenes)) for scenes in selections),
        ", ".join(f"{value:.2f}" for value in bits),
        ", ".join(f"{2**value:.1f}" for value in bits),
        ", ".join(map(str, again)),
    ]
    return f"| {title} | " + " | ".join(cells) + " |"


def rows(out: Path) -> list[Row]:
    """Return the rows of the tables: both ways, the untrained networks, and the paired differences."""

    def of(way: str, method: str = "trained") -> partial[list[Path]]:
        return partial(_files, out / way / "evaluated", method)

    untrained = of("curated", "untrained")
    plain = [Row(f"`{way}`", of(way)) for way in WAYS]
    paired = [Row("`curated` - `random`", of("curated"), of("random"))]
    above = [Row(f"`{way}` - untrained", of(way), untrained) for way in WAYS]
    return [*plain, Row("untrained", untrained), *paired, *above]


def _files(evaluated: Path, method: str, name: str, probe: tuple[str, str]) -> list[Path]:
    return predictions(evaluated, name, method, probe)


if __name__ == "__main__":
    main()
