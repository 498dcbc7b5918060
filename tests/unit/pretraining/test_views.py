"""Views of a microbatch: shapes that never change, draws that depend on the sample, and on nothing that runs beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cgeartheye.errors import InputError
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.format import Place
from cgeartheye.shards.reader import ShardReader
from cgeartheye.transforms.crops import crop_products

Maker = Callable[..., Path]
Builder = Callable[..., Place]


def maker_of(
    settings: PretrainSettings, *, pieces: int = 1, mine: Sequence[int] | None = None, cache_mb: int = 10, decoders: int = 1
) -> ViewMaker:
    reader = ShardReader(settings.curated)  # type: ignore[arg-type] # set by the fixture
    places = Places(reader, settings.season)
    chips = Chips(reader, places.place_of_row, shrink_px=settings.chip_px, cache_mb=cache_mb, decoders=decoders)
    return ViewMaker(places, chips, settings=settings, patch_px=8, device=torch.device("cpu"), pieces=pieces, mine=mine)


def changed(settings: PretrainSettings, **changes: Any) -> PretrainSettings:
    given = settings.model_dump()
    for key, value in changes.items():
        given[key] = {**given[key], **value} if isinstance(value, dict) else value
    return PretrainSettings.model_validate(given)


def tensors(views: ViewBatch) -> list[torch.Tensor]:
    parts = [getattr(views, field.name) for field in dataclasses.fields(views)]
    return [tensor for part in parts if part is not None for tensor in (part if isinstance(part, tuple) else (part,))]


def same(a: ViewBatch, b: ViewBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_shapes_never_change(tiny: PretrainSettings) -> None:
    maker = maker_of(tiny)
    found = [maker(step, 0) for step in range(6)]
    # 8 of 12 places have three partners each: 4 * 8 / 12 * 3 = 8 slots; half of 8 views hide 0.15 to 0.45 of 9 patches
    hidden = int(found[0].masks.sum())
    expected = [(2, 4, 3, 24, 24), (3, 4, 3, 16, 16), (8, 3, 16, 16), (8,), (8,), (2, 4, 9), (hidden,), (hidden,)]
    assert all([tuple(part.shape) for part in tensors(views)] == expected for views in found)
    assert {bool((views.season_weight > 0).all()) for views in found} == {True, False}  # some fill all slots, some do not
    for views in found:
        assert views.globals_.dtype == views.season.dtype == torch.float32
        assert torch.equal(views.hidden, views.masks.flatten().nonzero()[:, 0])
        assert float(views.hidden_weight.sum()) == pytest.approx(1)


def test_local_views_of_several_sizes_take_turns(tiny: PretrainSettings) -> None:
    several = changed(tiny, local={"sizes_px": (16, 24), "views": 5})
    found = maker_of(several)(0, 0).locals_
    assert [tuple(part.shape) for part in found] == [(3, 4, 3, 16, 16), (2, 4, 3, 24, 24)]
    one_size = maker_of(changed(tiny, local={"sizes_px": (16,), "views": 5}))(0, 0).locals_[0]
    assert torch.equal(found[0], one_size[::2])  # a view keeps its box whatever the others are


def test_replace_and_off(tiny: PretrainSettings) -> None:
    local = {"sizes_px": (16, 24), "views": 4}
    whole = maker_of(changed(tiny, local=local))(0, 0)
    replace = maker_of(changed(tiny, local=local, season={"mode": "replace", "views": 2}))
    assert replace.locals == 2
    assert torch.equal(replace(0, 0).locals_[1][0], whole.locals_[1][0])  # the last ones are left out
    none = maker_of(changed(tiny, local={"sizes_px": (16,), "views": 3}, season={"mode": "replace", "views": 3}))
    assert (none.locals, none(0, 0).locals_) == (0, ())
    off = maker_of(changed(tiny, season={"mode": "off"}))
    assert (off.locals, off.slots) == (3, 0)
    assert off(0, 0).season.shape == (0, 3, 16, 16)


@pytest.mark.parametrize("pieces", [2, 4])
def test_splitting_a_batch_changes_no_view(tiny: PretrainSettings, pieces: int) -> None:
    whole = maker_of(tiny)(3, 0)
    parts = [maker_of(tiny, pieces=pieces)(3, piece) for piece in range(pieces)]
    assert torch.equal(torch.cat([part.globals_ for part in parts], 1), whole.globals_)
    assert torch.equal(torch.cat([part.locals_[0] for part in parts], 1), whole.locals_[0])
    total = sum(float(part.season_weight.sum()) for part in parts)
    assert total == pytest.approx(pieces * float(whole.season_weight.sum()), abs=1e-5)
    of_view = [set(map(bytes, part.season[part.season_weight > 0].numpy())) for part in parts]
    both = set(map(bytes, whole.season[whole.season_weight > 0].numpy()))
    assert set().union(*of_view) & both  # the same seasonal views, where they find a slot
    assert len({len(part.hidden) for part in parts}) == 1


def test_any_process_makes_the_same_microbatch_at_any_time(tiny: PretrainSettings) -> None:
    order = maker_of(tiny, pieces=4)
    expected = {(step, piece): order(step, piece) for step in (0, 1) for piece in range(4)}
    first, second = maker_of(tiny, pieces=4, mine=(0, 2)), maker_of(tiny, pieces=4, mine=(3, 1), cache_mb=0, decoders=3)
    for step in (1, 0):
        for maker, pieces in ((second, (3, 1)), (first, (2, 0, 1))):
            assert all(same(maker(step, piece), expected[step, piece]) for piece in pieces)


def test_seasonal_views_keep_their_colours_and_sharpness(tiny: PretrainSettings) -> None:
    loud = {"jitter": {"brightness": 0.9, "contrast": 0.0, "saturation": 0.0, "share": 1.0}, "blur": {"share": 0.0}}
    quiet = {"jitter": {"share": 0.0}, "blur": {"share": 0.0}}
    soft = {"jitter": {"share": 0.0}, "blur": {"share": 1.0, "sigma_px": (2.0, 2.0)}}
    plain, bright, blurred = (maker_of(changed(tiny, views=views))(3, 0) for views in (quiet, loud, soft))
    assert torch.equal(plain.season, bright.season)
    assert torch.equal(plain.season, blurred.season)
    for other in (bright, blurred):
        assert not torch.allclose(plain.globals_, other.globals_, atol=0.05)
        assert not torch.allclose(plain.locals_[0], other.locals_[0], atol=0.05)
    with_jitter = maker_of(changed(tiny, views=loud, season={"jitter": True}))(3, 0)
    assert not torch.allclose(with_jitter.season, plain.season, atol=0.05)


def test_another_seed_makes_other_views(tiny: PretrainSettings) -> None:
    assert not torch.allclose(maker_of(tiny)(0, 0).globals_, maker_of(changed(tiny, seed=1))(0, 0).globals_)


def test_a_batch_that_cannot_be_split_is_refused(tiny: PretrainSettings) -> None:
    with pytest.raises(InputError, match="3 equal microbatches"):
        maker_of(tiny, pieces=3)


@pytest.mark.parametrize("step", [0, 5])
def test_a_view_shows_its_own_place(tiny: PretrainSettings, step: int) -> None:
    """The mean colour of a large view is that of its chip, also for the other dates."""
    whole = {"global_scale": (1.0, 1.0), "aspect": 1.0, "jitter": {"share": 0.0}, "blur": {"share": 0.0}}
    settings = changed(tiny, views=whole, season={"scale": (1.0, 1.0)})
    found = maker_of(settings)(step, 0)
    reader, places = ShardReader(tiny.curated), Places(ShardReader(tiny.curated), settings.season)  # type: ignore[arg-type] # set
    drawn = places.draw(np.arange(4 * step, 4 * step + 4)[None], seed=settings.seed, slots=8)[0]

    def mean(row: int) -> torch.Tensor:
        return torch.from_numpy((reader.decode_row(row).astype(np.float32) / 255).mean((0, 1)))

    for b, row in enumerate(drawn.anchors.tolist()):
        torch.testing.assert_close(found.globals_[0, b].mean((1, 2)), mean(row), rtol=0, atol=0.02)
    for slot in np.flatnonzero(drawn.filled):
        torch.testing.assert_close(found.season[slot].mean((1, 2)), mean(int(drawn.season[slot])), rtol=0, atol=0.02)
    np.testing.assert_array_equal(found.place.numpy(), drawn.place)


@pytest.fixture
def large(tiny: PretrainSettings, shards: Maker, place: Builder) -> PretrainSettings:
    """Places of 200 px, of which seasonal views of 16 px need a half or a quarter."""
    folder = shards([place(f"p{k}", (1, 2, 3, 4), seed=k, side=200) for k in range(6)], "large")
    return changed(tiny, curated=folder)


def test_scaled_decoding_shows_the_same(large: PretrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seasonal views cut from smaller versions, against full decoding: 0.7 % of the range in the mean on smooth pictures."""
    maker = maker_of(large)
    drawn = maker._draw(0)[0]
    assert set(maker._divisors(drawn).tolist()) == {2, 4}
    scaled = maker(0, 0)
    monkeypatch.setattr("cgeartheye.pretraining.views.ROOM", 1e9)
    full = maker_of(large)(0, 0)
    assert not torch.equal(scaled.season, full.season)
    assert float((scaled.season - full.season).abs().mean()) < 0.015
    assert all(torch.equal(a, b) for a, b in zip(tensors(scaled)[:2], tensors(full)[:2], strict=True))


def test_scaled_decoding_does_not_depend_on_memory_or_threads(large: PretrainSettings) -> None:
    kept, fresh = maker_of(large, cache_mb=100), maker_of(large, cache_mb=0, decoders=3)
    assert all(same(kept(step, 0), fresh(step, 0)) for step in (0, 1, 0))


def test_without_sizes_in_the_index_all_is_decoded_at_full_size(large: PretrainSettings, shards: Maker, place: Builder) -> None:
    folder = shards([place("a", (1, 2), side=128, width=[None, None], height=[None, None])], "sizeless")
    maker = maker_of(changed(large, curated=folder))
    assert set(maker._divisors(maker._draw(0)[0]).tolist()) == {1}
    assert maker(0, 0).season.shape[1:] == (3, 16, 16)


def test_a_pair_of_different_places_does_not_count(tiny: PretrainSettings) -> None:
    """Where broken chips are replaced by those of other places, they would teach that two places are one."""
    assert tiny.curated is not None
    reader = ShardReader(tiny.curated)
    last = reader.dates(7)[3]  # the next chip belongs to another place
    tar = tiny.curated / "shards" / last.shard
    data = bytearray(tar.read_bytes())
    data[last.offset + 50] ^= 255
    tar.write_bytes(bytes(data))
    sound, maker = Places(reader, tiny.season), maker_of(tiny)
    for step in range(12):
        drawn = sound.draw(np.arange(4 * step, 4 * step + 4)[None], seed=tiny.seed, slots=maker.slots)[0]
        broken = (drawn.season == last.row) | (drawn.anchors[drawn.place] == last.row)
        expected = np.where(broken, 0, drawn.weight)
        np.testing.assert_array_equal(maker(step, 0).season_weight.numpy(), expected)
        if (broken & drawn.filled).any():
            return
    pytest.fail("no seasonal view was of the broken chip")


class Trap(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU, or give results of a shape that depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in {"_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "unique_dim"}, name
        if name in {"index", "index_put", "index_put_"}:
            assert all(part is None or part.dtype != torch.bool for part in args[1])
        return func(*args, **(kwargs or {}))


def test_what_a_gpu_does_waits_for_nothing_and_shows_the_same(tiny: PretrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    loud = changed(tiny, season={"jitter": True}, views={"blur": {"share": 0.5}, "jitter": {"share": 0.5, "channel_gain": 0.1}})
    expected = maker_of(loud)(2, 0)
    monkeypatch.setattr("cgeartheye.pretraining.views.crop", crop_products)
    with Trap():
        found = maker_of(loud)(2, 0)
    for a, b in zip(tensors(found), tensors(expected), strict=True):
        assert a.shape == b.shape
        assert float((a.float() - b.float()).abs().max()) < 4 / 255
