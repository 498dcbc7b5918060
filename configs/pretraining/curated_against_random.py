"""Curated against random at equal size and equal training steps, on real pictures with an artificial imbalance.

    python configs/pretraining/curated_against_random.py configs/pretraining/imbalanced.yaml --steps 300

The bank is made of the training part (70 % by hash of class and name) of the twelve-class RESISC45 sample: classes in order of
name keep from 100 down to 1 of 100 of their pictures, and every picture of the larger half of the classes gets copies:
recompressed, halved, brightened, shifted by 2 %, turned, flipped. Of it, `curated` keeps `--keep` pictures by clusters after near
duplicates are dropped, `random` as many by chance. Both are trained for as many steps, with several seeds (of draw and training),
and read by the test part of all twelve classes. What is finished is skipped, so the same command may be given again.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from experiment import Row, Stage, predictions, run_stages, tables
from PIL import Image, ImageEnhance

from cgeartheye.files import write_json, write_text
from cgeartheye.seeding import hash_share
from cgeartheye.settings.project import load_project

WAYS = ("curated", "random")
TEST_SHARE = 0.3
LEAST = 0.01
"""Share of its pictures that the rarest class keeps: 100:1."""


def main() -> None:
    """Run what is missing, then gather."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="project file with the sections curate, pretrain and evaluate")
    parser.add_argument("--out", type=Path, help="default: `out` of the project")
    parser.add_argument("--keep", type=int, default=128, help="pictures that both ways keep")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=1, help="processes, of one core each")
    given = parser.parse_args()
    project = load_project(given.project)
    out: Path = (given.out or project.out).absolute()
    bank = make_bank(project.curate.images, out / "bank")  # type: ignore[union-attr,arg-type] # has one
    cells = [(way, seed) for way in WAYS for seed in given.seeds]
    run_stages(given.project, [curation(out, way, seed, bank, given.keep) for way, seed in cells], at_once=given.at_once)
    text = selection_table(out, bank, given.seeds)
    write_text(out / "selection.md", text)
    print(text, flush=True)
    run_stages(given.project, [training(out, way, seed, given.steps) for way, seed in cells], at_once=given.at_once)
    run_stages(given.project, [evaluation(out, way, given.seeds) for way in WAYS], at_once=given.at_once)
    text += "\n" + tables(rows(out), project.evaluate)  # type: ignore[arg-type] # has one
    write_text(out / "table.md", text)
    print(text)


def make_bank(pictures: Path, bank: Path) -> Path:
    """Write the imbalanced bank with its planted copies, once."""
    if (bank.parent / "bank.json").exists():
        return bank
    shutil.rmtree(bank, ignore_errors=True)
    classes = sorted(path.name for path in pictures.iterdir() if path.is_dir())
    counts: dict[str, dict[str, int]] = {}
    for number, name in enumerate(classes):
        files = [f for f in sorted((pictures / name).iterdir()) if hash_share(f"{name}/{f.name}") >= TEST_SHARE]
        chosen = files[: max(1, round(len(files) * LEAST ** (number / (len(classes) - 1))))]
        (bank / name).mkdir(parents=True)
        planted = 0
        for file in chosen:
            shutil.copy(file, bank / name / file.name)
            for kind, copy in copies(Image.open(file).convert("RGB")) if number < len(classes) // 2 else ():
                copy.save(bank / name / f"{file.stem}-{kind}.jpg", quality=90)
                planted += 1
        counts[name] = {"pictures": len(chosen), "copies": planted}
    write_json(bank.parent / "bank.json", counts)
    return bank


def copies(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Yield the planted near duplicates of a picture with their kind."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    yield "recompressed", Image.open(buffer)
    yield "halved", image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    yield "brightened", ImageEnhance.Brightness(image).enhance(1.2)
    by = round(0.02 * image.width)
    yield (
        "shifted",
        Image.fromarray(np.pad(np.asarray(image), ((by, 0), (by, 0), (0, 0)), "reflect")[: image.height, : image.width]),
    )
    yield "turned", image.transpose(Image.Transpose.ROTATE_90)
    yield "flipped", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def curation(out: Path, way: str, seed: int, bank: Path, keep: int) -> Stage:
    """Return the selection of one way and seed; `random` is one cluster, of which as many are kept by a hash."""
    sets = {"curate.images": bank, "curate.seed": seed, "curate.clusters.keep_places": keep}
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
