"""Names of products, as they stand in vendors' guides and public code."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.catalog.pairs import Candidate, pair_up
from cgeartheye.catalog.products import recognise
from cgeartheye.catalog.search import Found, LeftOut

PRODUCT = "JL1KF01A_PMS05_{}_200097070_101_0017_001_L3D"


@pytest.mark.parametrize(
    ("name", "maker", "moment", "kind"),
    [
        ("JL1KF01A_PMS05_20220814104530_200097070_101_0017_001_L3D_PSH.tif", "Jilin-1", "2022-08-14T02:45:30", "sharpened"),
        ("JL1GF03B02_PMS_20230101073000_200097070_101_0017_001_L1_MSS.tif", "Jilin-1", "2022-12-31T23:30:00", "multi"),
        ("JL1KF01C_PMSR3_20240718110924_200283670_101_0076_001_L1_PAN.tif", "Jilin-1", "2024-07-18T03:09:24", "pan"),
        ("warp_JL1KF01B_PMSL4_20230416104042_200149955_101_0058_001_L1.tif", "Jilin-1", "2023-04-16T02:40:42", None),
        ("JL101K_PMS_20230416104042_200149955_101_0058_001_L1A_PAN_ortho.tif", "Jilin-1", "2023-04-16T02:40:42", "pan"),
        ("16FEB29111912-S2AS_R01C02-056155973010_01_P001.TIF", "Maxar", "2016-02-29T11:19:12", "sharpened"),
        ("04DEC11050020-M2AS_R1C1-000000185964_01_P001.TIF", "Maxar", "2004-12-11T05:00:20", "multi"),
        ("17APR18154116-P2AS-056965205010_01_P001.TIF", "Maxar", "2017-04-18T15:41:16", "pan"),
        ("IMG_PHR1A_PMS_201511151132244_ORT_2025121101-001_R1C1.JP2", "Airbus", "2015-11-15T11:32:24", "sharpened"),
        ("IMG_PHR1A_PMS_202109170855303_ORT_1-1_NED_R1C1.TIF", "Airbus", "2021-09-17T08:55:30", "invisible"),
        ("IMG_SPOT7_MS_201809091007123_ORT_3423_R2C1.TIF", "Airbus", "2018-09-09T10:07:12", "multi"),
        ("20230511_212249_22_24bb_3B_Visual.tif", "Planet", "2023-05-11T21:22:49", "sharpened"),
        ("20190706_002918_101b_3B_AnalyticMS_SR.tif", "Planet", "2019-07-06T00:29:18", "multi"),
        ("20230703_194241_43_2427_3B_udm2.tif", "Planet", "2023-07-03T19:42:41", "mask"),
        ("20190128_204710_ssc6d1_0017_visual.tif", "Planet", "2019-01-28T20:47:10", "sharpened"),
    ],
)
def test_names_of_products(name: str, maker: str, moment: str, kind: str | None) -> None:
    product = recognise(Path(name))
    assert product is not None
    assert (product.maker, product.moment, product.kind) == (maker, dt.datetime.fromisoformat(moment + "+00:00"), kind)


@pytest.mark.parametrize(
    "name",
    [
        "m_4709963_se_14_1_20180716.tif", "JL1KF01A_PMS05_20221314104530_200097070_101.tif", "IMG_20230101_101010.tif",
        "16FOO29111912-S2AS-056155973010_01_P001.TIF", "QB_Toulouse_Ortho_XS.tif", "20180716_103000.tif",
    ],
)  # fmt: skip
def test_other_names_follow_no_rule(name: str) -> None:
    assert recognise(Path(name)) is None


def test_an_impossible_time_is_no_time() -> None:
    product = recognise(Path(PRODUCT.format("20221399104530") + "_PSH.tif"))
    assert product is not None and product.moment is None


@given(st.datetimes().map(lambda moment: moment.replace(year=2015 + moment.year % 15, day=min(moment.day, 28), microsecond=0)))
def test_times_of_jilin_1_are_beijings(moment: dt.datetime) -> None:
    product = recognise(Path(f"{PRODUCT.format(moment.strftime('%Y%m%d%H%M%S'))}_PSH.tif"))
    assert product is not None and product.moment == moment.replace(tzinfo=ZoneInfo("Asia/Shanghai"))
    assert recognise(Path(f"{PRODUCT.format(moment.strftime('%Y%m%d%H%M%S'))}_PSH.tif"), jilin1=False) is None


def test_the_date_of_maxars_analysis_ready_data_is_its_folder() -> None:
    product = recognise(Path("33/120200223/2020-03-10/10400100558EC500-visual.tif"))
    assert product is not None and product.moment == dt.datetime(2020, 3, 10, tzinfo=dt.UTC)
    assert product.acquisition == "10400100558EC500"


def test_tiles_of_one_acquisition_share_its_name() -> None:
    names = [f"16FEB29111912-S2AS_R0{r}C0{c}-056155973010_01_P001.TIF" for r in (1, 2) for c in (1, 2)]
    airbus = [f"IMG_PHR1A_PMS_201511151132244_ORT_2025121101-001_R{r}C1.JP2" for r in (1, 2)]
    skysat = [f"20190128_204710_ssc6d1_00{n}_visual.tif" for n in (17, 18)]
    for group in (names, airbus, skysat):
        assert len({recognise(Path(name)).acquisition for name in group}) == 1  # type: ignore[union-attr]  # known names


def pairs(*kinds: str) -> list[Candidate | LeftOut]:
    names = [f"{PRODUCT.format('20220814104530')}_{kind}.tif" for kind in kinds]
    return pair_up([(Found(Path("/a") / name, name), name) for name in names], jilin1=True)


def test_pan_and_mss_of_one_product_are_a_pair() -> None:
    pan, multi = pairs("PAN", "MSS")
    assert isinstance(pan, Candidate) and isinstance(multi, Candidate)
    assert multi.pan == pan.found.path and multi.fingerprint.startswith("pair ") and pan.pan is None
    (other,) = (entry for entry in pairs("MSS", "PAN") if isinstance(entry, Candidate) and entry.pan)
    assert other.fingerprint == multi.fingerprint


def test_halves_without_partner_and_beside_the_makers_own() -> None:
    (lonely,) = pairs("PAN")
    assert isinstance(lonely, LeftOut) and "L3D_MSS.tif beside it" in lonely.reason
    (coarse,) = pairs("MSS")
    assert isinstance(coarse, Candidate) and coarse.pan is None
    pan, multi, sharp = pairs("PAN", "MSS", "PSH")
    assert isinstance(pan, LeftOut) and isinstance(multi, LeftOut) and "pan-sharpened as" in multi.reason
    assert isinstance(sharp, Candidate)


def test_files_of_different_folders_are_no_pair() -> None:
    name = PRODUCT.format("20220814104530")
    files = [Found(Path("/a") / f"{name}_PAN.tif", "a"), Found(Path("/b") / f"{name}_MSS.tif", "b")]
    pan, multi = pair_up([(found, found.name) for found in files], jilin1=True)
    assert isinstance(pan, LeftOut) and isinstance(multi, Candidate) and multi.pan is None
