"""Drawings: scales, ticks, thinning, the map's geometry, escaping."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from cgeartheye.errors import DataError
from cgeartheye.reporting.figures.axes import Scale, linear_ticks, log_ticks, padded
from cgeartheye.reporting.figures.bars import Bars, bar_chart, shortened
from cgeartheye.reporting.figures.intervals import Estimate, interval_chart
from cgeartheye.reporting.figures.lines import MOST_POINTS, Axes, Series, line_chart, thin
from cgeartheye.reporting.figures.matrix import confusion_chart
from cgeartheye.reporting.figures.placemap import Ground, fit, place_map
from cgeartheye.reporting.figures.svg import element, number


def parsed(drawing: str) -> ElementTree.Element:
    """Return a drawing as XML."""
    return ElementTree.fromstring(drawing)  # noqa: S314 - our own drawing


finite = st.floats(-1e6, 1e6, allow_nan=False)
HOSTILE = '"><script>alert(1)</script>&'


@given(low=finite, span=st.floats(1e-3, 1e6), about=st.integers(2, 9))
def test_ticks_lie_inside_and_are_evenly_spaced(low: float, span: float, about: int) -> None:
    ticks = linear_ticks(low, low + span, about)
    assert all(low - span * 1e-6 <= t <= low + span * (1 + 1e-6) for t in ticks)
    assert about / 3 <= len(ticks) <= 3 * about + 1
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-3) if len(steps) else True


@given(low=st.floats(1e-6, 1e3), factor=st.floats(2.6, 1e6))
def test_logarithmic_ticks_are_never_fewer_than_one_and_inside(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert ticks
    assert all(low <= t <= low * factor for t in ticks)


@given(a=finite, b=finite, low=finite, span=st.floats(1e-3, 1e6), logarithmic=st.booleans())
def test_scales_keep_order_and_stay_inside(a: float, b: float, low: float, span: float, logarithmic: bool) -> None:
    low = abs(low) + 1e-3 if logarithmic else low
    scale = Scale(low, low + span, 10, 90, logarithmic)
    assert 10 - 1e-6 <= scale(a) <= 90 + 1e-6
    assert (scale(a) <= scale(b) + 1e-9) == (a <= b or scale(a) <= scale(b) + 1e-9)
    assert scale(low) == pytest.approx(10, abs=1e-6)
    assert scale(low + span) == pytest.approx(90, abs=1e-6)


def test_an_empty_range_is_widened_and_a_bad_one_refused() -> None:
    assert padded(3, 3)[0] < 3 < padded(3, 3)[1]
    assert padded(0, 0) == (-1, 1)
    for bad in ((1, 1), (math.nan, 2), (0, math.inf)):
        with pytest.raises(DataError):
            Scale(*bad, 0, 1)
    with pytest.raises(DataError):
        Scale(0, 1, 0, 1, logarithmic=True)


@given(n=st.integers(MOST_POINTS + 1, 3000))
def test_thinning_keeps_the_mean_and_the_order(n: int) -> None:
    x = np.arange(n, dtype=float)
    y = np.sin(x)
    thinned = thin(Series("a", x, y))
    assert thinned.x.size == MOST_POINTS
    assert (np.diff(thinned.x) > 0).all()
    sizes = np.diff(np.append(np.linspace(0, n, MOST_POINTS, endpoint=False).astype(int), n))
    assert (thinned.y * sizes).sum() == pytest.approx(y.sum(), abs=1e-6)


def test_gaps_are_skipped_and_nothing_to_draw_is_an_error() -> None:
    x = np.arange(4.0)
    assert thin(Series("a", x, np.array([1, np.nan, np.inf, 2]))).y.tolist() == [1, 2]
    assert thin(Series("a", x, np.array([1.0, 0, -1, 2])), positive=True).y.tolist() == [1, 2]
    with pytest.raises(DataError, match="no finite"):
        line_chart("t", [Series("a", x, np.full(4, np.nan))], Axes("x", "y"))


def test_higher_values_are_drawn_higher() -> None:
    svg = parsed(line_chart("t", [Series("a", np.arange(3.0), np.array([0.0, 1, 3]))], Axes("x", "y")).body)
    (curve,) = [e for e in svg.iter() if e.get("class", "").startswith("series")]
    ys = [float(pair.split()[1]) for pair in curve.attrib["d"][1:].split("L")]
    assert ys == sorted(ys, reverse=True)
    assert (ys[0] - ys[1]) * 2 == pytest.approx(ys[1] - ys[2], abs=0.05)


def test_bars_are_proportional() -> None:
    svg = parsed(bar_chart("t", ["a", "b"], [Bars("s", (10.0, 5.0))], unit="things").body)
    widths = [float(e.attrib["width"]) for e in svg.iter() if "bar" in e.get("class", "").split()]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.02)
    with pytest.raises(DataError):
        bar_chart("t", ["a"], [Bars("s", (0.0,))], unit="things")


@pytest.mark.parametrize(
    "figure",
    [
        lambda: bar_chart(HOSTILE, [HOSTILE], [Bars(HOSTILE, (1.0,), (HOSTILE,))], unit=HOSTILE),
        lambda: line_chart(HOSTILE, [Series(HOSTILE, np.arange(2.0), np.arange(2.0))], Axes(HOSTILE, HOSTILE)),
        lambda: interval_chart(HOSTILE, [Estimate(HOSTILE, 1, 0, 2, note=HOSTILE)], unit=HOSTILE),
        lambda: confusion_chart(HOSTILE, [HOSTILE, "b"], np.array([[3, 1], [0, 2]])),
        lambda: place_map(HOSTILE, Ground((), (), ((HOSTILE, np.array([[1.0, 2.0]])),))),
    ],
)
def test_hostile_texts_stay_text_in_drawings(figure: object) -> None:
    body = str(figure().body)  # type: ignore[operator]
    assert "<script" not in body
    assert any(HOSTILE in (e.text or "") or HOSTILE in v for e in parsed(body).iter() for v in [*e.attrib.values(), ""])


@given(value=st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_numbers_in_drawings_are_always_numbers(value: float) -> None:
    assert re.fullmatch(r"-?\d+(\.\d{1,2})?", number(value))


def test_attributes_are_escaped() -> None:
    assert str(element("g", "<b>", class_='a"b')) == '<g class="a&#34;b">&lt;b&gt;</g>'


@given(lon=st.floats(-179, 178), lat=st.floats(-75, 75), width=st.floats(0.01, 0.9), height=st.floats(0.01, 0.9))
def test_the_map_is_true_to_scale(lon: float, lat: float, width: float, height: float) -> None:
    corners = np.array([[lon, lat], [lon + width, lat + height]])
    projection = fit(Ground((), (), (("a", corners),)))
    (x0, y0), (x1, y1) = projection(corners)
    assert x1 > x0
    assert y1 < y0
    geod, middle = Geod(ellps="WGS84"), lat + height / 2
    east = geod.inv(lon, middle, lon + width, middle)[2] / (x1 - x0)
    north = geod.inv(lon, lat, lon, lat + height)[2] / (y0 - y1)
    assert east == pytest.approx(north, rel=0.01)


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    points = np.array([[10.0, 45.0], [10.5, 45.2]])
    ground = Ground((), (), (("a", points),))
    svg = parsed(place_map("t", ground).body)
    bar = next(e for e in svg.iter() if e.get("class") == "scale")
    written = next(e.text for e in svg.iter() if e.text and e.text.endswith(" km"))
    units = float(bar.attrib["x2"]) - float(bar.attrib["x1"])
    (x0, _), (x1, _) = fit(ground)(np.array([[10.0, 45.1], [10.1, 45.1]]))
    metres = Geod(ellps="WGS84").inv(10.0, 45.1, 10.1, 45.1)[2] / (x1 - x0) * units
    assert metres == pytest.approx(float(written.split()[0]) * 1000, rel=0.01)


def test_a_map_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="coordinates"):
        place_map("t", Ground((), (), (("a", np.array([[math.nan, 1.0]])),)))


def test_confusion_names_the_worst_pair_and_refuses_misfits() -> None:
    figure = confusion_chart("t", ["a", "b", "c"], np.array([[5, 0, 0], [4, 1, 0], [0, 1, 9]]))
    assert "b, taken for a (4 of 5)" in figure.caption
    with pytest.raises(DataError):
        confusion_chart("t", ["a"], np.ones((2, 2), dtype=np.int64))
    with pytest.raises(DataError):
        confusion_chart("t", ["a"], np.zeros((1, 1), dtype=np.int64))


def test_long_names_keep_both_ends() -> None:
    assert shortened("short", 10) == "short"
    assert shortened("industrial_area_north", 10) == "indu\N{HORIZONTAL ELLIPSIS}north"
