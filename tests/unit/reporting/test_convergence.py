"""Runs on common axes: their names, their bands, and the section on a page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_folders import build_pretrained, finish

from cgeartheye.errors import InputError
from cgeartheye.files import read_json, write_json
from cgeartheye.reporting import report
from cgeartheye.reporting.comparing import Run, curve, differing, grouped
from cgeartheye.reporting.figures.lines import MOST_POINTS, Axes, Series, line_chart, thin
from cgeartheye.reporting.learning import alarm_spans, read_log
from cgeartheye.reporting.sections.convergence import read_run
from cgeartheye.settings.report import ReportSettings


def run(folder: str, values: list[float] | None = None, **recipe: Any) -> Run:
    """A run with one column, at steps 0, 10, 20 ..."""
    lines = [{"step": 10 * i, "cpu_seconds": 2.0 * i, "loss": value} for i, value in enumerate(values or [3.0, 2.0, 1.0])]
    return Run(folder, recipe, read_log(lines))


def test_names_take_what_tells_runs_apart() -> None:
    base = {"season.mode": "add", "seed": 0, "steps": 100, "optimizer.lr": 1e-3}
    runs = [run("a", **base), run("b", **(base | {"season.mode": "off"})), run("c", **(base | {"season.mode": "off", "seed": 1}))]
    groups = grouped(runs)
    assert [group.name for group in groups] == ["season.mode=add, seed=0", "season.mode=off, seeds 0, 1"]
    assert groups[1].names == ("season.mode=off, seed=0", "season.mode=off, seed=1")
    assert differing([r.recipe for r in runs]) == ["season.mode", "seed"]
    assert differing([{"watch.log_every": 1}, {"watch.log_every": 2}]) == []


def test_names_fall_back_on_folders() -> None:
    assert [g.name for g in grouped([run("a", seed=0), run("b", seed=0)])] == ["a/b"]
    of_another_release = grouped([run("a", seed=0, size=1), run("b", seed=0)])
    assert [g.name for g in of_another_release] == ["a", "b"]
    assert grouped([run("a", seed=0), run("b", seed=0)])[0].names == ("a", "b")


@given(
    st.lists(
        st.fixed_dictionaries({"season.mode": st.sampled_from("ab"), "seed": st.integers(0, 2), "x": st.integers(0, 4)}),
        min_size=1,
        max_size=9,
    )
)
def test_every_run_is_in_one_group_and_names_are_unique(recipes: list[dict[str, Any]]) -> None:
    runs = [run(f"r{i}", **recipe) for i, recipe in enumerate(recipes)]
    groups = grouped(runs)
    assert sorted(r.folder for g in groups for r in g.runs) == sorted(r.folder for r in runs)
    assert len({g.name for g in groups}) == len(groups) == len({(r["season.mode"], r["x"]) for r in recipes})
    every = [name for g in groups for name in g.names]
    assert len(set(every)) == len(every) == len(runs)


def test_seeds_are_a_mean_in_a_band_where_all_of_them_are() -> None:
    (group,) = grouped([run("a", [4.0, 2.0, 1.0], seed=0), run("b", [6.0, 4.0, 3.0, 9.0], seed=1)])
    drawn = curve(group, "step", "loss", factor=10.0)
    assert drawn is not None
    assert drawn.band is not None
    assert (drawn.x.tolist(), drawn.y.tolist()) == ([0, 10, 20], [50, 30, 20])
    assert drawn.band.tolist() == [[40, 20, 10], [60, 40, 30]]
    assert curve(group, "step", "probe_class") is None
    alone = curve(grouped([run("a", seed=0)])[0], "cpu_seconds", "loss")
    assert alone is not None
    assert (alone.band, alone.x.tolist()) == (None, [0, 2, 4])


def test_bands_are_thinned_with_their_curve_and_lie_inside_the_axes() -> None:
    x = np.arange(1000.0)
    series = Series("a", x, np.sin(x), np.stack([np.sin(x) - 3, np.sin(x) + 3]))
    thinned = thin(series)
    assert thinned.band is not None
    assert thinned.band.shape == (2, MOST_POINTS)
    np.testing.assert_allclose(thinned.band - thinned.y, np.array([[-3.0], [3.0]]) * np.ones(MOST_POINTS))
    body = str(line_chart("t", [series], Axes("x", "y", events=(500.0,))).body)
    assert body.count('class="band s1"') == 1
    assert body.count('class="event"') == 1
    assert ">2<" in body
    assert ">\N{MINUS SIGN}2<" in body


def test_rollbacks_and_alarms_are_read_from_the_log() -> None:
    lines = [{"step": s, "loss": 1.0, "rollbacks": n} for s, n in ((10, 0), (20, 0), (15, 1), (30, 1), (40, 3))]
    assert read_log(lines).rolled_back == (15, 40)
    assert read_log([{"step": 1, "loss": 1.0}]).rolled_back == ()
    spans = alarm_spans([{"step": 10, "alarm_loss_floor": "a"}, {"step": 20}, {"step": 30, "alarm_loss_floor": "b"}])
    assert [(s.name, s.first, s.last, s.lines, s.sentence) for s in spans] == [("loss floor", 10, 30, 2, "b")]


def _again(source: Path, folder: Path, changes: dict[str, Any], columns: dict[str, Any]) -> Path:
    """Copy a finished run with other settings and more columns in its log."""
    shutil.copytree(source, folder)
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().split("\n")[:-1]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line | columns) + "\n" for line in lines))
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"settings": manifest["settings"] | changes})
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Four runs: one of an older release, two seeds with everything new, one that still goes on."""
    first = build_pretrained(tmp_path / "first" / "pretrained")
    new = {
        "probe_class_linear": 0.7,
        "probe_retrieval": 0.4,
        "probe_retrieval_places": 256,
        "probe_patch_similarity": 0.3,
        "max_prototype_share": 0.02,
        "grad_norm": 3.0,
        "loss_gram": 0.01,
        "data_wait_share": 0.01,
        "rollbacks": 1,
        "alarm_loss_floor": "the loss stays <b>",
    }
    off = {"season": {"mode": "off", "weight": 1.0}}
    second = _again(first, tmp_path / "second", off, new)
    third = _again(first, tmp_path / "third", off | {"seed": 1}, new)
    live = _again(first, tmp_path / "live", {"backbone": "small"}, {})
    (live / "manifest.json").rename(live / "stage.json")
    return [first, second, third, live]


def test_the_page_compares_finished_and_running_runs(runs: list[Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    report(ReportSettings(pretrained=runs[1], compare=(*runs, empty)), tmp_path / "report")
    text = (tmp_path / "report/report.html").read_text()
    assert "Convergence of 4 runs" in text
    assert "season.mode=off, backbone=nano, seeds 0, 1" in text
    assert "season.mode=add, backbone=small, seed=0" in text
    assert "Not finished when this page was made: live." in text
    assert f"Left out: {empty}" in text
    assert "CPU seconds" in text
    for title in ("Linear probes", "Same place, other date", "Similarity of patches", "Largest prototype", "Gradient norm"):
        assert f"<h3>{title}</h3>" in text
    assert "<h3>Waiting for data</h3>" in text
    assert "<h3>Anchor of patches</h3>" in text
    assert "The run ended with an alarm: loss floor." in text
    assert "the loss stays &lt;b&gt;" in text
    assert "The run went back to a checkpoint" in text
    assert 'class="event"' in text


def test_an_anchor_that_never_acted_is_not_drawn(runs: list[Path], tmp_path: Path) -> None:
    idle = _again(runs[0], tmp_path / "idle", {}, {"loss_gram": 0.0})
    report(ReportSettings(pretrained=idle), tmp_path / "report")
    assert "Anchor of patches" not in (tmp_path / "report/report.html").read_text()


def test_runs_can_be_compared_without_any_stage(runs: list[Path], tmp_path: Path) -> None:
    report(ReportSettings(compare=tuple(runs[:2])), tmp_path / "report")
    assert "Convergence of 2 runs" in (tmp_path / "report/report.html").read_text()
    with pytest.raises(InputError, match="no such file or folder"):
        report(ReportSettings(compare=(runs[0], tmp_path / "nowhere")), tmp_path / "other")


def test_one_readable_run_is_no_comparison(runs: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "adapted"
    other.mkdir()
    finish(other, "adapt", {}, {}, seconds=1.0)
    report(ReportSettings(pretrained=runs[0], compare=(other,)), tmp_path / "report")
    text = (tmp_path / "report/report.html").read_text()
    assert "convergence: fewer than two runs can be compared" in text
    assert "No alarm" not in text  # a log from before there were alarms


def test_a_run_is_named_by_its_own_folder(runs: list[Path]) -> None:
    assert [read_run(path).folder for path in runs] == ["first", "second", "third", "live"]
    assert read_run(runs[3]).finished is False
