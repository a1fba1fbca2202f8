"""`seqdata eval` and `baseline`: recall@N with counts and intervals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar
from cli.places import ModelFromFlag

if TYPE_CHECKING:
    from indexer.evaluation import Evaluation

IndexArgument = Annotated[Path | None, typer.Argument(help="Index folder; default: the newest.", show_default=False)]
DatasetFlag = Annotated[Path | None, typer.Option(help="Dataset; default: the index's own.", show_default=False)]
RunFlag = Annotated[Path | None, typer.Option(help="Run folder; default: the index's own.", show_default=False)]


def evaluate(
    index: IndexArgument = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol name or .toml; default: the index's.", show_default=False)
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Score stored predictions instead of searching.", show_default=False)
    ] = None,
    dataset: DatasetFlag = None,
    run: RunFlag = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Recall of an index under a protocol; predictions are stored, so another radius or rule needs no new search."""
    from cli.config import load
    from cli.places import find_dataset, find_protocol, find_run, open_index
    from indexer import predictions as stored
    from indexer.scoring import record, score
    from seqdata.errors import ContractError
    from train.eval_stage import answer
    from train.index_stage import run_record

    place = load(config)
    if predictions is not None:
        if protocol is None:
            raise ContractError("--predictions needs --protocol: name the rule to score them by")
        table, info = stored.read(predictions)
        source = find_dataset(place, dataset, info.dataset)
        _emit(score(source, source.load_protocol(protocol), table, info), as_json=as_json)
        return
    opened = open_index(place, index)
    folder = find_run(place, run, opened)
    source = find_dataset(place, dataset, opened.manifest.inputs["dataset"], run_record(folder)["dataset_path"])
    chosen = find_protocol(protocol, opened, source)
    with progress_bar("window") as bar:

        def show(done: int, total: int) -> None:
            bar.to("describe queries", done, total)

        table, info = answer(source, opened, folder, chosen, device=device, model_from=model_from, progress=show)
    path = folder / "predictions" / f"{chosen.name}-{chosen.hash}-{info.split}-{opened.id}.parquet"
    stored.write(path, table, info)
    evaluation = score(source, chosen, table, info)
    record(opened.path, evaluation)
    note(f"predictions: {path}")
    _emit(evaluation, as_json=as_json)


def baseline(
    dataset: Annotated[
        Path | None, typer.Argument(help="Dataset folder; default: the newest.", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol name or .toml; default: the dataset's.", show_default=False)
    ] = None,
    method: Annotated[
        str, typer.Option(help="frame: centre frames only; aligned: all frames of the window.")
    ] = "frame",
    split: Annotated[str, typer.Option(help="Split to answer.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Folder for predictions and recall.", show_default=False)] = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Recall of plain frame matching (64×32 grey, patch-normalised, sum of absolute differences): no model at all."""
    import seqdata
    from cli.config import load
    from indexer import predictions as stored
    from indexer.frame_baseline import METHODS, match_frames
    from indexer.scoring import record, score
    from seqdata.errors import ContractError

    if method not in METHODS:
        raise ContractError(f"--method {method}: expected {' or '.join(METHODS)}")
    place = load(config)
    opened = seqdata.open(place.newest("datasets", "manifest.json", dataset, "build"))
    named = place.protocol(protocol)
    chosen = opened.load_protocol(named) if named is not None else opened.manifest.protocol
    if chosen is None:
        raise ContractError(f"{opened.location}: built without a protocol; name one with --protocol")
    with progress_bar("frame") as bar:

        def show(done: int, total: int) -> None:
            bar.to("read frames", done, total)

        table, info = match_frames(opened, chosen, split, "frame" if method == "frame" else "aligned", show)
    folder = out or place.out / "baselines" / f"{method}-{chosen.name}-{opened.id[:12]}"
    stored.write(folder / f"{chosen.hash}-{split}.parquet", table, info)
    evaluation = score(opened, chosen, table, info)
    record(folder, evaluation)
    note(f"predictions: {folder / f'{chosen.hash}-{split}.parquet'}")
    _emit(evaluation, as_json=as_json)


def _emit(evaluation: "Evaluation", *, as_json: bool) -> None:
    from indexer.tables import format_table

    emit(json.loads(evaluation.model_dump_json()), format_table([evaluation]), as_json=as_json)
