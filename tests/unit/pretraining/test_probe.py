"""The probe against plain loops, and on networks whose answers are known."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cgeartheye.errors import InputError
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import Features
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.probe import Probe, effective_rank, patch_similarity
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.reader import ShardReader

Make = Callable[..., Probe]


@pytest.fixture
def probe() -> Iterator[Make]:
    """A function that makes a probe of a curated folder, with ``watch`` settings."""
    opened: list[Chips] = []

    def make(curated: Path, **watch: Any) -> Probe:
        reader = ShardReader(curated)
        rows = np.repeat(np.arange(len(reader)), reader.n_dates())
        opened.append(Chips(reader, rows, shrink_px=None, cache_mb=16, decoders=1))
        settings = PretrainSettings(curated=curated, views={"global_px": 16}, watch=watch)  # type: ignore[arg-type]
        return Probe(reader, opened[-1], settings)

    yield make
    for chips in opened:
        chips.close()


class Colour(nn.Module):
    """A backbone that knows colours only: mean colour as class token, the patches' mean colours as patches."""

    def __init__(self, patch_px: int = 8) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1))
        self.patch_px = patch_px

    def forward(self, images: Tensor) -> Features:
        assert images.dtype == torch.uint8
        assert not self.training
        patches = nn.functional.avg_pool2d(images.float() - 128, self.patch_px).permute(0, 2, 3, 1)
        return Features(patches.mean((1, 2)), patches)


def test_numbers_of_a_network_are_bounded_and_repeat(curated: Path, probe: Make) -> None:
    found = probe(curated, probe_chips=8, retrieval_places=5)
    network = build(SIZES["nano"], seed=3)
    network.train()
    first = found.measure(network)
    assert first == found.measure(network) == probe(curated, probe_chips=8, retrieval_places=5).measure(network)
    assert network.training
    assert {key for key in first if key.startswith("probe_")} == set(first)
    assert (first["probe_chips"], first["probe_labels"], first["probe_retrieval_places"]) == (8, "land_cover", 5)
    for key in ("probe_class", "probe_patch", "probe_class_linear", "probe_patch_linear", "probe_retrieval"):
        assert 0 <= float(first[key]) <= 1
    assert 1 <= float(first["probe_rank"]) <= 8
    assert -1 <= float(first["probe_patch_similarity"]) <= 1


def test_what_there_is_no_data_for_is_absent(shards: Callable[..., Path], place: Callable[..., Place], probe: Make) -> None:
    no_labels = probe(shards([place(f"p{k}", (1, 3), seed=k) for k in range(3)], "unlabelled"))
    assert no_labels.useful
    assert set(no_labels.measure(Colour())) == {"probe_retrieval", "probe_retrieval_places"}  # type: ignore[arg-type]
    one_class = [place(f"p{k}", (2,), seed=k, land_cover="water") for k in range(3)]
    neither = probe(shards(one_class, "neither"))
    assert not neither.useful
    assert neither.measure(Colour()) == {}  # type: ignore[arg-type]
    assert "probe_retrieval" not in probe(shards(one_class, "off"), retrieval_places=0).measure(Colour())  # type: ignore[arg-type]


def test_colours_find_places_whose_dates_look_alike(
    shards: Callable[..., Path], place: Callable[..., Place], probe: Make
) -> None:
    def plain(k: int) -> Place:
        """Two dates of one even colour: turning and cutting change nothing."""
        made = place(f"p{k:02d}", (1, 3), seed=k, land_cover=("a", "b")[k % 2])
        colour = np.full((32, 32, 3), np.random.default_rng(k).integers(0, 256, 3), dtype=np.uint8)
        coded = io.BytesIO()
        Image.fromarray(colour).save(coded, "JPEG", quality=95)
        chips = tuple(Chip(coded.getvalue(), chip.columns) for chip in made.chips)
        return Place(name=made.name, chips=chips, columns=made.columns)

    found = probe(shards([plain(k) for k in range(10)], "plain")).measure(Colour())  # type: ignore[arg-type]
    assert found["probe_retrieval"] == 1.0
    assert found["probe_retrieval_places"] == 10
    assert found["probe_patch_similarity"] == pytest.approx(1.0, abs=1e-3)


def _folder(root: Path, classes: dict[str, int], count: int) -> Path:
    for name, shade in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 8, (20, 28, 3))
            Image.fromarray((shade + noise).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def test_pictures_in_class_folders_are_probed_instead_of_chips(curated: Path, probe: Make, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "mine", {"dark": 20, "bright": 200}, 24)
    (folder / "dark" / "broken.png").write_bytes(b"none")
    made = probe(curated, probe_images=folder, probe_chips=64)
    assert made.labels_from == "mine"
    found = made.measure(Colour())  # type: ignore[arg-type]
    assert found["probe_chips"] == 48
    assert [found[f"probe_{name}"] for name in ("class", "patch", "class_linear", "patch_linear")] == [1.0] * 4
    assert probe(curated, probe_images=folder, probe_chips=10).measure(Colour())["probe_chips"] == 10  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("classes", "said"), [({}, "no class folder with a picture"), ({"only": 9}, "one class only")], ids=["empty", "one class"]
)
def test_a_folder_that_cannot_serve_is_refused(
    curated: Path, probe: Make, tmp_path: Path, classes: dict[str, int], said: str
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=said) as raised:
        probe(curated, probe_images=_folder(tmp_path / "mine", classes, 2))
    assert "probe_images" in str(raised.value)
    with pytest.raises(InputError, match="no such folder"):
        probe(curated, probe_images=tmp_path / "nowhere")


def test_similarity_of_patches_equals_the_mean_over_pairs() -> None:
    patches = torch.randn(3, 2, 3, 5, generator=torch.Generator().manual_seed(1))
    for one, found in zip(patches.flatten(1, 2), patch_similarity(patches).tolist(), strict=True):
        pairs = [torch.cosine_similarity(one[i], one[j], dim=0) for i in range(6) for j in range(6) if i != j]
        assert found == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(torch.eye(7)) == pytest.approx(7, rel=1e-5)
    assert effective_rank(torch.ones(9, 4)) == pytest.approx(1, rel=1e-3)
