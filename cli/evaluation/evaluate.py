"""`seqdata eval` and `baseline`: recall@N with counts and intervals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.evaluation.flags import (
    AgainFlag,
    AgainstFlag,
    ByFlag,
    CompareFlag,
    CsvFlag,
    DatabaseFlag,
    DatabaseIdsFlag,
    DescriptorsFlag,
    FrameMetricFlag,
    FullFlag,
    MetricFlag,
    NameFlag,
    OutFlag,
    PredictionsFlag,
    ProtocolsFlag,
    QueryIdsFlag,
    RadiusFlag,
    RerankFlag,
    SizeFlag,
    SplitFlag,
)
from cli.flags import DatasetFlag, DeviceFlag, EngineFlag, FeaturesFlag, IndexArgument, ModelFromFlag, RunFlag
from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar

if TYPE_CHECKING:
    from indexer.evaluation.comparison import Comparison
    from indexer.evaluation.recall import Evaluation


def evaluate(
    index: IndexArgument = None,
    protocol: ProtocolsFlag = None,
    predictions: PredictionsFlag = None,
    descriptors: DescriptorsFlag = None,
    database: DatabaseFlag = None,
    query_ids: QueryIdsFlag = None,
    database_ids: DatabaseIdsFlag = None,
    metric: MetricFlag = None,
    name: NameFlag = None,
    split: SplitFlag = None,
    rerank: RerankFlag = None,
    features: FeaturesFlag = None,
    rerank_metric: FrameMetricFlag = None,
    compare: CompareFlag = None,
    full: FullFlag = False,
    by: ByFlag = None,
    radius: RadiusFlag = None,
    size: SizeFlag = None,
    against: AgainstFlag = None,
    csv: CsvFlag = None,
    out: OutFlag = None,
    dataset: DatasetFlag = None,
    run: RunFlag = None,
    again: AgainFlag = False,
    device: DeviceFlag = "auto",
    engine: EngineFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Measure recall of an index, predictions or descriptors.

    Several protocols may be named. Predictions are stored, so that another radius or rule, or the same command again,
    needs no new search.
    """
    from cli.config import load
    from cli.evaluation import predictions as judging
    from cli.evaluation.compare import compared
    from cli.evaluation.requests import Asked, Searched
    from seqdata.errors import ContractError

    asked = Asked(load(config), judging.listed(protocol), dataset, split, name, out)
    if (descriptors is None) != (database is None):
        raise ContractError("--descriptors and --database: name the queries' file and the database's")
    if sum(each is not None for each in (index, predictions or None, descriptors)) > 1:
        raise ContractError("an index, --predictions or --descriptors: name one of them")
    sizes = judging.counts("--size", size)
    if sizes and (radius or rerank or predictions or descriptors):
        raise ContractError("--size: of an index, and not together with --radius or --rerank")
    _refuse_idle("--rerank", rerank is not None, features=features, rerank_metric=rerank_metric)
    given = {"metric": metric, "query_ids": query_ids, "database_ids": database_ids}
    _refuse_idle("--descriptors", descriptors is not None, **given)
    foreign = descriptors is not None or bool(predictions)
    _refuse_idle("--descriptors or another model's --predictions", foreign, name=name, out=out)
    _refuse_idle("an index", not foreign, run=run, again=again or None, engine=engine if engine != "auto" else None)
    if predictions:
        found = judging.of_files(asked, predictions)
    elif descriptors is not None and database is not None:
        found = judging.of_descriptors(asked, descriptors, database, query_ids, database_ids, metric)
    else:
        found = judging.of_index(asked, index, Searched(run, sizes, again, device, engine, model_from))
    if rerank is not None:
        found = [judging.reranked(each, rerank, features, rerank_metric, device, model_from) for each in found]
    results = [judging.judge(each, full, judging.listed(by)) for each in found]
    radii = judging.numbers("--radius", radius)
    series = [judging.at_radius(each, other) for each in found for other in radii if other != each.protocol.radius]
    series += [result for each in found for result in judging.at_sizes(each)]
    pairs = [compared(asked, each, compare) for each in found if compare is not None]
    _emit(results, series, pairs, against or ("size" if sizes else "radius" if radii else None), csv, as_json=as_json)


def _refuse_idle(partner: str, there: bool, **flags: object) -> None:
    """Raise ContractError for the first flag that is given but does nothing without its `partner`."""
    from seqdata.errors import ContractError

    idle = next((name for name, value in flags.items() if value is not None), None)
    if idle is not None and not there:
        raise ContractError(f"--{idle.replace('_', '-')}: only together with {partner}")


def baseline(
    dataset: Annotated[
        Path | None, typer.Argument(help="Dataset folder; default: the newest.", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol name or .toml; default: the dataset's.", show_default=False)
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="frame: centre frames only; aligned: all frames of the window; seqslam: the best line after contrast "
            "enhancement; delta: later half minus earlier half."
        ),
    ] = "frame",
    features: FeaturesFlag = None,
    metric: FrameMetricFlag = None,
    softening: Annotated[
        float | None,
        typer.Option(help="Grey levels added to a patch's deviation; default 5, seqslam 0.", min=0, show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to answer.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Folder for predictions and recall.", show_default=False)] = None,
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Measure recall of frame matching, without a sequence model.

    Frames are matched by grey thumbnails of 64×32 pixels, or by the frame descriptors of --features.
    """
    import seqdata
    from cli.config import load
    from cli.evaluation import predictions as judging
    from indexer.evaluation import predictions as stored
    from indexer.evaluation.scoring import record, score
    from indexer.matching.baselines import METHODS, match_frames
    from seqdata.errors import ContractError

    chosen_method = next((known for known in METHODS if known == method), None)
    if chosen_method is None:
        raise ContractError(f"--method {method}: expected {', '.join(METHODS)}")
    place = load(config)
    opened = seqdata.open(place.newest("datasets", "manifest.json", dataset, "build"))
    named = place.protocol(protocol)
    chosen = opened.load_protocol(named) if named is not None else opened.manifest.protocol
    if chosen is None:
        raise ContractError(f"{opened.location}: built without a protocol; name one with --protocol")
    vectors = judging.frame_vectors(opened, features, device, model_from)
    with progress_bar("frame") as bar:

        def show(done: int, total: int) -> None:
            bar.update("read frames", done, total)

        table, info = match_frames(
            opened, chosen, split, chosen_method, show, vectors=vectors,
            metric=judging.a_metric("--metric", metric), softening=softening,
        )  # fmt: skip
    label = "-".join(part for part in (method, vectors.name if vectors else "", metric or "") if part)
    folder = out or place.out / "baselines" / f"{label}-{chosen.name}-{opened.id[:12]}"
    stored.write(folder / f"{chosen.hash}-{split}.parquet", table, info)
    evaluation = score(opened, chosen, table, info)
    record(folder, evaluation)
    note(f"predictions: {folder / f'{chosen.hash}-{split}.parquet'}")
    _emit([evaluation], [], [], None, None, as_json=as_json)


def _emit(
    results: "list[Evaluation]",
    series: "list[Evaluation]",
    comparisons: "list[Comparison]",
    against: str | None,
    csv: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print evaluations, what stands against an axis, comparisons; in JSON an evaluation alone is the whole result."""
    from indexer.evaluation.text_tables import format_against, format_comparison, format_table
    from seqdata.errors import ContractError

    axis = next((known for known in ("radius", "length", "size") if known == against), None)
    if against is not None and axis is None:
        raise ContractError(f"--against {against}: expected radius, length or size")
    everything = [*results, *series]
    parts = [format_table(results), *([format_against(everything, axis)] if axis else [])]
    parts += [format_comparison(each) for each in comparisons]
    if csv is not None:
        _write_csv(csv, everything)
    listed = [json.loads(each.model_dump_json()) for each in everything]
    pairs = [json.loads(each.model_dump_json()) for each in comparisons]
    whole = listed[0] if len(listed) == 1 and not pairs else {"evaluations": listed, "comparisons": pairs}
    emit(whole, "\n\n".join(parts), as_json=as_json)


def _write_csv(path: Path, results: "list[Evaluation]") -> None:
    import polars as pl

    from indexer.evaluation.text_tables import flat_rows
    from seqdata.storage.files import write_bytes_atomic

    write_bytes_atomic(path, pl.DataFrame(flat_rows(results), infer_schema_length=None).write_csv().encode())
    note(f"figures: {path}")
