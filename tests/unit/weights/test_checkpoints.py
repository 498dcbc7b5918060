from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save

from cgeartheye.cli.export import export_verb
from cgeartheye.errors import DataError, InputError
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.weights.checkpoints import TEACHER, load_step
from cgeartheye.weights.load import load_backbone
from cgeartheye.weights.store import save_backbone

TINY = VitConfig(name="tiny", depth=1, width=16, heads=2, hidden=32, patch_px=4, position_px=16, mean=(0.1, 0.2, 0.3))


def keep(run: Path, step: int, model: VisionTransformer) -> None:
    """A checkpoint of everything a run has, of which the teacher's backbone is a part."""
    state = {f"{TEACHER}{name}": value for name, value in model.state_dict().items()}
    state |= {f"networks.student.backbone.{name}": value + 1 for name, value in model.state_dict().items()}
    save({**state, "used": torch.zeros(3)}, checkpoint_id=run / "checkpoints" / f"step_{step:08d}", no_dist=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    save_backbone(run, build(TINY, seed=3), {"name": "mine", "licence": "CC-BY-4.0", "init_seed": 9, "metrics": {"loss": 1}})
    keep(run, 20, build(TINY, seed=2))
    (run / "training_names.txt").write_text("lake/a.jpg\n")
    return run


def test_the_teacher_of_a_step_is_the_one_that_was_saved(run: Path) -> None:
    early, wanted = load_step(run, 20), build(TINY, seed=2).eval()
    picture = torch.randint(0, 256, (2, 3, 13, 18), dtype=torch.uint8)
    assert torch.equal(early(picture).class_token, wanted(picture).class_token)
    assert not early.training
    assert early.name == "mine, step 20"
    assert early.licence == "CC-BY-4.0"
    assert early.card["init_seed"] == 9
    assert early.card["metrics"] == {"steps": 20}  # those of the whole run are not its own
    assert early.fingerprint != load_backbone(run).fingerprint


def test_an_exported_step_is_a_backbone_that_knows_its_training_pictures(run: Path, tmp_path: Path) -> None:
    export_verb(str(run), step=20, to="own", out=tmp_path / "early", as_json=True)
    assert load_backbone(tmp_path / "early").fingerprint == load_step(run, 20).fingerprint
    assert (tmp_path / "early" / "training_names.txt").read_text() == "lake/a.jpg\n"


def test_a_step_that_was_not_kept_is_named_with_those_that_were(run: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint of step 30") as caught:
        load_step(run, 30)
    assert "20" in str(caught.value)


def test_a_checkpoint_of_another_network_is_refused(run: Path) -> None:
    keep(run, 40, build(VitConfig(**{**TINY.to_json(), "position_px": 32}), seed=0))
    with pytest.raises(DataError, match="step_00000040"):
        load_step(run, 40)
