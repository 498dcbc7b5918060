"""Continue from weights: which network a run begins with, how carefully it learns, what it owes to its parent.

D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from cgeartheye.errors import InputError
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import RGB, VisionTransformer, VitConfig
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.weights.backbone import OwnBackbone
from cgeartheye.weights.card import restricted
from cgeartheye.weights.foreign import size_name
from cgeartheye.weights.load import load_into_own

NAMES_FILE: Final = "training_names.txt"
"""Beside weights that were trained on plain pictures: which ones."""
_TWICE: Final = 2
"""Probes in a row below the parent's that stop a run [ours]: one may be chance."""
_SEPARATOR: Final = "; "


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Weights that a run continues from, in our own network.

    Args:
        config: of the network: patch, registers, positions, channel means and how positions are resized are the parent's.
        state: its tensors by name, for example ``norm.weight`` (D,) float32.
        name: what it is called.
        licence: of the weights, "unknown" if nobody says.
        restricted_by: licences that do not allow commercial use.
        origin: the file the weights are from: ``file``, ``layout``, ``sha256``, and ``parent`` if it had one itself.
        seen: names of pictures it was trained on, ``class/file name``; they count as seen by whatever continues from it.
    """

    config: VitConfig
    state: Mapping[str, Tensor]
    name: str
    licence: str
    restricted_by: tuple[str, ...]
    origin: Mapping[str, Any]
    seen: tuple[str, ...] = ()

    def card(self) -> dict[str, Any]:
        """Return the parent's entry of the card of what continues from it."""
        return {**self.origin, "name": self.name, "licence": self.licence, "restricted_by": list(self.restricted_by)}

    def introduction(self) -> str:
        """Return a sentence for the log: what is continued, and what the run takes from it."""
        terms = f", not for commercial use ({', '.join(self.restricted_by)})" if self.restricted_by else ""
        return (
            f"continues from {self.name} (licence {self.licence}{terms}), with its channel means and deviations "
            f"and its positions for {self.config.position_px} px"
        )


def parent_of(settings: PretrainSettings) -> Parent | None:
    """Load what ``start.weights`` names; None if the run begins from scratch.

    Raises:
        InputError: if there are no such weights, they are of another network than ours or than ``backbone``, or do not see RGB.
        DataError, ResourceError: as :func:`cgeartheye.weights.load.load_backbone`.
    """
    spec = settings.start.weights
    if spec is None:
        return None
    parent = load_parent(spec)
    _refuse_size(parent.config, settings.backbone, spec)
    return parent


def load_parent(spec: Path | str) -> Parent:
    """Load weights of any size that a run continues or learns from.

    Raises:
        InputError: if there are no such weights, they are of another network than ours, or do not see RGB.
        DataError, ResourceError: as :func:`cgeartheye.weights.load.load_backbone`.
    """
    loaded = load_into_own(spec)
    config = loaded.model.config
    if config.bands != RGB:
        raise InputError(
            f"sees {', '.join(config.bands)}",
            where=str(spec),
            remedy="pre-training has red, green and blue: choose weights for them",
        )
    return Parent(
        config=config,
        state=loaded.model.state_dict(),
        name=loaded.name,
        licence=loaded.licence,
        restricted_by=tuple(loaded.card.get("restricted_by") or restricted([loaded.licence])),
        origin=_origin(loaded, spec),
        seen=_seen(spec),
    )


def start_inputs(settings: PretrainSettings) -> dict[str, Path]:
    """Return the files or folders that a run continues or learns from, for the fingerprints of its stage; timm's have none."""
    named = {"start": settings.start.weights, "teacher": settings.distil.teacher}
    return {
        name: Path(str(spec).removeprefix("hf:"))
        for name, spec in named.items()
        if spec is not None and not str(spec).startswith("timm:")
    }


def begin_backbone(config: VitConfig, parent: Parent | None, *, seed: int) -> VisionTransformer:
    """Return the network that a run begins with, on the CPU.

    Args:
        config: of this run. With a parent, only its drop path is used: everything else describes the parent's weights.
        parent: what is continued; None draws the weights from ``seed``.
        seed: of the run.
    """
    if parent is None:
        return build(config, seed=seed)
    model = VisionTransformer(dataclasses.replace(parent.config, drop_path=config.drop_path))
    model.load_state_dict(dict(parent.state))
    return model


def trainable_share(settings: PretrainSettings, share: float) -> float:
    """Return the factor on the backbone's learning rate when ``share`` of the run is done.

    0 while only the new heads learn, then on a straight line to 1, then 1; always 1 without a parent, so in later phases too.
    Heads drawn at random would otherwise send their first gradients, which say nothing, through weights that are good.
    """
    start = settings.start
    if start.weights is None:
        return 1.0
    since = share - start.heads_only
    if since < 0:
        return 0.0
    return 1.0 if since >= start.ramp else since / start.ramp


class Guard:
    """Stops a run that makes its parent worse. Everything it knows follows from the probe lines of the run's log.

    What is watched is the mean of the two readouts, class token and patches: it is less noisy than either, and no readout can be
    lost while the other stands still. While only heads learn the network is the parent itself, so no probe can be below it.
    Later phases probe larger pictures: their lines are not to be compared with the parent's.

    Args:
        margin: how far below the parent's mean, as a share in [0, 1]; None never stops.
        lines: of the run's log so far, for a run that is resumed; those without a probe are passed over.
    """

    def __init__(self, margin: float | None, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self._margin = margin
        self._probes: list[Mapping[str, Any]] = []
        for line in lines:
            self.check(line)

    def check(self, line: Mapping[str, Any]) -> str | None:
        """Take one line of the log and return why the run has to stop, or None.

        Args:
            line: ``step``, and ``probe_class`` and ``probe_patch`` in [0, 1] where there was a probe; None stands for NaN. The
                line of step 0 is the parent's.
        """
        if "probe_class" in line:
            self._probes.append(line)
        return None if self._margin is None else fallen(self._probes, margin=self._margin)


def fallen(probes: Sequence[Mapping[str, Any]], *, margin: float) -> str | None:
    """Say that the last two probes were both more than ``margin`` below the first one's, which is the parent's; else None."""
    if len(probes) <= _TWICE or probes[0]["step"] != 0:
        return None
    parent = _mean(probes[0])
    last = probes[-_TWICE:]
    means = [_mean(line) for line in last]
    if any(mean >= parent - margin for mean in means):  # NaN is no such mean
        return None
    shown = " and ".join(f"{_percent(mean)} at step {line['step']}" for mean, line in zip(means, last, strict=True))
    return f"the probe was {shown}, more than {100 * margin:g} points below the parent's {_percent(parent)} twice in a row"


def licences(data: Iterable[str], parent: Parent | None) -> tuple[str, list[str]]:
    """Return the licence of what was learned from ``data`` and a parent, and those that forbid commercial use.

    All of them hold together: the text names each once, the data's first.
    """
    named = [part for licence in data for part in licence.split(_SEPARATOR)]
    inherited = list(parent.licence.split(_SEPARATOR)) if parent else []
    together = list(dict.fromkeys([*named, *inherited]))
    forbidding = list(dict.fromkeys([*restricted(together), *(parent.restricted_by if parent else ())]))
    return _SEPARATOR.join(together), forbidding


def inherit(card: Mapping[str, Any], parent: Parent | None, *, role: str = "parent") -> dict[str, Any]:
    """Return the card of a run, made from its data alone, with what it owes to its parent; ``role`` is the entry's name."""
    if parent is None:
        return dict(card)
    licence, forbidding = licences([str(card["licence"])], parent)
    return {**card, "licence": licence, "restricted_by": forbidding, role: parent.card()}


def _refuse_size(config: VitConfig, backbone: str, spec: Path | str) -> None:
    size = size_name(config)
    if size != backbone:
        shape = f"depth {config.depth}, width {config.width}, {config.heads} heads"
        remedy = f"set pretrain.backbone to {size}" if size != "custom" else "only weights of the named sizes can be continued"
        raise InputError(f"is of size {size} ({shape}), but pretrain.backbone is {backbone}", where=str(spec), remedy=remedy)


def _origin(loaded: OwnBackbone, spec: Path | str) -> dict[str, Any]:
    """Return the file that weights are from; a copy of others' weights is known by the file it was copied from."""
    card, before = loaded.card, loaded.card.get("parent")
    if before and not card.get("recipe"):
        return {key: value for key, value in before.items() if key not in {"licence", "restricted_by", "name"}}
    file = Path(str(spec).removeprefix("hf:")).name
    return {"file": file, "layout": "own", "sha256": loaded.fingerprint, **({"parent": before} if before else {})}


def _seen(spec: Path | str) -> tuple[str, ...]:
    path = Path(str(spec).removeprefix("hf:"))
    names = (path if path.is_dir() else path.parent) / NAMES_FILE
    if not names.is_file():
        return ()
    return tuple(sorted({line.strip() for line in names.read_text(encoding="utf-8").splitlines() if line.strip()}))


def _mean(line: Mapping[str, Any]) -> float:
    values = [line["probe_class"], line["probe_patch"]]
    return float("nan") if None in values else sum(values) / len(values)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
