"""`seqdata search`: where was this taken?"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.eval_flags import RunFlag
from cli.output import ConfigFlag, JsonFlag, emit
from cli.places import DeviceFlag, ModelFromFlag

if TYPE_CHECKING:
    from cli.config import Config
    from indexer.reading import PlaceIndex
    from train.query_frames import VideoRate
    from train.search_stage import Answer, SearchRequest


def search(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="[INDEX] then image folders, images, videos, or .npy descriptors.",
            metavar="[INDEX] PATH...",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Places a window.", min=1)] = 5,
    dataset: Annotated[
        Path | None, typer.Option(help="Search for this dataset's queries instead.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Split whose queries --dataset means.")] = "test",
    every: Annotated[int, typer.Option(help="Take every n-th frame of a video.", min=1)] = 1,
    fps: Annotated[
        float | None, typer.Option(help="Take so many frames a second of a video.", show_default=False)
    ] = None,
    thumbnails: Annotated[
        Path | None, typer.Option(help="Folder for a page with query and found frames.", show_default=False)
    ] = None,
    run: RunFlag = None,
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """The k nearest places of images, videos or queries; a first PATH that is an index is searched, else the newest."""
    from cli.config import load
    from seqdata.errors import InputError
    from train.query_frames import VideoRate

    place = load(config)
    given = paths or []
    named = given[0] if given and _is_index(given[0]) else None
    wanted = given[1:] if named is not None else given
    if bool(wanted) == (dataset is not None):
        raise InputError("name images, videos or descriptors to search for, or a dataset with --dataset: one of them")
    vectors = [path for path in wanted if path.suffix == ".npy"]
    frames = [path for path in wanted if path.suffix != ".npy"]
    index = _open(place, named, described=not frames and dataset is None)
    answers = [each for path in vectors for each in _of_vectors(index, path, k)]
    if frames or dataset is not None:
        request = _request(place, run, index, k, device, model_from, thumbnails is not None)
        answers += _of_frames(index, frames, dataset, split, request, VideoRate(every, fps))
    result: dict[str, Any] = {"index": str(index.path), "answers": [asdict(each) for each in answers]}
    for each in result["answers"]:
        del each["pictures"]
    lines = [line for each in answers for line in _lines(each)]
    if thumbnails is not None:
        result["page"] = str(_page(place, thumbnails, index, run, answers))
        lines.append(result["page"])
    emit(result, "\n".join(lines), as_json=as_json)


def _is_index(path: Path) -> bool:
    return (path / "latest").is_file() or (path / "ids.parquet").is_file()


def _open(place: "Config", named: Path | None, *, described: bool) -> "PlaceIndex":
    """The index; descriptors are searched in any, whoever built it."""
    import indexer
    from cli.places import open_index

    return indexer.open(place.newest("indexes", "latest", named, "index")) if described else open_index(place, named)


def _request(
    place: "Config",
    run: Path | None,
    index: "PlaceIndex",
    k: int,
    device: str,
    model_from: str | None,
    pictures: bool,
) -> "SearchRequest":
    from cli.places import find_run
    from train.search_stage import SearchRequest

    return SearchRequest(find_run(place, run, index), k, device, model_from, pictures)


def _of_vectors(index: "PlaceIndex", path: Path, k: int) -> "Iterator[Answer]":
    from train.search_stage import search_descriptors

    return search_descriptors(index, path, k)


def _of_frames(
    index: "PlaceIndex",
    paths: list[Path],
    dataset: Path | None,
    split: str,
    request: "SearchRequest",
    rate: "VideoRate",
) -> "Iterator[Answer]":
    import seqdata
    from train.search_stage import search_dataset, search_frames

    if dataset is not None:
        return search_dataset(index, seqdata.open(dataset), split, request)
    return search_frames(index, paths, request, rate)


def _page(place: "Config", folder: Path, index: "PlaceIndex", run: Path | None, answers: "list[Answer]") -> Path:
    """The page of the answers; found frames are read from the index's dataset."""
    from cli.places import find_dataset, find_run
    from train.index_stage import run_record
    from train.search_page import write_search_page

    record = run_record(find_run(place, run, index))
    dataset = find_dataset(place, None, index.manifest.inputs["dataset"], record["dataset_path"])
    return write_search_page(folder, index, dataset, answers)


def _lines(answer: "Answer") -> list[str]:
    names = answer.frames
    head = f"{names[0]} … {names[-1]}" if names else answer.query
    rows = [
        f"  {row['rank']:>2}  {row['distance']:7.4f}  {row['similarity']:10.4f}  "
        f"{row['latitude']:11.6f} {row['longitude']:11.6f}  {row['trajectory']} #{row['position']}"
        for row in answer.places
    ]
    kind = answer.places[0]["similarity_kind"] if answer.places else ""
    return [head, f"      distance  similarity    latitude   longitude  place  (similarity: {kind})", *rows]
