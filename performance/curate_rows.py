"""Memory of the rows of all chips in `curate`, where it joins its pieces: bytes a row at two sizes, told for 16 million.

    OMP_NUM_THREADS=1 python performance/curate_rows.py [--rows 250000 1000000] [--cut 0.02]

Generated index rows, four dates a place, texts as long as real ones. Each size in a process of its own, which prints after each
step the most memory that was its own (RssAnon): pages of mapped files belong to the kernel. Peers in the same run: the same rows
read into memory by pyarrow, as is. Features, clusters and duplicates have measurements of their own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cgeartheye.curation.embedding import anchor_rows
from cgeartheye.curation.pieces import LOOKED_AT, REJECTED, Pieces
from cgeartheye.curation.ranking import rank_chips
from cgeartheye.curation.selection import Selection
from cgeartheye.curation.tables import write_places
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import INDEX_NAME, INDEX_SCHEMA

DATES = 4
WANTED = 16_000_000
TEXTS = {"crs": "EPSG:32650", "region": "CHN-Heilongjiang", "land_cover": "built-up", "licence": "proprietary"}


def write_rows(folder: Path, n: int) -> None:
    """Write the index of n generated chips, block by block."""
    with pq.ParquetWriter(folder / INDEX_NAME, INDEX_SCHEMA) as file:
        for first in range(0, n, 65_536):
            number = np.arange(first, min(first + 65_536, n))
            file.write_table(rows_of(number))


def rows_of(number: np.ndarray) -> pa.Table:
    """Return rows of chips by number."""
    random = np.random.default_rng(int(number[0]))
    known: dict[str, Any] = {name: [text] * len(number) for name, text in TEXTS.items()}
    known |= {"place": [f"c{14_000 + k // 4 // 30_000}_{k // 4 % 30_000}" for k in number], "date_index": number % DATES}
    known |= {"shard": [f"{k // 3000:06d}.tar" for k in number], "offset": number % 3000 * 84_000, "quarter": number % 4 + 1}
    known |= {"scene": [f"JL1KF01A_PMS05_202208141045{k % 40:02d}_200097070_101_0017_001_L3D_PSH" for k in number]}
    known |= {"stratum": [f"CHN-Heilongjiang/built-up/{k // 4 % 40}" for k in number]}
    columns = []
    for field in INDEX_SCHEMA:
        if field.name in known:
            columns.append(pa.array(known[field.name], field.type))
        elif pa.types.is_string(field.type):
            columns.append(pa.nulls(len(number), field.type))
        else:
            values = (
                random.random(len(number)) * 100
                if pa.types.is_floating(field.type)
                else random.integers(0, 100, len(number), np.int32)
            )
            columns.append(pa.array(values).cast(field.type))
    return pa.table(columns, schema=INDEX_SCHEMA)


class Own:
    """The most memory of this process that no file stands behind, since it was last asked."""

    def __init__(self) -> None:
        self._peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, self.now())
            time.sleep(0.002)

    def now(self) -> int:
        """Bytes at this moment."""
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024

    def of(self, step: Callable[[], Any]) -> tuple[Any, int, int]:
        """Return what a step makes, and the bytes that it took at most and that it leaves."""
        before = self._peak = self.now()
        made = step()
        return made, max(self._peak, self.now()) - before, self.now() - before


def child(folder: Path, cut: float) -> None:
    """Measure the steps over one index and print bytes as JSON."""
    own, told = Own(), {}
    pieces = Pieces(folder, REJECTED.empty_table(), {})
    quality = {"cut_worst": {"haze": cut}} if cut else {}
    rows, *told["map rows"] = own.of(lambda: pieces.rows)
    ranked, *told["rank"] = own.of(lambda: rank_chips(rows, CurateSettings.model_validate({"quality": quality}), folder))
    where = pc.equal(rows["date_index"], 0)
    first, *told["names and strata of places"] = own.of(lambda: rows.select(["place", "stratum"]).filter(where))
    lists, *told["the same as lists"] = own.of(lambda: [first[name].to_pylist() for name in first.column_names])
    anchors, *told["rows to compare places by"] = own.of(lambda: anchor_rows(ranked.shown.select(LOOKED_AT)))
    n = len(lists[0])
    selection = Selection(np.zeros(n, np.int32), np.ones(n, bool), np.arange(n), pa.table({}))
    _, *told["places.parquet with footprints"] = own.of(lambda: write_places(folder, ranked.rows, selection, archive=True))
    plain, *told["peer: all rows read"] = own.of(lambda: pq.read_table(folder / INDEX_NAME))
    print(json.dumps({"rows": len(plain), "places": len(lists[0]), "anchors": len(anchors), "steps": told}))


def main() -> None:
    """Measure each size and print bytes a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--cut", type=float, default=0.0)
    parser.add_argument("--child", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.cut)
        return
    for n in arguments.rows:
        with tempfile.TemporaryDirectory() as name:
            write_rows(Path(name), n)
            command = [sys.executable, __file__, "--child", name, "--cut", str(arguments.cut)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(f"{n} rows, {found['places']} places: bytes a row at most / that stay; GB that stay of {WANTED / 1e6:.0f} M rows")
        for step, (most, left) in found["steps"].items():
            print(f"  {step}: {most / n:.0f} / {left / n:.0f}; {left / n * WANTED / 1e9:.1f}")


if __name__ == "__main__":
    main()
