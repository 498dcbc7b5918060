"""Weights out: a folder in the layout of this package, of DINOv2, MMPretrain, timm or Hugging Face, ONNX or torch.export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from cgeartheye.errors import InputError
from cgeartheye.files import atomic_path, sha256_file, write_bytes, write_json, write_text
from cgeartheye.models.cost import inner_width
from cgeartheye.models.vit import VitConfig
from cgeartheye.weights.backbone import OwnBackbone
from cgeartheye.weights.card import model_card
from cgeartheye.weights.foreign import EXTRA, LAYOUTS, PICKLE, SIDECAR
from cgeartheye.weights.graphs import save_onnx, save_program
from cgeartheye.weights.layouts import huggingface
from cgeartheye.weights.provenance import code_version
from cgeartheye.weights.store import save_backbone

Target = Literal["own", "dinov2", "mmpretrain", "timm", "huggingface", "onnx", "torch-export"]
README: Final = "README.md"
OPEN: Final[dict[str, str]] = {
    "own": "`--backbone FOLDER` of every verb",
    "dinov2": "`torch.load('backbone.pth', weights_only=True)` into the hub's model with `img_size={px}, init_values=1.0`",
    "mmpretrain": "`init_cfg=dict(type='Pretrained', checkpoint='backbone.pth', prefix='backbone.')`",
    "timm": "`timm.create_model('local-dir:FOLDER', pretrained=True, dynamic_img_size=True)`",
    "huggingface": "`transformers.AutoModel.from_pretrained('FOLDER')`",
    "onnx": "`onnxruntime.InferenceSession('model.onnx')`; input `images` (B, C, H, W) uint8, outputs `class_token`, `patches`",
    "torch-export": "`torch.export.load('model.pt2').module()`; input (B, C, H, W) uint8, outputs class token, patches",
}
"""How each kind of folder is opened, as its README says."""
_TIMM_NAMES: Final = {"small": "small", "base": "base", "large": "large", "giant": "giant"}


def export(backbone: OwnBackbone, target: str, out: Path) -> list[str]:
    """Write a backbone into a new folder, with a README that is its model card.

    Args:
        backbone: a network of this package.
        target: one of :data:`Target`.
        out: folder; must not exist or be empty.

    Returns:
        Notes: what the reader of that layout will do otherwise than this package.

    Raises:
        InputError: if the folder has files, or the layout has no such network.
        ResourceError: if a library is missing or the disk is full.
    """
    if target not in get_args(Target):
        raise InputError(f"unknown layout {target!r}", remedy=f"known are {', '.join(get_args(Target))}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is there already and not empty", where=str(out), remedy="give a new folder; nothing is overwritten")
    config = backbone.model.config
    _refuse(config, target)
    notes = differences(config, target)
    card = {**backbone.card, "licence": backbone.licence, "exported_by": code_version()}
    _WRITERS[target](backbone, card, out)
    if target in LAYOUTS:
        files = {file.name: sha256_file(file) for file in sorted(out.iterdir())}
        write_json(out / SIDECAR, {"schema_version": 1, "config": config.to_json(), "card": card, "sha256": files})
    opened = f"Open with {OPEN[target].format(px=config.position_px)}."
    write_text(out / README, _front_matter(backbone) + model_card(card, config, notes=(opened, *notes)))
    return notes


def differences(config: VitConfig, target: str) -> list[str]:
    """Say what the reader of a layout does otherwise than these weights want."""
    layout = LAYOUTS.get(target)
    if layout is None:
        return []
    notes = []
    theirs = layout.interpolation(config.registers)
    if theirs != config.position_interpolation:
        notes.append(
            f"At {config.position_px} px nothing differs. At other sizes that library resizes positions as `{theirs}`, while "
            f"these weights were made for `{config.position_interpolation}`: tokens differ slightly there."
        )
    if target != "huggingface":
        notes.append(f"Pictures are to be normalised outside: {_statistics(config)}.")
    if layout.NO_PLACE_FOR:
        notes.append(f"The layout has no mask token (needed by pre-training only); it lies in `{EXTRA}`.")
    return notes


def _statistics(config: VitConfig) -> str:
    return f"{', '.join(config.bands)} in [0, 1], minus mean {list(config.mean)}, over deviation {list(config.std)}"


def _refuse(config: VitConfig, target: str) -> None:
    if target == "mmpretrain" and config.registers:
        raise InputError("MMPretrain's network has no register tokens", remedy="choose huggingface, timm or dinov2")
    if target == "timm" and (config.ffn == "swiglu") != (config.name == "giant"):
        raise InputError("timm has no such network with a gated MLP", remedy="choose huggingface or dinov2")


def _front_matter(backbone: OwnBackbone) -> str:
    licence = backbone.licence.replace("\n", " ").replace('"', "'")
    return f'---\nlicense: "{licence}"\ntags:\n- image-feature-extraction\n- remote-sensing\n---\n'


def _state(backbone: OwnBackbone) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in backbone.model.state_dict().items()}


def _save_extra(state: Mapping[str, Tensor], names: frozenset[str], out: Path) -> None:
    if names:
        write_bytes(out / EXTRA, save({name: state[name] for name in sorted(names) if name in state}, {"format": "pt"}))


def _write_own(backbone: OwnBackbone, card: Mapping[str, Any], out: Path) -> None:
    save_backbone(out, backbone.model, card)


def _write_pickle(target: str) -> Callable[[OwnBackbone, Mapping[str, Any], Path], None]:
    def write(backbone: OwnBackbone, card: Mapping[str, Any], out: Path) -> None:
        del card
        state, layout = _state(backbone), LAYOUTS[target]
        named = layout.from_own({key: value for key, value in state.items() if key not in layout.NO_PLACE_FOR})
        content = {"state_dict": named} if target == "mmpretrain" else named
        with atomic_path(out / PICKLE) as temporary:
            torch.save(content, temporary)
        _save_extra(state, layout.NO_PLACE_FOR, out)

    return write


def _write_timm(backbone: OwnBackbone, card: Mapping[str, Any], out: Path) -> None:
    del card
    state, config, layout = _state(backbone), backbone.model.config, LAYOUTS["timm"]
    named = layout.from_own({key: value for key, value in state.items() if key not in layout.NO_PLACE_FOR})
    extra = layout.NO_PLACE_FOR | ({"cls_token", "pos_embed"} if config.registers else set())
    write_bytes(out / "model.safetensors", save(named, {"format": "pt"}))
    write_json(out / "config.json", timm_configuration(config, licence=backbone.licence))
    _save_extra(state, frozenset(extra), out)


def timm_configuration(config: VitConfig, *, licence: str) -> dict[str, Any]:
    """Return timm's ``config.json``: an architecture it knows, and what differs from it."""
    size = _TIMM_NAMES.get(config.name, "small")
    registers = f"reg{config.registers}_" if config.registers == 4 else ""
    arguments: dict[str, Any] = {
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "patch_size": config.patch_px,
        "img_size": config.position_px,
        "in_chans": len(config.bands),
        "init_values": config.layer_scale,
    }
    rows = inner_width(config) * (2 if config.ffn == "swiglu" else 1)
    arguments["mlp_ratio"] = (rows + 0.5) / config.width  # timm rounds its product with the width down
    if config.registers:
        arguments |= {"reg_tokens": config.registers, "no_embed_class": True}
    return {
        "architecture": f"vit_{size}_patch14_{registers}dinov2",
        "num_classes": 0,
        "num_features": config.width,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [len(config.bands), config.position_px, config.position_px],
            "mean": list(config.mean),
            "std": list(config.std),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": licence,
        },
    }


def _write_huggingface(backbone: OwnBackbone, card: Mapping[str, Any], out: Path) -> None:
    del card
    config = backbone.model.config
    write_bytes(out / "model.safetensors", save(huggingface.from_own(_state(backbone)), {"format": "pt"}))
    write_json(out / "config.json", huggingface.configuration(config))
    write_json(out / "preprocessor_config.json", huggingface.preprocessor(config))


def _write_onnx(backbone: OwnBackbone, card: Mapping[str, Any], out: Path) -> None:
    del card
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(backbone.model, out / "model.onnx")


def _write_program(backbone: OwnBackbone, card: Mapping[str, Any], out: Path) -> None:
    del card
    out.mkdir(parents=True, exist_ok=True)
    save_program(backbone.model, out / "model.pt2")


_WRITERS: Final[dict[str, Callable[[OwnBackbone, Mapping[str, Any], Path], None]]] = {
    "own": _write_own,
    "dinov2": _write_pickle("dinov2"),
    "mmpretrain": _write_pickle("mmpretrain"),
    "timm": _write_timm,
    "huggingface": _write_huggingface,
    "onnx": _write_onnx,
    "torch-export": _write_program,
}
