from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cgeartheye.errors import InputError
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.pretraining import pretrain
from cgeartheye.pretraining.build import begin, pieces_of
from cgeartheye.pretraining.calibration import calibrate
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.forecast import Machine, Material, assumed, forecast, material, step_shape
from cgeartheye.pretraining.loop import rates_at, take_step
from cgeartheye.pretraining.phases import config_of
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.training.distributed import World

ALONE = Machine(base_bytes=0)
MANY = Material(places=1000, chips=4000, pairs=(1.5,), decoded_bytes=0.0)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sizes": {"local": {"sizes_px": (16, 8, 24), "views": 5}, "drop_path": 0.4},
    "passes": {"batch": 6, "microbatch": 2},
    "replace": {"season": {"mode": "replace", "views": 2}},
    "off": {"season": {"mode": "off"}},
    "anchored": {"gram": {"weight": 1.0, "after": 0.0, "zoom": 1.7}, "drop_path": 0.3},
    "anchored, same views": {"gram": {"weight": 1.0, "after": 0.0, "zoom": 1.0}, "batch": 4, "microbatch": 2},
    "shared": {"head": {"prototypes": 64, "hidden": 48, "bottleneck": 16, "shared": True, "normalise": "weight"}},
}


def changed(tiny: PretrainSettings, changes: dict[str, Any]) -> PretrainSettings:
    return PretrainSettings.model_validate({**tiny.model_dump(), **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_flops_of_a_real_step_are_those_forecast(tiny: PretrainSettings, kind: str) -> None:
    settings = changed(tiny, KINDS[kind])
    assert settings.curated is not None
    reader = ShardReader(settings.curated)
    found = forecast(settings, material(settings, reader), ALONE)
    places = Places(reader, settings.season)
    chips = Chips(reader, places.place_of_row, shrink_px=None, cache_mb=10, decoders=1)
    pieces, world = pieces_of(settings, 1), World()
    backbone = build(config_of(SIZES["nano"], settings), seed=0)
    training = begin(settings, backbone, prototypes=found.prototypes, places=len(places), world=world, pieces=pieces)
    training.pair.student.train()
    maker = ViewMaker(places, chips, settings=settings, patch_px=8, device=world.device, pieces=pieces, steps=settings.steps)
    views = [maker(0, piece) for piece in range(pieces)]  # cut before the count begins
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        take_step(training, settings, rates_at(settings, 0.9), lambda _, piece: views[piece])
    chips.close()
    (phase,) = found.phases
    assert phase.step_flops.total - phase.step_flops.targets == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert phase.slots == len(views[0].season)
    assert sum(p.numel() for p in training.pair.student.parameters()) == found.trained_parameters


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_disk_is_what_a_run_leaves(tiny: PretrainSettings, tmp_path: Path, weight: float) -> None:
    settings = changed(
        tiny, {"gram": {"weight": weight}, "watch": {"log_every": 2, "checkpoint_every": 1, "keep": 2, "probe_every": 0}}
    )
    assert settings.curated is not None
    found = forecast(settings, material(settings, ShardReader(settings.curated)), ALONE)
    pretrain(settings, tmp_path / "run")
    heavy = [*(tmp_path / "run" / "checkpoints").rglob("*"), tmp_path / "run" / "backbone.safetensors"]
    written = sum(path.stat().st_size for path in heavy if path.is_file())
    assert found.disk_bytes == pytest.approx(written, rel=0.05)
    assert found.disk_peak_bytes > found.disk_bytes


def test_length_follows_places_and_phases(tiny: PretrainSettings) -> None:
    assert forecast(tiny, MANY, ALONE).phases[0].samples == 16
    long = tiny.model_copy(update={"steps": None, "epochs": 2.0})
    assert forecast(long, MANY, ALONE).phases[0].steps == 500
    two = changed(tiny, {"phases": ({"steps": 3, "views": {"global_px": 48}},)})
    both = Material(places=1000, chips=4000, pairs=(1.5, 1.5), decoded_bytes=0.0)
    found = forecast(two, both, ALONE, (0.5, 2.0))
    assert [phase.steps for phase in found.phases] == [4, 3]
    assert found.flops == sum(phase.flops for phase in found.phases)
    assert found.phases[1].step_flops.total > 2 * found.phases[0].step_flops.total
    probes = [phase.probe_flops / phase.step_flops.total * each for phase, each in zip(found.phases, (0.5, 2.0), strict=True)]
    assert found.seconds == pytest.approx(4 * 0.5 + 3 * 2.0 + sum(probes))
    assert forecast(two, both, ALONE).seconds is None


def test_an_anchor_costs_only_where_it_acts(tiny: PretrainSettings) -> None:
    plain = forecast(tiny, MANY, ALONE, (1.0,)).phases[0]
    whole, half = (
        forecast(changed(tiny, {"gram": {"weight": 1.0, "after": after}}), MANY, ALONE, (1.0,)).phases[0] for after in (0.0, 0.5)
    )
    assert half.flops == (plain.flops + whole.flops) / 2  # two of four steps
    assert half.step_flops == whole.step_flops
    assert whole.seconds is not None
    assert half.seconds is not None
    assert half.seconds < whole.seconds
    assert whole.memory.parameters > plain.memory.parameters
    assert whole.memory.views > plain.memory.views


def test_processes_share_the_batch(tiny: PretrainSettings) -> None:
    settings = changed(tiny, {"batch": 8})
    one, two = forecast(settings, MANY, ALONE), forecast(settings, MANY, Machine(processes=2, base_bytes=0))
    assert two.flops == pytest.approx(one.flops, rel=0.02)
    assert two.phases[0].memory.activations == pytest.approx(one.phases[0].memory.activations / 2, rel=0.02)
    with pytest.raises(InputError, match="shared"):
        forecast(settings, MANY, Machine(processes=16))
    shards = settings.model_copy(update={"shard": True})
    assert step_shape(shards, pairs=0.0, machine=Machine(processes=2)).processes == 2


def test_prototypes_follow_the_archive() -> None:
    settings = PretrainSettings(backbone="small", batch=256)
    assert forecast(settings, MANY, ALONE).prototypes == 256
    large = Material(places=10**5, chips=2 * 10**5, pairs=(1.0,), decoded_bytes=float("inf"))
    assert forecast(settings, large, ALONE).prototypes == 8192  # 16 384 for the chips, 16 a class row
    assert forecast(settings, assumed(settings, places=10**5, dates=2, chip_px=672), ALONE).phases[0].slots == 256


def test_device_memory_leaves_the_process_out() -> None:
    settings = PretrainSettings(backbone="small", head={"prototypes": 4096}, batch=4)
    on_gpu = forecast(settings, MANY, Machine(device="cuda")).phases[0]
    assert on_gpu.memory_bytes == on_gpu.memory.total
    assert forecast(settings, MANY, Machine()).memory_bytes > on_gpu.memory_bytes


def test_calibration_measures_and_leaves_nothing(tiny: PretrainSettings, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    (measured,) = calibrate(tiny.model_copy(update={"device": "cpu"}), prototypes=16, folder=folder)
    assert list(folder.iterdir()) == []
    assert 0 < measured.seconds_a_step < 30
    assert 10**8 < measured.peak_bytes == measured.resident_bytes
    assert measured.device == "cpu"
    with pytest.raises(InputError, match="curate"):
        calibrate(tiny.model_copy(update={"curated": None}), prototypes=16)
