"""`seqdata search`: the places that images, videos, descriptors or a dataset's queries were taken at."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import seqdata
from cli.config import Config, check_kind, kind_of_folder, load
from cli.flags import (
    DeviceFlag,
    EngineFlag,
    IndexOption,
    ModelFromFlag,
    RunFlag,
    RuntimeFlag,
    either,
    parse_choice,
    refuse_idle,
    refuse_without,
    start_weights,
)
from cli.index.flags import (
    SearchCsvFlag,
    SearchDatabaseFlag,
    SearchDatasetFlag,
    SearchEveryFlag,
    SearchFpsFlag,
    SearchFramesFlag,
    SearchKFlag,
    SearchLengthFlag,
    SearchModelFlag,
    SearchOrderFlag,
    SearchPathsArgument,
    SearchRandomInitFlag,
    SearchSplitFlag,
    SearchThumbnailsFlag,
    SearchWeightsFlag,
)
from cli.index.search_folders import Preset, search_folders
from cli.lookup import find_dataset, find_run, open_any_index, open_index
from cli.output import ConfigFlag, JsonFlag, emit, note
from indexer.localizer.answer_text import answer_lines, cut_lines, window_cuts
from indexer.localizer.query_frames import FrameOrder, VideoRate
from indexer.localizer.search import Answer, search_dataset, search_descriptors
from indexer.localizer.video import is_video
from indexer.place_index import PlaceIndex
from indexer.report.pictures import strip_uris
from indexer.versions.folders import is_index
from seqdata.dataset.dataset import Dataset
from seqdata.errors import UsageError
from seqdata.sources.driving_order import ORDERS
from train.data.describe_settings import DescribeSettings, pick_runtime
from train.runs.folder import weights_file
from train.runs.record import run_record
from train.stages.search_page import write_search_page


def search(
    paths: SearchPathsArgument = None,
    index_flag: IndexOption = None,
    k: SearchKFlag = 5,
    dataset: SearchDatasetFlag = None,
    split: SearchSplitFlag = None,
    every: SearchEveryFlag = 1,
    fps: SearchFpsFlag = None,
    order: SearchOrderFlag = None,
    csv: SearchCsvFlag = None,
    database: SearchDatabaseFlag = None,
    model: SearchModelFlag = None,
    weights: SearchWeightsFlag = None,
    random_init: SearchRandomInitFlag = False,
    length: SearchLengthFlag = None,
    thumbnails: SearchThumbnailsFlag = None,
    frames: SearchFramesFlag = None,
    run: RunFlag = None,
    device: DeviceFlag = "auto",
    runtime: RuntimeFlag = None,
    engine: EngineFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Find the nearest places of images, videos or descriptors.

    A first PATH that is an index is searched, else the newest index.

    Windows of the index's length are cut one behind the other; the last of a drive ends with its last frame. A folder
    is read in the order of its drives (seq_info.csv, positions.csv, EXIF times, numbers in names).

    Two folders without labels: seqdata search QUERIES --database FOLDER --model gem-cat-r18
    """
    refuse_without(
        "--database", bool(database), model=model, weights=weights, random_init=random_init or None, length=length
    )
    if database:
        idle = {"dataset": dataset, "thumbnails": thumbnails, "frames": frames, "run": run, "model_from": model_from}
        refuse_without("an index, and not with --database", False, index=index_flag, split=split, **idle)
        refuse_idle("an index, and not with --database", False, "engine", "runtime", "config")
        reading = FrameOrder(parse_choice(order or "auto", "--order", ORDERS), csv)
        preset = Preset(model, start_weights(weights, random_init), length or 5, device)
        search_folders(paths or [], database, preset, k, reading, VideoRate(every, fps), as_json=as_json)
        return
    work = load(config)
    named, queries = _split_paths(paths or [])
    index_path = either(named, index_flag, "--index")
    if bool(queries) == (dataset is not None):
        raise UsageError("name images, videos or descriptors to search for, or a dataset with --dataset: one of them")
    refuse_idle("--thumbnails", thumbnails is not None, "frames")
    refuse_idle("--dataset", dataset is not None, "split")
    _check_reading(queries, order, csv)
    # Descriptors need neither the run's model nor the dataset, so an index that another program built serves too.
    vectors = [path for path in queries if path.suffix == ".npy"]
    pictures = [path for path in queries if path.suffix != ".npy"]
    needs_run = bool(pictures) or dataset is not None or thumbnails is not None
    index = (open_index if needs_run else open_any_index)(work, index_path, engine)
    page_dataset = None if thumbnails is None else _dataset_of_frames(work, index, frames, dataset, run)
    answers = [answer for path in vectors for answer in search_descriptors(index, path, k)]
    if pictures or dataset is not None:
        run_folder = find_run(work, run, index)
        weights_file(run_folder)
        source = None if dataset is None else seqdata.open(dataset)
        settings = DescribeSettings(device, model_from=model_from)
        from train.stages.describer import query_describer  # heavy
        from train.stages.search import search_frames  # heavy

        describer = query_describer(index, run_folder, settings, pick_runtime(runtime))
        make_thumbnails = None if thumbnails is None else strip_uris
        if source is not None:
            answers += search_dataset(index, source, split or "test", describer, k, make_thumbnails)
        else:
            reading = FrameOrder(parse_choice(order or "auto", "--order", ORDERS), csv)
            rate = VideoRate(every, fps)
            answers += search_frames(index, pictures, describer, k, rate, make_thumbnails, order=reading, report=note)
    page = None
    if thumbnails is not None and page_dataset is not None:
        page = str(write_search_page(thumbnails, index, page_dataset, answers))
    _print_answers(index, answers, page, as_json=as_json)


def _check_reading(queries: list[Path], order: str | None, csv: Path | None) -> None:
    """Refuse options of reading that no query needs. Raises: UsageError."""
    refuse_idle("a folder of images", any(path.is_dir() for path in queries), "order", "csv")
    refuse_idle("a video", any(map(is_video, queries)), "every", "fps")
    if order is not None and csv is not None:
        raise UsageError("--order and --csv: name one of them")


def _print_answers(index: PlaceIndex, answers: list[Answer], page: str | None, *, as_json: bool) -> None:
    """Print how sequences were cut, the places of each window, and where the page is."""
    rows = [{name: value for name, value in asdict(answer).items() if name != "pictures"} for answer in answers]
    cuts = window_cuts(answers)
    result: dict[str, Any] = {"index": str(index.path), "cuts": cuts, "answers": rows}
    lines = [*cut_lines(cuts), *(line for answer in answers for line in answer_lines(answer))]
    if page is not None:
        result["page"] = page
        lines.append(page)
    emit(result, "\n".join(lines), as_json=as_json)


def _split_paths(paths: list[Path]) -> tuple[Path | None, list[Path]]:
    """The index among the paths, None where the first is none, and what to search for.

    Raises: UsageError where the first is a run or a dataset.
    """
    if paths and kind_of_folder(paths[0]) is not None:
        check_kind(paths[0], "indexes")
    return (paths[0], paths[1:]) if paths and is_index(paths[0]) else (None, paths)


def _dataset_of_frames(
    config: Config, index: PlaceIndex, frames: Path | None, queries: Path | None, run: Path | None
) -> Dataset:
    """The dataset that holds the index's frames: the named one, that of the queries if it is the same, else by its id.

    Raises: UsageError when the named one is another, InputError when there is none.
    """
    identifier = str(index.manifest.inputs["dataset"])
    for path in (frames, queries):
        dataset = seqdata.open(path) if path is not None else None
        if dataset is not None and dataset.id == identifier:
            return dataset
        if dataset is not None and path is frames:
            raise UsageError(
                f"--frames {frames}: not the dataset {identifier[:12]} that the index {index.id} was built from"
            )
    hint = run_record(find_run(config, run, index))["dataset_path"]
    return find_dataset(config, None, identifier, hint, "name its folder with --frames")
