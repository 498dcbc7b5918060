"""State dicts from files of others: safetensors, or pickles restricted to tensors."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import read_json

PICKLES: Final = frozenset({".pth", ".pt", ".bin", ".ckpt"})
INDEX: Final = "model.safetensors.index.json"
_WRAPPERS: Final = ("state_dict", "teacher", "model")
"""Where training checkpoints keep the network, in order of preference."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file.

    Raises:
        DataError: if it is none or it is cut off.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"is no readable safetensors file ({error})", where=str(path), remedy="copy it again") from error


def read_sharded(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a folder whose ``model.safetensors`` is cut into several files.

    Raises:
        DataError: if the index is damaged or names a file outside the folder.
    """
    index = read_json(folder / INDEX)
    names = set(index.get("weight_map", {}).values()) if isinstance(index, dict) else set()
    if not names or any(Path(name).name != name for name in names):
        raise DataError("is no index of safetensors files in this folder", where=str(folder / INDEX))
    found: dict[str, Tensor] = {}
    for name in sorted(names):
        found |= read_tensors(folder / name)
    return found


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``torch.save`` file, opened so that no code in it can run.

    A network below ``state_dict``, ``teacher`` or ``model`` is taken out of its wrapper.

    Raises:
        InputError: if it holds other objects than tensors and plain values.
        DataError: if it cannot be read or holds no tensors.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "holds more than tensors and plain values, which could run code when opened",
            where=str(path),
            remedy="where you trust it, save its state dict alone: torch.save(checkpoint['state_dict'], ...)",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"is no readable checkpoint ({type(error).__name__}: {error})", where=str(path), remedy="copy it again"
        ) from error
    return tensors_of(found, where=path)


def tensors_of(found: object, *, where: Path) -> dict[str, Tensor]:
    """Take the state dict of tensors (any shapes) out of what a checkpoint holds.

    Raises:
        DataError: if there is none.
    """
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        inner = next((found[name] for name in _WRAPPERS if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            break
        found = inner
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise DataError(f"holds no tensors, neither at its top nor below {', '.join(_WRAPPERS)}", where=str(where))
    return tensors
