"""`seqdata eval`: recall@N of an index, of stored predictions, or of another model, with counts and intervals."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from cli.config import Config, dataset_protocol, load, open_dataset
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
    IdsFlag,
    MetricFlag,
    NameFlag,
    OutFlag,
    PredictionsFlag,
    ProtocolsFlag,
    QueryEngineFlag,
    QueryIdsFlag,
    QueryRangeFlag,
    QueryWorkersFlag,
    RadiusFlag,
    RerankFlag,
    SizeFlag,
    SplitFlag,
    WideFlag,
)
from cli.evaluation.results import AXES, print_evaluations
from cli.flags import (
    DatasetFlag,
    DeviceFlag,
    EngineFlag,
    FeaturesFlag,
    IndexArgument,
    IndexOption,
    ModelFromFlag,
    RunFlag,
    either,
    parse_choice,
    parse_counts,
    parse_list,
    parse_numbers,
    refuse_idle,
)
from cli.lookup import find_dataset, find_protocol, find_run, open_index
from cli.output import ConfigFlag, JsonFlag, emit, next_step, note, progress_bar
from indexer.evaluation import predictions as prediction_files
from indexer.evaluation.external_files import IdKind, is_own
from indexer.evaluation.prediction_sets import (
    ExternalModel,
    PredictionSet,
    compare_sets,
    distinct_methods,
    external_descriptors,
    external_predictions,
    own_predictions,
)
from indexer.evaluation.text_tables import Axis
from indexer.matching.aligned import METRICS
from indexer.matching.frame_vectors import FrameVectors
from indexer.matching.rerank import rerank_set
from indexer.place_index import PlaceIndex
from indexer.text import plural
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import UsageError
from seqdata.parallel import ENGINES, ShardRange
from train.data.describe_settings import DescribeSettings
from train.runs.record import run_record
from train.stages.answers import AnswerOptions, QuerySearch, answer_protocols, other_predictions


def evaluate(
    index: IndexArgument = None,
    index_flag: IndexOption = None,
    protocol: ProtocolsFlag = None,
    predictions: PredictionsFlag = None,
    descriptors: DescriptorsFlag = None,
    database: DatabaseFlag = None,
    query_ids: QueryIdsFlag = None,
    database_ids: DatabaseIdsFlag = None,
    metric: MetricFlag = None,
    ids: IdsFlag = None,
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
    wide: WideFlag = False,
    out: OutFlag = None,
    dataset: DatasetFlag = None,
    run: RunFlag = None,
    again: AgainFlag = False,
    device: DeviceFlag = "auto",
    engine: EngineFlag = "auto",
    model_from: ModelFromFlag = None,
    shard_range: QueryRangeFlag = None,
    workers: QueryWorkersFlag = 1,
    parts_engine: QueryEngineFlag = "pool",
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Measure recall of an index, predictions or descriptors.

    Several protocols may be named. Predictions are stored, so that another radius or rule, or the same command again,
    needs no new search.
    """
    index = either(index, index_flag, "--index")
    _check_one_source(index, predictions, descriptors, database)
    sizes = parse_counts(size, "--size")
    radii = parse_numbers(radius, "--radius")
    axis = _axis(against, sizes, radii)
    if sizes and (radius or rerank or predictions or descriptors):
        raise UsageError("--size: of an index, and not together with --radius or --rerank")
    is_external = descriptors is not None or bool(predictions)
    refuse_idle("--rerank", rerank is not None, "features", "rerank_metric")
    refuse_idle("--descriptors", descriptors is not None, "metric", "query_ids", "database_ids")
    refuse_idle("--predictions", bool(predictions), "ids")
    _check_source(is_external=is_external, has_features=features is not None)
    is_divided = shard_range is not None or workers > 1 or parts_engine != "pool"
    _check_parts(is_divided=is_divided, is_part=shard_range is not None, may_divide=not (is_external or sizes))
    id_kind: IdKind = "auto" if ids is None else parse_choice(ids, "--ids", ("keys", "rows"))
    settings = DescribeSettings(device, model_from=model_from)
    source = JudgedSource(load(config), parse_list(protocol), dataset, split, name, out, id_kind)
    if shard_range is not None:
        source.write_part(index, run, engine, ShardRange.parse(shard_range), settings, as_json=as_json)
        return
    if predictions:
        sets = source.from_files(predictions)
    elif descriptors is not None and database is not None:
        sets = source.from_descriptors(descriptors, database, query_ids, database_ids, metric)
    else:
        parts_by = parse_choice(parts_engine, "--parts-engine", ENGINES)
        sets = source.from_index(index, run, engine, AnswerOptions(sizes, again, settings, workers, parts_by))
        next_step(" ".join(["seqdata report", *_shell_words(index)]))
    if rerank is not None:
        sets = [_rerank(item, rerank, features, rerank_metric, settings) for item in sets]
    results = [item.score_and_store(note, full=full, by=parse_list(by)) for item in sets]
    series = [item.score(radius=other) for item in sets for other in radii if other != item.protocol.radius]
    series += [result for item in sets for result in item.score_reduced()]
    comparisons = []
    if compare is not None:
        others = (other_predictions(compare, item, any_protocol=bool(protocol)) for item in sets)
        comparisons = [compare_sets(*pair) for pair in zip(sets, others, strict=True)]
    print_evaluations(results, series=series, comparisons=comparisons, axis=axis, csv=csv, wide=wide, as_json=as_json)


def _axis(against: str | None, sizes: tuple[int, ...], radii: tuple[float, ...]) -> Axis | None:
    """What recall is shown against: as named, else what has several values."""
    if against is not None:
        return parse_choice(against, "--against", AXES)
    return "size" if sizes else "radius" if radii else None


def _check_one_source(
    index: Path | None, predictions: list[Path] | None, descriptors: Path | None, database: Path | None
) -> None:
    """Raise UsageError unless answers come from one place."""
    if (descriptors is None) != (database is None):
        raise UsageError("--descriptors and --database: name the queries' file and the database's")
    if sum(source is not None for source in (index, predictions or None, descriptors)) > 1:
        raise UsageError("an index, --predictions or --descriptors: name one of them")


def _check_source(*, is_external: bool, has_features: bool) -> None:
    """Refuse options that belong to the other kind of answers: an index's, or another model's. Raises: UsageError."""
    refuse_idle("--descriptors or another model's --predictions", is_external, "name", "out")
    refuse_idle("an index or --features", not is_external or has_features, "device", "model_from")
    refuse_idle("an index", not is_external, "run", "again", "engine", "shard_range")


def _check_parts(*, is_divided: bool, is_part: bool, may_divide: bool) -> None:
    """Refuse parts of what is not searched for, and options that one part would ignore. Raises: UsageError."""
    if is_divided and not may_divide:
        raise UsageError("--shard-range, --workers and --parts-engine: of an index, and not together with --size")
    idle = ("again", "rerank", "compare", "full", "by", "radius", "against", "csv", "wide", "workers", "parts_engine")
    refuse_idle("a whole evaluation, and not with --shard-range", not is_part, *idle)


@dataclass(frozen=True)
class JudgedSource:
    """The flags that say what is judged, and by which protocols."""

    config: Config
    protocols: tuple[str, ...]
    dataset: Path | None
    split: str | None
    name: str | None
    out: Path | None
    ids: IdKind

    def from_index(
        self, flag: Path | None, run: Path | None, engine: str, options: AnswerOptions
    ) -> list[PredictionSet]:
        """The answers of an index.

        Raises:
            UsageError: When it holds another split than the named one.
        """
        index, folder, dataset, protocols = self._of_index(flag, run, engine)
        with progress_bar("window") as bar:
            progress = bar.stage("describe queries")
            return answer_protocols(dataset, index, folder, protocols, options, report=note, progress=progress)

    def write_part(
        self,
        flag: Path | None,
        run: Path | None,
        engine: str,
        part: ShardRange,
        settings: DescribeSettings,
        *,
        as_json: bool,
    ) -> None:
        """Search an index for a part of the queries under each protocol, and say what to do next."""
        index, folder, dataset, protocols = self._of_index(flag, run, engine)
        with progress_bar("window") as bar:
            progress = bar.stage("describe queries")
            searches = (QuerySearch(dataset, index, folder, protocol, settings) for protocol in protocols)
            counts = [search.write_part(part.number, part.jobs, progress) for search in searches]
        emit(
            {"index": index.id, "shard_range": f"{part.number}/{part.jobs}", "queries": counts},
            f"{plural(sum(counts), 'query', 'queries')} of part {part.number}/{part.jobs}; all parts written, the same "
            "command without --shard-range joins them",
            as_json=as_json,
        )
        flags = {"--protocol": ",".join(self.protocols), "--dataset": self.dataset, "--run": run}
        options = [f"{name} {shlex.quote(str(value))}" for name, value in flags.items() if value]
        next_step(" ".join(["seqdata eval", *_shell_words(flag), *options]))

    def _of_index(
        self, flag: Path | None, run: Path | None, engine: str
    ) -> tuple[PlaceIndex, Path, Dataset, list[Protocol]]:
        """The index, its run, its dataset and the protocols that it is asked under."""
        index = open_index(self.config, flag, engine)
        split = index.manifest.inputs["split"]
        if self.split not in (None, split):
            raise UsageError(
                f"--split {self.split}: the index {index.id} holds split {split}; build one of the other with "
                f"seqdata index --split {self.split}"
            )
        folder = find_run(self.config, run, index)
        hint = run_record(folder)["dataset_path"]
        dataset = find_dataset(self.config, self.dataset, index.manifest.inputs["dataset"], hint)
        return index, folder, dataset, [find_protocol(name, index, dataset) for name in self.protocols or (None,)]

    def from_files(self, paths: list[Path]) -> list[PredictionSet]:
        """Predictions files of the product or of other models.

        Raises:
            UsageError: Where a file of another model comes without a protocol, or two would be stored as one.
        """
        # The product's own files know dataset, protocol and split; those of other models answer what the flags say.
        own = {path: is_own(path) for path in paths}
        self._check_names([path for path in paths if not own[path]])
        return distinct_methods([item for path in paths for item in (self._own if own[path] else self._external)(path)])

    def _own(self, path: Path) -> list[PredictionSet]:
        dataset = find_dataset(self.config, self.dataset, prediction_files.read_info(path).dataset)
        return own_predictions(dataset, path, [dataset.load_protocol(name) for name in self.protocols], self.split)

    def _external(self, path: Path) -> list[PredictionSet]:
        if not self.protocols:
            raise UsageError(f"{path}: of another model; name what judges it with --protocol")
        return external_predictions(self._model(), path)

    def from_descriptors(
        self, query: Path, database: Path, query_ids: Path | None, database_ids: Path | None, metric: str | None
    ) -> list[PredictionSet]:
        """Descriptors of another model, searched exactly."""
        is_cosine = metric is not None and parse_choice(metric, "--metric", ("l2", "cosine")) == "cosine"
        return external_descriptors(
            self._model(), query, database, query_ids=query_ids, database_ids=database_ids, cosine=is_cosine
        )

    def _model(self) -> ExternalModel:
        """The other model, judged by the named protocols, else by that of the settings or the dataset."""
        dataset = open_dataset(self.config, self.dataset)
        protocols = tuple(dataset.load_protocol(name) for name in self.protocols)
        protocols = protocols or (dataset_protocol(self.config, None, dataset),)
        folder, split = self.config.out / "judged", self.split or "test"
        return ExternalModel(dataset, protocols, folder, split, self.name, self.out, self.ids)

    def _check_names(self, paths: list[Path]) -> None:
        """Raise UsageError where a name or folder is not for one file, or two files would be stored as one."""
        if (self.name or self.out) and len(paths) != 1:
            flag = "--name" if self.name else "--out"
            raise UsageError(f"{flag}: for one predictions file of another model, {len(paths)} are named")
        # Results are stored in a folder named by the file, so a second file of that name would replace the first's.
        stems = [path.stem for path in paths]
        twin = next((path for path in paths if stems.count(path.stem) > 1), None)
        if twin is not None:
            raise UsageError(f"{twin}: several files are called {twin.stem}; judge them one at a time with --name")


def _shell_words(folder: Path | None) -> list[str]:
    """A named folder as a shell takes it; none where the newest was taken, which needs no name."""
    return [] if folder is None else [shlex.quote(str(folder))]


def _rerank(
    item: PredictionSet, k: int, features: Path | None, metric: str | None, settings: DescribeSettings
) -> PredictionSet:
    """The same predictions with the first k re-ranked frame by frame."""
    metric_name = None if metric is None else parse_choice(metric, "--rerank-metric", METRICS)
    vectors = frame_descriptors(item.dataset, features, settings)
    parts = [f"rerank{k}", *([features.resolve().name] if features else []), *([metric] if metric else [])]
    with progress_bar("frame") as bar:
        return rerank_set(
            item, k, "-".join(parts), vectors=vectors, metric=metric_name, progress=bar.stage("read frames")
        )


def frame_descriptors(dataset: Dataset, folder: Path | None, settings: DescribeSettings) -> FrameVectors | None:
    """Open the frame descriptors of --features.

    Args:
        dataset: The dataset.
        folder: Stored features or a run; None for thumbnails.
        settings: Where and how a run's model computes.

    Returns:
        The descriptors; None for thumbnails.
    """
    if folder is None:
        return None
    from train.stages.frame_vectors import frame_vectors  # heavy

    return frame_vectors(dataset, folder, settings)
