"""The page of a search: query frames beside the frames of their nearest places."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer.localizer.search import PICTURED, Answer
from indexer.place_index import PlaceIndex
from indexer.report.pictures import strip_uris
from indexer.report.search import SearchPanel, SearchStrip, write_search
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError

PAGE = "search.html"
PICTURED_PLACES = 3
"""Places of an answer whose frames are shown."""


def write_search_page(folder: Path, index: PlaceIndex, dataset: Dataset, answers: Sequence[Answer]) -> Path:
    """Write `folder/search.html`: the first 60 answers with their three nearest places.

    Args:
        folder: Where the page goes.
        index: The index that was searched.
        dataset: The dataset that the index was built from.
        answers: Answers of a search, with pictures.

    Returns:
        The page's path.

    Raises:
        ContractError: If the dataset is not the index's.
        OutputError: If the page cannot be written.
    """
    if dataset.id != index.manifest.inputs["dataset"]:
        raise ContractError(f"{dataset.location}: not the dataset that the index {index.id} was built from")
    pictured = answers[:PICTURED]
    note = f"Index {index.id}; {len(answers)} windows searched, the first {len(pictured)} shown."
    panels = [_panel(index, dataset, answer) for answer in pictured]
    return write_search(folder / PAGE, title="Search", note=note, panels=panels)


def _panel(index: PlaceIndex, dataset: Dataset, answer: Answer) -> SearchPanel:
    caption = f"{answer.frames[0]} … {answer.frames[-1]}" if answer.frames else ""
    query = SearchStrip(answer.query, caption, answer.pictures)
    return SearchPanel(query, tuple(_strip(index, dataset, place) for place in answer.places[:PICTURED_PLACES]))


def _strip(index: PlaceIndex, dataset: Dataset, place: dict[str, Any]) -> SearchStrip:
    caption = (
        f"distance {place['distance']:.4f}, similarity {place['similarity']:.4f}, "
        f"{place['latitude']:.6f} {place['longitude']:.6f}"
    )
    frames = dataset.read(index.sequences, [place["row"]])[0]
    return SearchStrip(f"{place['trajectory']} #{place['position']}", caption, tuple(strip_uris(frames)))
