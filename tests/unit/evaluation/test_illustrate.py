from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA

from cgeartheye.datasets.folder import ImageRecord
from cgeartheye.evaluation.illustrate import examples, token_colours


def test_colours_are_the_principal_components() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 4, 5, 8, generator=generator) * torch.tensor([9.0, 5, 3, 1, 1, 1, 1, 1])
    colours = token_colours(tokens).reshape(-1, 3).astype(float)
    expected = PCA(3).fit_transform(tokens.reshape(-1, 8).numpy())
    for channel in range(3):
        assert abs(np.corrcoef(colours[:, channel], expected[:, channel])[0, 1]) > 0.99
    assert colours.min() == 0
    assert colours.max() == 255
    # the sign does not depend on the solver's mood
    assert np.array_equal(token_colours(tokens), token_colours(tokens.clone().contiguous()))


def test_equal_tokens_make_one_colour() -> None:
    assert len(np.unique(token_colours(torch.ones(2, 3, 3, 4)))) == 1


def test_examples_go_round_the_classes() -> None:
    records = [ImageRecord(f"{label}/{number}", Path("x"), label) for label in range(5) for number in range(1 + 4 * label)]
    chosen = examples(records, 12)
    counts = np.bincount([record.label for record in chosen])
    assert counts.tolist() == [1, 3, 3, 3, 2]
    assert chosen == examples(records[::-1], 12)
