"""`seqdata search`: where was this taken?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.evaluating import RunFlag
from cli.output import ConfigFlag, JsonFlag, emit
from cli.places import ModelFromFlag


def search(
    paths: Annotated[
        list[Path], typer.Argument(help="[INDEX] then image folders or image files.", metavar="[INDEX] PATH...")
    ],
    k: Annotated[int, typer.Option("-k", help="Places a window.", min=1)] = 5,
    run: RunFlag = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """The k nearest places of image folders; a first PATH that is an index is searched, else the newest."""
    from cli.config import load
    from cli.places import find_run, open_index
    from seqdata.errors import InputError
    from train.search_stage import search_images

    place = load(config)
    named = paths[0] if _is_index(paths[0]) else None
    images = paths[1:] if named is not None else paths
    if not images:
        raise InputError(f"{paths[0]}: an index, but no images to search for; name image folders or files after it")
    index = open_index(place, named)
    answers = search_images(index, find_run(place, run, index), images, k=k, device=device, model_from=model_from)
    result = {
        "index": str(index.path),
        "answers": [{"files": [str(f) for f in each.files], "places": each.places} for each in answers],
    }
    lines = [line for each in answers for line in _lines(each.files, each.places)]
    emit(result, "\n".join(lines), as_json=as_json)


def _is_index(path: Path) -> bool:
    return (path / "latest").is_file() or (path / "index.faiss").is_file()


def _lines(files: tuple[Path, ...], places: list[dict[str, Any]]) -> list[str]:
    head = f"{files[0]} … {files[-1].name}"
    rows = [
        f"  {row['rank']:>2}  {row['distance']:7.4f}  {row['latitude']:11.6f} {row['longitude']:11.6f}  "
        f"{row['trajectory']} #{row['position']}"
        for row in places
    ]
    return [head, "      distance    latitude   longitude  place", *rows]
