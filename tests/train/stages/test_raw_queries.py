"""Raw RobotCar frames as queries: developed as the database was, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest

import indexer
import seqdata
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.localizer.frame_form import index_form
from indexer.localizer.search import search_dataset
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.sources.raw_frames import raw_frames
from seqdata.synth.dumps.robotcar import RobotcarSettings, write_robotcar
from tests.support.street import make_run
from train.data.describe_settings import DescribeSettings
from train.stages.describer import RunDescriber
from train.stages.search import search_frames

pytest.importorskip("cv2", reason="mosaics need OpenCV")

AUTUMN, NIGHT = "2014-11-18-13-20-12", "2014-12-16-18-44-24"
PROTOCOL = f"""
name = "laps"
source = "made for this test"
length = 3
radius = 10.0
rule = "centre"
[splits.test]
database = ["{AUTUMN}"]
query = ["{NIGHT}"]
"""


def build_laps(raw: Path, out: Path, **options: str) -> Dataset:
    (raw.parent / "laps.toml").write_text(PROTOCOL)
    protocol = protocols.load(str(raw.parent / "laps.toml"))
    build(BuildRequest("robotcar", raw, out, options=options, protocol=protocol))
    return seqdata.open(out)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short laps of raw mosaics, 64 × 48."""
    folder = tmp_path_factory.mktemp("robotcar") / "raw"
    write_robotcar(folder, settings=RobotcarSettings(seconds=10, stop=0, width=64, height=48))
    return folder


@pytest.fixture(scope="module")
def cropped(raw: Path) -> Dataset:
    return build_laps(raw, raw.parent / "cropped", crop="top60x40")


@pytest.fixture(scope="module")
def describer(cropped: Dataset) -> RunDescriber:
    return RunDescriber(make_run(cropped, cropped.path.parent / "run", "sum"), DescribeSettings("cpu"))


@pytest.fixture(scope="module")
def index(cropped: Dataset, describer: RunDescriber) -> indexer.PlaceIndex:
    request = IndexRequest(cropped.path.parent / "index", cropped.load_protocol("laps"))
    return indexer.open(build_index(cropped, describer, request))


def test_a_raw_frame_is_what_is_stored_of_it(raw: Path, cropped: Dataset, index: indexer.PlaceIndex) -> None:
    form = index_form(index, (48, 64))
    keys = cropped.frame_columns("key")["key"].to_list()[::10]
    rows = np.arange(0, 10 * len(keys), 10)
    for key, stored in zip(keys, cropped.read_frames(rows), strict=True):
        lap, stamp = key.split("_")
        pixels = form.pixels(raw / lap / "stereo" / "left" / f"{stamp}.png")
        np.testing.assert_array_equal(pixels, stored)


def test_raw_frames_find_the_windows_that_hold_them(
    raw: Path, cropped: Dataset, index: indexer.PlaceIndex, describer: RunDescriber
) -> None:
    """Every window of the database, searched as raw files, finds itself."""
    rows = cropped.frame_rows(index.sequences)
    keys = cropped.frame_columns("key")["key"]
    for row in range(0, len(index), 9):
        files = [raw / AUTUMN / "stereo" / "left" / f"{key.split('_')[1]}.png" for key in keys[rows[row]]]
        (answer,) = search_frames(index, files, describer, 1)
        assert answer.places[0]["distance"] < 1e-3
        assert answer.places[0]["row"] == row


def test_queries_of_a_dataset_with_another_crop_are_refused(
    raw: Path, index: indexer.PlaceIndex, describer: RunDescriber, cropped: Dataset
) -> None:
    whole = build_laps(raw, raw.parent / "whole")
    with pytest.raises(
        ContractError, match=r"--crop none, the index .* --crop top60x40; build the queries with"
    ) as line:
        next(search_dataset(index, whole, "test", describer, 1))
    assert "\n" not in str(line.value)
    assert next(search_dataset(index, cropped, "test", describer, 1)).places


def test_only_a_developed_dataset_is_recorded_in_an_index(cropped: Dataset, index: indexer.PlaceIndex) -> None:
    assert index.manifest.inputs["raw"] == {
        "kind": "robotcar", "camera": "stereo_left", "crop": "top60x40", "undistort": ""
    }  # fmt: skip
    mixed = [*cropped.manifest.sources, replace_camera(cropped)]
    assert raw_frames(mixed).kind == "several"


def replace_camera(dataset: Dataset) -> object:
    (source,) = dataset.manifest.sources
    return source.model_copy(update={"options": {**source.options, "camera": "mono_left"}})
