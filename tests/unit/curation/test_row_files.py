from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgeartheye.clustering import build_tree, kmeans
from cgeartheye.curation.row_files import RowFiles
from cgeartheye.errors import DataError


def files(folder: Path, rows: np.ndarray, *cuts: int) -> list[Path]:
    paths = []
    for number, part in enumerate(np.split(rows, cuts)):
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], part)
    return paths


def test_files_give_what_one_array_gives(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(900, 6)).astype(np.float16)
    many = RowFiles(files(tmp_path, rows, 200, 200, 731))
    assert many.shape == rows.shape
    assert (many[150:760] == rows[150:760]).all()
    some = np.array([0, 199, 200, 201, 730, 731, 899])
    assert (many[some] == rows[some]).all()
    assert kmeans(many, 70, seed=1).centroids.tobytes() == kmeans(rows, 70, seed=1).centroids.tobytes()
    one, two = (build_tree(x, (70, 8), seed=1, rounds=2) for x in (many, rows))
    assert one.labels[0].tobytes() == two.labels[0].tobytes()


def test_broken_files_are_named(tmp_path: Path) -> None:
    paths = files(tmp_path, np.zeros((9, 4), np.float16), 5)
    np.save(tmp_path / "wide.npy", np.zeros((3, 5), np.float16))
    with pytest.raises(DataError, match="differ"):
        RowFiles([*paths, tmp_path / "wide.npy"])
    (tmp_path / "torn.npy").write_bytes(paths[0].read_bytes()[:90])
    with pytest.raises(DataError, match=r"torn\.npy"):
        RowFiles([*paths, tmp_path / "torn.npy"])
    np.save(tmp_path / "whole.npy", np.zeros((3, 4), np.int64))
    with pytest.raises(DataError, match="float16"):
        RowFiles([tmp_path / "whole.npy"])
