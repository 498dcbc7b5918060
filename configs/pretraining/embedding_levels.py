"""Two readings of "multi-level representation": depths of the network or depth of the tree. Which one balances a selection more?

    python configs/pretraining/embedding_levels.py configs/pretraining/imbalanced.yaml

Two imbalanced banks (100:1) are made as `curated_against_random.py` makes them: of the classes that the project evaluates, and of
all. As a user would, the larger one is curated by colour with everything kept, and a first network is trained on it. Their
different pictures (without planted copies) are described by every block of that network, and by colour; every description is
clustered into trees of one, two and three levels with several seeds, an eighth or so of the pictures is selected, and the entropy
of their true classes is reported beside a draw by chance and the most that the bank allows.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from curated_against_random import evaluated_bank, make_bank, training_pictures
from experiment import Stage, run_stages
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.clustering.balance import capped_shares
from cgeartheye.curation.selection import Traits, cluster_places, select_places
from cgeartheye.files import write_text
from cgeartheye.inference.features import extract_levels
from cgeartheye.probes.colour import joint_histogram
from cgeartheye.seeding import stream
from cgeartheye.settings.curate import ClusterSettings
from cgeartheye.settings.project import load_project
from cgeartheye.weights.load import load_backbone

SIZE_PX = 128
TREES = ((1 / 16,), (1 / 4,), (1,), (1, 1 / 8), (1, 1 / 4, 1 / 16))
"""Clusters of each level from fine to coarse, for one picture that is kept."""
Blocks = Sequence[NDArray[np.float32]]


def main() -> None:
    """Make what is missing, then measure every description with every tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="the project of `curated_against_random.py`")
    parser.add_argument("--out", type=Path, help="default: `out` of the project")
    parser.add_argument("--steps", type=int, default=300, help="of the network that describes the banks")
    parser.add_argument("--keep", type=int, nargs=2, default=[64, 128], help="pictures of the smaller and the larger bank")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    project = load_project(given.project)
    out: Path = (given.out or project.out).absolute()
    found = training_pictures(project.curate)  # type: ignore[arg-type] # has one
    larger = make_bank(found, out / "first" / "bank")
    run_stages(given.project, [first_curation(out / "first", larger)], at_once=1)
    run_stages(
        given.project, [Stage("pretrain", out / "first", "pretrained", (f"--set=pretrain.steps={given.steps}",))], at_once=1
    )
    text = ""
    for bank, keep in zip((evaluated_bank(project, out), larger), given.keep, strict=True):
        text += table(bank, out / "first" / "pretrained", keep, given.seeds) + "\n"
        write_text(out / "levels.md", text)
    print(text)


def first_curation(out: Path, bank: Path) -> Stage:
    """Return the whole bank as it is."""
    sets = {"curate.images": bank, "curate.include": "[]", "curate.duplicates.enabled": "false", "curate.clusters.levels": "[1]"}
    return Stage("curate", out, "curated", tuple(f"--set={key}={value}" for key, value in sets.items()))


def table(bank: Path, pretrained: Path, keep: int, seeds: Sequence[int]) -> str:
    """Return the entropies of a bank as Markdown."""
    files = [path for path in sorted(bank.rglob("*.jpg")) if "-" not in path.name]
    classes = np.unique([path.parent.name for path in files], return_inverse=True)[1]
    trees = [tuple(max(1, round(share * keep)) for share in tree) for tree in TREES]
    lines = ["| description | " + " | ".join(" > ".join(map(str, reversed(tree))) for tree in trees) + " |"]
    lines.append("|---|" + "--:|" * len(trees))
    for name, (blocks, combine) in descriptions(files, pretrained).items():
        cells = [_cell([path.name for path in files], classes, blocks, (tree, combine, keep), seeds) for tree in trees]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    sizes = np.bincount(classes)
    by_chance = np.mean([bits(np.bincount(stream(seed, "by chance").permutation(classes)[:keep])) for seed in range(200)])
    most = bits(capped_shares(sizes.astype(np.int64), keep))
    said = f"{keep} of {len(files)} pictures of {len(sizes)} classes: by chance {by_chance:.2f} bits, at most {most:.2f}."
    return "\n".join([said, "", *lines]) + "\n"


def descriptions(files: Sequence[Path], pretrained: Path) -> Mapping[str, tuple[Blocks, str]]:
    """Return the parts (n, d_l) of each description, of unit length, and how they are combined."""
    pictures = [
        np.asarray(Image.open(path).convert("RGB").resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)) for path in files
    ]
    backbone = load_backbone(pretrained)
    depth = range(backbone.depth)
    readouts = ("class", "mean")
    found = extract_levels(backbone, pictures, layers=list(depth), readouts=readouts, size_px=SIZE_PX)
    unit = [_unit(block) for block in found]
    both = [_unit(np.concatenate(unit[2 * at : 2 * at + 2], axis=1)) for at in depth]
    named: dict[str, tuple[Blocks, str]] = {"colour": ([np.stack([joint_histogram(picture) for picture in pictures])], "jointly")}
    named |= {f"block {at}: class token + mean patch": ([both[at]], "jointly") for at in depth}
    named |= {"block 3: class token": ([unit[-2]], "jointly"), "block 3: mean patch": ([unit[-1]], "jointly")}
    for chosen in ((1, 3), (0, 3), (0, 1, 3), (0, 1, 2, 3)):
        named[f"blocks {', '.join(map(str, chosen))} jointly"] = ([both[at] for at in chosen], "jointly")
    for chosen in ((3, 1), (1, 3), (3, 0), (0, 3), (3, 1, 0), (0, 1, 3)):
        named[f"blocks {', '.join(map(str, chosen))} in turn"] = ([both[at] for at in chosen], "in_turn")
    return named


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _cell(
    names: Sequence[str],
    classes: NDArray[np.int64],
    blocks: Blocks,
    how: tuple[tuple[int, ...], str, int],
    seeds: Sequence[int],
) -> str:
    """Return mean and extremes of the entropy over seeds; nothing where the tree has not a level for each description."""
    levels, combine, keep = how
    if combine == "in_turn" and len(levels) != len(blocks):
        return ""
    rows, widths = _unit(np.concatenate(blocks, axis=1)), [block.shape[1] for block in blocks]
    settings = ClusterSettings(levels=levels, keep_places=keep)
    found = []
    for seed in seeds:
        tree = cluster_places(names, rows, widths, settings, combine=combine, seed=seed)
        traits = Traits([None] * len(names), np.ones(len(names), np.int64))
        kept = select_places(names, tree, settings, usable=np.ones(len(names), bool), traits=traits, seed=seed).kept
        found.append(bits(np.bincount(classes[kept])))
    return f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def bits(counts: NDArray[np.int64]) -> float:
    """Return the entropy in bits of what was counted (k,)."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


if __name__ == "__main__":
    main()
