"""`doctor`: what works on this machine, what is missing, how to mend it."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cgeartheye import __version__

_LIBRARIES: Final = ("torch", "torchvision", "rasterio", "geopandas", "pyarrow", "timm", "transformers")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    fine: bool
    text: str

    def line(self) -> str:
        """Return the finding as one line of text."""
        return f"{'ok  ' if self.fine else 'MEND'} {self.name:12s} {self.text}"


def examine() -> list[Finding]:
    """Look at versions, devices, GDAL's drivers, disk and the folder of real imagery."""
    findings = [Finding("cgeartheye", fine=True, text=f"{__version__}, Python {sys.version.split()[0]}")]
    findings += [_guarded(name, lambda name=name: _version(name)) for name in _LIBRARIES]  # type: ignore[misc]  # bound at once
    findings += [_guarded("device", _device), _guarded("GDAL", _gdal), _guarded("disk", _disk), _imagery()]
    return findings


def _guarded(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, fine=True, text=look())
    except Exception as error:  # noqa: BLE001 - whatever breaks an import is what the user must hear
        return Finding(name, fine=False, text=f"{error}; install the package again: make demo")


def _version(name: str) -> str:
    return str(importlib.import_module(name).__version__)


def _device() -> str:
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"CPU, {torch.get_num_threads()} threads, {os.cpu_count()} cores"


def _gdal() -> str:
    rasterio = importlib.import_module("rasterio")
    drivers = importlib.import_module("rasterio.drivers").raster_driver_extensions()
    if "GTiff" not in drivers.values():
        message = "the GTiff driver is missing"
        raise RuntimeError(message)
    return f"{rasterio.__gdal_version__} with GTiff and COG"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < 2 * 10**9:
        message = f"only {free / 1e9:.1f} GB free here, the demo needs about 2"
        raise RuntimeError(message)
    return f"{free / 1e9:.0f} GB free here"


def _imagery() -> Finding:
    value = os.environ.get("CGEARTHEYE_IMAGERY")
    if not value:
        return Finding("imagery", fine=True, text="CGEARTHEYE_IMAGERY is not set: the project files with real imagery cannot run")
    return Finding("imagery", fine=Path(value).is_dir(), text=value)
