"""The section that compares pre-training runs: their curves on the same axes, over steps and over computing time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.reporting.blocks import Block, Figure, Section, Table, attempt
from cgeartheye.reporting.comparing import ABSENT, Group, Run, curve, differing, grouped
from cgeartheye.reporting.figures.lines import MOST_SERIES, Axes, line_chart
from cgeartheye.reporting.folders import read_lines
from cgeartheye.reporting.learning import LINEAR, READOUTS, read_log
from cgeartheye.reporting.sections.record import flat
from cgeartheye.reporting.wording import duration, listed, percent, plain, significant
from cgeartheye.stage import BEGUN, MANIFEST, read_manifest

SHARES: Final = {
    **{f"probe_{name}": f"Nearest neighbours: {words}" for name, words in READOUTS.items()},
    **{column: f"Linear probe: {words}" for column, words in LINEAR.items()},
    "probe_retrieval": "Retrieval of the same place at another date",
}
"""Columns in [0, 1] that are drawn in per cent."""
CURVES: Final = {
    "loss": ("Loss", "loss, nats"),
    "teacher_entropy": ("Teacher entropy", "share of its maximum"),
    "rank": ("Rank of a batch's features", "effective rank"),
    "probe_rank": ("Rank of the probe's features", "effective rank"),
    "probe_patch_similarity": ("Similarity of patches in a picture", "mean cosine"),
}
"""Other columns: title and name of the axis."""
CLOCKS: Final = {"gpu_seconds": "GPU seconds", "cpu_seconds": "CPU seconds", "seconds": "seconds of wall time"}
"""Columns of computing time; the first that every run records is used."""
LOSS_WORDS: Final = (
    "Runs with other terms, weights or numbers of prototypes have other losses: compare their shape, not their height."
)


def read_run(path: Path) -> Run:
    """Return a finished or a running pre-training run.

    Raises:
        DataError: if the folder is no run of `pretrain`, or has no log yet.
    """
    finished = (path / MANIFEST).exists()
    manifest = read_manifest(path, "pretrain") if finished else read_json(path / BEGUN)
    if not isinstance(manifest, dict) or manifest.get("stage") != "pretrain":
        raise DataError("is no run of pretrain", where=str(path))
    settings, inputs = manifest.get("settings"), manifest.get("inputs")
    recipe = dict(flat(settings if isinstance(settings, dict) else {}))
    data = inputs.get("curated") if isinstance(inputs, dict) else None
    if isinstance(data, str):
        recipe["data"] = data.split()[-1][:8]
    folder = path.parent.name if path.name == "pretrained" else path.name
    return Run(folder, recipe, read_log(read_lines(path / "metrics.jsonl")), finished)


def convergence_section(paths: Sequence[Path]) -> Section:
    """Return the section on several runs; one that cannot be read is named, the others are compared.

    Raises:
        DataError: if fewer than two can be read.
    """
    runs, lost = [], []
    for path in dict.fromkeys(paths):
        try:
            runs.append(read_run(path))
        except DataError as error:
            lost.append(f"{path}: {error.what}.")
    if len(runs) < 2:
        raise DataError("fewer than two runs can be compared" + (f" ({' '.join(lost)})" if lost else ""))
    groups = grouped(runs)
    clock = next((name for name in CLOCKS if all(run.log.has(name) for run in runs)), None)
    content: dict[str, object] = {
        "steps": _figures(groups, "step", "step"),
        "time": _figures(groups, clock, CLOCKS[clock]) if clock else [],
        "tables": [attempt("Last values", lambda: _last(groups)), *_differences(runs)],
    }
    return Section("convergence", f"Convergence of {len(runs)} runs", "convergence.html.j2", content, (), _said(groups, lost))


def _said(groups: Sequence[Group], lost: Sequence[str]) -> tuple[str, ...]:
    sentences = []
    if any(len(group.runs) > 1 for group in groups):
        sentences.append("Runs that differ in their seed only are one line: their mean, in the band of their least and greatest.")
    if len(groups) > MOST_SERIES:
        left_out = listed([group.name for group in groups[MOST_SERIES:]])
        sentences.append(f"Only {MOST_SERIES} lines are drawn; the table also has {left_out}.")
    named = len(differing([run.recipe for group in groups for run in group.runs]))
    if named > 1:
        sentences.append(f"Names are as short as tells the runs apart; all {named} settings that differ are listed below.")
    running = [run.folder for group in groups for run in group.runs if not run.finished]
    if running:
        sentences.append(f"Not finished when this page was made: {listed(running)}.")
    return (*sentences, *(f"Left out: {text}" for text in lost))


def _figures(groups: Sequence[Group], x: str, x_name: str) -> list[Block]:
    """Return a chart of every column that any run recorded."""
    runs = [run for group in groups for run in group.runs]
    wanted = [(name, title, y, 1.0) for name, (title, y) in CURVES.items()]
    wanted += [
        (name, title, "accuracy, %" if "retrieval" not in name else "found first, %", 100.0) for name, title in SHARES.items()
    ]
    return [
        attempt(title, lambda n=name, t=title, y=y, f=factor: _figure(groups, t, (x, n), Axes(x_name, y), f))  # type: ignore[misc]  # bound at once
        for name, title, y, factor in wanted
        if any(run.log.has(name) for run in runs)
    ]


def _figure(groups: Sequence[Group], title: str, columns: tuple[str, str], axes: Axes, factor: float) -> Figure:
    series = [one for group in groups[:MOST_SERIES] if (one := curve(group, *columns, factor=factor)) is not None]
    return line_chart(title, series, axes, caption=LOSS_WORDS if columns[1] == "loss" else "")


def _last(groups: Sequence[Group]) -> Table:
    """Return a row for every run with the last value of each column."""
    runs = [pair for group in groups for pair in zip(group.names, group.runs, strict=True)]
    shown = [name for name in (*CURVES, *SHARES) if any(run.log.has(name) for _, run in runs)]
    rows = []
    for name, run in runs:
        seconds = run.log.last("cpu_seconds"), run.log.last("seconds")
        values = [run.log.last(name) for name in shown]
        rows.append(
            (
                name,
                plain(int(run.log.steps[-1])),
                *(ABSENT if value is None else duration(value) for value in seconds),
                *(
                    ABSENT if v is None else percent(v) if n in SHARES else significant(v, 3)
                    for n, v in zip(shown, values, strict=True)
                ),
            )
        )
    heads = [CURVES[name][0] if name in CURVES else SHARES[name] for name in shown]
    header = ("run", "steps", "CPU time", "wall time", *heads)
    return Table("Last values", header, tuple(rows), frozenset(range(1, len(header))))


def _differences(runs: Sequence[Run]) -> list[Block]:
    keys = differing([run.recipe for run in runs])
    if not keys:
        return []
    rows = tuple((key, *(plain(run.recipe[key]) if key in run.recipe else ABSENT for run in runs)) for key in keys)
    return [Table("Settings that differ", ("setting", *(run.folder for run in runs)), rows, folded=len(keys) > 8)]
