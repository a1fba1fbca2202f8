"""The page of a search, with the frames of the places that were found, read from the index's own dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer.pages.pictures import strip_uris
from indexer.pages.search import SearchPanel, SearchStrip, write_search
from indexer.reading import PlaceIndex
from seqdata.dataset import Dataset
from seqdata.errors import ContractError
from train.search_stage import PICTURED, Answer

PAGE = "search.html"
SHOWN = 3
"""Places a query whose frames are shown."""


def write_search_page(folder: Path, index: PlaceIndex, dataset: Dataset, answers: Sequence[Answer]) -> Path:
    """Write `folder/search.html`: the first 60 answers with their three nearest places.

    Raises: ContractError when the dataset is not the index's, OutputError.
    """
    if dataset.id != index.manifest.inputs["dataset"]:
        raise ContractError(f"{dataset.location}: not the dataset that the index {index.id} was built from")
    shown = answers[:PICTURED]
    note = f"Index {index.id}; {len(answers)} windows searched, the first {len(shown)} shown."
    panels = [_panel(index, dataset, answer) for answer in shown]
    return write_search(folder / PAGE, title="Search", note=note, panels=panels)


def _panel(index: PlaceIndex, dataset: Dataset, answer: Answer) -> SearchPanel:
    caption = f"{answer.frames[0]} … {answer.frames[-1]}" if answer.frames else ""
    query = SearchStrip(answer.query, caption, answer.pictures)
    return SearchPanel(query, tuple(_strip(index, dataset, place) for place in answer.places[:SHOWN]))


def _strip(index: PlaceIndex, dataset: Dataset, place: dict[str, Any]) -> SearchStrip:
    caption = (
        f"distance {place['distance']:.4f}, similarity {place['similarity']:.4f}, "
        f"{place['latitude']:.6f} {place['longitude']:.6f}"
    )
    frames = dataset.read(index.sequences, [place["row"]])[0]
    return SearchStrip(f"{place['trajectory']} #{place['position']}", caption, tuple(strip_uris(frames)))
