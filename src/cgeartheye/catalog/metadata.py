"""Files beside a scene that tell its time, clouds or bands: a configured `_meta.xml`, and Airbus's DIMAP."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse

from cgeartheye.errors import DataError
from cgeartheye.settings.catalog import MetaSettings

MAX_BYTES: Final = 64 * 2**20
"""Larger metadata files are refused [ours]."""
Bands = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Meta:
    """What a file beside a scene tells.

    Args:
        moment: of acquisition, UTC.
        cloud_share: share of the picture under clouds, 0 to 1.
        rgb_bands: bands (from 1) that are red, green, blue.
    """

    moment: dt.datetime | None = None
    cloud_share: float | None = None
    rgb_bands: Bands | None = None


def read_meta(scene: Path, settings: MetaSettings) -> Meta:
    """Read the metadata file of a scene, if there is one and the settings name elements of it; else its DIMAP file.

    Raises:
        DataError: if the file is no XML or too large, or a named element is missing or cannot be understood.
    """
    if settings.datetime or settings.cloud_percent:
        path = _beside(scene, settings.suffix)
        if path is not None:
            return _configured(path, settings)
    dimap = _dimap_of(scene)
    return Meta() if dimap is None else _dimap(dimap)


def _beside(scene: Path, suffix: str) -> Path | None:
    stems = dict.fromkeys((scene.stem, re.sub(r"_(?:PAN|MSS|PSH)$", "", scene.stem)))
    return next((path for stem in stems if (path := scene.with_name(stem + suffix)).is_file()), None)


def _configured(path: Path, settings: MetaSettings) -> Meta:
    root = _root(path)
    moment, cloud = None, None
    if settings.datetime:
        moment = _moment(path, settings.datetime, _text(root, path, settings.datetime), settings.utc_offset_h)
    if settings.cloud_percent:
        text = _text(root, path, settings.cloud_percent)
        try:
            cloud = float(text.rstrip("% ")) / 100
        except ValueError:
            cloud = None
        if cloud is None or not 0 <= cloud <= 1:
            raise DataError(
                f"{path.name} says {text!r} in {settings.cloud_percent}, which is no share in per cent",
                where=str(path),
                remedy="name the right element: catalog.meta.cloud_percent",
            )
    return Meta(moment, cloud)


def _root(path: Path) -> Element:
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name} is larger than {MAX_BYTES >> 20} MiB", where=str(path), remedy="check the file")
    try:
        root: Element = parse(path).getroot()
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise DataError(
            f"its metadata file {path.name} cannot be read ({error})", where=str(path), remedy="mend it, or move it away"
        ) from error
    return root


def _text(root: Element, path: Path, name: str) -> str:
    """Return the text of an element, whatever its namespace."""
    element = root.find("/".join(part if part in {".", "..", "*"} else f"{{*}}{part}" for part in name.strip("/").split("/")))
    if element is None or not (element.text or "").strip():
        raise DataError(
            f"{path.name} has no element {name}, or nothing in it", where=str(path), remedy="name the right one: catalog.meta"
        )
    return str(element.text).strip()


def _moment(path: Path, name: str, text: str, offset_h: float) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(re.sub(r"^(\d{4})[/:.](\d\d)[/:.](\d\d)", r"\1-\2-\3", text))
    except ValueError as error:
        raise DataError(
            f"{path.name} says {text!r} in {name}, which is no date",
            where=str(path),
            remedy="name the right element: catalog.meta.datetime",
        ) from error
    zone = dt.timezone(dt.timedelta(hours=offset_h))
    return (moment.replace(tzinfo=zone) if moment.tzinfo is None else moment).astimezone(dt.UTC)


def _dimap_of(scene: Path) -> Path | None:
    """IMG_PHR1A_PMS_..._R1C1.TIF -> DIM_PHR1A_PMS_....XML beside it."""
    match = re.fullmatch(r"IMG_(.+)_R\d+C\d+", scene.stem)
    if match is None:
        return None
    names = (scene.with_name(f"DIM_{match[1]}{ending}") for ending in (".XML", ".xml"))
    return next((path for path in names if path.is_file()), None)


def _dimap(path: Path) -> Meta:
    """Read time and display bands of DIMAP 2; what is not there is not told."""
    root = _root(path)
    day, time = root.findtext(".//Strip_Source/IMAGING_DATE"), root.findtext(".//Strip_Source/IMAGING_TIME")
    moment = None
    if day and time:
        moment = _moment(path, "IMAGING_DATE", f"{day.strip()}T{time.strip()}", 0)
    order = {entry.findtext("BAND_ID"): entry.findtext("BAND_INDEX") for entry in root.iter("Raster_Index")}
    shown = [order.get(root.findtext(f".//Band_Display_Order/{name}_CHANNEL")) for name in ("RED", "GREEN", "BLUE")]
    numbers = [int(text) for text in shown if text and text.strip().isdigit()]
    bands = (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None
    return Meta(moment, None, bands)
