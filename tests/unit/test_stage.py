"""A stage folder: begun, interrupted, resumed, finished, stale, redone, locked."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from cgeartheye.errors import DataError, ResourceError, StaleStageError
from cgeartheye.settings.base import NOT_IDENTITY, Settings, StageSettings, UserPath
from cgeartheye.stage import known_parts, open_part, open_stage, read_manifest, retire, retired


class _Inner(Settings):
    depth: int = 1


class _Example(StageSettings):
    source: UserPath | None = None
    workers: int = Field(1, json_schema_extra=NOT_IDENTITY)
    rate: float = 0.5
    inner: _Inner = _Inner()


def _make(folder: Path, settings: _Example, source: Path) -> bool:
    with open_stage(folder, "example", settings, {"source": source}) as stage:
        if stage.finished:
            return False
        (folder / "result.txt").write_text("done")
        stage.finish({"headline": "one result"})
    return True


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.txt"
    path.write_text("input")
    return path


def test_a_finished_stage_is_read_not_written(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    assert _make(folder, _Example(), source)
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir() if p.name not in {"run.log", "stage.lock"}}
    assert not _make(folder, _Example(), source)
    assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir() if p.name not in {"run.log", "stage.lock"}}
    manifest = read_manifest(folder, "example")
    assert list(manifest["outputs"]) == ["result.txt"]
    assert manifest["schema_version"] == 1


def test_staleness_names_the_keys_and_ignores_workers_threads_and_moved_inputs(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    _make(folder, _Example(), source)
    moved = tmp_path / "elsewhere.txt"
    moved.write_text("input")
    assert not _make(folder, _Example(workers=7, threads=9, source=moved), moved)
    with pytest.raises(StaleStageError, match=r"settings\.inner\.depth, settings\.rate"):
        _make(folder, _Example(rate=0.1, inner=_Inner(depth=2)), source)
    source.write_text("other")
    with pytest.raises(StaleStageError, match=r"inputs\.source"):
        _make(folder, _Example(), source)
    assert (folder / "result.txt").read_text() == "done"


def test_an_interrupted_stage_refuses_other_settings_and_resumes_with_its_own(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(RuntimeError), open_stage(folder, "example", _Example(), {"source": source}):
        (folder / "piece.txt").write_text("half of the work")
        raise RuntimeError
    with pytest.raises(DataError, match="interrupted"):
        read_manifest(folder)
    with pytest.raises(StaleStageError):
        _make(folder, _Example(rate=0.1), source)
    assert _make(folder, _Example(), source)


def test_a_stage_that_failed_before_it_made_anything_takes_other_settings(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(RuntimeError), open_stage(folder, "example", _Example(), {"source": source}):
        raise RuntimeError
    assert _make(folder, _Example(rate=0.1), source)
    assert read_manifest(folder)["settings"]["rate"] == 0.1


def test_a_strangers_folder_is_not_written_into(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.doc").write_text("years of work")
    with pytest.raises(DataError, match="not empty"):
        _make(folder, _Example(), source)
    assert sorted(p.name for p in folder.iterdir() if p.name != "stage.lock") == ["thesis.doc"]


def test_two_processes_never_work_in_one_folder(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    with open_stage(folder, "example", _Example(), {"source": source}), pytest.raises(ResourceError, match="another process"):
        _make(folder, _Example(), source)


def test_parts_work_side_by_side_and_keep_the_whole_away(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    asked = ("example", _Example(), {"source": source})
    with open_part(folder, *asked, part="1-of-2"):
        with open_part(folder, *asked, part="2-of-2"):
            (folder / "piece.txt").write_text("one of them made it")
        with pytest.raises(ResourceError, match="on part 1-of-2"), open_stage(folder, *asked):
            pass
        with pytest.raises(ResourceError, match="on part 1-of-2"), open_part(folder, *asked, part="1-of-2"):
            pass
        with pytest.raises(StaleStageError, match="rate"), open_part(folder, "example", _Example(rate=0.1), {}, part="2-of-2"):
            pass
    assert known_parts(folder) == ["1-of-2", "2-of-2"]
    assert _make(folder, _Example(), source)
    assert list(read_manifest(folder)["outputs"]) == ["piece.txt", "result.txt"]


def test_a_part_of_a_finished_stage_has_nothing_to_do(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    _make(folder, _Example(), source)
    with open_part(folder, "example", _Example(), {"source": source}, part="1-of-2") as stage:
        assert stage.finished
    assert not (folder / "stage.json").read_text().count("null")


def test_the_seconds_of_all_parts_are_added(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    for part in ("1-of-2", "2-of-2"):
        with open_part(folder, "example", _Example(), {"source": source}, part=part) as stage:
            stage._clock -= 10
    assert _make(folder, _Example(), source)
    assert 20 <= read_manifest(folder)["seconds"] < 30


def test_redo_keeps_the_old_folder(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    _make(folder, _Example(), source)
    assert retire(folder).name == "out.1"
    _make(folder, _Example(), source)
    assert retire(folder).name == "out.2"
    assert [aside.name for aside in retired(folder)] == ["out.2", "out.1"]


def test_a_manifest_of_another_version_or_stage_is_refused(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    _make(folder, _Example(), source)
    with pytest.raises(DataError, match="holds the stage 'example'"):
        read_manifest(folder, "curate")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(DataError, match="schema_version 99"):
        read_manifest(folder)
