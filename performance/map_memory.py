"""Peak memory and CPU seconds of `map` over scenes of growing size, in one run: does memory stay where it is?

    python performance/map_memory.py --task demo/adapted --scene demo/world/mosaics/2024Q3.tif [--sides 1000 2000 4000]

Every size is the upper left corner of the scene, mapped by a process of its own with polygons, confidence and two workers. The
physical limit beside it: the bytes of a size's own raster, which any method that holds the whole scene must exceed several times.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import rasterio
from rasterio.windows import Window


def corner(scene: Path, side: int, out: Path) -> int:
    """Write the upper left ``side`` x ``side`` px of a scene; returns the bytes of its pixels."""
    with rasterio.open(scene) as source:
        if min(source.width, source.height) < side:
            sys.exit(f"{scene} is {source.width} x {source.height} px, smaller than the wanted {side}; give smaller --sides")
        profile = {**source.profile, "driver": "GTiff", "width": side, "height": side, "tiled": True}
        profile |= {"blockxsize": 512, "blockysize": 512, "compress": "deflate"}
        with rasterio.open(out, "w", **profile) as target:
            for top in range(0, side, 512):
                window = Window(0, top, side, min(512, side - top))
                target.write(source.read(window=window), window=window)
        return source.count * side * side


def mapped(task: Path, scene: Path, folder: Path) -> tuple[float, float]:
    """Map a scene in a process of its own; returns GB of its largest process and CPU seconds of all."""
    project = folder / "project.yaml"
    stage = f"map: {{task: {task.resolve()}, scenes: [{scene}], workers: 2}}"
    project.write_text(f"schema_version: 1\nname: memory\nout: {folder}\n{stage}\n")
    command = [sys.executable, "-m", "cgeartheye", "map", "-p", str(project), "--quiet"]
    pid = os.posix_spawn(sys.executable, command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        sys.exit(f"map ended with {os.waitstatus_to_exitcode(status)} on {scene}")
    return used.ru_maxrss / 2**20, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--scene", type=Path, required=True)
    parser.add_argument("--sides", type=int, nargs="+", default=[1000, 2000, 4000])
    arguments = parser.parse_args()
    first = None
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as scratch:
            scene = Path(scratch) / "scene.tif"
            held = corner(arguments.scene, side, scene)
            memory, seconds = mapped(arguments.task, scene, Path(scratch))
        first = first or memory
        print(
            f"{side} px: scene {held / 2**30:.3f} GB, largest process {memory:.3f} GB, {memory / first:.2f} of the first; "
            f"{seconds:.0f} CPU s, {1e6 * seconds / side**2:.2f} a megapixel",
            flush=True,
        )


if __name__ == "__main__":
    main()
