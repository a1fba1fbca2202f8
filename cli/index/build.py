"""`seqdata index`: a run and a dataset to a versioned place index."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.dataset.build import find_engine
from cli.flags import DeviceFlag, ModelFromFlag
from cli.index.flags import (
    FactoryFlag,
    KindFlag,
    MemoryFlag,
    NormaliseFlag,
    RecallTargetFlag,
    ReverseFlag,
    ShardRangeFlag,
)
from cli.index.versions import recall_text
from cli.output import ConfigFlag, JsonFlag, emit, progress_bar, size

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset
    from indexer.builder.pipeline.request import IndexRequest
    from indexer.describer import Describer


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
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    kind: KindFlag = "flat",
    factory: FactoryFlag = None,
    recall_target: RecallTargetFlag = 0.99,
    memory: MemoryFlag = None,
    reverse: ReverseFlag = False,
    normalise: NormaliseFlag = None,
    shard_range: ShardRangeFlag = None,
    engine: Annotated[str, typer.Option(help="What runs several --workers: pool or ray.")] = "pool",
    workers: Annotated[int, typer.Option(help="Shares that are described at once.", min=1)] = 1,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Build a version of a place index from a run and a dataset.

    The run's model describes the database of a split; PCA, then an exact or a faster index follows.
    """
    from cli.config import load
    from cli.lookup import find_dataset
    from indexer.builder.pipeline.build import build_index
    from indexer.builder.pipeline.request import IndexRequest
    from indexer.builder.pipeline.shares import build_in_shares
    from indexer.search.kinds import KindSpec
    from train.runs.record import run_protocol, run_record
    from train.stages.describer import RunDescriber  # heavy

    place = load(config)
    chosen_run = place.newest("runs", "run.json", run, "train")
    record = run_record(chosen_run)
    opened = find_dataset(place, dataset, record["dataset"], record["dataset_path"], "name its folder")
    request = IndexRequest(
        out=out or place.out / "indexes" / chosen_run.resolve().name,
        protocol=opened.load_protocol(protocol) if protocol is not None else run_protocol(opened, chosen_run),
        split=split,
        pca=place.pick(pca, "index", "pca", None),
        whiten=whiten,
        sample=sample,
        seed=seed,
        kind=KindSpec(kind, factory, recall_target, parse_bytes(memory) if memory is not None else None, seed),
        reverse=reverse,
        normalise=normalise,
    )
    describer = RunDescriber(chosen_run, device, model_from)
    if shard_range is not None:
        _share(opened, describer, request, shard_range, as_json=as_json)
        return
    chosen_engine = find_engine(engine)
    with progress_bar("window") as bar:
        if workers > 1 or chosen_engine == "ray":
            folder = build_in_shares(opened, describer, request, chosen_engine, workers, bar.to)
        else:
            folder = build_index(opened, describer, request, bar.to)
    _tell(folder, request, as_json=as_json)


def _tell(folder: Path, request: "IndexRequest", *, as_json: bool) -> None:
    """Print the version that was published."""
    import indexer
    from indexer.versions.manifest import read_measured

    built = indexer.open(folder)
    facts = built.manifest
    result = {"path": str(folder), "index": str(request.out), "id": built.id, "rows": facts.rows, "size": facts.size}
    measured = read_measured(folder)
    recall = dict(measured.recall or {})
    result |= {"storage": facts.storage, "factory": facts.factory, "search": facts.search, "recall": recall}
    result |= {"queries": measured.queries, "queries_of": measured.queries_of}
    kept = f", PCA keeps {facts.transform.explained:.1%} of the variance" if facts.transform else ""
    text = (
        f"{folder}: {facts.rows} windows of {request.protocol.label} {request.split}, {facts.input_size} to "
        f"{facts.size} dimensions{kept}, {facts.storage}, {size(sum(each.bytes for each in facts.files.values()))}"
    )
    text += recall_text(measured)
    if facts.transform is not None:
        result["explained"] = facts.transform.explained
    emit(result, text, as_json=as_json)


def parse_bytes(text: str) -> int:
    """Bytes of a size as people write it: 8GB, 500 MB, 2.5e9 (powers of 1000). Raises: ContractError."""
    from seqdata.errors import ContractError

    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d{1,2})?)\s*([kMGT]?)B?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise ContractError(f"--memory {text}: expected a size such as 8GB or 500MB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def _share(
    opened: "Dataset", describer: "Describer", request: "IndexRequest", text: str, *, as_json: bool
) -> None:
    """Describe one share and tell what to do next."""
    from seqdata.build.builder import ShardRange
    from indexer.builder.pipeline.shares import write_share

    share = ShardRange.parse(text)
    with progress_bar("window") as bar:
        windows = write_share(opened, describer, request, share.number, share.jobs, bar.to)
    emit(
        {"index": str(request.out), "shard_range": text, "rows": windows},
        f"{request.out}: {windows} windows of share {text}; at the end: seqdata index merge --index {request.out}",
        as_json=as_json,
    )
