"""`report`: finished stage folders to one self-contained HTML file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from cgeartheye.errors import CGEarthEyeError, DataError, InputError
from cgeartheye.files import write_text
from cgeartheye.progress import SILENT, Progress
from cgeartheye.reporting.blocks import UNREADABLE, Fact, Section, reason_of
from cgeartheye.reporting.folders import StageFolder, finished_folder
from cgeartheye.reporting.page import render
from cgeartheye.reporting.sections import convergence, curation, data, evaluation, mapping, pretraining, record
from cgeartheye.settings.report import ReportSettings
from cgeartheye.stage import MANIFEST, open_stage

logger = logging.getLogger(__name__)

FOLDERS: Final = ("catalog", "curated", "pretrained", "evaluated", "adapted", "maps")
REPORT_NAME: Final = "report.html"

Item = TypeVar("Item", Fact, str)


def report(settings: ReportSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """Write ``report.html`` into ``out`` from whichever stage folders are given and finished, and return ``out``.

    The page is one file that loads nothing; equal folders and settings give equal bytes. A section whose folder is absent
    is named with the reason, a figure whose data is absent likewise; nothing is made up.

    Raises:
        InputError: if no folder was given, or one to compare is absent.
        DataError: if none of the given folders is finished.
    """
    given = {name: path for name in FOLDERS if (path := getattr(settings, name)) is not None}
    if not given and not settings.compare:
        raise InputError("there is nothing to report", remedy="give at least one stage's folder, or run the project first")
    folders, absent = _finished(settings)
    inputs = {name: folder.path for name, folder in folders.items()}
    inputs |= {f"compare.{number}": _known_by(path) for number, path in enumerate(settings.compare)}
    if settings.hold_out is not None:
        inputs["hold_out"] = settings.hold_out
    with open_stage(out, "report", settings, inputs) as stage:
        if stage.finished:
            return out
        sections, faults = _sections(settings, folders, progress)
        facts, verdict = _headline(folders)
        page = render(settings.title, sections, facts=facts, verdict=verdict, absent=[*absent, *faults])
        write_text(out / REPORT_NAME, page)
        shown = [section.name for section in sections]
        headline = f"{len(shown)} sections, {len(page.encode()) / 1e6:.1f} MB: {out / REPORT_NAME}"
        stage.finish({"headline": headline, "sections": shown, "left_out": dict([*absent, *faults])})
    return out


def _finished(settings: ReportSettings) -> tuple[dict[str, StageFolder], list[tuple[str, str]]]:
    folders: dict[str, StageFolder] = {}
    absent = []
    for name in FOLDERS:
        try:
            folders[name] = finished_folder(name, getattr(settings, name))
        except (DataError, InputError) as error:
            absent.append((name, error.what))
    if not folders and not settings.compare:
        raise DataError(
            "none of the given folders holds a finished stage: " + "; ".join(f"{n}: {why}" for n, why in absent),
            remedy="finish a stage first: cgeartheye run",
        )
    return folders, absent


def _known_by(run: Path) -> Path:
    """Return what tells whether a run to compare has changed: a finished one's folder, a running one's log."""
    log = run / "metrics.jsonl"
    return log if log.exists() and not (run / MANIFEST).exists() else run


def _sections(
    settings: ReportSettings, folders: dict[str, StageFolder], progress: Progress
) -> tuple[list[Section], list[tuple[str, str]]]:
    makers = _makers(settings, folders)
    sections, faults = [], []
    with progress.task("sections", len(makers)) as advance:
        for name, make in makers:
            try:
                sections.append(make())
            except UNREADABLE as error:
                logger.warning("the section %s is left out: %s", name, error, exc_info=not isinstance(error, CGEarthEyeError))
                faults.append((name, reason_of(error)))
            advance(1)
    return sections, faults


def _makers(settings: ReportSettings, folders: dict[str, StageFolder]) -> list[tuple[str, Callable[[], Section]]]:
    makers: list[tuple[str, Callable[[], Section]]] = []
    catalog, curated = folders.get("catalog"), folders.get("curated")
    adapted, maps = folders.get("adapted"), folders.get("maps")
    if catalog or (curated and curated.settings.get("source") != "images"):
        makers.append(("data", lambda: data.data_section(catalog, curated, settings.hold_out)))
    if curated:
        makers.append(("curation", lambda: curation.curation_section(curated, settings)))
    if "pretrained" in folders:
        makers.append(("pre-training", lambda: pretraining.pretraining_section(folders["pretrained"])))
    if settings.compare:
        compared = [*(folders[name].path for name in ("pretrained",) if name in folders), *settings.compare]
        makers.append(("convergence", lambda: convergence.convergence_section(compared)))
    if "evaluated" in folders:
        makers.append(("evaluation", lambda: evaluation.evaluation_section(folders["evaluated"])))
    if adapted or maps:
        makers.append(("map", lambda: mapping.mapping_section(adapted, maps, settings)))
    if folders:
        makers.append(("record", lambda: record.record_section(list(folders.values()), record.licences_of(folders))))
    return makers


def _headline(folders: dict[str, StageFolder]) -> tuple[list[Fact], list[str]]:
    facts: list[Fact] = []
    verdict: list[str] = []
    if "curated" in folders:
        facts += _if_readable(lambda: curation.headline(folders["curated"]))
    if "pretrained" in folders:
        facts += _if_readable(lambda: pretraining.headline(folders["pretrained"]))
    if "evaluated" in folders:
        verdict += _if_readable(lambda: evaluation.headline(evaluation.load_results(folders["evaluated"])))
    if "maps" in folders:
        verdict += _if_readable(lambda: mapping.headline(folders["maps"]))
    return facts, verdict


def _if_readable(make: Callable[[], Sequence[Item]]) -> Sequence[Item]:
    """Return ``make()``, or nothing where the data is broken: the section below says why."""
    try:
        return make()
    except UNREADABLE:
        return ()
