"""Checkpoints, logs, optimizer and runtime: what resuming rests on."""

from __future__ import annotations

import errno
import json
import platform
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from cgeartheye.errors import DataError, ResourceError
from cgeartheye.training.checkpoint import (
    Saver,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    sweep_checkpoints,
)
from cgeartheye.training.distributed import World
from cgeartheye.training.optimizer import AdamW, clip_and_step, set_rates
from cgeartheye.training.parameters import decays, layer_of, parameter_groups
from cgeartheye.training.run_log import RunLog, read_lines
from cgeartheye.training.runtime import pick_device, runtime
from cgeartheye.training.schedules import cosine, linear, warm_cosine


def test_a_checkpoint_returns_what_was_saved(tmp_path: Path) -> None:
    saved = {"a": torch.randn(3, 4), "flag": torch.tensor([True, False]), "count": torch.tensor(7.0)}
    save_checkpoint(tmp_path, 12, saved, {"sums": {"loss": 0.1 + 0.2}})
    loaded = {name: torch.zeros_like(value) for name, value in saved.items()}
    path = latest_checkpoint(tmp_path)
    assert path is not None
    note = load_checkpoint(path, loaded)
    assert note["step"] == 12
    assert note["sums"]["loss"] == 0.1 + 0.2  # every bit
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_background_save_holds_the_state_of_its_moment(tmp_path: Path, asynchronous: bool) -> None:
    value = torch.zeros(1000)
    saver = Saver(tmp_path, World(), asynchronous=asynchronous)
    for step in range(1, 5):
        value.fill_(step)
        saver.save(step, {"a": value, "b": torch.tensor(float(step))}, {})
        value.fill_(-1)  # training goes on at once
    saver.close()
    for step in range(1, 5):
        found = {"a": torch.zeros(1000), "b": torch.zeros(())}
        load_checkpoint(tmp_path / f"step_{step:08d}", found)
        assert torch.equal(found["a"], torch.full((1000,), float(step)))
        assert found["b"] == step


def test_a_background_save_that_failed_is_told_at_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cgeartheye.training.checkpoint.write_json", full)
    saver = Saver(tmp_path, World(), asynchronous=True)
    saver.save(1, {"a": torch.zeros(2)}, {})
    with pytest.raises(ResourceError):
        saver.save(2, {"a": torch.zeros(2)}, {})
    saver.close()
    assert list(tmp_path.iterdir()) == []


def test_the_newest_and_the_spared_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, {"a": torch.zeros(2)}, {})
    prune_checkpoints(tmp_path, keep=2, spare={2})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{k:08d}" for k in (2, 4, 5)]
    older = latest_checkpoint(tmp_path, before=3)
    assert older is not None
    assert older.name == "step_00000002"


def test_an_interrupted_save_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.ones(2)}, {})

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cgeartheye.training.checkpoint.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 2, {"a": torch.zeros(2)}, {})
    monkeypatch.undo()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step_00000001"
    sweep_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, step, {"a": torch.full((2,), float(step))}, {})
    prune_checkpoints(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000010", "step_00000015"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"a": torch.ones(2)}, {})
    with pytest.raises(DataError, match="step_00000001"):
        load_checkpoint(path, {"a": torch.ones(2), "b": torch.ones(2)})


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cgeartheye.training.checkpoint.write_json", full)
    with pytest.raises(ResourceError, match="full"):
        save_checkpoint(tmp_path, 1, {"a": torch.ones(2)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_cut_to_the_checkpoint_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = RunLog(path, step=0)
    for step in (10, 20, 30):
        log.write({"step": step, "loss": 1.0 / step, "bad": float("nan")})
    with path.open("a") as handle:
        handle.write('{"step": 40, "lo')
    assert [line["step"] for line in read_lines(path)] == [10, 20, 30]
    RunLog(path, step=20).write({"step": 25})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 25]
    assert read_lines(path)[0]["bad"] is None


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(DataError, match="line 2"):
        read_lines(path)


def model() -> nn.Module:
    net = nn.Module()
    net.blocks = nn.ModuleList([nn.ModuleDict({"norm1": nn.LayerNorm(4), "fc": nn.Linear(4, 4)}) for _ in range(2)])
    net.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
    net.norm = nn.LayerNorm(4)
    net.prototypes = nn.Parameter(torch.ones(5, 4))
    return net


def test_groups_hold_every_parameter_once() -> None:
    net = model()
    groups = parameter_groups(net.named_parameters(), depth=2, layer_decay=0.5)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in net.named_parameters())
    of = {name: group for group in groups for name in group["names"]}
    assert of["blocks.0.fc.weight"]["decays"]
    assert not any(
        of[name]["decays"] for name in ("blocks.0.fc.bias", "blocks.1.norm1.weight", "cls_token", "norm.weight", "prototypes")
    )
    assert [of[n]["lr_scale"] for n in ("cls_token", "blocks.0.fc.weight", "blocks.1.fc.weight", "norm.weight")] == [
        0.125,
        0.25,
        0.5,
        1,
    ]


def test_names_of_the_real_network() -> None:
    assert not decays("backbone.blocks.3.ls1.gamma")
    assert not decays("backbone.pos_embed")
    assert decays("backbone.patch_embed.proj.weight")
    assert decays("class_head.mlp.0.weight")
    assert layer_of("backbone.patch_embed.proj.bias", 12) == 0
    assert layer_of("backbone.blocks.11.mlp.fc1.weight", 12) == 12
    assert layer_of("class_head.mlp.0.weight", 12) == 13


def test_the_step_equals_plain_adamw_with_its_clipping() -> None:
    net, twin = model(), model()
    twin.load_state_dict(net.state_dict())
    optimizer = AdamW(parameter_groups(net.named_parameters(), depth=2), betas=(0.9, 0.99))
    matrices = [p for n, p in twin.named_parameters() if n.endswith("fc.weight")]
    others = [p for n, p in twin.named_parameters() if not n.endswith("fc.weight")]
    plain = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01, betas=(0.9, 0.99)
    )
    clip = 1.0
    for k in range(4):
        for number, (a, b) in enumerate(zip(net.parameters(), twin.parameters(), strict=True)):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(10 * k + number)) * (0.01 if k == 3 else 1)
            b.grad = a.grad.clone()
        set_rates(optimizer, lr=0.01, weight_decay=0.1)
        norm, stepped = clip_and_step(optimizer, clip=clip)
        expected = torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
        plain.step()
        assert bool(stepped)
        torch.testing.assert_close(norm, expected)
        assert (float(norm) > clip) == (k < 3)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_has_no_gradient_stands_still() -> None:
    net = model()
    optimizer = AdamW(parameter_groups(net.named_parameters(), depth=2), betas=(0.9, 0.99))
    for name, parameter in net.named_parameters():
        parameter.grad = None if name == "prototypes" else torch.ones_like(parameter)
    set_rates(optimizer, lr=0.01, weight_decay=0.1)
    clip_and_step(optimizer, clip=3.0)
    assert torch.equal(net.get_parameter("prototypes"), torch.ones(5, 4))
    assert not torch.equal(net.get_parameter("norm.weight"), model().get_parameter("norm.weight"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_without_finite_gradients_changes_nothing(bad: float) -> None:
    net = model()
    optimizer = AdamW(parameter_groups(net.named_parameters(), depth=2), betas=(0.9, 0.99))
    before = {k: v.clone() for k, v in {**net.state_dict(), **optimizer.tensors()}.items()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    net.get_parameter("norm.weight").grad[0] = bad  # type: ignore[index] # set just above
    set_rates(optimizer, lr=1.0, weight_decay=1.0)
    assert not clip_and_step(optimizer, clip=3.0)[1]
    after = {**net.state_dict(), **optimizer.tensors()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_backbone_s_rate_has_a_factor_of_its_own() -> None:
    net = torch.nn.ModuleDict({"backbone": model(), "class_head": torch.nn.Linear(2, 2)})
    optimizer = AdamW(parameter_groups(net.named_parameters(), depth=2, layer_decay=0.5), betas=(0.9, 0.99))
    set_rates(optimizer, lr=1.0, weight_decay=0.0, backbone=0.25)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates["class_head.weight"] == 1.0
    assert rates["backbone.blocks.1.fc.weight"] == 0.125


def test_schedules_at_their_corners() -> None:
    assert [cosine(1.0, 0.0, share) for share in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert [linear(0.04, 0.07, share, over=0.5) for share in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert [warm_cosine(2.0, 0.2, share, warm_up=0.2) for share in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([1.0, 2.0, 1.1, 0.2])
    assert warm_cosine(2.0, 0.2, 0.0, warm_up=0.0) == pytest.approx(2.0)
    assert linear(0.04, 0.07, 0.0, over=0.0) == 0.07


def test_runtime_puts_everything_back() -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    with pytest.raises(RuntimeError, match="inside"), runtime(threads=3):
        assert torch.get_num_threads() == 3
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError("inside")
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept where the C library is glibc")
def test_memory_that_a_step_frees_is_not_asked_of_the_kernel_again() -> None:
    pages = 2**26 * 4 // resource.getpagesize()  # of 256 MiB, more than glibc keeps by itself
    with runtime(threads=1):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(2**26)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4 * pages  # grown once or twice, not ten times


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said() -> None:
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ResourceError, match="GPU"):
        pick_device("cuda")
