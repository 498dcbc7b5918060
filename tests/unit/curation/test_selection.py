from __future__ import annotations

import numpy as np
import pytest
import torch

from cgeartheye.clustering.tree import Tree
from cgeartheye.curation.selection import Selection, Traits, cluster_places, must_keep, select_places, with_dropped
from cgeartheye.errors import DataError, ResourceError
from cgeartheye.settings.curate import ClusterSettings

NAMES = [f"p{k}" for k in range(300)]


def features() -> np.ndarray:
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 8)).astype(np.float32)
    rows[40:] = rows[0] + 0.01 * rows[40:]  # one thing fills the archive
    return rows


def traits() -> Traits:
    strata = [None if k % 10 == 0 else f"s{k % 7}" for k in range(300)]
    return Traits(strata, np.where(np.arange(300) % 25 == 0, 4, 1))


def selected(settings: ClusterSettings) -> Selection:
    tree = cluster_places(NAMES, features(), [8], settings, combine="jointly", seed=1)
    return select_places(NAMES, tree, settings, usable=np.ones(300, bool), traits=traits(), seed=1)


def test_rules_keep_a_minimum_of_each_stratum_and_all_places_of_many_dates() -> None:
    settings = ClusterSettings(levels=(20, 4), keep_places=60, keep_per_stratum=5, keep_dates=2)
    kept = selected(settings).kept
    assert kept.sum() == 60
    assert kept[::25].all()
    for stratum in range(7):
        assert sum(kept[k] for k in range(300) if traits().strata[k] == f"s{stratum}") >= 5


def test_what_must_be_kept_counts_towards_its_cluster() -> None:
    plain = ClusterSettings(levels=(20, 4), keep_places=60)
    settings = ClusterSettings(levels=(20, 4), keep_places=60, keep_dates=2)
    one, two = (selected(s) for s in (plain, settings))
    assert one.table["places"].to_pylist() == two.table["places"].to_pylist()
    before, after = (np.array(s.table["kept"].to_pylist()) for s in (one, two))
    assert np.abs(before - after).sum() <= 12  # clusters keep their share where the rules do not ask for more


def test_more_places_than_the_budget_may_be_asked_for() -> None:
    settings = ClusterSettings(levels=(20, 4), keep_places=3, keep_dates=2)
    kept = selected(settings).kept
    assert np.flatnonzero(kept).tolist() == list(range(0, 300, 25))


def test_places_without_stratum_have_no_minimum_and_a_smaller_one_is_part_of_a_larger() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 300).astype(np.uint64)
    few, many = (must_keep(traits(), ClusterSettings(keep_per_stratum=m), hashes) for m in (2, 4))
    assert (few <= many).all()
    assert few.sum() == 14
    assert not many[::10].any()


def test_places_with_broken_features_are_named() -> None:
    rows = features()
    rows[17, 3] = np.nan
    with pytest.raises(DataError, match=r"1 places .*p17"):
        cluster_places(NAMES, rows, [8], ClusterSettings(), combine="jointly", seed=0)


def test_what_is_not_usable_is_not_kept_even_if_a_rule_asks_for_it_and_may_be_taken_out() -> None:
    settings = ClusterSettings(levels=(20, 4), keep_places=60, keep_dates=2)
    tree = cluster_places(NAMES, features(), [8], settings, combine="jointly", seed=1)
    usable = np.arange(300) % 50 != 0
    whole = select_places(NAMES, tree, settings, usable=usable, traits=traits(), seed=1)
    assert whole.kept.sum() == 60 and not whole.kept[~usable].any() and whole.kept[25::50].all()
    left = whole.among(usable)
    assert np.flatnonzero(usable)[left.order].tolist() == whole.order.tolist()
    np.testing.assert_array_equal(left.kept, whole.kept[usable])
    np.testing.assert_array_equal(left.clusters, whole.clusters[usable])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_asked_for_must_exist_and_auto_does_without() -> None:
    plain, auto = (ClusterSettings(levels=(20, 4), keep_places=60, device=device) for device in ("cpu", "auto"))
    assert selected(plain).clusters.tolist() == selected(auto).clusters.tolist()
    with pytest.raises(ResourceError, match="GPU"):
        selected(ClusterSettings(levels=(20, 4), device="cuda"))


def test_dropped_places_lie_where_what_they_repeat_lies_and_what_repeats_no_place_with_its_former_leaf() -> None:
    left = Tree((np.array([0, 1, 1, 2], np.int32), np.array([0, 0, 0], np.int32)), (np.zeros((3, 2), np.float32),))
    before = np.array([0, 0, 1, 1, 1, 1, 2], np.int32)
    same_as = np.array([-1, 5, -1, -1, 7, -1, 9])  # 7 and 9 are pictures that are no places
    tree = with_dropped(left, before, same_as)
    assert tree.labels[0].tolist() == [0, 2, 1, 1, 1, 2, 0]
    assert tree.labels[1] is left.labels[1]
