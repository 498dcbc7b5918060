from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from cgeartheye.clustering.kmeans import assign, kmeans, lloyd
from cgeartheye.clustering.neighbours import CHUNK_ROWS, assign_near
from cgeartheye.clustering.products import PROCESSOR
from cgeartheye.clustering.rows import Picked
from cgeartheye.clustering.seeds import even_groups, nearest_centre, seed_centroids, small_kmeans
from cgeartheye.errors import DataError, ShapeError


def blobs(n: int, k: int, d: int, seed: int = 0, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(k, d))
    truth = random.integers(0, k, n)
    return (centres[truth] + spread * random.normal(size=(n, d))).astype(np.float32), truth


def test_separate_blobs_are_found_exactly() -> None:
    rows, truth = blobs(900, 12, 16)
    found = kmeans(rows, 12, seed=1)
    pairs = {(int(a), int(b)) for a, b in zip(found.labels, truth, strict=True)}
    assert len(pairs) == 12
    for label in range(12):
        assert np.allclose(found.centroids[label], rows[found.labels == label].mean(axis=0, dtype=float), atol=1e-5)


def test_no_worse_than_scikit_learn() -> None:
    random = np.random.default_rng(3)
    rows = random.normal(size=(4000, 24)).astype(np.float32) * random.gamma(1, size=24).astype(np.float32)
    ours = np.mean([kmeans(rows, 40, seed=s).inertia for s in range(3)])
    theirs = np.mean([KMeans(40, n_init=1, random_state=s).fit(rows).inertia_ for s in range(3)])
    assert ours < 1.01 * theirs


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), k=st.integers(1, 9), d=st.integers(1, 6))
def test_assignment_is_the_nearest_by_brute_force(seed: int, n: int, k: int, d: int) -> None:
    random = np.random.default_rng(seed)
    rows, centroids = (random.normal(size=(m, d)).astype(np.float32) for m in (n, k))
    labels, distances = assign(rows, centroids)
    brute = ((rows[:, None].astype(float) - centroids[None]) ** 2).sum(axis=2)
    assert np.allclose(brute[np.arange(n), labels], brute.min(axis=1), atol=1e-4)
    assert np.allclose(distances, brute.min(axis=1), atol=1e-4)


@pytest.mark.parametrize("threads", [2, 3])
def test_bits_do_not_depend_on_threads(threads: int) -> None:
    rows, _ = blobs(CHUNK_ROWS + 4321, 60, 96, spread=0.8)
    results = []
    for limit in (1, threads):
        with threadpool_limits(limit):
            results.append(kmeans(rows, 100, seed=5, max_passes=4))
    first, second = results
    assert first.centroids.tobytes() == second.centroids.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.distances.tobytes() == second.distances.tobytes()


def test_fewer_distinct_rows_than_clusters() -> None:
    rows = np.repeat(np.eye(4, dtype=np.float32), 25, axis=0)
    found = kmeans(rows, 10, seed=0)
    assert len(found.centroids) == 4
    assert found.inertia == pytest.approx(0, abs=1e-9)
    assert sorted(np.bincount(found.labels).tolist()) == [25] * 4
    assert len(kmeans(np.zeros((7, 3), np.float32), 3, seed=0).centroids) == 1


def test_no_cluster_stays_empty() -> None:
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(0, 1e-3, (500, 8)), random.normal(5, 1, (12, 8))]).astype(np.float32)
    found = kmeans(rows, 30, seed=2)
    assert (np.bincount(found.labels, minlength=len(found.centroids)) > 0).all()


def test_half_precision_rows_are_read_as_they_are() -> None:
    rows, truth = blobs(300, 5, 8)
    found = kmeans(rows.astype(np.float16), 5, seed=1)
    assert len({(int(a), int(b)) for a, b in zip(found.labels, truth, strict=True)}) == 5


def test_rows_that_are_not_finite_are_named() -> None:
    rows, _ = blobs(50, 3, 4)
    rows[[7, 31], 2] = np.nan, np.inf
    with pytest.raises(DataError, match=r"2 rows .*\[7, 31\]"):
        kmeans(rows, 3, seed=0)
    for shape, k in [((0, 4), 3), ((5,), 3), ((5, 4), 0)]:
        with pytest.raises(ShapeError):
            kmeans(np.zeros(shape, np.float32), k, seed=0)


@pytest.fixture
def never_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["cgeartheye.clustering.kmeans"], "ALL_UP_TO", 0)


@pytest.mark.parametrize("d", [4, 24, 96])
@pytest.mark.usefixtures("never_all")
def test_near_is_almost_as_good_as_nearest_where_there_are_no_clusters_at_all(d: int) -> None:
    rows = np.random.default_rng(d).normal(size=(9000, d)).astype(np.float32)
    found = kmeans(rows, 150, seed=0)
    exact = assign(rows, found.centroids)[1].sum(dtype=float)
    assert exact - 1e-3 <= found.inertia < 1.005 * exact
    near = assign_near(rows, found.centroids, seed=1)[1].sum(dtype=float)
    assert exact - 1e-3 <= near < 1.02 * exact


@pytest.mark.usefixtures("never_all")
def test_near_is_nearest_for_99_rows_of_100_where_there_are_clusters() -> None:
    rows, _ = blobs(9000, 200, 48, spread=0.4)
    found = kmeans(rows, 150, seed=0)
    exact = assign(rows, found.centroids)[0]
    assert (found.labels != exact).mean() < 1e-2
    assert (assign_near(rows, found.centroids, seed=1)[0] != exact).mean() < 1e-2


@pytest.mark.parametrize("max_passes", [2, 50])
def test_a_finished_clustering_has_every_row_at_its_nearest_centroid(max_passes: int) -> None:
    rows = np.random.default_rng(1).normal(size=(5000, 24)).astype(np.float32)
    found = kmeans(rows, 150, seed=0, max_passes=max_passes)
    brute = assign(rows, found.centroids)[1]
    assert np.allclose(found.distances, brute, atol=1e-4)
    assert found.passes <= max_passes


def test_distances_are_those_to_the_label() -> None:
    rows, _ = blobs(3000, 90, 12, spread=0.5)
    found = kmeans(rows, 90, seed=0)
    brute = ((rows.astype(float) - found.centroids[found.labels]) ** 2).sum(axis=1)
    assert np.allclose(found.distances, brute, atol=1e-4)
    labels, distances = assign_near(rows, found.centroids, seed=0)
    assert np.allclose(distances, ((rows.astype(float) - found.centroids[labels]) ** 2).sum(axis=1), atol=1e-4)


def test_many_clusters_are_as_good_as_scikit_learns() -> None:
    rows, _ = blobs(4000, 300, 16, spread=0.3)
    ours = np.mean([kmeans(rows, 200, seed=s).inertia for s in range(4)])
    theirs = np.mean([KMeans(200, n_init=1, random_state=s).fit(rows).inertia_ for s in range(4)])
    assert ours < 1.05 * theirs


def test_many_clusters_of_few_distinct_rows() -> None:
    rows = np.repeat(np.random.default_rng(0).normal(size=(70, 5)).astype(np.float32), 9, axis=0)
    found = kmeans(rows, 100, seed=0)
    assert len(found.centroids) == 70
    assert found.inertia == pytest.approx(0, abs=1e-3)
    one = kmeans(np.ones((500, 4), np.float32), 100, seed=0)
    assert one.centroids.tolist() == [[1, 1, 1, 1]]


def test_mapped_files_and_picked_rows_give_what_arrays_give(tmp_path: Path) -> None:
    rows, _ = blobs(2000, 30, 8, spread=0.3)
    half = rows.astype(np.float16)
    np.save(tmp_path / "x.npy", half)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    one, two = kmeans(half, 70, seed=3), kmeans(mapped, 70, seed=3)
    assert one.centroids.tobytes() == two.centroids.tobytes()
    some = np.arange(5, 1900, 3)
    three, four = kmeans(half[some], 70, seed=3), kmeans(Picked(mapped, some), 70, seed=3)
    assert three.labels.tobytes() == four.labels.tobytes()


def test_inertia_between_passes_is_that_to_the_means_of_clusters() -> None:
    rows, _ = blobs(3000, 90, 12, spread=0.5)
    for state in lloyd(rows, 70, seed=0, max_passes=3):
        labels = state.clustering(0).labels
        means = np.stack([rows[labels == label].mean(axis=0, dtype=float) for label in range(labels.max() + 1)])
        assert state.inertia == pytest.approx(((rows - means[labels]) ** 2).sum(), rel=1e-5)


def test_moving_beyond_means_saves_passes_and_costs_no_inertia(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).normal(size=(6000, 16)).astype(np.float32)
    beyond = [kmeans(rows, 90, seed=s, max_passes=200) for s in range(4)]
    monkeypatch.setattr(sys.modules["cgeartheye.clustering.kmeans"], "OVERSHOOT", 0)
    plain = [kmeans(rows, 90, seed=s, max_passes=200) for s in range(4)]
    assert sum(one.passes for one in beyond) < 0.8 * sum(one.passes for one in plain)
    assert sum(one.inertia for one in beyond) < 1.002 * sum(one.inertia for one in plain)


def greedy_by_the_book(x: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """Return greedy k-means++ seeds (k, d), comparing every candidate with every row."""
    chosen = [int(random.integers(len(x)))]
    nearest = ((x - x[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < k:
        tried = random.choice(len(x), 2 + int(np.log(k)), p=nearest / nearest.sum())
        both = np.minimum(((x[None] - x[tried, None]) ** 2).sum(axis=2), nearest)
        best = int(both.sum(axis=1).argmin())
        chosen.append(int(tried[best]))
        nearest = both[best]
    return x[chosen]


@pytest.mark.parametrize("rows_per_group", [640, 150])
def test_seeds_are_as_good_as_those_of_the_textbook(monkeypatch: pytest.MonkeyPatch, rows_per_group: int) -> None:
    monkeypatch.setattr(sys.modules["cgeartheye.clustering.seeds"], "ROWS_PER_GROUP", rows_per_group)
    rows, _ = blobs(3000, 200, 12, spread=0.4)
    random = np.random.default_rng(0)
    ours = [assign(rows, seed_centroids(rows, 150, seed=s))[1].sum(dtype=float) for s in range(3)]
    theirs = [assign(rows, greedy_by_the_book(rows, 150, random))[1].sum(dtype=float) for _ in range(3)]
    assert np.mean(ours) < 1.05 * np.mean(theirs)


@pytest.mark.usefixtures("never_all")
def test_many_small_groups_of_centroids_still_find_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["cgeartheye.clustering.neighbours"], "CENTROIDS_PER_GROUP", 3)
    monkeypatch.setattr(sys.modules["cgeartheye.clustering.neighbours"], "CENTRES_COMPARED", 70)
    rows, _ = blobs(9000, 400, 48, spread=0.4)
    found = kmeans(rows, 300, seed=0)
    exact = assign(rows, found.centroids)[0]
    assert (found.labels != exact).mean() < 2e-2
    assert (assign_near(rows, found.centroids, seed=1)[0] != exact).mean() < 5e-2


def kinds(n: int, families: int, concepts: int, d: int, seed: int = 0) -> np.ndarray:
    """Unit rows of concepts of Zipf sizes in families far apart: many more families than groups, few rows a cluster."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(families, d))[random.integers(0, families, concepts)] + 0.6 * random.normal(size=(concepts, d))
    shares = 1 / np.arange(1, concepts + 1)
    rows = centres[random.choice(concepts, n, p=shares / shares.sum())] + 0.5 * random.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_beyond_4096_clusters_rows_are_at_the_nearest_all_the_same() -> None:
    rows = kinds(30_000, 600, 6_000, 32)
    found = kmeans(rows, 6_000, seed=0)
    exact, least = assign(rows, found.centroids)
    assert (found.labels != exact).mean() < 0.01
    assert found.distances.sum() < 1.005 * least.sum()
    labels, distances = assign_near(rows, found.centroids, seed=1)
    assert (labels != exact).mean() < 0.02
    assert distances.sum() < 1.02 * least.sum()


def test_no_group_gets_the_rows_of_all_kinds_that_have_none() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(600, 256)) / 16
    rows = (centres[random.integers(0, 600, 10_000)] + random.normal(size=(10_000, 256)) * 0.775 / 16).astype(np.float32)
    mean = len(rows) / 32
    alone = np.bincount(nearest_centre(rows, small_kmeans(rows, 32, random, PROCESSOR), PROCESSOR))
    assert alone.max() > 2.5 * mean  # the trap is there
    centres, of = even_groups(rows, 32, random, PROCESSOR)
    sizes = np.bincount(of, minlength=len(centres))
    assert sizes.min() > 0 and sizes.max() < 2.25 * mean
    assert len(centres) < 64


def test_rows_that_are_all_alike_stay_in_one_group() -> None:
    rows = np.concatenate([np.ones((500, 4)), np.random.default_rng(0).normal(size=(20, 4))]).astype(np.float32)
    centres, of = even_groups(rows, 10, np.random.default_rng(0), PROCESSOR)
    assert len(set(of[:500].tolist())) == 1
    assert np.array_equal(np.unique(of), np.arange(len(centres)))


@pytest.mark.parametrize("k", [80, 119])
def test_seeds_are_as_many_as_asked_for_and_differ_where_few_rows_do(k: int) -> None:
    some = np.random.default_rng(4).normal(size=(120, 6)).astype(np.float32)
    rows = np.repeat(some, np.where(np.arange(120) % 10 == 0, 60, 2), axis=0)
    for seed in range(5):
        assert len(np.unique(seed_centroids(rows, k, seed=seed), axis=0)) == k
