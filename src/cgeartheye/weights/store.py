"""A backbone on disk: ``backbone.safetensors`` and ``backbone.json`` (configuration, card, fingerprint)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from cgeartheye.errors import DataError, InputError, ShapeError
from cgeartheye.files import read_json, sha256_file, write_bytes, write_json
from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.weights.backbone import OwnBackbone, serialise
from cgeartheye.weights.reading import read_tensors

SCHEMA_VERSION: Final = 1
WEIGHTS: Final = "backbone.safetensors"
CARD: Final = "backbone.json"


def save_backbone(folder: Path, model: VisionTransformer, card: Mapping[str, Any]) -> Path:
    """Write the weights of ``model`` and their card into ``folder``; equal weights give equal bytes.

    Args:
        folder: made if absent.
        model: saved as it is, on whatever device, in its own number type.
        card: JSON values: ``name``, ``licence``, ``data``, ``recipe``, ``init_seed``, ``parent``, ``metrics``, ``gsd_m`` ...

    Returns:
        The path of the weights.

    Raises:
        ResourceError: if the folder cannot be written.
    """
    data = serialise(model)
    write_bytes(folder / WEIGHTS, data)
    described = {
        "schema_version": SCHEMA_VERSION,
        "config": model.config.to_json(),
        "card": dict(card),
        "fingerprint": hashlib.sha256(data).hexdigest(),
    }
    write_json(folder / CARD, described)
    return folder / WEIGHTS


def read_card(path: Path) -> dict[str, Any]:
    """Return ``backbone.json`` (keys config, card, fingerprint) of a backbone's folder or weights file.

    Raises:
        InputError: if there is no backbone at ``path``.
        DataError: if it cannot be read or belongs to another release.
    """
    found = read_json(locate(path).with_name(CARD))
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        version = found.get("schema_version") if isinstance(found, dict) else None
        raise DataError(f"schema_version {version!r} is not known to this release", where=str(path / CARD))
    missing = {"config", "card", "fingerprint"} - found.keys()
    if missing:
        raise DataError(f"has no {', '.join(sorted(missing))}", where=str(path / CARD))
    return found


def locate(path: Path) -> Path:
    """Return the weights file that a folder or file name means.

    Raises:
        InputError: if there is none, or it has no card beside it.
    """
    if path.is_dir():
        path = path / WEIGHTS
    if not path.is_file():
        raise InputError(f"there is no {WEIGHTS}", where=str(path), remedy="give the folder that pretrain wrote")
    if not path.with_name(CARD).is_file():
        raise InputError(f"has no {CARD} beside it", where=str(path), remedy="keep the two files of a backbone together")
    return path


def load_own(path: Path) -> OwnBackbone:
    """Read a backbone that :func:`save_backbone` wrote.

    Args:
        path: its folder or its weights file.

    Raises:
        InputError: if there is none.
        DataError: if a file is damaged, the two files are not of one saving, or keys or shapes do not fit.
    """
    weights = locate(path)
    described = read_card(path)
    if sha256_file(weights) != described["fingerprint"]:
        raise DataError(
            f"is not the file that {CARD} describes", where=str(weights), remedy="copy or make the backbone's folder again"
        )
    try:
        config = VitConfig.from_json(described["config"])
        model = VisionTransformer(config)
    except (TypeError, ShapeError) as error:
        raise DataError(f"the configuration is not one of a backbone ({error})", where=str(weights.with_name(CARD))) from error
    load_strictly(model, read_tensors(weights), where=weights)
    card = described["card"]
    backbone = OwnBackbone(
        model,
        name=str(card.get("name", config.name)),
        fingerprint=described["fingerprint"],
        licence=str(card.get("licence", "unknown")),
        card=card,
    )
    return backbone.eval()


def load_strictly(model: VisionTransformer, state: Mapping[str, Tensor], *, where: Path) -> None:
    """Copy ``state``, for example ``norm.weight`` (D,), into ``model`` if every key and shape fits.

    Raises:
        DataError: naming every key that is missing, unknown or of another shape; nothing is copied then.
    """
    own = model.state_dict()
    faults = [f"{key} is missing" for key in sorted(own.keys() - state.keys())]
    faults += [f"{key} is unknown" for key in sorted(state.keys() - own.keys())]
    faults += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults)
        raise DataError(f"the weights do not fit the network in {len(faults)} tensors:{shown}", where=str(where))
    model.load_state_dict(dict(state))
