"""`seqdata index`: a run and a dataset to a versioned place index."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import ConfigFlag, JsonFlag, emit, progress_bar, size
from cli.places import ModelFromFlag


def index(
    dataset: Annotated[
        Path | None, typer.Argument(help="Dataset folder; default: the run's.", show_default=False)
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; default: the newest.", show_default=False)] = None,
    pca: Annotated[
        int | None, typer.Option(help="Dimensions after PCA; none without.", min=1, show_default=False)
    ] = None,
    whiten: Annotated[bool, typer.Option("--whiten", help="Whiten after PCA (the papers do not).")] = False,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol name or .toml; default: the run's.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Split whose database is indexed.")] = "test",
    sample: Annotated[int, typer.Option(help="Training windows that PCA is fitted on.", min=2)] = 16_384,
    seed: Annotated[int, typer.Option(help="Seed of the PCA sample.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Index folder to write versions into.", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Describe a split's database with a run's model and build a PCA + exact FAISS index version."""
    import indexer
    from cli.config import load
    from cli.places import find_dataset
    from train.index_stage import IndexRequest, build_index, run_protocol, run_record

    place = load(config)
    chosen_run = place.newest("runs", "run.json", run, "train")
    record = run_record(chosen_run)
    opened = find_dataset(place, dataset, record["dataset"], record["dataset_path"])
    request = IndexRequest(
        run=chosen_run,
        out=out or place.out / "indexes" / chosen_run.resolve().name,
        protocol=opened.load_protocol(protocol) if protocol is not None else run_protocol(opened, chosen_run),
        split=split,
        pca=place.pick(pca, "index", "pca", None),
        whiten=whiten,
        sample=sample,
        seed=seed,
        device=device,
        model_from=model_from,
    )
    with progress_bar("window") as bar:
        folder = build_index(opened, request, bar.to)
    built = indexer.open(folder)
    facts = built.manifest
    result = {"path": str(folder), "index": str(request.out), "id": built.id, "rows": facts.rows, "size": facts.size}
    kept = f", PCA keeps {facts.transform.explained:.1%} of the variance" if facts.transform else ""
    text = (
        f"{folder}: {facts.rows} windows of {request.protocol.label} {split}, {facts.input_size} to {facts.size} "
        f"dimensions{kept}, {size(sum(each.bytes for each in facts.files.values()))}"
    )
    if facts.transform is not None:
        result["explained"] = facts.transform.explained
    emit(result, text, as_json=as_json)
