"""What a file's name tells if it follows a maker's rule: which acquisition, when, which tile, which kind of bands.

The rules are public in vendors' tools, product guides and the names of open data:
Jilin-1  JL1KF01A_PMS05_20220814104530_200097070_101_0017_001_L3D_PSH.tif
Maxar    16FEB29111912-S2AS_R01C01-056155973010_01_P001.TIF
Airbus   IMG_PHR1A_PMS_201511151132244_ORT_2025121101-001_R1C1.JP2
Planet   20230703_194241_43_2427_3B_AnalyticMS_SR.tif
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

BEIJING: Final = dt.timezone(dt.timedelta(hours=8), "Beijing")
"""Jilin-1's names tell Beijing time, which has no summer time since 1992."""
Kind = Literal["pan", "multi", "sharpened", "mask", "invisible"]
Bands = tuple[int, int, int]
_MONTHS: Final = {
    name: number
    for number, name in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)
}
_JILIN: Final = re.compile(
    r"(?:^|[_-])(?P<id>JL1[0-9A-Z]*_[A-Z]+[0-9A-Z]*_(?P<time>\d{14})_\d{9}_\d{3}_\d{4}_\d{3}_(?P<level>L\d[A-Z]*))"
    r"(?:_(?P<kind>PAN|MSS|PSH))?(?P<rest>[_-].*)?$"
)
_MAXAR: Final = re.compile(
    r"^(?P<id>(?P<year>\d\d)(?P<month>[A-Z]{3})(?P<day>\d\d)(?P<time>\d{6})-(?P<kind>[PMS])[0-9A-Z]{3}(?:_R\d+C\d+)?-\w+_P\d{3})$",
    re.I,
)
_MAXAR_ARD: Final = re.compile(r"^(?P<id>[0-9A-F]{16})-(?P<kind>visual|pan|ms)$")
_AIRBUS: Final = re.compile(
    r"^IMG_(?P<id>(?:PHR1[AB]|SPOT[67])_(?P<kind>P|MS|PMS|PMS-N|PMS-X)_(?P<time>\d{14})\d?_(?P<level>SEN|PRJ|ORT|MOS)_.+?)"
    r"(?:_(?P<part>RGB|NED))?_R\d+C\d+$"
)
_PLANET: Final = re.compile(
    r"^(?P<id>(?P<time>\d{8}_\d{6})(?:_\d\d)?_[0-9a-z]{4})_[13][AB]_(?P<kind>Visual|Analytic\w*|udm2?|DN_udm)(?:_\w+)?$", re.I
)
_SKYSAT: Final = re.compile(
    r"^(?P<id>(?P<time>\d{8}_\d{6})_ssc?\d+(?:d\d)?(?:_u\d{4})?)(?:_\d{4})?_(?:basic_)?(?:l1a_)?(?:ortho_)?(?P<kind>\w+)$"
)
_KINDS: Final[dict[str, Kind]] = {
    "PAN": "pan", "MSS": "multi", "PSH": "sharpened", "P": "pan", "M": "multi", "S": "sharpened", "MS": "multi",
    "PMS": "sharpened", "PMS-N": "sharpened", "PMS-X": "sharpened", "VISUAL": "sharpened",
    "PANCHROMATIC": "pan", "PANCHROMATIC_DN": "pan",
    "UDM": "mask", "UDM2": "mask", "DN_UDM": "mask",
}  # fmt: skip
_BGRN: Final = (3, 2, 1)


@dataclass(frozen=True, slots=True)
class Product:
    """What a name tells.

    Args:
        maker: whose rule it follows.
        acquisition: what all files of one picture share: its tiles, and PAN, MSS and PSH files.
        moment: of acquisition, UTC; None if the name tells none.
        kind: of its bands; None if untold.
        level: of processing, as the maker writes it.
        rgb_of_four: bands (from 1) that are red, green, blue in a file of four bands that says nothing itself; None if unknown.
    """

    maker: str
    acquisition: str
    moment: dt.datetime | None
    kind: Kind | None = None
    level: str = ""
    rgb_of_four: Bands | None = None


def recognise(path: Path, *, jilin1: bool = True) -> Product | None:
    """Return what a file's name tells, or None if it follows none of the known rules.

    Args:
        path: the file; of Maxar's analysis-ready data, its folder is the date.
        jilin1: look for Jilin-1's rule, too.
    """
    for rule in (_jilin, _maxar, _maxar_ard, _airbus, _planet) if jilin1 else (_maxar, _maxar_ard, _airbus, _planet):
        product = rule(path)
        if product is not None:
            return product
    return None


def pair_key(path: Path) -> str | None:
    """Return what the PAN, MSS and PSH files of one Jilin-1 product share, their folder included, or None for other names."""
    match = _JILIN.search(path.stem)
    if match is None or match["kind"] is None:
        return None
    return str(path.parent / f"{path.stem[: match.start('kind')]}*{match['rest'] or ''}")


def _jilin(path: Path) -> Product | None:
    match = _JILIN.search(path.stem)
    if match is None:
        return None
    kind = _KINDS.get(match["kind"] or "")
    bands = None if kind == "pan" else _BGRN  # blue, green, red, near infrared, as the vendor lists MSS bands
    return Product("Jilin-1", match["id"], _moment(match["time"], BEIJING), kind, match["level"], bands)


def _maxar(path: Path) -> Product | None:
    match = _MAXAR.match(path.stem)
    if match is None or match["month"].upper() not in _MONTHS:
        return None
    moment = _moment(f"20{match['year']}{_MONTHS[match['month'].upper()]:02d}{match['day']}{match['time']}")
    whole = re.sub(r"_R\d+C\d+", "", match["id"], flags=re.IGNORECASE)
    return Product("Maxar", whole, moment, _KINDS[match["kind"].upper()], rgb_of_four=_BGRN)


def _maxar_ard(path: Path) -> Product | None:
    match = _MAXAR_ARD.match(path.stem)
    if match is None:
        return None
    day = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", path.parent.name)
    return Product(
        "Maxar", match["id"], _moment("".join(day.groups()) + "000000") if day else None, _KINDS.get(match["kind"].upper())
    )


def _airbus(path: Path) -> Product | None:
    match = _AIRBUS.match(path.stem)
    if match is None:
        return None
    kind = "invisible" if match["part"] == "NED" else _KINDS[match["kind"]]  # near infrared, red edge, deep blue
    return Product("Airbus", match["id"], _moment(match["time"]), kind, match["level"])


def _planet(path: Path) -> Product | None:
    match = _PLANET.match(path.stem) or _SKYSAT.match(path.stem)
    if match is None:
        return None
    word = match["kind"].upper().removesuffix("_CLIP")
    kind = _KINDS.get(word) or ("multi" if word.startswith("ANALYTIC") else None)
    return Product(
        "Planet", match["id"], _moment(match["time"].replace("_", "")), kind, rgb_of_four=_BGRN if kind == "multi" else None
    )


def _moment(digits: str, zone: dt.tzinfo = dt.UTC) -> dt.datetime | None:
    """Return yyyymmddhhmmss in UTC, or None if there is no such time."""
    try:
        return dt.datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=zone).astimezone(dt.UTC)
    except ValueError:
        return None
