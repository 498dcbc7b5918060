"""A run that is killed twenty times, each at another moment, ends as one that never was."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cgeartheye.files import read_json
from cgeartheye.pretraining import pretrain
from cgeartheye.settings.pretrain import PretrainSettings


def outputs_of(out: Path) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in read_json(out / "manifest.json")["outputs"].items()}


def logged(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_twenty_random_kills(tiny: PretrainSettings, tmp_path: Path) -> None:
    watch = {"log_every": 1, "checkpoint_every": 1, "probe_every": 7, "keep": 2}
    changes: dict[str, Any] = {"steps": 60, "batch": 4, "microbatch": 2, "watch": watch, "drop_path": 0.2}
    changes["phases"] = ({"steps": 20, "views": {"global_px": 40}},)
    settings = PretrainSettings.model_validate({**tiny.model_dump(), **changes})
    whole = pretrain(settings, tmp_path / "whole")
    draw = random.Random(0)
    killed = tmp_path / "killed"
    context = multiprocessing.get_context("fork")  # importing the libraries twenty times would take most of the time
    kills = 0
    while kills < 20:
        before, lines = logged(killed), draw.randint(0, 6)
        process = context.Process(target=pretrain, args=(settings, killed))
        process.start()
        while process.is_alive() and logged(killed) < before + lines:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.2)  # within a step, a probe or the write of a checkpoint
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not (killed / "manifest.json").exists(), "it must not have ended before the last kill"
        kills += 1
    pretrain(settings, killed)
    assert outputs_of(killed) == outputs_of(whole)
