"""The networks of one evaluation: each trained backbone, and the same network with its initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cgeartheye.errors import DataError, InputError
from cgeartheye.weights.backbone import Backbone
from cgeartheye.weights.checkpoints import NAMES_FILE
from cgeartheye.weights.load import load_backbone

TRAINED = "trained"
UNTRAINED = "untrained"
UNTRAINED_SCALE_1 = "untrained_layerscale_1"
"""Initial weights but LayerScale 1: at 1e-5 an untrained class token sees nothing, which flatters whatever is beside it."""


@dataclass(frozen=True)
class Known:
    """What is known of one trained backbone without holding it."""

    spec: str | Path
    name: str
    fingerprint: str
    licence: str
    init_seed: int
    scaled: bool
    """Whether its LayerScale starts at something else than 1."""
    shape: tuple[int, int, int]
    """Depth, width, patch: the same for all training seeds of a recipe."""
    seen: frozenset[str]
    """Names (``<class>/<file name>``) of its training pictures, as far as they were written down."""


@dataclass(frozen=True)
class Networks:
    """All networks of an evaluation, opened one at a time."""

    known: tuple[Known, ...]
    """One a training seed."""
    methods: tuple[str, ...]
    """Which rows they make."""
    device: torch.device

    def open(self, method: str, number: int) -> Backbone:
        """Return the network of ``method`` and training seed ``number``, ready for inference."""
        known = self.known[number]
        backbone = load_backbone(known.spec)
        if method != TRAINED:
            backbone = backbone.untrained(known.init_seed)
        if method == UNTRAINED_SCALE_1:
            with torch.no_grad():
                for gamma in backbone.layer_scales():
                    gamma.fill_(1.0)
        return backbone.eval().to(self.device)

    @property
    def name(self) -> str:
        """Name of the recipe in tables."""
        return self.known[0].name + (f" ({len(self.known)} seeds)" if len(self.known) > 1 else "")

    @property
    def fingerprint(self) -> str:
        """Fingerprints of all trained weights."""
        return ",".join(known.fingerprint for known in self.known)

    @property
    def licence(self) -> str:
        """Licences of the trained weights."""
        return ", ".join(dict.fromkeys(known.licence for known in self.known))

    @property
    def seen(self) -> frozenset[str]:
        """Names of the pictures that any of them was trained on."""
        return frozenset[str]().union(*(known.seen for known in self.known))


def know_networks(specs: Sequence[str | Path], *, untrained: bool, seed: int, device: torch.device) -> Networks:
    """Look at every backbone once.

    Args:
        specs: what :func:`load_backbone` takes, one a training seed.
        untrained: whether to measure the initial weights too.
        seed: start of initial weights for backbones whose card does not name their own ``init_seed``.
        device: where networks run.

    Raises:
        InputError: if two are the same weights or of another shape.
    """
    known = tuple(_know(spec, seed) for spec in specs)
    if len({k.fingerprint for k in known}) < len(known):
        raise InputError(
            "two of the backbones hold the same weights", remedy="several backbones are training seeds of one recipe"
        )
    if len({k.shape for k in known}) > 1:
        raise InputError(
            "the backbones are not training seeds of one recipe", remedy="evaluate other networks in a folder of their own"
        )
    methods: tuple[str, ...] = (TRAINED,)
    if untrained:
        methods += (UNTRAINED, UNTRAINED_SCALE_1) if known[0].scaled else (UNTRAINED,)
    return Networks(known, methods, device)


def _know(spec: str | Path, seed: int) -> Known:
    backbone = load_backbone(spec)
    init_seed = int(backbone.card.get("init_seed", seed))
    scales = backbone.untrained(init_seed).layer_scales()
    return Known(
        spec=spec,
        name=backbone.name,
        fingerprint=backbone.fingerprint,
        licence=backbone.licence,
        init_seed=init_seed,
        scaled=any(bool((gamma != 1).any()) for gamma in scales),
        shape=(backbone.depth, backbone.width, backbone.patch_px),
        seen=_training_names(spec) if isinstance(spec, Path) else frozenset(),
    )


def _training_names(spec: Path) -> frozenset[str]:
    """Read ``training_names.txt`` beside the weights; the class folder and the file name of each line count."""
    path = (spec if spec.is_dir() else spec.parent) / NAMES_FILE
    if not path.is_file():
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from error
    return frozenset("/".join(line.strip().split("/")[-2:]) for line in lines if line.strip())
