"""Every file in configs/ is valid, every phase resolves, every head says what it takes, and the paper's facts are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgeartheye.curation.selection import Traits, cluster_places, select_places
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.settings.project import Project, load_project

CONFIGS = Path(__file__).parents[3] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
PUBLISHED = ("small", "base", "large", "huge", "giant")
"""Sizes with a recipe of two phases."""


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CGEARTHEYE_IMAGERY", "CGEARTHEYE_ARCHIVE", "CGEARTHEYE_LAYERS"):
        monkeypatch.setenv(name, str(tmp_path))


def recipe(name: str) -> Project:
    return load_project(CONFIGS / "pretraining" / f"{name}.yaml")


def pretraining(name: str) -> PretrainSettings:
    settings = recipe(name).pretrain
    assert settings is not None
    return settings


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_loads_resolves_and_says_what_it_costs(path: Path) -> None:
    project = load_project(path)
    if project.pretrain is not None:
        for number in range(len(project.pretrain.phases) + 1):
            phase = project.pretrain.phase(number)
            assert phase.phases == ()
            assert phase.optimizer.lr
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for words in (("command",), ("hardware",), ("hours", "hardware"), ("expected", "reached")):
        assert any(word in line for word in words for line in head), words
    if path.parent.name == "pretraining":
        text = "\n".join(head)
        assert "not measured" in text or "reached" in text
        assert f"pretraining/{path.name}" in text
        assert f"/{path.stem}\n" in path.read_text()  # the folder it writes to


@pytest.mark.parametrize("size", [*PUBLISHED, "paper"])
def test_published_recipes_have_the_published_values(size: str) -> None:
    settings = pretraining(size)
    assert settings.backbone == ("giant" if size == "paper" else size)
    assert [settings.phase(number).views.global_px for number in (0, 1)] == [224, 518]
    assert (settings.local.views, settings.season.mode, settings.season.views) == (8, "add", 3)
    assert settings.optimizer.ema[0] == 0.992
    assert settings.masks.ratio == (0.1, 0.5)
    assert settings.loss.local_weight == settings.loss.patch_weight == settings.season.weight == 1.0
    assert settings.drop_path == PretrainSettings(backbone=settings.backbone).drop_path
    for number in (0, 1):
        phase = settings.phase(number)
        assert phase.batch % (phase.microbatch or 1) == 0
        assert phase.batch // (phase.microbatch or 1) % 8 == 0  # 8 processes share the microbatches evenly


def test_the_figure_is_followed_to_the_letter() -> None:
    settings = pretraining("paper")
    sizes = settings.local.sizes_px
    assert (settings.season.size_px, len(set(sizes)), settings.masks.share_of_views) == (224, 4, 1.0)
    assert all(side % 14 == 0 for side in sizes)
    assert np.mean([(side // 14) ** 2 for side in sizes]) == pytest.approx(49, rel=0.03)


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_continuations_are_small_and_constant(size: str) -> None:
    settings = pretraining(f"continue_{size}")
    assert settings.start.weights == f"timm:vit_{size}_patch14_dinov2.lvd142m"
    assert settings.optimizer.end_lr == 1.0
    written = settings.model_copy(update={"optimizer": settings.optimizer.model_copy(update={"lr": None})})
    assert settings.optimizer.lr == pytest.approx(PretrainSettings.model_validate(written.model_dump()).optimizer.lr)


def test_ablations_of_the_season_differ_in_mode_and_steps_only() -> None:
    found = {mode: pretraining(f"season_{mode}") for mode in ("add", "replace", "off")}
    assert {name: value.season.mode for name, value in found.items()} == {name: name for name in found}
    common = [value.model_dump(exclude={"season": {"mode"}, "steps": True}) for value in found.values()]
    assert common[0] == common[1] == common[2]
    local, globals_ = (24 // 8) ** 2 + 1, (48 // 8) ** 2 + 1
    tokens = {mode: 3 * (2 * globals_ + (4 + 3 * (mode == "add")) * local) + 2 * globals_ for mode in found}
    work = [tokens[mode] * (found[mode].steps or 0) for mode in found]
    assert max(work) / min(work) < 1.001


def test_random_places_get_the_same_training_and_ignore_what_they_look_like() -> None:
    curated, random = recipe("curated"), recipe("random")
    assert pretraining("curated") == pretraining("random")
    assert curated.curate is not None
    assert random.curate is not None
    assert curated.curate.clusters.keep_places == random.curate.places
    clusters = random.curate.clusters.model_copy(update={"keep_share": 0.5})
    rng = np.random.default_rng(0)
    names = [f"p{k}" for k in range(40)]
    kept = []
    for _ in range(2):
        tree = cluster_places(names, rng.random((40, 3), dtype=np.float32), [3], clusters, combine="jointly", seed=0)
        traits = Traits([None] * 40, np.ones(40, np.int64))
        kept.append(select_places(names, tree, clusters, usable=np.ones(40, bool), traits=traits, seed=0).kept)
    assert kept[0].sum() == 20
    assert (kept[0] == kept[1]).all()
