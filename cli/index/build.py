"""`seqdata index`: a version of a place index from a run and a dataset."""

import shlex
from pathlib import Path

import indexer
from cli.config import Config, dataset_protocol, load, open_dataset
from cli.flags import (
    DeviceFlag,
    ModelFromFlag,
    PartsEngineFlag,
    PrecisionFlag,
    ResizeFlag,
    RuntimeFlag,
    check_model_name,
    parse_bytes,
    parse_choice,
    refuse_idle,
    refuse_without,
    start_weights,
)
from cli.index.flags import (
    BuildDatasetArgument,
    BuildExactPcaFlag,
    BuildModelFlag,
    BuildOutFlag,
    BuildPcaFlag,
    BuildProtocolFlag,
    BuildRandomInitFlag,
    BuildRunFlag,
    BuildSampleFlag,
    BuildSeedFlag,
    BuildSplitFlag,
    BuildWeightsFlag,
    BuildWhitenFlag,
    BuildWorkersFlag,
    FactoryFlag,
    KindFlag,
    MemoryFlag,
    NormaliseFlag,
    RecallTargetFlag,
    ReverseFlag,
    ShardRangeFlag,
)
from cli.index.versions import recall_text
from cli.lookup import find_dataset, untrained_run
from cli.output import ConfigFlag, JsonFlag, emit, next_step, progress_bar, size
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.builder.pipeline.shares import build_in_shares, write_share
from indexer.describer import Describer
from indexer.search.file_layout import FACTORY
from indexer.search.kinds import KindSpec
from indexer.text import plural
from indexer.versions.manifest import read_measured
from seqdata.dataset.dataset import Dataset
from seqdata.errors import UsageError
from seqdata.parallel import ENGINES, ShardRange
from train.data.describe_settings import DescribeSettings
from train.runs.folder import weights_file
from train.runs.record import remember_run, run_protocol, run_record


def index(
    dataset: BuildDatasetArgument = None,
    run: BuildRunFlag = None,
    model: BuildModelFlag = None,
    weights: BuildWeightsFlag = None,
    random_init: BuildRandomInitFlag = False,
    pca: BuildPcaFlag = None,
    whiten: BuildWhitenFlag = False,
    exact_pca: BuildExactPcaFlag = False,
    protocol: BuildProtocolFlag = None,
    split: BuildSplitFlag = "test",
    sample: BuildSampleFlag = 16_384,
    seed: BuildSeedFlag = 0,
    out: BuildOutFlag = None,
    device: DeviceFlag = "auto",
    runtime: RuntimeFlag = None,
    model_from: ModelFromFlag = None,
    kind: KindFlag = "flat",
    factory: FactoryFlag = None,
    recall_target: RecallTargetFlag = 0.99,
    memory: MemoryFlag = None,
    reverse: ReverseFlag = False,
    normalise: NormaliseFlag = None,
    shard_range: ShardRangeFlag = None,
    precision: PrecisionFlag = None,
    resize: ResizeFlag = None,
    engine: PartsEngineFlag = "pool",
    workers: BuildWorkersFlag = 1,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Build a version of a place index from a run and a dataset.

    The run's model describes the database of a split; PCA, then an exact or a faster index follows.
    """
    work = load(config)
    refuse_without("--model", model is not None, weights=weights, random_init=random_init or None)
    dimensions = work.pick(pca, "index", "pca", None)
    refuse_idle("--pca", dimensions is not None, "whiten", "sample", "exact_pca")
    refuse_idle("--kind auto", kind == "auto", "memory")
    refuse_idle("an approximate --kind", kind not in FACTORY or factory is not None, "recall_target")
    _check_division(shard_range, workers, engine)
    run_folder = _run_folder(work, run, model, start_weights(weights, random_init), dataset, protocol)
    record = run_record(run_folder)
    weights_file(run_folder)
    source = find_dataset(work, dataset, record["dataset"], record["dataset_path"], "name its folder")
    memory_bytes = None if memory is None else parse_bytes(memory, "--memory")
    request = IndexRequest(
        out=out or work.out / "indexes" / run_folder.resolve().name,
        protocol=source.load_protocol(protocol) if protocol is not None else run_protocol(source, run_folder),
        split=split,
        pca=dimensions,
        whiten=whiten,
        exact_pca=exact_pca,
        sample=sample,
        seed=seed,
        kind=KindSpec(kind, factory, recall_target, memory_bytes, seed),
        reverse=reverse,
        normalise=normalise,
    )
    from train.stages.describer import RunDescriber  # heavy

    describer = RunDescriber(run_folder, DescribeSettings.from_flags(device, precision, runtime, model_from, resize))
    if shard_range is not None:
        _write_part(source, describer, request, shard_range, as_json=as_json)
        return
    engine_name = parse_choice(engine, "--engine", ENGINES)
    with progress_bar("window") as bar:
        # Ray with one worker still runs on the cluster, away from this machine.
        if workers > 1 or engine_name == "ray":
            folder = build_in_shares(source, describer, request, engine_name, workers, bar.update)
        else:
            folder = build_index(source, describer, request, bar.update)
    remember_run(folder, run_folder)
    _print_version(folder, request, as_json=as_json)
    if out is not None:
        next_step(f"seqdata eval {shlex.quote(str(out))}")


def _check_division(shard_range: str | None, workers: int, engine: str) -> None:
    """Refuse options of a divided build that would do nothing. Raises: UsageError."""
    refuse_idle("--workers", workers > 1 or (shard_range is None and engine == "ray"), "engine")
    refuse_idle("a whole build, and not with --shard-range", shard_range is None, "workers")


def _run_folder(
    work: Config, run: Path | None, model: str | None, weights: str | None, dataset: Path | None, protocol: str | None
) -> Path:
    """The run that is indexed: the named or newest one, or one of a model as it is. Raises: UsageError for both."""
    if model is not None and run is not None:
        raise UsageError("--run and --model: name one of them")
    if model is None:
        return work.newest("runs", "run.json", run, "train")
    return _untrained(work, dataset, model, weights, protocol)


def _untrained(config: Config, dataset: Path | None, model: str, weights: str | None, protocol: str | None) -> Path:
    """The run of a pretrained model as it is, over the named dataset or the newest."""
    check_model_name(model, None)
    source = open_dataset(config, dataset)
    name = protocol or dataset_protocol(config, None, source).name
    return untrained_run(source, config.out / "runs" / model, model=model, weights=weights, protocol=name, options={})


def _print_version(folder: Path, request: IndexRequest, *, as_json: bool) -> None:
    """Print the version that was published."""
    version = indexer.open(folder)
    manifest, measured = version.manifest, read_measured(folder)
    result = {
        "path": str(folder),
        "index": str(request.out),
        "id": version.id,
        "rows": manifest.rows,
        "size": manifest.size,
        "storage": manifest.storage,
        "factory": manifest.factory,
        "search": manifest.search,
        "recall": dict(measured.recall or {}),
        "queries": measured.queries,
        "queries_of": measured.queries_of,
    }
    variance = ""
    if manifest.transform is not None:
        result["explained"] = manifest.transform.explained
        variance = f", PCA keeps {manifest.transform.explained:.1%} of the variance"
    text = (
        f"{folder}: {manifest.rows} windows of {request.protocol.label} {request.split}, {manifest.input_size} to "
        f"{manifest.size} dimensions{variance}, {manifest.storage}, "
        f"{size(sum(file.bytes for file in manifest.files.values()))}{recall_text(measured)}"
    )
    emit(result, text, as_json=as_json)


def _write_part(source: Dataset, describer: Describer, request: IndexRequest, text: str, *, as_json: bool) -> None:
    """Describe one part of the database and say what to do next."""
    part = ShardRange.parse(text)
    with progress_bar("window") as bar:
        windows = write_share(source, describer, request, part.number, part.jobs, bar.update)
    emit(
        {"index": str(request.out), "shard_range": text, "rows": windows},
        f"{request.out}: {plural(windows, 'window')} of part {text}; they are joined when all parts are written",
        as_json=as_json,
    )
    next_step(f"seqdata index merge --index {shlex.quote(str(request.out))}")
