"""Words about results follow from the numbers, and from nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_folders import ROWS, result_record

from cgeartheye.errors import DataError
from cgeartheye.reporting.landmap import read_classes, read_scores
from cgeartheye.reporting.learning import probe_name, read_log, throughput
from cgeartheye.reporting.results import read_results, statements

shares = st.floats(-1, 1, allow_nan=False)


def _row(**changed: Any) -> dict[str, Any]:
    return {**result_record(ROWS[0]), **changed}


@given(low=shares, width=st.floats(0.001, 0.5))
def test_only_an_interval_wholly_above_zero_is_called_above(low: float, width: float) -> None:
    row = _row(against="untrained", difference=low + width / 2, difference_low=low, difference_high=low + width)
    (sentence,) = statements(read_results([row])[0])
    assert ("better than untrained network" in sentence) == (low > 0)
    assert ("worse than untrained network" in sentence) == (low + width < 0)
    assert ("no difference shown to untrained network" in sentence) == (low <= 0 <= low + width)


def test_rows_against_several_others_become_one_result() -> None:
    groups = read_results([result_record(r) for r in ROWS])
    assert [(g.probe, len(g.rows)) for g in groups] == [("knn", 6), ("linear", 4), ("retrieval", 3)]
    assert [c.against for c in groups[0].trained[0].comparisons] == ["untrained", "colour_mean_std", "joint_histogram"]
    assert [r.readout for r in groups[0].trained] == ["patch", "class"]


@pytest.mark.parametrize(("value", "word"), [(0.5, "lies above"), (0.658, "equals"), (0.7, "lies below")])
def test_the_joint_histogram_is_set_beside_the_best_trained_row(value: float, word: str) -> None:
    rows = [_row(value=value, against=None), {**result_record(ROWS[7])}]
    assert word in statements(read_results(rows)[0])[-1]


def test_undefined_values_are_no_results() -> None:
    with pytest.raises(DataError, match="no finite value"):
        read_results([_row(value=None), _row(value=float("nan"))])


def test_a_missing_interval_is_said_and_not_made_up() -> None:
    (sentence,) = statements(read_results([_row(low=None, high=None, against=None)])[0])
    assert "no interval recorded" in sentence
    assert "no paired comparison was recorded" in sentence


def test_the_log_keeps_the_last_line_of_a_repeated_step() -> None:
    lines = [{"step": 0, "loss": 9.0}, {"step": 1, "loss": 5.0, "samples": 32, "seconds": 2.0}]
    probed = {"probe_class": 0.5, "probe_rank": 7.0, "probe_labels": "label", "probe_chips": 9}
    log = read_log([*lines, {"step": 1, "loss": 4.0, "loss_season": 0.0, "rank": None, **probed}])
    assert log.steps.tolist() == [0, 1]
    assert log.columns["loss"].tolist() == [9, 4]
    assert [probe_name(name) for name in log.probes] == ["class token"]
    assert throughput(log).samples_per_second == 16
    assert (log.has("rank"), log.has("loss_season"), log.used("loss_season")) == (False, True, False)


def test_scores_put_the_map_before_what_it_is_compared_with() -> None:
    scores = {"miou": {"value": 0.5, "low": 0.4, "high": 0.6}, "iou": {"water": {"value": None, "low": None, "high": None}}}
    methods = read_scores({"schema_version": 1, "methods": {"colour": {**scores, "gain": 0.1}, "model": scores}})
    assert [m.method for m in methods] == ["model", "colour"]
    assert methods[0].by_class == ()  # undefined, hence absent, not zero
    with pytest.raises(DataError):
        read_scores({"schema_version": 1})


def test_only_true_colours_reach_the_legend() -> None:
    classes = read_classes(
        [{"name": "a", "colour": "#12aBcd"}, {"name": "b", "colour": '"/><script>'}, {"name": "c", "colour": [1, 2, 255]}]
    )
    assert [c.colour for c in classes] == ["#12abcd", "", "#0102ff"]
