"""kNN and linear probe on class folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgeartheye.datasets.folder import ImageRecord, LabelledPictures, LeftOut, read_class_folder, read_pictures
from cgeartheye.errors import DataError
from cgeartheye.evaluation.describe import Described, Describer, PictureSet
from cgeartheye.evaluation.store import SCHEMA_VERSION, Column, load_column, piece
from cgeartheye.evaluation.table import Measured, SetResult
from cgeartheye.files import read_json, write_json
from cgeartheye.metrics.accuracy import correct
from cgeartheye.probes.knn import knn_predict
from cgeartheye.probes.linear import fit_linear
from cgeartheye.settings.evaluate import ClassFolder, EvaluateSettings

PROBES = ("knn", "linear")
STANDARDISED = frozenset({"colour_mean_std"})
"""Methods whose numbers have different units: kNN takes them with the bank's mean and deviation taken out."""
Predictions = dict[tuple[str, str, str], NDArray[np.int64]]
"""(method, readout, probe) -> (S, n) predicted labels."""


@dataclass(frozen=True)
class Classified:
    """A class folder with every prediction on its test part."""

    result: SetResult
    pictures: LabelledPictures
    predictions: Predictions

    @property
    def truth(self) -> NDArray[np.int64]:
        """(n,) labels of the test part."""
        return labels_of(self.pictures.test)


def labels_of(records: Sequence[ImageRecord]) -> NDArray[np.int64]:
    """Return the (n,) int64 labels of ``records``."""
    return np.array([record.label for record in records], dtype=np.int64)


def classify(folder: ClassFolder, settings: EvaluateSettings, out: Path, *, describer: Describer) -> Classified:
    """Describe the pictures of one class folder and probe every column.

    Raises:
        InputError, DataError: if the folder cannot be used, or its test pictures were trained on.
    """
    pictures = without_test_places(folder, listing(folder, out / "datasets" / f"{folder.name}.json"))
    if not settings.allow_seen:
        _refuse_seen(folder, pictures, describer.networks.seen)
    records = (*pictures.train, *pictures.test)
    described_set = PictureSet(folder.name, lambda: read_pictures(records), len(records), folder.size_px)
    described = describer.describe(described_set, out / "features" / folder.name)
    columns = describer.columns(described_set)
    predictions = _predictions(pictures, described, columns, _Prober(folder, settings, out))
    truth = labels_of(pictures.test)
    measured = tuple(
        Measured(method, readout, probe, "overall_accuracy", np.stack([correct(truth, row) for row in rows]))
        for (method, readout, probe), rows in predictions.items()
    )
    chance = float(np.bincount(truth).max() / len(truth))
    result = SetResult(folder.name, protocol(folder, settings), _groups(folder, pictures.test), chance, measured)
    return Classified(result, pictures, predictions)


def listing(folder: ClassFolder, path: Path) -> LabelledPictures:
    """Return the pictures of a class folder from ``path``, where they are written down the first time."""
    if not path.exists():
        found = read_class_folder(
            folder.root, split=folder.split.kind, test_share=folder.split.test_share, salt=folder.split.salt
        )
        parts = {
            part: [[r.name, r.path.relative_to(folder.root).as_posix(), r.label] for r in records]
            for part, records in (("train", found.train), ("test", found.test))
        }
        left_out = [asdict(entry) for entry in found.left_out]
        told = {"classes": list(found.classes), "left_out": left_out, "duplicates": found.duplicates}
        write_json(path, {"schema_version": SCHEMA_VERSION, **told, **parts})
    stored = read_json(path)
    train, test = (
        tuple(ImageRecord(name, folder.root / file, label) for name, file, label in stored[part]) for part in ("train", "test")
    )
    left = tuple(LeftOut(**entry) for entry in stored["left_out"])
    return LabelledPictures(tuple(stored["classes"]), train, test, left, stored["duplicates"])


def without_test_places(folder: ClassFolder, pictures: LabelledPictures) -> LabelledPictures:
    """Drop bank pictures of places that the test part has at another date, if pictures go by place.

    Raises:
        DataError: if fewer than two classes remain in the bank.
    """
    if folder.group == "picture":
        return pictures
    tested = set(_groups(folder, pictures.test))
    kept = tuple(r for r, place in zip(pictures.train, _groups(folder, pictures.train), strict=True) if place not in tested)
    if len({record.label for record in kept}) < 2:
        raise DataError(
            "the test part has a date of nearly every place",
            where=str(folder.root),
            remedy="split whole places with split: folders",
        )
    return replace(pictures, train=kept)


def protocol(folder: ClassFolder, settings: EvaluateSettings) -> str:
    """Return an identifier of split, picture size, resampling unit and probes: equal ones may be compared."""
    split = folder.split
    part = "folders" if split.kind == "folders" else f"hash {split.test_share:g} {split.salt}".strip()
    size = f"{folder.size_px} px" if folder.size_px else "stored size"
    return f"{part}, {size}, by {folder.group}, k {settings.knn.k}, T {settings.knn.temperature:g}"


def _refuse_seen(folder: ClassFolder, pictures: LabelledPictures, seen: frozenset[str]) -> None:
    both = sorted(record.name for record in pictures.test if record.name in seen)
    if both:
        raise DataError(
            f"{len(both)} of {len(pictures.test)} test pictures are among the backbone's training pictures, first {both[0]}",
            where=str(folder.root),
            remedy="pre-train without them, choose another split, or set allow_seen: true and say so",
        )


def _groups(folder: ClassFolder, records: Sequence[ImageRecord]) -> tuple[str, ...]:
    """Return each picture's name, or ``<class>/<place>`` if pictures go by place."""
    if folder.group == "picture":
        return tuple(record.name for record in records)
    pattern = re.compile(folder.place_pattern)
    groups = []
    for record in records:
        kind, _, file = record.name.partition("/")
        match = pattern.search(file)
        groups.append(f"{kind}/{match.group(1)}" if match and match.groups() else record.name)
    return tuple(groups)


@dataclass(frozen=True)
class _Prober:
    folder: ClassFolder
    settings: EvaluateSettings
    out: Path

    def path(self, column: Column, probe: str) -> Path:
        return self.out / "predictions" / f"{self.folder.name}.{column.stem}.{probe}.parquet"

    def predict(self, column: Column, probe: str, features: NDArray[np.float32], pictures: LabelledPictures) -> NDArray[np.int64]:
        """Return (n,) labels of the test part from (bank + n, d) features."""
        bank, queries = features[: len(pictures.train)], features[len(pictures.train) :]
        labels = labels_of(pictures.train)
        if probe == "linear":
            groups = _groups(self.folder, pictures.train)
            strengths = self.settings.linear.strengths
            fitted = fit_linear(bank, labels, seed=self.settings.seed, strengths=strengths, groups=groups)
            return fitted.predict(queries)
        if column.method in STANDARDISED:
            mean, scale = bank.mean(axis=0), np.maximum(bank.std(axis=0), 1e-12)
            bank, queries = (bank - mean) / scale, (queries - mean) / scale
        return knn_predict(bank, labels, queries, k=self.settings.knn.k, temperature=self.settings.knn.temperature)


def _predictions(pictures: LabelledPictures, described: Described, columns: Sequence[Column], prober: _Prober) -> Predictions:
    names = [record.name for record in pictures.test]
    truth = [pictures.classes[record.label] for record in pictures.test]
    label = {name: number for number, name in enumerate(pictures.classes)}
    found: dict[tuple[str, str, str], list[NDArray[np.int64]]] = {}
    for column in columns:
        for probe in PROBES:

            def make(column: Column = column, probe: str = probe) -> dict[str, list[str]]:
                predicted = prober.predict(column, probe, described.features(column), pictures)
                return {"name": names, "truth": truth, "predicted": [pictures.classes[i] for i in predicted]}

            path = piece(prober.path(column, probe), make)
            rows = np.array([label[name] for name in load_column(path, "predicted")], dtype=np.int64)
            found.setdefault((column.method, column.readout, probe), []).append(rows)
    return {key: np.stack(rows) for key, rows in sorted(found.items(), key=lambda item: PROBES.index(item[0][2]))}
