"""Bad input through the command line: messages name file, fault and remedy, exit codes hold, and nothing else is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import ColorInterp

from cgeartheye.cli.call import guarded
from cgeartheye.cli.main import build_app
from cgeartheye.files import read_json
from cgeartheye.rasters.scenes import read_scenes
from cgeartheye.seeding import stream

SIDE = 320
ORIGIN = (448_800.0, 4_418_880.0)


@dataclass
class Archive:
    """A folder of small scenes of one place, and the command line over it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    settings: dict[str, Any] = field(
        default_factory=lambda: {
            "catalog": {"scenes": ["scenes"]},
            "curate": {"cell_m": 50, "chip_px": 64, "gsd_m": 0.75, "registration": {"enabled": False}, "workers": 1},
        }
    )

    def write(self, name: str, pixels: NDArray[Any] | None = None, **profile: Any) -> Path:
        picture = texture(name) if pixels is None else pixels
        path = self.folder / "scenes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        crs = profile.pop("crs", "EPSG:32650")
        transform = profile.pop("transform", Affine(0.75, 0, ORIGIN[0], 0, -0.75, ORIGIN[1]))
        count, height, width = picture.shape
        base = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": picture.dtype.name}
        with rasterio.open(path, "w", crs=crs, transform=transform, **base, **profile) as target:
            target.write(picture)
        return path

    def run(self, *arguments: str) -> tuple[int, str]:
        project = self.folder / "project.yaml"
        if not project.exists():
            project.write_text(yaml.safe_dump(self.settings))
        self.capsys.readouterr()
        try:
            code = guarded(lambda: build_app()(["run", str(project), *arguments]))
        except SystemExit as end:
            code = int(end.code or 0)
        return code, self.capsys.readouterr().err

    def left_out(self) -> dict[str, str]:
        rows = read_json(self.folder / "out" / "catalog" / "left_out.json")
        assert all(row["reason"] and row["remedy"] for row in rows)
        return {Path(row["path"]).name: row["reason"] for row in rows}

    def kept(self) -> list[str]:
        return sorted(Path(scene.path).name for scene in read_scenes(self.folder / "out" / "catalog" / "catalog.parquet"))


def texture(name: str, *, low: int = 40, high: int = 200, dtype: str = "uint8", bands: int = 3) -> NDArray[Any]:
    """A picture of patches and pixels that differ, as ground does; a smooth one would be rejected as out of focus."""
    rng = stream(1, "texture", name)
    coarse = np.kron(rng.integers(low, high, (bands, SIDE // 8, SIDE // 8)), np.ones((1, 8, 8)))
    return (coarse * rng.uniform(0.7, 1.2, (1, SIDE, SIDE))).astype(dtype)


@pytest.fixture
def archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Archive:
    made = Archive(tmp_path, capsys)
    made.write("a_20240214.tif")
    made.write("a_20240811.tif")
    return made


def test_a_truncated_scene_and_one_without_crs_are_left_out_and_the_rest_goes_on(archive: Archive) -> None:
    path = archive.write("cut_20240520.tif")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    archive.write("nowhere_20241105.tif", crs=None)
    code, errors = archive.run()
    assert code == 0, errors
    assert archive.kept() == ["a_20240214.tif", "a_20240811.tif"]
    assert set(archive.left_out()) == {"cut_20240520.tif", "nowhere_20241105.tif"}
    assert read_json(archive.folder / "out" / "curated" / "manifest.json")["summary"]["places"] > 4


def test_all_faults_of_a_project_file_are_told_at_once(archive: Archive) -> None:
    archive.settings["curate"] |= {"chip_pix": 64, "cell_m": "wide"}
    archive.settings["catalogue"] = {}
    code, errors = archive.run()
    assert code == 2
    for part in (
        "project.yaml",
        "3 faults",
        "curate.chip_pix: unknown key; did you mean 'chip_px'",
        "curate.cell_m",
        "'wide'",
        "catalogue",
    ):
        assert part in errors
    assert not (archive.folder / "out").exists()


@pytest.mark.parametrize("text", ["a: [1", "- 1", "name: x\nname: y"])
def test_broken_yaml_names_the_place(archive: Archive, text: str) -> None:
    (archive.folder / "project.yaml").write_text(text)
    code, errors = archive.run()
    assert code == 2
    assert "project.yaml" in errors


def test_a_missing_project_and_an_unset_variable_are_the_users_faults(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    archive.settings["catalog"]["scenes"] = ["${NOT_SET_ANYWHERE}/x", "nowhere"]
    code, errors = archive.run()
    assert code == 2
    assert "NOT_SET_ANYWHERE is not set" in errors
    (archive.folder / "project.yaml").unlink()
    archive.settings["catalog"]["scenes"] = ["nowhere"]
    code, errors = archive.run("--check")
    assert code in {2, 3}
    assert "nowhere" in errors


def test_dates_that_do_not_overlap_are_a_fault_of_the_data(archive: Archive) -> None:
    (archive.folder / "scenes" / "a_20240811.tif").unlink()
    archive.write("b_20240811.tif", transform=Affine(0.75, 0, ORIGIN[0] + 5000, 0, -0.75, ORIGIN[1]))
    archive.settings["curate"]["min_dates"] = 2
    code, errors = archive.run()
    assert code == 3
    assert "min_dates" in errors
    assert (archive.folder / "out" / "catalog" / "manifest.json").exists()


def test_a_missing_quarter_is_no_fault(archive: Archive) -> None:
    code, errors = archive.run()
    assert code == 0, errors
    summary = read_json(archive.folder / "out" / "curated" / "manifest.json")["summary"]
    assert set(summary["quarters"]) == {"1", "3"}


def test_no_valid_chip_ends_with_3_and_the_counts(archive: Archive) -> None:
    for name in ("a_20240214.tif", "a_20240811.tif"):
        pixels = texture(name)
        pixels[:, ::4] = 0
        archive.write(name, pixels, nodata=0)
    code, errors = archive.run()
    assert code == 3
    assert "->" in errors


def test_degrees_non_square_16_bit_grey_and_four_bands_are_read_or_refused_with_the_reason(archive: Archive) -> None:
    degrees = Affine(8.8e-6, 0, 116.4, 0, -6.7e-6, 39.9)
    archive.write("degrees_20240301.tif", crs="EPSG:4326", transform=degrees)
    archive.write("oblong_20240302.tif", transform=Affine(0.75, 0, ORIGIN[0], 0, -1.0, ORIGIN[1]))
    archive.write("deep_20240303.tif", texture("deep", low=300, high=2000, dtype="uint16"))
    archive.write("flat_20240304.tif", np.full((3, SIDE, SIDE), 500, np.uint16))
    archive.write("grey_20240305.tif", texture("grey", bands=1))
    path = archive.write("rgbn_20240306.tif", texture("rgbn", bands=4), photometric="RGB")
    with rasterio.open(path, "r+") as target:
        target.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
    archive.write("float_20240307.tif", texture("float", dtype="float32"))
    code, errors = archive.run()
    assert code == 0, errors
    assert set(archive.left_out()) == {"flat_20240304.tif", "float_20240307.tif"}
    assert {"degrees_20240301.tif", "oblong_20240302.tif", "deep_20240303.tif", "grey_20240305.tif"} <= set(archive.kept())


def test_a_changed_setting_is_named_and_nothing_is_overwritten(archive: Archive) -> None:
    assert archive.run()[0] == 0
    before = read_json(archive.folder / "out" / "curated" / "manifest.json")
    code, errors = archive.run("--set", "curate.jpeg_quality=80")
    assert code == 2
    assert "settings.jpeg_quality" in errors
    assert "--redo curate" in errors
    assert read_json(archive.folder / "out" / "curated" / "manifest.json") == before
    code, errors = archive.run("--set", "curate.jpeg_quality=80", "--redo", "curate")
    assert code == 0, errors
    assert read_json(archive.folder / "out" / "curated.1" / "manifest.json") == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB; needs the right to mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if not done or done.returncode:
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_with_4_and_the_same_command_goes_on(
    archive: Archive, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgeartheye.run.MINIMUM_FREE_BYTES", 0)
    archive.settings["out"] = str(small_disk / "out")
    code, errors = archive.run()
    assert code == 4, errors
    assert "disk is full" in errors
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    code, errors = archive.run()
    assert code == 0, errors


def test_a_nearly_full_disk_is_refused_before_any_work(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgeartheye.run.MINIMUM_FREE_BYTES", 10**18)
    code, errors = archive.run()
    assert code == 4
    assert "MB are free" in errors
    assert not (archive.folder / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_read_right_is_named_and_the_rest_goes_on(archive: Archive) -> None:
    closed = archive.folder / "scenes" / "closed"
    closed.mkdir(mode=0o000)
    code, errors = archive.run()
    assert code == 0, errors
    assert "closed" in archive.left_out()
