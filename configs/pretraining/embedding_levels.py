"""Two readings of "multi-level representation": depths of the network or depth of the tree. Which one balances a selection more?

    python configs/pretraining/embedding_levels.py configs/pretraining/imbalanced.yaml

Works on the bank and the first network that `curated_against_random.py` left in the same folder. The bank's different pictures
(without its planted copies) are described once by every block of the network, and by colour. Every description is clustered
into trees of one, two and three levels with several seeds, `--keep` pictures are selected, and the entropy of their true
classes is reported beside a draw by chance and the most that the bank allows. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.clustering.balance import capped_shares
from cgeartheye.curation.selection import Traits, cluster_places, select_places
from cgeartheye.files import write_text
from cgeartheye.inference.features import extract_levels
from cgeartheye.probes.colour import joint_histogram
from cgeartheye.settings.curate import ClusterSettings
from cgeartheye.settings.project import load_project
from cgeartheye.weights.load import load_backbone

SIZE_PX = 128
TREES = ((8,), (32,), (128,), (128, 16), (128, 32, 8))
"""Clusters of each level from fine to coarse."""
Blocks = Sequence[NDArray[np.float32]]


def main() -> None:
    """Measure every description with every tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="the project that `curated_against_random.py` was run with")
    parser.add_argument("--out", type=Path, help="default: `out` of the project")
    parser.add_argument("--keep", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    out: Path = (given.out or load_project(given.project).out).absolute()
    files = [path for path in sorted((out / "bank").rglob("*.jpg")) if "-" not in path.name]
    classes = np.unique([path.parent.name for path in files], return_inverse=True)[1]
    lines = ["| description | " + " | ".join(" > ".join(map(str, reversed(tree))) for tree in TREES) + " |"]
    lines.append("|---|" + "--:|" * len(TREES))
    for name, (blocks, combine) in descriptions(files, out / "first" / "pretrained").items():
        cells = [
            _cell([path.name for path in files], classes, blocks, (tree, combine, given.keep), given.seeds) for tree in TREES
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    sizes = np.bincount(classes)
    chance = [np.random.default_rng(seed).permutation(classes)[: given.keep] for seed in range(200)]
    by_chance = np.mean([bits(np.bincount(drawn)) for drawn in chance])
    most = bits(capped_shares(sizes.astype(np.int64), given.keep))
    lines.append(
        f"\nBy chance {by_chance:.2f}; all {len(files)} pictures {bits(sizes):.2f}; the most that they allow {most:.2f}."
    )
    write_text(out / "levels.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


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
    for chosen in ((3, 1), (1, 3), (3, 0), (3, 1, 0), (0, 1, 3)):
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
