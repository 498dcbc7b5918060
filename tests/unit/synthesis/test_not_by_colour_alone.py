"""Three pairs of classes need structure: colour statistics part them badly, the same colours with gradients well."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis.canvas import make_canvas
from cgeartheye.synthesis.holdout import chip_classes
from cgeartheye.synthesis.layout import make_layout
from cgeartheye.synthesis.render import render_quarter
from cgeartheye.synthesis.uses import CLASSES

Features = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def colour(chip: NDArray[np.float32]) -> list[float]:
    return [*chip.mean(axis=(1, 2)), *chip.std(axis=(1, 2))]


def texture(chip: NDArray[np.float32]) -> list[float]:
    grey, found = chip.mean(axis=0), []
    for _ in range(4):
        east, south = np.diff(grey, axis=1)[:-1], np.diff(grey, axis=0)[:, :-1]
        length, angle = np.hypot(east, south), np.arctan2(south, east)
        found += [length.mean(), length.std(), abs((length * np.exp(4j * angle)).sum()) / length.sum()]
        grey = grey.reshape(len(grey) // 2, 2, -1, 2).mean(axis=(1, 3))
    return [float(value) for value in found]


@pytest.fixture(scope="module")
def chips() -> Features:
    colours, textures, labels = [], [], []
    for seed in (0, 1):
        canvas = make_canvas(settings := WorldSettings(seed=seed, size_m=1400), make_layout(settings))
        pure, _ = chip_classes(canvas.classes, 128, len(CLASSES))
        for quarter in (0, 2):
            picture = np.clip(render_quarter(canvas, quarter), 0, 255)
            for row, column in zip(*np.nonzero(pure >= 0), strict=True):
                chip = picture[:, row * 128 : row * 128 + 128, column * 128 : column * 128 + 128]
                colours.append(colour(chip))
                textures.append(texture(chip))
                labels.append(pure[row, column])
    return np.array(colours), np.array(textures), np.array(labels)


@pytest.mark.parametrize(
    ("one", "other", "limit"),
    [("forest", "orchard", 0.80), ("dense_housing", "sparse_housing", 0.88), ("greenhouse", "field", 0.85)],
)
def test_pairs_need_more_than_colour(chips: Features, one: str, other: str, limit: float) -> None:
    colours, textures, labels = chips
    pair = np.isin(labels, [CLASSES.index(one), CLASSES.index(other)])
    assert min(np.sum(labels[pair] == CLASSES.index(name)) for name in (one, other)) >= 15

    def score(features: NDArray[np.float64]) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000, class_weight="balanced"))
        guess = cross_val_predict(model, features[pair], labels[pair], cv=4)
        return float(balanced_accuracy_score(labels[pair], guess))

    by_colour, by_both = score(colours), score(np.concatenate([colours, textures], axis=1))
    assert by_colour <= limit
    assert by_both >= by_colour + 0.07
