from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgeartheye.datasets.folder import read_class_folder, read_pictures
from cgeartheye.metrics.accuracy import overall_accuracy
from cgeartheye.probes.colour import joint_histogram, mean_std
from cgeartheye.probes.knn import knn_predict


@pytest.mark.imagery
def test_colour_baselines_reach_what_is_known_of_them(imagery: Path) -> None:
    """On another split of the same pictures, at 128 px, 65.8 % [61.1, 70.6] and 48.3 % [43.1, 53.6] were measured."""
    root = imagery / "classification" / "RESISC45_twelve_classes" / "NWPU-RESISC12" / "train"
    pictures = read_class_folder(root, split="hash")
    assert len(pictures.classes) == 12
    assert len(pictures.train) + len(pictures.test) + pictures.duplicates == 1200
    assert pictures.left_out == ()
    train, test = (np.array([r.label for r in part]) for part in (pictures.train, pictures.test))
    numbers = [(joint_histogram(i), mean_std(i)) for i in read_pictures((*pictures.train, *pictures.test))]
    histogram, colours = (np.stack(values) for values in zip(*numbers, strict=True))
    colours = (colours - colours[: len(train)].mean(axis=0)) / colours[: len(train)].std(axis=0)
    for features, low, high in ((histogram, 0.61, 0.71), (colours, 0.43, 0.54)):
        found = overall_accuracy(test, knn_predict(features[: len(train)], train, features[len(train) :]))
        assert low < found < high
