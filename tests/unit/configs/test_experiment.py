"""The tables of `configs/pretraining`: figures and paired differences out of prediction files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cgeartheye.evaluation.store import save_table
from cgeartheye.settings.evaluate import EvaluateSettings

SCRIPTS = Path(__file__).parents[3] / "configs" / "pretraining"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import experiment  # type: ignore[import-not-found]

    yield experiment
    sys.modules.pop("experiment")


def predict(evaluated: Path, method: str, ranks: list[list[int]]) -> None:
    """One file a seed, two queries a place."""
    for seed, rank in enumerate(ranks):
        truth = [f"p{number // 2}" for number in range(len(rank))]
        columns = {"name": [f"{place}.d0" for place in truth], "truth": truth, "predicted": truth, "rank": rank}
        save_table(evaluated / "predictions" / f"places.{method}.s{seed}.class.retrieval.parquet", columns)


def settings(tmp_path: Path) -> EvaluateSettings:
    return EvaluateSettings.model_validate({"readouts": ["class"], "retrieval": [{"name": "places", "curated": tmp_path}]})


def test_a_table_has_means_and_differences_paired_by_query_and_seed(experiment: object, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    one = draws.integers(1, 3, (3, 40))
    two = one.copy()
    two[:, :8] = 2  # lost by the second method, whatever the first did elsewhere
    predict(tmp_path / "a", "trained", one.tolist())
    predict(tmp_path / "b", "trained", two.tolist())

    def of(folder: str) -> object:
        return lambda name, probe: experiment.predictions(tmp_path / folder, name, "trained", probe)

    table = experiment.tables([experiment.Row("a", of("a")), experiment.Row("a - b", of("a"), of("b"))], settings(tmp_path))
    cells = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| a")}
    assert cells["a"].startswith(f"{100 * (one == 1).mean():.1f} [")
    difference = 100 * ((one == 1).mean() - (two == 1).mean())
    assert cells["a - b"].startswith(f"**+{difference:.1f} [+")  # the interval of paired rows is narrow enough to exclude 0


def test_seeds_come_in_order_of_their_number(experiment: object, tmp_path: Path) -> None:
    predict(tmp_path, "trained", [[1, 1]] * 11)
    files = experiment.predictions(tmp_path, "places", "trained", ("class", "retrieval"))
    assert [path.name.split(".")[2] for path in files] == [f"s{number}" for number in range(11)]
    assert experiment.predictions(tmp_path, "places", "untrained", ("class", "retrieval")) == []


def test_a_failed_stage_is_named_with_its_last_words(experiment: object, tmp_path: Path) -> None:
    project = tmp_path / "project.yaml"
    project.write_text("schema_version: 1\ncatalog: {scenes: [nowhere]}\n")
    with pytest.raises(SystemExit, match="nowhere"):
        experiment.run_stages(project, [experiment.Stage("catalog", tmp_path / "out", "catalog", ())], at_once=1)
