"""The teacher of a run as it stood at an earlier step, out of a checkpoint that the run kept."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Final

from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import write_text
from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.weights.backbone import OwnBackbone, state_fingerprint
from cgeartheye.weights.store import read_card

TEACHER: Final = "networks.teacher.backbone."
"""How names of the teacher's backbone begin in a checkpoint."""
NAMES_FILE: Final = "training_names.txt"
"""Beside weights: the pictures (``.../<class>/<file name>``) they were trained on, one a line."""
_LOG = logging.getLogger(__name__)


def load_step(run: Path, step: int) -> OwnBackbone:
    """Read the teacher after ``step`` steps of a finished run, ready for inference on the CPU.

    Checkpoints are in torch's own format, whose metadata is a pickle: read only those of runs that you began yourself.

    Args:
        run: the folder that ``pretrain`` wrote; its ``backbone.json`` says what network it is.
        step: of a checkpoint that was kept (``watch.checkpoint_every``, ``watch.keep``).

    Raises:
        InputError: if the run has no backbone yet, or no checkpoint of that step.
        DataError: if the checkpoint cannot be read, or is of another network (another phase has positions of another size).
    """
    described = read_card(run)
    folder = run / "checkpoints" / f"step_{step:08d}"
    if not folder.is_dir():
        raise InputError(f"has no checkpoint of step {step}", where=str(run), remedy=_kept(run))
    config = VitConfig.from_json(described["config"])
    model = VisionTransformer(config)
    tensors = {f"{TEACHER}{name}": value for name, value in model.state_dict().items()}  # filled in place
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(tensors, checkpoint_id=folder, no_dist=True)
    except (CheckpointException, OSError) as error:
        raise DataError(f"cannot be read as a checkpoint of this network ({_first(error)})", where=str(folder)) from error
    card = {**described["card"], "name": f"{described['card'].get('name', config.name)}, step {step}", "metrics": {"steps": step}}
    licence = str(card.get("licence", "unknown"))
    return OwnBackbone(model, name=card["name"], fingerprint=state_fingerprint(model), licence=licence, card=card).eval()


def keep_names(given: Path, out: Path) -> None:
    """Copy the list of training pictures beside given weights, if there is one, so that `evaluate` goes on refusing them."""
    names = (given if given.is_dir() else given.parent) / NAMES_FILE
    if names.is_file():
        write_text(out / NAMES_FILE, names.read_text(encoding="utf-8"))


def _kept(run: Path) -> str:
    steps = [str(int(path.name.removeprefix("step_"))) for path in sorted((run / "checkpoints").glob("step_*"))]
    return f"steps that were kept: {', '.join(steps)}" if steps else "set watch.keep, which says how many are kept"


def _first(error: BaseException) -> BaseException:
    failures = error.failures if isinstance(error, CheckpointException) else {}
    return next((cause for cause, _ in failures.values()), error)
