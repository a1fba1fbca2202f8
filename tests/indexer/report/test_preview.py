"""The preview of a dataset: whole, escaped, true to its frames, and honest about what cannot be shown."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from indexer.report.preview.histogram import make_histogram
from indexer.report.preview.page import render_preview
from indexer.report.preview.sheet import contact_sheet, raw_thumbnail
from indexer.report.preview.views import Colouring, heading_quarters, light, make_city_maps, speed_classes
from seqdata.dataset.dataset import Dataset
from tests.indexer.report.test_report import Checker
from tests.support.street import build_street, write_street

HOSTILE = "<img src=x onerror=alert(1)>.jpg"


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A street whose folder also holds a picture without a row, under a name with markup."""
    root = tmp_path_factory.mktemp("preview")
    raw = write_street(root / "raw")
    Image.new("RGB", (32, 24), (200, 0, 0)).save(raw / HOSTILE)
    return build_street(raw, root / "dataset")


def test_page_is_whole_and_loads_nothing(street: Dataset) -> None:
    page, faults = render_preview(street, raw=street.path.parent / "raw", command="seqdata preview x")
    checker = Checker()
    checker.feed(page)
    assert (checker.open, faults) == ([], [])
    for name, attributes in checker.tags:
        assert name not in ("script", "link", "iframe")
        assert not any(key.startswith("on") for key in attributes)
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert name != "img" or attributes.get("alt")
    assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in page
    assert "no_row" in page
    assert street.id in page


def test_counts_are_those_of_the_dataset(street: Dataset) -> None:
    page, _ = render_preview(street)
    windows = street.sequences("halves", "test", "query").height
    assert re.search(rf"<td>test</td><td>query</td><td>{windows}</td>", page)
    row = re.search(r"<td>test, database</td>(.*?)</tr>", page)
    protocol = street.manifest.protocol
    assert row is not None
    assert protocol is not None
    lengths = [protocol.model_copy(update={"length": length}) for length in (1, 3, 5, 7, 10, 15)]
    expected = [street.sequences(variant, "test", "database").height for variant in lengths]
    assert [int(number) for number in re.findall(r"<td>(\d+)</td>", row[1])] == expected


def test_sheet_has_a_strip_a_trajectory(street: Dataset) -> None:
    sheet, faults = contact_sheet(street, street.manifest.protocol)
    assert not faults
    assert [(group.title, group.frames) for group in sheet] == [
        ("test, database", 24), ("test, query", 24), ("val, database", 20), ("val, query", 20),
    ]  # fmt: skip
    assert {len(strip.pictures) for group in sheet for strip in group.strips} == {7}


def test_damaged_frames_are_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    dataset = build_street(write_street(tmp_path / "raw"), tmp_path / "dataset")
    shard = next((tmp_path / "dataset" / "shards").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    row = dataset.frames.select("offset", "length").collect().row(0)
    data[row[0] + row[1] // 2] ^= 255
    shard.write_bytes(bytes(data))
    page, faults = render_preview(dataset)
    assert len(faults) == 1
    assert "frame 0" in faults[0]
    assert "no picture" in page
    assert page.count("data:image/jpeg") > 20
    shard.unlink()
    page, faults = render_preview(dataset)
    assert any("pictures cannot be shown" in fault for fault in faults)
    assert "Windows by length" in page


def test_pictures_outside_the_dump_are_not_shown(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (raw / "link.png").symlink_to(tmp_path / "secret.png")
    (raw / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (8, 8)).save(raw / "inside.png")
    assert raw_thumbnail(raw, "inside.png") is not None
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "broken.jpg", "absent.jpg"):
        assert raw_thumbnail(raw, name) is None


def test_histogram_counts_every_value() -> None:
    values = np.concatenate([np.arange(200) % 20, [1000.0, np.nan]])
    chart = make_histogram("Steps", "m", values, is_whole=True)
    assert chart is not None
    heights = [float(height) for height in re.findall(r"v-([\d.]+)h", chart.bars)]
    counts = np.bincount(np.minimum(values[:-1].astype(int), 20))[:20].astype(float)
    assert chart.summary.startswith("201 values")
    # The outlier lies in the last bar, with the values of 19.
    assert len(heights) == len(counts)
    assert chart.greatest == 11
    assert np.isclose(heights[0] / max(heights), 10 / 11, atol=0.01)
    assert make_histogram("Steps", "m", np.array([np.nan])) is None


def test_classes_of_frames() -> None:
    assert heading_quarters(np.array([0.0, 359.0, 45.0, 180.0, 270.0, np.nan])).tolist() == [
        "north", "north", "east", "south", "west", "unknown",
    ]  # fmt: skip
    assert speed_classes(np.array([0.0, 0.5, 10.0, 99.0, np.nan])).tolist() == [
        "standing", "below 5 m/s", "10 to 20 m/s", "20 m/s and more", "unknown",
    ]  # fmt: skip
    assert light(pl.Series([True, False, None])).tolist() == ["night", "day", "unknown"]


def test_map_layers_count_frames() -> None:
    xy = np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 50.0], [0.0, 50.0]])
    labels = np.array(["query", "database", "database", "query"])
    maps = make_city_maps(
        np.array(["a", "a", "a", "b"]), xy, {"role": Colouring("role", labels, ("database", "query"))}
    )
    assert [(city.city, [(layer.name, layer.frames) for layer in city.views[0].layers]) for city in maps] == [
        ("a", [("database", 2), ("query", 1)]),
        ("b", [("query", 1)]),
    ]
