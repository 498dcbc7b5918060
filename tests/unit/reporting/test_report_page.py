"""The page as a browser and a hostile file name see it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from stage_folders import HOSTILE, build_project

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import write_json
from cgeartheye.reporting import report
from cgeartheye.seeding import stream
from cgeartheye.settings.report import ReportSettings
from cgeartheye.stage import read_manifest


class Page(HTMLParser):
    """All elements with their attributes, and the text inside script and style."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        self._inside = tag if tag in self.raw else ""

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.raw[self._inside] if self._inside else self.words).append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_hostile_names_stay_text(page: str, parsed: Page) -> None:
    assert len(parsed.all("script")) == 1
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") >= 10, "the fake data's hostile names did not reach the page"
    assert not [k for _, attributes in parsed.elements for k in attributes if k.startswith("on")]
    assert not parsed.all("b") or all(not attributes for attributes in parsed.all("b"))


def test_nothing_is_loaded_from_anywhere(parsed: Page) -> None:
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "action", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), f"<{tag} {name}={attributes[name][:60]!r}>"
    assert "url(" not in parsed.raw["style"][0]
    assert "@import" not in parsed.raw["style"][0]


def test_the_policy_allows_exactly_our_style_and_script(parsed: Page) -> None:
    policy = next(m["content"] for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        (text,) = ["".join(parsed.raw[kind])]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not [tag for tag, attributes in parsed.elements if "style" in attributes], "style attributes are blocked by the policy"


def test_it_can_be_read_without_seeing_or_pointing(parsed: Page) -> None:
    assert all(image.get("alt", "").strip() for image in parsed.all("img"))
    assert all(cell.get("scope") in {"col", "row"} for cell in parsed.all("th"))
    assert all(i["aria-label"] for i in parsed.all("input") if i["type"] == "range")
    assert len(parsed.all("input")) == 2
    charts = [s for s in parsed.all("svg") if "chart" in s.get("class", "").split()]
    assert len(charts) > 15
    assert all(len(chart["aria-label"]) > 20 for chart in charts)
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for a in parsed.all("a")}
    assert links <= set(ids)


def test_every_drawing_is_well_formed(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) > 30
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)  # noqa: S314 - our own drawing
        numbers = [
            float(v) for element in root.iter() for k, v in element.attrib.items() if k in {"x", "y", "width", "height", "x1"}
        ]
        assert all(abs(n) < 5000 for n in numbers)


def test_equal_folders_give_equal_bytes(page: str, tmp_path: Path) -> None:
    again = build_project(tmp_path / "again")
    report(ReportSettings(title="A <b>title</b>", **again), tmp_path / "report")
    assert (tmp_path / "report/report.html").read_text() == page
    assert len(page) < 15e6


def test_numbers_of_the_data_are_on_the_page(parsed: Page) -> None:
    text = " ".join(" ".join(parsed.words).split()).replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "62.2 % [57.2, 67.2]" in text
    assert "no difference shown to joint colour histogram (\N{MINUS SIGN}3.6" in text
    assert "the joint colour histogram reaches 65.8 %" in text
    assert "not of a network's features" in text
    assert "19 min 48 s" in text  # the seconds of the pre-training manifest
    assert "480 \N{MULTIPLICATION SIGN} 360 px of 0.75 m; 12 windows, all of them read; 2.0 % without data." in text
    assert "grey: repeated to three bands" in text
    assert "shifted by n px against another date 2" in text


def test_absent_stages_have_no_section_and_are_named(project: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    write_json(tmp_path / "begun/stage.json", {"stage": "pretrain"})
    report(ReportSettings(catalog=project["catalog"], pretrained=tmp_path / "begun"), tmp_path / "report")
    parsed = Page((tmp_path / "report/report.html").read_text())
    assert [s["id"] for s in parsed.all("section")] == ["data", "record"]
    text = " ".join(parsed.words)
    assert "pretrained: the stage was interrupted." in text
    assert "maps: no folder was given." in text
    assert read_manifest(tmp_path / "report", "report")["summary"]["sections"] == ["data", "record"]


@pytest.mark.parametrize(
    ("folder", "file", "said"),
    [
        ("curated", "funnel.json", "no such file"),
        ("curated", "strata.parquet", "strata.parquet is absent or cannot be read"),
        ("evaluated", "pca.npz", "pca.npz is absent or cannot be read"),
        ("maps", "scene_q3/preview.png", "preview.png is absent or cannot be read"),
    ],
)
@pytest.mark.parametrize("harm", ["absent", "garbage"])
def test_a_missing_figure_says_why(
    project: dict[str, Path], tmp_path: Path, folder: str, file: str, said: str, harm: str
) -> None:
    broken = tmp_path / folder
    shutil.copytree(project[folder], broken)
    (broken / file).unlink() if harm == "absent" else (broken / file).write_bytes(b"\x00garbage")
    report(ReportSettings(**{folder: broken}), tmp_path / "report")
    text = " ".join(Page((tmp_path / "report/report.html").read_text()).words)
    assert "Left out: " in text
    if harm == "absent" or file.endswith(("png", "npz", "parquet")):
        assert said in text


def test_a_section_whose_main_file_is_broken_loses_no_other(project: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "evaluated"
    shutil.copytree(project["evaluated"], broken)
    (broken / "results.json").write_text('{"rows": [{"value": NaN}]}')
    report(ReportSettings(**{**project, "evaluated": broken}), tmp_path / "report")
    parsed = Page((tmp_path / "report/report.html").read_text())
    assert "evaluation" not in [s["id"] for s in parsed.all("section")]
    assert "map" in [s["id"] for s in parsed.all("section")]
    assert "evaluation: the results hold no finite value." in " ".join(parsed.words)


def test_nothing_given_or_nothing_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to report"):
        report(ReportSettings(), tmp_path / "report")
    with pytest.raises(DataError, match="none of the given folders"):
        report(ReportSettings(maps=tmp_path), tmp_path / "report")


def test_a_finished_report_is_not_written_again(project: dict[str, Path], tmp_path: Path) -> None:
    settings = ReportSettings(catalog=project["catalog"])
    report(settings, tmp_path / "report")
    (tmp_path / "report/report.html").write_text("mine")
    report(settings, tmp_path / "report")
    assert (tmp_path / "report/report.html").read_text() == "mine"


def test_held_out_areas_are_drawn(project: dict[str, Path], tmp_path: Path) -> None:
    square = [[116.21, 43.51], [116.22, 43.51], [116.22, 43.52], [116.21, 43.51]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [square]}}
    write_json(tmp_path / "hold.geojson", {"type": "FeatureCollection", "features": [feature]})
    settings = ReportSettings(catalog=project["catalog"], curated=project["curated"], hold_out=tmp_path / "hold.geojson")
    report(settings, tmp_path / "report")
    assert 'class="holdout"' in (tmp_path / "report/report.html").read_text()


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("catalog", "left_out.json"),
        ("curated", "funnel.json"),
        ("pretrained", "backbone.json"),
        ("evaluated", "results.json"),
        ("evaluated", "confusion.json"),
        ("adapted", "task.json"),
        ("maps", "scene_q3/scores.json"),
        ("maps", "scene_q4/scene.json"),
    ],
)
def test_json_of_any_other_form_costs_a_figure_and_never_the_report(
    project: dict[str, Path], tmp_path: Path, folder: str, file: str
) -> None:
    broken = tmp_path / folder
    shutil.copytree(project[folder], broken)
    text = (broken / file).read_text()
    inner = json.loads(text)
    rng = stream(3, "forms", file)
    for number, form in enumerate([[[1]], None, *(_spoiled(inner, rng) for _ in range(4))]):
        (broken / file).write_text(json.dumps(form))
        report(ReportSettings(**{folder: broken}), tmp_path / f"report{number}")
        assert "</html>" in (tmp_path / f"report{number}/report.html").read_text()


def _spoiled(value: Any, rng: np.random.Generator) -> Any:
    """Return JSON in which every fifth value has become something else."""
    if rng.random() < 0.2:
        return [None, [], {}, "<b>", -7, 1e308, True][int(rng.integers(7))]
    if isinstance(value, dict):
        return {k: _spoiled(v, rng) for k, v in value.items()}
    return [_spoiled(v, rng) for v in value] if isinstance(value, list) else value
