"""The map section: each scene's map, truth and picture under a swipe, scores per class, and the task model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.reporting.blocks import UNREADABLE, Block, Fact, Key, Missing, Picture, Section, Table, attempt
from cgeartheye.reporting.figures.bars import Bars, bar_chart
from cgeartheye.reporting.figures.intervals import Estimate, interval_chart
from cgeartheye.reporting.figures.svg import swatch
from cgeartheye.reporting.folders import Record, StageFolder
from cgeartheye.reporting.images import read_picture
from cgeartheye.reporting.landmap import MethodScores, Score, Shown, read_classes, read_scores
from cgeartheye.reporting.sections.data import left_out_table
from cgeartheye.reporting.wording import count, interval, percent, points
from cgeartheye.settings.report import ReportSettings

LAYERS = (("preview.png", "Map", True), ("truth_preview.png", "Truth", True), ("scene_preview.png", "Scene", False))


@dataclass(frozen=True)
class SceneView:
    """One mapped scene: pictures for the swipe, which two it starts with, its legend and its scores."""

    name: str
    layers: tuple[Picture, ...]
    left: int
    right: int
    legend: tuple[Key, ...]
    blocks: tuple[Block, ...]
    said: str


def mapping_section(adapted: StageFolder | None, maps: StageFolder | None, settings: ReportSettings) -> Section:
    """Return the section on the task model and its maps; either folder may be absent."""
    task: Record = {} if adapted is None else _task(adapted)
    classes = read_classes(task.get("classes"))
    folders = [] if maps is None else _scene_folders(maps.path)
    views = [_scene(folder, classes, settings.map_px) for folder in folders[: settings.scenes_shown]]
    figures: list[Block] = []
    if adapted is not None:
        figures.append(attempt("Task model on its validation pictures", lambda: _task_scores(task)))
    tables: list[Block] = []
    if folders:
        tables.append(attempt("Scores of every mapped scene", lambda: _all_scores(folders)))
    if maps is not None and (maps.path / "left_out.json").exists():
        tables.append(attempt("Scenes that were left out", lambda: left_out_table("Scenes that were left out", maps)))
    facts = _facts(task, folders, maps is not None)
    said = tuple(sentence for folder in folders for sentence in _statements(folder))
    content = {"scenes": views, "figures": figures, "tables": tables}
    return Section("map", "Map", "mapping.html.j2", content, facts, said)


def _task(adapted: StageFolder) -> Record:
    value = read_json(adapted.path / "task.json")
    return value if isinstance(value, dict) else {}


def _facts(task: Record, folders: Sequence[Path], mapped: bool) -> tuple[Fact, ...]:  # noqa: FBT001 - one of three facts
    facts = []
    if isinstance(task.get("task"), str):
        facts.append(Fact(task["task"], "task"))
    if classes := read_classes(task.get("classes")):
        facts.append(Fact(count(len(classes)), "classes"))
    if mapped:
        facts.append(Fact(count(len(folders)), f"scene{'s' if len(folders) != 1 else ''} mapped"))
    return tuple(facts)


def _scene_folders(maps: Path) -> list[Path]:
    return sorted(p for p in maps.iterdir() if p.is_dir() and not p.name.startswith(".") and (p / "classes.tif").exists())


def _scene(folder: Path, classes: Sequence[Shown], map_px: int) -> SceneView:
    layers: list[Picture] = []
    blocks: list[Block] = []
    for name, title, sharp in LAYERS:
        if name != "preview.png" and not (folder / name).exists():
            continue
        try:
            picture = read_picture(folder / name, map_px, alt=f"{title} of {folder.name}", sharp=sharp)
        except DataError as error:
            blocks.append(Missing(title, error.what))
            continue
        layers.append(Picture(picture.uri, picture.width, picture.height, picture.alt, title))
    if (folder / "scores.json").exists():
        blocks += [
            attempt("IoU by class", lambda: _by_class(folder)),
            attempt("Against the baselines", lambda: _against(folder)),
        ]
    else:
        blocks.append(Missing("Scores", "no truth was given for this scene"))
        blocks.append(attempt("Share of the mapped ground", lambda: _shares(folder)))
    legend = tuple(Key(c.name, swatch("box", "bar b1", c.colour)) for c in classes)
    return SceneView(folder.name, tuple(layers), 0, min(1, max(len(layers) - 1, 0)), legend, tuple(blocks), _record_words(folder))


def _scores(folder: Path) -> tuple[MethodScores, ...]:
    return read_scores(read_json(folder / "scores.json"))


def _record(folder: Path) -> Record:
    value = read_json(folder / "scene.json")
    if not isinstance(value, dict):
        raise DataError("scene.json holds no record")
    return value


def _record_words(folder: Path) -> str:
    """Return a line on what was mapped; nothing where the record is absent or incomplete."""
    try:
        record = _record(folder)
        size = f"{count(record['width'])} \N{MULTIPLICATION SIGN} {count(record['height'])} px of {float(record['gsd_m']):.4g} m"
        lost = len(record["lost"])
        words = f"{count(record['windows'])} windows, {f'{lost} of them could not be read' if lost else 'all of them read'}"
    except UNREADABLE:
        return ""
    return f"{size}; {words}; {percent(float(record.get('unmapped_share') or 0.0))} without data."


def _shares(folder: Path) -> Block:
    shares = _record(folder).get("shares")
    known = {str(k): float(v) for k, v in shares.items()} if isinstance(shares, dict) else {}
    ordered = sorted(known.items(), key=lambda item: -item[1])
    bars = Bars("share", tuple(v for _, v in ordered))
    return bar_chart("Share of the mapped ground", [k for k, _ in ordered], [bars], unit="share of the pixels", write=percent)


def _by_class(folder: Path) -> Block:
    first = _scores(folder)[0]
    rows = [_estimate(name, score, strong=False) for name, score in sorted(first.by_class, key=lambda item: -item[1].value)]
    if first.miou is not None:
        rows.append(_estimate("mean of the classes", first.miou, strong=True))
    return interval_chart("IoU by class", rows, unit="IoU, %", caption="With 95 % intervals over blocks of ground.")


def _against(folder: Path) -> Block:
    methods = _scores(folder)
    if len(methods) < 2:
        raise DataError("no baseline was scored")
    rows = [_estimate(m.name, m.miou, strong=i == 0, note=m.note) for i, m in enumerate(methods) if m.miou is not None]
    return interval_chart("Against the baselines", rows, unit="mean IoU, %", caption="The same pixels for all methods.")


def _estimate(name: str, score: Score, *, strong: bool, note: str = "") -> Estimate:
    low, high = (None if v is None else v * 100 for v in (score.low, score.high))
    return Estimate(name, score.value * 100, low, high, strong, note)


def _task_scores(task: Record) -> Block:
    scores = task.get("scores")
    methods = read_scores(scores)
    rows = tuple(
        (m.name, _written(m.miou), _written(m.accuracy), "\N{EN DASH}" if m.gain is None else _gain(m.gain)) for m in methods
    )
    header = ("method", "mean IoU", "overall accuracy", "gain of the task model")
    groups = scores.get("groups") if isinstance(scores, dict) else None
    caption = f"95 % intervals over {'whole pictures' if groups == 'picture' else 'blocks of ground'}."
    return Table("Task model on its validation pictures", header, rows, frozenset({1, 2, 3}), caption)


def _all_scores(folders: Sequence[Path]) -> Block:
    rows = []
    for folder in folders:
        if not (folder / "scores.json").exists():
            rows.append((folder.name, "no truth was given", "\N{EN DASH}", "\N{EN DASH}", "\N{EN DASH}"))
            continue
        rows += [
            (folder.name, m.name, _written(m.miou), _written(m.accuracy), "\N{EN DASH}" if m.gain is None else _gain(m.gain))
            for m in _scores(folder)
        ]
    header = ("scene", "method", "mean IoU", "overall accuracy", "gain of the map")
    return Table("Scores of every mapped scene", header, tuple(rows), frozenset({2, 3, 4}))


def _written(score: Score | None) -> str:
    if score is None:
        return "not defined"
    if score.low is None or score.high is None:
        return percent(score.value)
    return f"{percent(score.value)} {interval(score.low, score.high)}"


def _gain(score: Score) -> str:
    if score.low is None or score.high is None:
        return points(score.value)
    return f"{points(score.value)} {interval(score.low, score.high, signed=True)}"


def _statements(folder: Path) -> tuple[str, ...]:
    """Return one sentence on a scored scene; a scene without readable scores has none here, its block says why."""
    try:
        first, *others = _scores(folder)
    except DataError:
        return ()
    said = f"{folder.name}: mean IoU {_written(first.miou)}"
    compared = [m for m in others if m.gain is not None]
    if compared:
        said += "; " + "; ".join(f"{_gain(m.gain)} over {m.name}, {_verdict(m.gain)}" for m in compared if m.gain is not None)
    return (said + ".",)


def _verdict(gain: Score) -> str:
    if gain.low is None or gain.high is None:
        return "without an interval"
    return "interval above zero" if gain.low > 0 else "interval below zero" if gain.high < 0 else "interval includes zero"


def headline(maps: StageFolder) -> tuple[str, ...]:
    """Return the sentence of the page's head on the first scored scene."""
    return tuple(s for folder in _scene_folders(maps.path) for s in _statements(folder))[:1]
