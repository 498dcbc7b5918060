"""STAC catalogues, a STAC API and a web server's folders, all on loopback; nothing is opened that was not asked for."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import fsspec
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from fsspec.implementations.memory import MemoryFileSystem
from rasterio.transform import Affine

from cgeartheye.catalog import catalog
from cgeartheye.catalog.buckets import list_bucket
from cgeartheye.catalog.search import Listing
from cgeartheye.errors import CGEarthEyeError, DataError, InputError, ResourceError
from cgeartheye.rasters.opening import address_of, gdal_path, is_remote
from cgeartheye.rasters.reader import open_raster, read_window
from cgeartheye.rasters.scenes import Scene, read_scenes
from cgeartheye.settings.catalog import CatalogSettings, StacApiSettings


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder with byte ranges, and a small STAC API under /api."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, seen: list[str], items: list[dict[str, Any]], **kwargs: Any) -> None:
        self.seen, self.items = seen, items
        super().__init__(*args, **kwargs)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path.startswith("/api"):
            self.answer(self.api(urlsplit(self.path)))
        elif "Range" in self.headers:
            self.part()
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self.seen.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(self.page(body, int(body.get("token", 0))))

    def part(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        end = min(int(last or len(data) - 1), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{end}/{len(data)}")
        self.send_header("Content-Length", str(end + 1 - int(first)))
        self.end_headers()
        self.wfile.write(data[int(first) : end + 1])

    def answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/geo+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def api(self, url: Any) -> Any:
        base = f"http://{self.headers['Host']}/api"
        if url.path.rstrip("/") == "/api":
            conforms = ["core", "item-search", "collections", "ogcapi-features"]
            return {
                "type": "Catalog", "id": "api", "description": "a test", "stac_version": "1.0.0",
                "conformsTo": [f"https://api.stacspec.org/v1.0.0/{name}" for name in conforms],
                "links": [
                    {"rel": "self", "href": base}, {"rel": "root", "href": base}, {"rel": "data", "href": f"{base}/collections"},
                    {"rel": "search", "href": f"{base}/search", "type": "application/geo+json", "method": "POST"},
                ],
            }  # fmt: skip
        if url.path.endswith("/collections"):
            extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]]))
            return {"collections": [pystac.Collection("vhr", "a test", extent, license="CC-BY-4.0").to_dict()], "links": []}
        return self.page({key: value[0] for key, value in parse_qs(url.query).items()}, 0)

    def page(self, asked: dict[str, Any], token: int) -> Any:
        """Two items a page, so that following links is tested."""
        links = []
        if token + 2 < len(self.items):
            link = {
                "rel": "next",
                "href": f"http://{self.headers['Host']}/api/search",
                "method": "POST",
                "body": asked | {"token": token + 2},
            }
            links = [link]
        return {"type": "FeatureCollection", "features": self.items[token : token + 2], "links": links}


class Server:
    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        self.items: list[dict[str, Any]] = []
        handler = partial(Handler, directory=str(folder), seen=self.seen, items=self.items)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "www"
    for number, name in enumerate(("a_20230101", "b_20230701", "c")):
        path = folder / "scenes" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(1, 255, (3, 128, 128), dtype=np.uint8)
        with rasterio.open(
            path, "w", driver="GTiff", width=128, height=128, count=3, dtype="uint8", crs="EPSG:32632", photometric="RGB",
            transform=Affine(1, 0, 5e5 + 200 * number, 0, -1, 5e6), tiled=True, blockxsize=64, blockysize=64,
        ) as file:  # fmt: skip
            file.write(values)
    return folder


@pytest.fixture
def server(pictures: Path) -> Iterator[Server]:
    server = Server(pictures)
    yield server
    server.http.shutdown()
    server.http.server_close()


def item(name: str, href: str, *, asset: str = "visual", **properties: Any) -> pystac.Item:
    shape = shapely.box(9, 45, 9.1, 45.1)
    made = pystac.Item(
        name, shapely.geometry.mapping(shape), list(shape.bounds), dt.datetime(2023, 12, 31, 23, tzinfo=dt.UTC), properties
    )
    made.add_asset(asset, pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"]))
    return made


def run(tmp_path: Path, *sources: str | Path, **settings: Any) -> tuple[list[Scene], list[dict[str, str]]]:
    out = catalog(CatalogSettings(scenes=sources, **settings), tmp_path / "out")
    return read_scenes(out / "catalog.parquet"), json.loads((out / "left_out.json").read_text())


def static(folder: Path, items: list[pystac.Item]) -> Path:
    root = pystac.Catalog("root", "a test")
    extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]]))
    collection = pystac.Collection("vhr", "a test", extent, license="CC-BY-4.0")
    root.add_child(collection)
    for one in items:
        collection.add_item(one)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def test_a_static_catalogue_on_disk(tmp_path: Path, pictures: Path) -> None:
    scenes = pictures / "scenes"
    items = [
        item("first", str(scenes / "a_20230101.tif"), **{"eo:cloud_cover": 20}),
        item("second", str(scenes / "c.tif"), asset="other", license="CC0-1.0"),
        item("third", str(scenes / "missing.tif")),
        item("fourth", "http://127.0.0.1:9/x.tif"),
    ]
    ambiguous = item("fifth", str(scenes / "b_20230701.tif"), asset="one")
    ambiguous.add_asset("two", pystac.Asset(str(scenes / "c.tif"), media_type=pystac.MediaType.COG, roles=["data"]))
    root = static(tmp_path / "stac", [*items, ambiguous])
    kept, left = run(tmp_path, root)
    assert [(scene.id, scene.licence, scene.cloud_share) for scene in kept] == [
        ("first", "CC-BY-4.0", 0.2),
        ("second", "CC0-1.0", None),
    ]
    assert {scene.datetime for scene in kept} == {dt.datetime(2023, 12, 31, 23, tzinfo=dt.UTC)}
    assert {(scene.year, scene.quarter, scene.date_source) for scene in kept} == {(2023, 4, "item")}
    reasons = " | ".join(entry["reason"] for entry in left)
    assert "no such file" in reasons and "lies on the network" in reasons and "assets are one, two" in reasons and len(left) == 3


def test_broken_parts_and_circles_cost_only_themselves(tmp_path: Path, pictures: Path) -> None:
    root = static(
        tmp_path / "stac", [item(f"n{n}", str(pictures / "scenes" / f"{name}.tif")) for n, name in enumerate(("c", "b_20230701"))]
    )
    (tmp_path / "stac" / "vhr" / "n0" / "n0.json").write_text("{")
    body = json.loads((tmp_path / "stac" / "vhr" / "collection.json").read_text())
    body["links"] += [{"rel": "child", "href": "../catalog.json"}, {"rel": "item", "href": "https://127.0.0.1:9/i.json"}]
    (tmp_path / "stac" / "vhr" / "collection.json").write_text(json.dumps(body))
    kept, left = run(tmp_path, root)
    assert [scene.id for scene in kept] == ["n1"] and len(left) == 2
    assert all("cannot be read as STAC" in entry["reason"] for entry in left)
    assert {"https://127.0.0.1:9/i.json"} < {entry["path"] for entry in left}


def test_what_is_no_catalogue_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"type": "FeatureCollection"}')
    for source in (tmp_path / "a.json", tmp_path / "missing.json"):
        with pytest.raises(InputError, match="cannot be read as STAC"):
            run(tmp_path, source)


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/catalog.json", "s3://bucket/scenes", "https://127.0.0.1:9/a.tif"])
def test_the_network_is_used_only_where_asked_for(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match=r"on the network(?s:.*)catalog\.network: true"):
        run(tmp_path, source)
    with pytest.raises(InputError, match="on the network"):
        catalog(CatalogSettings(stac_api=StacApiSettings(url="http://127.0.0.1:9/")), tmp_path / "out")


def test_a_static_catalogue_and_its_pictures_over_http(tmp_path: Path, pictures: Path, server: Server) -> None:
    static(pictures / "stac", [item("first", f"{server.url}/scenes/a_20230101.tif")])
    (scene,), left = run(tmp_path, f"{server.url}/stac/catalog.json", network=True)
    assert scene.id == "first" and is_remote(scene.path) and left == []
    with open_raster(scene) as raster, rasterio.open(pictures / "scenes" / "a_20230101.tif") as file:
        np.testing.assert_array_equal(read_window(raster)[0], file.read().transpose(1, 2, 0))
    with pytest.raises(DataError, match="not a file on this machine"), open_raster(scene.path):
        pass
    assert not any("ovr" in path or "aux.xml" in path or "msk" in path for path in server.seen)


def test_a_stac_api_is_searched_page_by_page(tmp_path: Path, server: Server) -> None:
    names = ("a_20230101", "b_20230701", "c")
    for number, name in enumerate(names):
        body = item(f"i{number}", f"{server.url}/scenes/{name}.tif").to_dict()
        server.items.append(body | {"collection": "vhr"})
    server.items.append({"type": "Feature", "id": "broken"})
    settings = CatalogSettings(stac_api=StacApiSettings(url=f"{server.url}/api", collections=("vhr",)), network=True)
    out = catalog(settings, tmp_path / "out")
    kept = read_scenes(out / "catalog.parquet")
    assert [(scene.id, scene.licence) for scene in kept] == [(f"i{n}", "CC-BY-4.0") for n in range(3)]
    assert sum(path.startswith("/api/search") for path in server.seen) == 2
    assert "no STAC item" in json.loads((out / "left_out.json").read_text())[0]["reason"]
    assert catalog(settings, tmp_path / "out") == out


def test_an_api_that_is_none_or_does_not_answer(tmp_path: Path, server: Server) -> None:
    for url in (f"{server.url}/scenes/", "http://127.0.0.1:9/"):
        with pytest.raises(CGEarthEyeError) as caught:
            catalog(CatalogSettings(stac_api=StacApiSettings(url=url), network=True), tmp_path / "out")
        assert caught.value.exit_code in {2, 4} and caught.value.where == url and caught.value.remedy


def test_a_web_servers_folder_and_one_file(tmp_path: Path, server: Server, pictures: Path) -> None:
    (pictures / "scenes" / "readme.txt").write_text("hello")
    (pictures / "scenes" / "d_20230101.tif").write_bytes(b"II*\0" + bytes(100))
    kept, left = run(tmp_path, f"{server.url}/scenes/", network=True)
    assert [scene.id for scene in kept] == ["a_20230101", "b_20230701"]
    assert {Path(entry["path"]).name for entry in left} == {"c.tif", "d_20230101.tif"}
    assert all(entry["path"].startswith(server.url) for entry in left)
    (one,) = read_scenes(
        catalog(CatalogSettings(scenes=(f"{server.url}/scenes/a_20230101.tif",), network=True), tmp_path / "one")
        / "catalog.parquet"
    )
    assert address_of(one.path) == f"{server.url}/scenes/a_20230101.tif"


def test_a_virtual_raster_on_a_server_is_refused(tmp_path: Path, server: Server, pictures: Path) -> None:
    (pictures / "scenes" / "v_20230101.tif").write_text("<VRTDataset><SourceFilename>/etc/passwd</SourceFilename></VRTDataset>")
    _, left = run(tmp_path, f"{server.url}/scenes/", network=True)
    assert "cannot be opened over the network as GeoTIFF" in {Path(e["path"]).name: e["reason"] for e in left}["v_20230101.tif"]


def test_a_bucket_is_read_by_gdal_where_it_lies(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL's S3 paths against the loopback server; the listing by fsspec is stood in for, as s3fs is no dependency."""

    class Bucket(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
        protocol = "s3"
        store: ClassVar[dict[str, Any]] = {
            "/scenes/a_20230101.tif": None,
            "/scenes/.hidden_20230101.tif": None,
            "/scenes/notes.txt": None,
        }

        def find(self, *_: Any, **__: Any) -> dict[str, dict[str, Any]]:
            return {path.lstrip("/"): {"size": 1, "ETag": "x"} for path in self.store}

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.removeprefix("s3://").rstrip("/")

    fsspec.register_implementation("s3", Bucket, clobber=True)
    for name, value in {
        "AWS_S3_ENDPOINT": server.url.removeprefix("http://"), "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES",
    }.items():  # fmt: skip
        monkeypatch.setitem(os.environ, name, value)
    (scene,), _ = run(tmp_path, "s3://scenes", network=True)
    assert str(scene.path) == "/vsis3/scenes/a_20230101.tif" and address_of(scene.path) == "s3://scenes/a_20230101.tif"
    assert "ETag x" in scene.file_fingerprint


def test_kinds_of_addresses() -> None:
    assert str(gdal_path("gs://b/k.tif")) == "/vsigs/b/k.tif" and str(gdal_path("az://b/k.tif")) == "/vsiaz/b/k.tif"
    for address in ("http://host/a b.tif?x=1&y=2", "https://host/a.tif", "s3://b/k.tif"):
        path = gdal_path(address)
        assert is_remote(path) and address_of(path) == address and Path(str(path)) == path
    with pytest.raises(DataError, match="of the kind ftp"):
        gdal_path("ftp://host/a.tif")
    with pytest.raises(InputError, match="of the kind file"):
        list_bucket("file:///etc", (".tif",), Listing())
    with pytest.raises(ResourceError, match=r"needs gcsfs(?s:.*)pip install gcsfs"):
        list_bucket("gs://bucket/x", (".tif",), Listing())
