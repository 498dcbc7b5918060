"""Views of a batch: shapes that never change, draws that depend on the sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.views import ViewBatch, ViewMaker
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader


def maker_of(settings: PretrainSettings) -> ViewMaker:
    reader = ShardReader(settings.curated)  # type: ignore[arg-type] # set by the fixture
    places = Places(reader, settings.season)
    chips = Chips(reader, places.place_of_row, shrink_px=None, cache_mb=10, decoders=1)
    return ViewMaker(places, chips, settings=settings, patch_px=8, device=torch.device("cpu"))


def changed(settings: PretrainSettings, **changes: object) -> PretrainSettings:
    return PretrainSettings.model_validate({**settings.model_dump(), **changes})


def shapes(views: ViewBatch) -> list[tuple[int, ...]]:
    parts = (views.globals_, views.locals_, views.season, views.place, views.filled, views.masks)
    return [tuple(part.shape) for part in parts]


def test_shapes_never_change(tiny: PretrainSettings) -> None:
    maker = maker_of(tiny)
    found = [maker(step) for step in range(6)]
    # 8 of 12 places have three partners each: 4 * 8 / 12 * 3 = 8 slots
    assert shapes(found[0]) == [(2, 4, 3, 24, 24), (3, 4, 3, 16, 16), (8, 3, 16, 16), (8,), (8,), (2, 4, 9)]
    assert all(shapes(views) == shapes(found[0]) for views in found)
    assert len({int(views.masks.sum()) for views in found}) == 1
    assert {bool(views.filled.all()) for views in found} == {True, False}  # some batches fill all slots, some do not


def test_replace_and_off(tiny: PretrainSettings) -> None:
    season = tiny.season.model_dump()
    assert maker_of(changed(tiny, season={**season, "mode": "replace", "views": 2})).locals == 1
    off = maker_of(changed(tiny, season={**season, "mode": "off"}))
    assert (off.locals, off.slots) == (3, 0)
    assert off(0).season.shape == (0, 3, 16, 16)


def test_views_do_not_depend_on_the_batch(tiny: PretrainSettings) -> None:
    small, large = maker_of(tiny), maker_of(changed(tiny, batch=8))
    parts = [small(0), small(1)]
    whole = large(0)
    torch.testing.assert_close(torch.cat([part.globals_ for part in parts], 1), whole.globals_, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat([part.locals_ for part in parts], 1), whole.locals_, rtol=0, atol=1e-6)


def test_seasonal_views_keep_their_colours(tiny: PretrainSettings) -> None:
    loud = {"brightness": 0.9, "contrast": 0.0, "saturation": 0.0, "share": 1.0}
    views = {**tiny.views.model_dump(), "jitter": loud}
    plain, changed_views = maker_of(tiny)(3), maker_of(changed(tiny, views=views))(3)
    assert torch.equal(plain.season, changed_views.season)
    assert not torch.allclose(plain.globals_, changed_views.globals_, atol=0.05)
    with_jitter = maker_of(changed(tiny, views=views, season={**tiny.season.model_dump(), "jitter": True}))(3)
    assert not torch.allclose(with_jitter.season, plain.season, atol=0.05)


def test_another_seed_makes_other_views(tiny: PretrainSettings) -> None:
    assert not torch.allclose(maker_of(tiny)(0).globals_, maker_of(changed(tiny, seed=1))(0).globals_)


@pytest.mark.parametrize("step", [0, 5])
def test_a_view_shows_its_own_place(tiny: PretrainSettings, step: int) -> None:
    """The mean colour of a large view lies within the range of its chip's colours."""
    settings = changed(
        tiny, views={**tiny.views.model_dump(), "global_scale": (1.0, 1.0), "aspect": 1.0, "jitter": {"share": 0.0}}
    )
    maker = maker_of(settings)
    reader, places = ShardReader(tiny.curated), Places(ShardReader(tiny.curated), settings.season)  # type: ignore[arg-type] # set
    anchors = places.draw(np.arange(4 * step, 4 * step + 4), seed=settings.seed, slots=8).anchors
    for b, row in enumerate(anchors):
        place = int(places.place_of_row[row])
        chip = reader.decode(place, int(row - places.starts[place])).astype(np.float32) / 255
        expected = torch.from_numpy(chip.mean((0, 1)))
        torch.testing.assert_close(maker(step).globals_[0, b].mean((1, 2)), expected, rtol=0, atol=0.02)
