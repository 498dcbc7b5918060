"""Alarms on curves of runs that learn, and of runs that go wrong in each of the ways they name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cgeartheye.pretraining.alarms import Alarm, alarms, as_columns

K = 256
Lines = list[dict[str, Any]]


def healthy(steps: int = 1500, *, seed: int = 0) -> Lines:
    """The curves of a run of nano on rendered land, with their noise: from ln K down, from rank 14 up, probes rising."""
    random = np.random.default_rng(seed)
    lines: Lines = [{"step": 0, **probes(0.0, random)}]
    for step in range(20, steps + 1, 20):
        left = math.exp(-step / 400)
        line = {
            "step": step,
            "lr": 5e-4 * min(step / 150, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
            "loss": 14.0 + 3.0 * left,
            "loss_global": 4.55 + 1.0 * left + 0.02 * random.normal(),
            "teacher_entropy": 0.76 + 0.11 * left,
            "max_prototype_share": 0.02 + 0.01 * random.random(),
            "grad_norm": 3.6 + 5.6 * math.exp(-step / 20) + 0.3 * random.normal(),
            "rank": 37 - 23 * left + random.normal(),
        }
        lines.append(line | (probes(step / steps, random) if step % 100 == 0 else {}))
    return lines


def probes(share: float, random: np.random.Generator) -> dict[str, Any]:
    """What the probe writes when a share of the run is done."""
    return {
        "probe_class": 0.72 + 0.11 * share + 0.008 * random.normal(),
        "probe_patch": 0.77 + 0.01 * random.normal(),
        "probe_retrieval": 0.03 + 0.04 * share + 0.01 * random.normal(),
        "probe_rank": 15 + 30 * share,
        "probe_patch_similarity": 0.43 - 0.12 * share,
        "probe_labels": "land_cover",
        "probe_chips": 512,
        "probe_retrieval_places": 256,
    }


def spoilt(change: Callable[[dict[str, Any], float], dict[str, Any]], *, begin: int = 700) -> Lines:
    """A healthy run whose lines from a step on are changed by a function of the line and of the share of the rest done."""
    return [line | change(line, (line["step"] - begin) / (1500 - begin)) if line["step"] >= begin else line for line in healthy()]


def only_trained(values: dict[str, Any]) -> Callable[[dict[str, Any], float], dict[str, Any]]:
    """Change lines of training, not those of step 0."""
    return lambda line, _: values if "loss" in line else {}


def only_probed(name: str, curve: Callable[[float], float]) -> Callable[[dict[str, Any], float], dict[str, Any]]:
    """Change a probe where it is measured."""
    return lambda line, share: {name: curve(share)} if name in line else {}


@pytest.mark.parametrize("seed", range(12))
def test_a_healthy_run_raises_none_at_any_line(seed: int) -> None:
    lines = healthy(seed=seed)
    assert [alarms(lines[:count], classes_k=K) for count in range(len(lines) + 1)] == [[]] * (len(lines) + 1)


WRONG: dict[str, list[Callable[[dict[str, Any], float], dict[str, Any]]]] = {
    "one_prototype": [only_trained({"teacher_entropy": 0.01}), only_trained({"max_prototype_share": 0.21})],
    "uniform_targets": [only_trained({"teacher_entropy": 0.995})],
    "loss_floor": [only_trained({"loss_global": math.log(K) * 1.004})],
    "rank_collapse": [only_trained({"rank": 1.2}), only_trained({"rank": 7.0}), only_probed("probe_rank", lambda _: 9.0)],
    "dense_decay": [only_probed("probe_patch_similarity", lambda share: 0.4 + 0.3 * share)],
    "gradient_explosion": [only_trained({"grad_norm": 60.0}), only_trained({"grad_norm": None})],
    "probe_falling": [
        only_probed("probe_patch", lambda share: 0.77 - 0.2 * share),
        only_probed("probe_class", lambda share: 0.78 - 0.2 * share),
    ],
}


@pytest.mark.parametrize(("name", "change"), [(name, change) for name, changes in WRONG.items() for change in changes])
def test_each_way_to_go_wrong_raises_its_own_alarm_and_no_other(
    name: str, change: Callable[[dict[str, Any], float], dict[str, Any]]
) -> None:
    lines = spoilt(change)
    before = [line for line in lines if line["step"] < 700]
    assert alarms(before, classes_k=K) == []
    (found,) = alarms(lines, classes_k=K)
    assert found.name == name
    assert "; " in found.sentence or "collapsed" in found.sentence
    assert as_columns([found]) == {f"alarm_{name}": found.sentence}


def test_a_single_bad_line_is_no_alarm_and_an_alarm_ends() -> None:
    lines = healthy()
    for bad in ({"teacher_entropy": 0.0}, {"rank": 1.0}, {"grad_norm": 900.0}, {"grad_norm": None}, {"probe_class": 0.1}):
        assert alarms([*lines[:-1], lines[-1] | bad], classes_k=K) == []
    gone = spoilt(only_trained({"rank": 7.0}), begin=1000)
    assert [a.name for a in alarms(gone, classes_k=K)] == ["rank_collapse"]
    recovered = [line | ({"rank": 30.0} if line["step"] > 1400 else {}) for line in gone]
    assert alarms(recovered, classes_k=K) == []


def test_a_loss_at_the_floor_is_normal_while_the_rate_rises_but_not_for_ever() -> None:
    floor = {"loss_global": math.log(K), "teacher_entropy": 0.99}
    rising = [{"step": step, "lr": 1e-8 * step, **floor} for step in range(20, 5001, 20)]
    assert alarms(rising, classes_k=K) == []
    longer = [{"step": step, "lr": 1e-8 * step, **floor} for step in range(20, 5401, 20)]
    assert [a.name for a in alarms(longer, classes_k=K)] == ["uniform_targets", "loss_floor"]
    falling = [*rising[:10], *({"step": 200 + step, "lr": 1e-6, **floor} for step in range(20, 261, 20))]
    assert [a.name for a in alarms(falling, classes_k=K)] == ["uniform_targets", "loss_floor"]


def test_few_prototypes_have_large_shares() -> None:
    lines = [{"step": step, "max_prototype_share": 0.3} for step in range(5)]
    assert alarms(lines, classes_k=8) == []
    assert [a.name for a in alarms(lines, classes_k=64)] == ["one_prototype"]


def test_another_phase_has_its_own_rank() -> None:
    lines = [line | {"phase": 0} for line in healthy()]
    later = [{"step": 1500 + step, "phase": 1, "rank": 12.0, "loss_global": 4.5} for step in range(20, 200, 20)]
    assert alarms([*lines, *later], classes_k=K) == []


def test_a_fall_within_chance_is_none_with_few_chips() -> None:
    lines = [{"step": step, "probe_class": value, "probe_chips": 32} for step, value in enumerate((0.5, 0.7, 0.72, 0.6, 0.6))]
    assert alarms(lines, classes_k=K) == []
    many = [line | {"probe_chips": 2000} for line in lines]
    (alarm,) = alarms(many, classes_k=K)
    assert alarm == Alarm("probe_falling", alarm.sentence)
    assert "from 70.0% to 60.0%" in alarm.sentence


def test_texts_gaps_and_nothing_raise_none() -> None:
    assert alarms([], classes_k=K) == []
    assert alarms([{"step": 0}, {"step": 1, "rank": "none", "loss_global": None, "teacher_entropy": math.nan}], classes_k=K) == []
