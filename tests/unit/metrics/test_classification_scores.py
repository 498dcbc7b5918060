from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from cgeartheye.errors import ShapeError
from cgeartheye.metrics.accuracy import correct, overall_accuracy
from cgeartheye.metrics.confusion import confusion_matrix


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    assert overall_accuracy(truth, predicted) == pytest.approx(oracle.accuracy_score(truth, predicted))
    expected = oracle.confusion_matrix(truth, predicted, labels=range(5))
    assert np.array_equal(confusion_matrix(truth, predicted, classes=5), expected)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ShapeError):
        correct(np.zeros(3, int), np.zeros(4, int))
    with pytest.raises(ShapeError):
        confusion_matrix(np.zeros(3, int), np.zeros(4, int), classes=2)
    with pytest.raises(ShapeError, match=r"\[0, 2\)"):
        confusion_matrix(np.array([0, 2]), np.array([0, 1]), classes=2)
