"""What datasets, streams, indexes and localizers say of themselves at a prompt and in a notebook."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from indexer.localizer.localizer import Localizer
from indexer.place_index import PlaceIndex
from seqdata.contracts.facts import Facts
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.dataset import open as open_dataset
from tests.support.street import LENGTH, build_street, make_index, write_street
from train.stages.pack import PackRequest, write_pack


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    """One of each kind, of one street."""
    folder = tmp_path_factory.mktemp("facts")
    dataset = build_street(write_street(folder / "raw"), folder / "dataset")
    index, run = make_index(dataset, folder, "mean")
    write_pack(index, PackRequest(run=run, out=folder / "place.pack", dataset=dataset, precision=0.5, device="cpu"))
    windows = dataset.sequences(length=LENGTH)
    return {
        "Dataset": dataset,
        "Stream": dataset.stream(windows, seed=7, epoch=2),
        "PlaceIndex": index,
        "Localizer": Localizer(folder / "place.pack"),
    }


WORDS = {
    "Dataset": ("source folder, frames 88, trajectories 2, shards 1, protocol halves@",),
    "Stream": (f"sequences 84, frames a sequence {LENGTH}, seed 7, epoch 2, dataset ",),
    "PlaceIndex": ("windows 22, dimensions ", "of no PCA, kind flat, id "),
    "Localizer": ("places 22, frames a window 3, frame ", "accepts up to a distance of "),
}


@pytest.mark.parametrize("name", WORDS)
def test_an_object_says_in_one_line_what_it_holds(name: str, objects: dict[str, Facts]) -> None:
    text = repr(objects[name])
    assert text.startswith(f"<{name}: ") and "\n" not in text
    assert all(words in text for words in WORDS[name]), text


@pytest.mark.parametrize("name", WORDS)
def test_a_notebook_gets_the_same_as_a_table(name: str, objects: dict[str, Facts]) -> None:
    table = ET.fromstring(objects[name]._repr_html_())
    rows = [f"{row.findtext('th')} {row.findtext('td')}" for row in table.iter("tr")]
    assert f"<{name}: {', '.join(rows)}>" == repr(objects[name])


def test_names_with_markup_stay_text(objects: dict[str, Facts], tmp_path: Path) -> None:
    dataset = objects["Dataset"]
    assert isinstance(dataset, Dataset)
    shutil.copytree(dataset.path, tmp_path / "<b>bold")
    table = ET.fromstring(open_dataset(tmp_path / "<b>bold")._repr_html_())
    assert table.find(".//b") is None
    assert table.findtext(".//td", "").endswith("<b>bold")


def test_an_object_that_is_not_set_up_has_a_repr() -> None:
    assert repr(PlaceIndex.__new__(PlaceIndex)) == "<PlaceIndex>"
