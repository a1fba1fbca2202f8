"""`seqdata search QUERIES --database FOLDER --model NAME`: one folder of images in another, without an index."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.output import emit, note, progress_bar
from indexer.localizer.query_frames import FrameOrder, VideoRate
from seqdata.errors import UsageError
from train.data.describe_settings import DescribeSettings


@dataclass(frozen=True)
class Preset:
    """A model that is taken as it is: its name, weights, frames of a window, and device."""

    name: str | None
    weights: str | None
    length: int
    device: str


def search_folders(
    queries: list[Path],
    database: list[Path],
    preset: Preset,
    k: int,
    order: FrameOrder,
    rate: VideoRate,
    *,
    as_json: bool,
) -> None:
    """Print the k nearest windows of the database of each query window.

    Raises:
        UsageError: Without model or query.
    """
    from train.models import registry  # heavy
    from train.stages.search_folders import FolderSearch, check_has_words, folder_windows, nearest_windows  # heavy

    if preset.name is None or not queries:
        raise UsageError("--database: name folders to search for, and a model, as in --model gem-cat-r18")
    model = registry.create(preset.name, weights=preset.weights or "pretrained")
    check_has_words(model, preset.name)
    settings = DescribeSettings(preset.device)
    request = FolderSearch(preset.length, order, rate, settings, note)
    model = model.to(settings.torch_device).eval()
    with progress_bar("window") as bar:
        bar.update("database", 0, 2)
        references = folder_windows(model, database, request, stride=1)
        bar.update("queries", 1, 2)
        searched = folder_windows(model, queries, request, stride=preset.length)
    distances, rows = nearest_windows(searched, references, k)
    answers: list[dict[str, Any]] = []
    for number, frames in enumerate(searched.frames):
        places = [
            {"rank": rank, "distance": float(distance), "frames": list(references.frames[row])}
            for rank, (distance, row) in enumerate(zip(distances[number], rows[number], strict=True), start=1)
        ]
        answers.append({"query": searched.sequences[number], "frames": list(frames), "places": places})
    result = {
        "model": preset.name,
        "length": preset.length,
        "database_windows": len(references.frames),
        "orders": {"queries": searched.orders[0], "database": references.orders[0]},
        "answers": answers,
    }
    emit(result, _text(result), as_json=as_json)


def _text(result: dict[str, Any]) -> str:
    """The answers for people."""
    lines = [
        f"{result['model']}, windows of {result['length']} frames; {len(result['answers'])} queries (in the order of "
        f"{result['orders']['queries']}) among {result['database_windows']} database windows (in the order of "
        f"{result['orders']['database']})"
    ]
    for answer in result["answers"]:
        lines += ["", _span(answer["frames"]), "      distance  place"]
        lines += [
            f"  {place['rank']:>3}  {place['distance']:7.4f}  {_span(place['frames'])}" for place in answer["places"]
        ]
    return "\n".join(lines)


def _span(frames: list[str]) -> str:
    return f"{frames[0]} … {Path(frames[-1]).name}"
