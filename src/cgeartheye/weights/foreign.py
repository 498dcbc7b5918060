"""Weights that others saved, read into our own network: DINOv2, MMPretrain (official CGEarthEye), timm and Hugging Face."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import torch
from torch import Tensor

from cgeartheye.errors import DataError, InputError, ShapeError
from cgeartheye.files import read_json, sha256_file
from cgeartheye.models.sizes import SIZES
from cgeartheye.models.vit import IMAGENET_MEAN, IMAGENET_STD, RGB, VisionTransformer, VitConfig
from cgeartheye.weights.backbone import OwnBackbone, state_fingerprint
from cgeartheye.weights.card import restricted
from cgeartheye.weights.layouts import dinov2, huggingface, mmpretrain, timm
from cgeartheye.weights.reading import INDEX, PICKLES, read_pickle, read_sharded, read_tensors
from cgeartheye.weights.store import load_strictly

Layout = Literal["dinov2", "mmpretrain", "timm", "huggingface"]
LAYOUTS: Final[dict[str, ModuleType]] = {"huggingface": huggingface, "mmpretrain": mmpretrain, "dinov2": dinov2, "timm": timm}
"""Key maps by name, in the order in which they are tried."""
EXTRA: Final = "left_out.safetensors"
"""Beside exported weights: tensors that their layout has no place for, so that the way back loses nothing."""
SIDECAR: Final = "cgeartheye.json"
"""Beside exported weights: our configuration and card, and the SHA-256 of the file they belong to."""
PICKLE: Final = "backbone.pth"
_PREFIXES: Final = ("teacher.backbone.", "backbone.", "module.", "model.", "dinov2_with_registers.", "dinov2.")
_HEADS_OF_WIDTH: Final = {config.width: config.heads for name, config in SIZES.items() if name != "nano"}


@dataclass(frozen=True)
class Given:
    """What the user says of weights that do not say it themselves; None leaves it to the file."""

    layout: Layout | None = None
    heads: int | None = None
    licence: str | None = None


@dataclass(frozen=True)
class _Found:
    """A checkpoint as it lies on disk."""

    file: Path
    state: dict[str, Tensor]
    extra: dict[str, Tensor]
    said: Mapping[str, Any]
    """What the files beside it say: ``heads``, ``mean``, ``std``, ``licence``."""
    own: Mapping[str, Any] | None
    """Our configuration and card, if this package wrote it."""


def is_foreign(path: Path) -> bool:
    """Tell whether ``path`` is a file or folder that others' weights may be in."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("model.safetensors", INDEX, PICKLE))
    return path.is_file() and path.suffix in PICKLES | {".safetensors"}


def load_foreign(path: Path, given: Given | None = None) -> OwnBackbone:
    """Read weights of another layout into our network, ready for inference on the CPU.

    The layout is recognised by the names, the size by the shapes. How positions are resized follows the layout (see
    :data:`cgeartheye.models.positions.Interpolation`). Tensors of heads beside a prefixed backbone are left out and listed in
    the card; a mask token that a layout lacks starts at 0, as DINOv2's does.

    Args:
        path: a ``.pth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.safetensors`` file, or a folder with ``model.safetensors``.
        given: what the file does not say.

    Raises:
        InputError: if the layout is not known, or a pickle holds more than tensors.
        DataError: if keys or shapes do not fit, all of them named.
    """
    given = given or Given()
    found = _read(path)
    inner, ignored = _without_prefix(found.state)
    layout = given.layout or _recognise(inner, path)
    model, zeroed = _network(LAYOUTS[layout].to_own(inner) | found.extra, layout, found, given, where=path)
    licence = given.licence or found.said.get("licence") or "unknown"
    if found.own is not None:
        card = dict(found.own["card"])
        if given.licence:
            card |= {"licence": given.licence, "restricted_by": restricted([given.licence])}
    else:
        parent = {"layout": layout, "file": found.file.name, "sha256": sha256_file(found.file), "licence": licence}
        card = {
            "name": path.stem if path.is_file() else path.name,
            "licence": licence,
            "restricted_by": restricted([licence]),
            "parent": {**parent, "left_out": ignored, "set_to_zero": zeroed},
        }
    name, licence = str(card.get("name", model.config.name)), str(card.get("licence", "unknown"))
    return OwnBackbone(model, name=name, fingerprint=state_fingerprint(model), licence=licence, card=card).eval()


def adopt(state: Mapping[str, Tensor], layout: Layout, *, name: str, said: Mapping[str, Any]) -> OwnBackbone:
    """Bring the weights of a network in memory into our own network, ready for inference on the CPU.

    Args:
        state: its state dict (any shapes), under the names of ``layout``.
        layout: whose names they are.
        name: what it is called, for example ``timm:NAME``.
        said: ``heads``, ``mean``, ``std``, ``licence``, ``sha256`` of it; licence and hash go into the card.

    Raises:
        DataError: if keys or shapes do not fit, all of them named.
    """
    found = _Found(Path(name), dict(state), {}, said, None)
    model, zeroed = _network(LAYOUTS[layout].to_own(state), layout, found, Given(), where=found.file)
    licence = str(said.get("licence") or "unknown")
    parent = {
        "layout": layout,
        "file": name,
        "sha256": said.get("sha256"),
        "licence": licence,
        "left_out": [],
        "set_to_zero": zeroed,
    }
    card = {"name": name, "licence": licence, "restricted_by": restricted([licence]), "parent": parent}
    return OwnBackbone(model, name=name, fingerprint=state_fingerprint(model), licence=licence, card=card).eval()


def _network(
    state: dict[str, Tensor], layout: str, found: _Found, given: Given, *, where: Path
) -> tuple[VisionTransformer, list[str]]:
    """Return our network with ``state`` in it, and the names of what had to be set to 0."""
    config = _config(state, layout, found, given, where=where)
    zeroed = [] if "mask_token" in state else ["mask_token"]
    state.setdefault("mask_token", torch.zeros(1, config.width))
    model = VisionTransformer(config)
    load_strictly(model, state, where=where)
    return model, zeroed


def _read(path: Path) -> _Found:
    if path.is_dir() and not (path / PICKLE).is_file():
        return _read_folder(path)
    file = path / PICKLE if path.is_dir() else path
    state = read_pickle(file) if file.suffix in PICKLES else read_tensors(file)
    return _Found(file, state, _extra(file.parent), {}, _sidecar(file))


def _read_folder(folder: Path) -> _Found:
    """Read a folder of Hugging Face (``config.json`` names heads) or of timm (``config.json`` names mean and deviation)."""
    sharded = (folder / INDEX).is_file()
    file = folder / (INDEX if sharded else "model.safetensors")
    state = read_sharded(folder) if sharded else read_tensors(file)
    settings, images = _json(folder / "config.json"), _json(folder / "preprocessor_config.json")
    timms = settings.get("pretrained_cfg", {})
    said = {
        "heads": huggingface.heads_of(settings) or settings.get("model_args", {}).get("num_heads"),
        "mean": images.get("image_mean") or timms.get("mean"),
        "std": images.get("image_std") or timms.get("std"),
        "licence": timms.get("license") or _licence(folder / "README.md"),
    }
    return _Found(file, state, _extra(folder), said, _sidecar(file))


def _sidecar(file: Path) -> Mapping[str, Any] | None:
    path = file.with_name(SIDECAR)
    found = _json(path)
    if not found:
        return None
    if found.get("sha256", {}).get(file.name) != sha256_file(file):
        raise DataError(
            f"is not the file that {SIDECAR} beside it describes", where=str(file), remedy=f"export again, or take {SIDECAR} away"
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise DataError("is no JSON object", where=str(path))
    return found


def _licence(readme: Path) -> str | None:
    """Return the licence that the front matter of a README names."""
    head = readme.read_text(errors="replace")[:4000] if readme.is_file() else ""
    match = re.search(r"^license:\s*['\"]?([^'\"\n]+)", head, re.MULTILINE)
    return match[1].strip() if match else None


def _extra(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / EXTRA) if (folder / EXTRA).is_file() else {}


def _without_prefix(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take off the prefix of a backbone inside a larger network; what lies beside it is left out and named."""
    state, ignored = dict(state), []
    while prefix := next((p for p in _PREFIXES if any(key.startswith(p) for key in state)), None):
        ignored += [key for key in state if not key.startswith(prefix)]
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state, sorted(ignored)


def _recognise(state: Mapping[str, Tensor], path: Path) -> str:
    for name, layout in LAYOUTS.items():
        if layout.fits(state):
            return name
    shown = ", ".join(sorted(state)[:5])
    raise InputError(
        f"its names are of no layout that is known ({', '.join(LAYOUTS)}); it begins with {shown}",
        where=str(path),
        remedy="only plain vision transformers of the DINOv2 family can be read into the network of this package",
    )


def _config(state: Mapping[str, Tensor], layout: str, found: _Found, given: Given, *, where: Path) -> VitConfig:
    """Return the configuration that this package wrote beside the weights, else infer it from shapes."""
    if found.own is not None:
        try:
            return VitConfig.from_json(found.own["config"])
        except (TypeError, KeyError, ShapeError) as error:
            raise DataError(f"holds no configuration of a network ({error})", where=str(found.file.with_name(SIDECAR))) from error
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight")
    missing = [key for key in needed if key not in state]
    if missing:
        raise DataError(f"lacks {', '.join(missing)} (our names), so its size cannot be told", where=str(where))
    width, (bands, patch_px) = state["cls_token"].shape[-1], state["patch_embed.proj.weight"].shape[1:3]
    heads = given.heads or found.said.get("heads") or _HEADS_OF_WIDTH.get(width)
    if heads is None:
        raise InputError(
            f"the number of heads of a network of width {width} is not known", where=str(where), remedy="give --heads"
        )
    first = state.get("blocks.0.mlp.fc1.weight")
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    mean, std = (tuple(found.said.get(key) or usual) for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    try:
        config = VitConfig(
            name="custom",
            depth=len({match[1] for key in state if (match := re.match(r"blocks\.(\d+)\.", key))}),
            width=width,
            heads=heads,
            hidden=4 * width if first is None else first.shape[0],
            ffn="mlp" if first is not None else "swiglu",
            patch_px=patch_px,
            registers=registers,
            position_px=round((state["pos_embed"].shape[1] - 1) ** 0.5) * patch_px,
            bands=RGB if bands == len(RGB) else tuple(f"band {i + 1}" for i in range(bands)),
            mean=mean,
            std=std,
            position_interpolation=LAYOUTS[layout].interpolation(registers),
        )
    except ShapeError as error:
        raise DataError(f"its shapes make no network ({error})", where=str(where)) from error
    return dataclasses.replace(config, name=size_name(config))


def size_name(config: VitConfig) -> str:
    """Return the name of the published size that a network has the shape of, else ``custom``."""
    shape = (config.depth, config.width, config.heads, config.hidden, config.ffn)
    for name, known in SIZES.items():
        if shape == (known.depth, known.width, known.heads, known.hidden, known.ffn):
            return name
    return "custom"
