"""`seqdata search`: where was this taken?"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.flags import DeviceFlag, EngineFlag, ModelFromFlag, RunFlag
from cli.output import ConfigFlag, JsonFlag, emit

if TYPE_CHECKING:
    from cli.config import Config
    from indexer.place_index import PlaceIndex
    from seqdata.dataset.dataset import Dataset
    from train.stages.query_frames import VideoRate
    from train.stages.search import Answer, SearchRequest


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
    frames: Annotated[
        Path | None,
        typer.Option(
            help="Dataset that holds the index's frames, for --thumbnails; default: found by its id.",
            show_default=False,
        ),
    ] = None,
    run: RunFlag = None,
    device: DeviceFlag = "auto",
    engine: EngineFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Find the nearest places of images, videos or descriptors.

    A first PATH that is an index is searched, else the newest index.
    """
    from cli.config import load
    from cli.lookup import open_any_index, open_index
    from seqdata.errors import ContractError, InputError
    from train.stages.query_frames import VideoRate

    place = load(config)
    given = paths or []
    named = given[0] if given and _is_index(given[0]) else None
    wanted = given[1:] if named is not None else given
    if bool(wanted) == (dataset is not None):
        raise InputError("name images, videos or descriptors to search for, or a dataset with --dataset: one of them")
    if frames is not None and thumbnails is None:
        raise ContractError("--frames: only together with --thumbnails")
    vectors = [path for path in wanted if path.suffix == ".npy"]
    pictures = [path for path in wanted if path.suffix != ".npy"]
    open_one = open_index if pictures or dataset is not None or thumbnails is not None else open_any_index
    index = open_one(place, named, engine)
    shown = None if thumbnails is None else _frames_of(place, index, frames, dataset, run)
    answers = [each for path in vectors for each in _of_vectors(index, path, k)]
    if pictures or dataset is not None:
        request = _request(place, run, index, k, device, model_from, thumbnails is not None)
        answers += _of_frames(index, pictures, dataset, split, request, VideoRate(every, fps))
    result: dict[str, Any] = {"index": str(index.path), "answers": [asdict(each) for each in answers]}
    for each in result["answers"]:
        del each["pictures"]
    lines = [line for each in answers for line in _lines(each)]
    if thumbnails is not None and shown is not None:
        from train.stages.search import write_search_page

        result["page"] = str(write_search_page(thumbnails, index, shown, answers))
        lines.append(result["page"])
    emit(result, "\n".join(lines), as_json=as_json)


def _is_index(path: Path) -> bool:
    """Whether a path is an index, one of its versions, or the folder that indexes lie in."""
    inside = path.glob("*/latest") if path.is_dir() else iter(())
    return (
        (path / "latest").is_file()
        or (path / "ids.parquet").is_file()
        or any((each.parent / "versions").is_dir() for each in inside)
    )


def _request(
    place: "Config",
    run: Path | None,
    index: "PlaceIndex",
    k: int,
    device: str,
    model_from: str | None,
    pictures: bool,
) -> "SearchRequest":
    from cli.lookup import find_run
    from train.stages.search import SearchRequest

    return SearchRequest(find_run(place, run, index), k, device, model_from, pictures)


def _of_vectors(index: "PlaceIndex", path: Path, k: int) -> "Iterator[Answer]":
    from train.stages.search import search_descriptors

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
    from train.stages.search import search_dataset, search_frames

    if dataset is not None:
        return search_dataset(index, seqdata.open(dataset), split, request)
    return search_frames(index, paths, request, rate)


def _frames_of(
    place: "Config", index: "PlaceIndex", frames: Path | None, asked: Path | None, run: Path | None
) -> "Dataset":
    """The dataset that the index's frames lie in: the one named, that of the queries where it is the same, else found.

    Raises: ContractError when the named one is another, InputError when there is none.
    """
    import seqdata
    from cli.lookup import find_dataset, find_run
    from seqdata.errors import ContractError
    from train.runs.record import run_record

    wanted = str(index.manifest.inputs["dataset"])
    for named in (frames, asked):
        opened = seqdata.open(named) if named is not None else None
        if opened is not None and opened.id == wanted:
            return opened
        if opened is not None and named is frames:
            raise ContractError(
                f"--frames {frames}: not the dataset {wanted[:12]} that the index {index.id} was built from"
            )
    hint = run_record(find_run(place, run, index))["dataset_path"]
    return find_dataset(place, None, wanted, hint, "name its folder with --frames")


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
