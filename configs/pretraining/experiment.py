"""What the experiments of this folder share: stages run as processes, two at a time, and figures gathered over seeds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cgeartheye.metrics.bootstrap import Estimate, Resamples, draw_resamples, estimate
from cgeartheye.settings.evaluate import ClassFolder, EvaluateSettings, RetrievalSet

REPLICATES = 2000
KINDS = {"retrieval": "recall at 1", "knn": "kNN", "linear": "linear"}
PLAIN = {"pixels": "pixels", "pixels_turned": "pixels", "colour_mean_std": "colour", "joint_histogram": "colour"}
"""What needs no network, and its readout."""
Scores = NDArray[np.float64]
"""(S, n) 1 where a test picture, or a query, was answered rightly by a training seed, else 0."""


@dataclass(frozen=True)
class Stage:
    """One call of a verb: it is skipped if its folder is finished, and goes on if it was interrupted."""

    verb: str
    out: Path
    folder: str
    arguments: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where its results lie."""
        return self.out / self.folder

    def finished(self) -> bool:
        """Say whether there is nothing left to do."""
        return (self.path / "manifest.json").exists()


def run_stages(project: Path, stages: Iterable[Stage], *, at_once: int) -> None:
    """Run stages that are not finished, ``at_once`` of them at a time, each on one core.

    Raises:
        SystemExit: naming those that failed; the others are finished, and the same call goes on.
    """
    todo = [stage for stage in stages if not stage.finished()]
    with ThreadPoolExecutor(at_once) as pool:
        faults = [fault for fault in pool.map(lambda stage: _run(project, stage), todo) if fault]
    if faults:
        raise SystemExit("\n".join(faults))


def _run(project: Path, stage: Stage) -> str | None:
    stage.out.mkdir(parents=True, exist_ok=True)
    log = stage.out / f"{stage.verb}.log"
    command = [
        sys.executable,
        "-m",
        "cgeartheye",
        stage.verb,
        "-p",
        str(project),
        "--out",
        str(stage.out),
        "-q",
        *stage.arguments,
    ]
    with log.open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=output, stderr=output, env=environment, check=False).returncode
    print(f"{stage.path}: {'done' if code == 0 else f'failed with {code}'}", flush=True)
    return f"{stage.path}: {log.read_text()[-2000:]}" if code else None


def predictions(evaluated: Path, name: str, method: str, probe: tuple[str, str]) -> list[Path]:
    """Return the prediction files of a set and a method, one a training seed; none if it was not measured."""
    readout, kind = probe
    pattern = re.compile(rf"{re.escape(f'{name}.{method}.')}s(\d+)\.{readout}\.{kind}\.parquet")
    found = {int(match[1]): path for path in (evaluated / "predictions").iterdir() if (match := pattern.fullmatch(path.name))}
    return [found[number] for number in sorted(found)]


def scores(files: Sequence[Path]) -> Scores:
    """Return what prediction files say of each picture: the label is right, or the place is found first."""
    tables = [pq.read_table(path) for path in files]
    rows = [
        np.array(t["rank"]) == 1 if "rank" in t.column_names else np.array(t["truth"]) == np.array(t["predicted"]) for t in tables
    ]
    return np.stack(rows).astype(np.float64)


def resamples(files: Sequence[Path], measured: ClassFolder | RetrievalSet) -> Resamples:
    """Return bootstrap draws over places (or pictures) and seeds; the same for every method of a set, so that they pair up."""
    table = pq.read_table(files[0])
    if isinstance(measured, RetrievalSet):
        groups = table["truth"].to_pylist()
    else:
        groups = [_group(name, measured) for name in table["name"].to_pylist()]
    return draw_resamples(groups, seeds=len(files), replicates=REPLICATES, seed=0)


def _group(name: str, folder: ClassFolder) -> str:
    kind, _, file = name.partition("/")
    match = re.search(folder.place_pattern, file) if folder.group == "place" else None
    return f"{kind}/{match[1]}" if match and match.groups() else name


@dataclass(frozen=True)
class Row:
    """A row of a table: where its prediction files lie, and against which ones it is held, if any."""

    title: str
    files: Callable[[str, tuple[str, str]], list[Path]]
    """(set, (readout, probe)) -> files, one a training seed."""
    against: Callable[[str, tuple[str, str]], list[Path]] | None = None


def tables(rows: Sequence[Row], settings: EvaluateSettings) -> str:
    """Return one Markdown table a set: a row each, a column each readout and probe, per cent with 95 % intervals."""
    parts = []
    sets: list[ClassFolder | RetrievalSet] = [*settings.datasets, *settings.retrieval]
    for measured in sets:
        probes = ("retrieval",) if isinstance(measured, RetrievalSet) else ("knn", "linear")
        columns = [(readout, probe) for readout in settings.readouts for probe in probes]
        lines = [f"**{measured.name}**", "", "| % | " + " | ".join(f"{r} {KINDS[p]}" for r, p in columns) + " |"]
        lines.append("|---|" + "--:|" * len(columns))
        lines += [f"| {row.title} | " + " | ".join(_cell(row, measured, column) for column in columns) + " |" for row in rows]
        lines += _plain(rows[0].files(measured.name, columns[0])[0].parents[1], measured, probes)
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(row: Row, measured: ClassFolder | RetrievalSet, column: tuple[str, str]) -> str:
    files = row.files(measured.name, column)
    if not files:
        return ""
    draws, own = resamples(files, measured), scores(files)
    if row.against is None:
        return shown(estimate(own, draws))
    found = estimate(own - scores(row.against(measured.name, column)), draws)
    text = shown(found, sign=True)
    return f"**{text}**" if found.low > 0 or found.high < 0 else text


def _plain(evaluated: Path, measured: ClassFolder | RetrievalSet, probes: Sequence[str]) -> list[str]:
    """Return a line for what needs no network, if it was measured."""
    told = []
    for method, readout in PLAIN.items():
        for probe in probes:
            files = predictions(evaluated, measured.name, method, (readout, probe))
            if files:
                told.append(f"{method} {KINDS[probe]} {shown(estimate(scores(files), resamples(files, measured)))}")
    return ["", "Without a network: " + "; ".join(told) + "."] if told else []


def shown(found: Estimate, *, sign: bool = False) -> str:
    """Return an estimate in per cent with its interval."""
    form = "+.1f" if sign else ".1f"
    value, low, high = (f"{100 * number:{form}}" for number in found)
    return f"{value} [{low}, {high}]"
