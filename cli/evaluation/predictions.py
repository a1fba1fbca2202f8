"""Where the predictions that `seqdata eval` judges come from: an index, files, or another model's descriptors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.evaluation.requests import Answered, Asked, Searched, told_apart
from cli.output import note, progress_bar

if TYPE_CHECKING:
    import polars as pl

    from indexer.evaluation.predictions import PredictionsInfo
    from indexer.evaluation.recall import Evaluation
    from indexer.matching.aligned import Metric
    from indexer.matching.frame_vectors import FrameVectors
    from indexer.place_index import PlaceIndex
    from seqdata.contracts.protocol import Protocol
    from seqdata.dataset.dataset import Dataset


FOREIGN_SPLIT = "test"


def of_index(asked: Asked, index: Path | None, how: Searched) -> list[Answered]:
    """An index answers each protocol; where it did before, or two cut the same windows, stored predictions do.

    Raises: ContractError for another split than the index's, else as `answer`.
    """
    from cli.lookup import find_dataset, find_protocol, find_run
    from indexer.evaluation.truth import fits
    from indexer.versions.folders import evaluations_folder
    from train.runs.record import predictions_path, run_record
    from train.stages.evaluate import answer, stored_answer

    opened = _open_index(asked, index, how.engine)
    folder = find_run(asked.place, how.run, opened)
    hint = run_record(folder)["dataset_path"]
    source = find_dataset(asked.place, asked.dataset, opened.manifest.inputs["dataset"], hint)
    kept = evaluations_folder(opened.path)
    done: list[Answered] = []
    with progress_bar("window") as bar:
        for named in asked.protocols or (None,):
            chosen = find_protocol(named, opened, source)
            path = predictions_path(folder, opened, chosen)
            known = next((each for each in done if fits(source, chosen, each.info)), None)
            if known is not None:
                done.append(replace(known, protocol=chosen, info=known.info.under(chosen), path=path, stored=False))
                continue
            before = None if how.again or how.sizes else stored_answer(source, opened, folder, chosen, note)
            if before is not None:
                (table, info), origin = before
                note(f"re-scored stored predictions: {origin} (--again searches anew)")
                done.append(Answered(source, chosen, table, info, kept, path, stored=origin == path))
                continue
            (table, info), *shorter = answer(
                source, opened, folder, chosen, sizes=how.sizes, device=how.device, model_from=how.model_from,
                progress=bar.stage("describe queries"),
            )  # fmt: skip
            done.append(Answered(source, chosen, table, info, kept, path, shorter=tuple(shorter)))
    return done


def _open_index(asked: Asked, index: Path | None, engine: str) -> "PlaceIndex":
    """The index. Raises: ContractError when it holds another split than the asked one."""
    from cli.lookup import open_index
    from seqdata.errors import ContractError

    opened = open_index(asked.place, index, engine)
    split = opened.manifest.inputs["split"]
    if asked.split not in (None, split):
        raise ContractError(
            f"--split {asked.split}: the index {opened.id} holds split {split}; build one of the other with "
            f"seqdata index --split {asked.split}"
        )
    return opened


def of_files(asked: Asked, paths: list[Path]) -> list[Answered]:
    """Stored predictions, the product's own or another model's, under each protocol (own ones: default their own).

    Raises: ContractError where a file of another model comes without a protocol, two of them have one name, or
    predictions are of another split than the asked one.
    """
    from indexer.evaluation.external_files import is_own

    own = {path: is_own(path) for path in paths}
    _check_names(asked, [path for path in paths if not own[path]])
    return told_apart([each for path in paths for each in (_own if own[path] else _theirs)(asked, path)])


def _own(asked: Asked, path: Path) -> list[Answered]:
    """Predictions that the product stored, under each protocol."""
    from cli.lookup import find_dataset
    from indexer.evaluation import predictions
    from seqdata.errors import ContractError

    table, info = predictions.read(path)
    if asked.split not in (None, info.split):
        raise ContractError(f"--split {asked.split}: {path} answers split {info.split}")
    source = find_dataset(asked.place, asked.dataset, info.dataset)
    chosen = [source.load_protocol(name) for name in asked.protocols] or [_made_under(source, info, path)]
    return [Answered(source, protocol, table, info, origin=path) for protocol in chosen]


def _theirs(asked: Asked, path: Path) -> list[Answered]:
    """Predictions of another model under each protocol."""
    from indexer.evaluation.external_files import read_predictions
    from seqdata.errors import ContractError

    if not asked.protocols:
        raise ContractError(f"{path}: of another model; name what judges it with --protocol")
    source, done = _dataset(asked), []
    for name in asked.protocols:
        protocol = source.load_protocol(name)
        table, info = read_predictions(source, protocol, asked.split or FOREIGN_SPLIT, path, asked.name)
        done.append(_kept(asked, source, protocol, table, info, path))
    return done


def _check_names(asked: Asked, foreign: list[Path]) -> None:
    """Raise ContractError where a name or folder is not for one file of another model, or two would be kept as one."""
    from seqdata.errors import ContractError

    if (asked.name or asked.out) and len(foreign) != 1:
        flag = "--name" if asked.name else "--out"
        raise ContractError(f"{flag}: for one predictions file of another model, {len(foreign)} are named")
    stems = [path.stem for path in foreign]
    twin = next((path for path in foreign if stems.count(path.stem) > 1), None)
    if twin is not None:
        raise ContractError(f"{twin}: several files are called {twin.stem}; judge them one at a time with --name")


def of_descriptors(
    asked: Asked, query: Path, database: Path, query_ids: Path | None, database_ids: Path | None, metric: str | None
) -> list[Answered]:
    """Descriptors of another model, searched exactly under each protocol. Raises: as `search_descriptors`."""
    from indexer.evaluation.external_descriptors import search_descriptors
    from seqdata.errors import ContractError

    if metric not in (None, "l2", "cosine"):
        raise ContractError(f"--metric {metric}: descriptors are compared by l2 or cosine")
    source = _dataset(asked)
    done = []
    for protocol in _protocols(asked, source):
        table, info = search_descriptors(
            source, protocol, asked.split or FOREIGN_SPLIT, query, database, query_ids=query_ids,
            database_ids=database_ids, cosine=metric == "cosine", name=asked.name,
        )  # fmt: skip
        done.append(_kept(asked, source, protocol, table, info, query))
    return done


def reranked(
    answered: Answered, k: int, features: Path | None, metric: str | None, device: str, model_from: str | None
) -> Answered:
    """The same predictions with the first k re-ranked frame by frame; stored beside the plain ones."""
    from indexer.matching.rerank import rerank_frames

    vectors = frame_vectors(answered.dataset, features, device, model_from)
    with progress_bar("frame") as bar:
        table, info = rerank_frames(
            answered.dataset, answered.protocol, answered.table, answered.info, k, vectors=vectors,
            metric=a_metric("--rerank-metric", metric), progress=bar.stage("read frames"),
        )  # fmt: skip
    plain = answered.path
    tail = f"rerank{k}" + (f"-{features.resolve().name}" if features else "") + (f"-{metric}" if metric else "")
    path = None if plain is None else plain.with_name(f"{plain.stem}-{tail}.parquet")
    return replace(answered, table=table, info=info, path=path, stored=False)


def judge(answered: Answered, full: bool, by: tuple[str, ...]) -> "Evaluation":
    """The evaluation; predictions are written to their file and the recall recorded, where they have a place."""
    from indexer.evaluation import predictions
    from indexer.evaluation.scoring import record, score

    if answered.path is not None and not answered.stored:
        with _keeping(answered):
            predictions.write(answered.path, answered.table, answered.info)
            note(f"predictions: {answered.path}")
    found = score(answered.dataset, answered.protocol, answered.table, answered.info, full=full, by=by)
    if answered.folder is not None:
        with _keeping(answered):
            record(answered.folder, found)
    return found


@contextmanager
def _keeping(answered: Answered) -> Iterator[None]:
    """What an index answered is worth telling where it cannot be kept: a note, no failure."""
    from seqdata.errors import OutputError

    try:
        yield
    except OutputError as error:
        if answered.info.index is None:
            raise
        note(f"not kept: {error}")


def at_radius(answered: Answered, radius: float) -> "Evaluation":
    """The same predictions judged at another radius, which is another protocol."""
    from indexer.evaluation.scoring import score

    return score(answered.dataset, answered.protocol, answered.table, answered.info, radius=radius)


def at_sizes(answered: Answered) -> "list[Evaluation]":
    """What the same index finds by fewer dimensions, judged."""
    from indexer.evaluation.scoring import score

    return [score(answered.dataset, answered.protocol, table, info) for table, info in answered.shorter]


def frame_vectors(
    dataset: "Dataset", folder: Path | None, device: str, model_from: str | None
) -> "FrameVectors | None":
    """Frame descriptors of --features: a feature dataset or a run; None for thumbnails."""
    if folder is None:
        return None
    from train.stages.frame_vectors import frame_vectors as described

    return described(dataset, folder, device=device, model_from=model_from)


def a_metric(flag: str, value: str | None) -> "Metric | None":
    """The metric that a flag names. Raises: ContractError for a word that is none."""
    from indexer.matching.aligned import METRICS
    from seqdata.errors import ContractError

    found = next((metric for metric in METRICS if metric == value), None)
    if value is not None and found is None:
        raise ContractError(f"{flag} {value}: expected {', '.join(METRICS)}")
    return found


def listed(text: str | None) -> tuple[str, ...]:
    """The parts of a flag's comma-separated value, each once."""
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def numbers(flag: str, text: str | None) -> tuple[float, ...]:
    """The numbers of a flag's comma-separated value. Raises: ContractError when one is none."""
    from seqdata.errors import ContractError

    try:
        return tuple(float(part) for part in listed(text))
    except ValueError as error:
        raise ContractError(f"{flag} {text}: numbers separated by commas are needed") from error


def counts(flag: str, text: str | None) -> tuple[int, ...]:
    """The whole numbers of a flag's comma-separated value. Raises: ContractError when one is none."""
    from seqdata.errors import ContractError

    if not all(part.isdecimal() for part in listed(text)):
        raise ContractError(f"{flag} {text}: whole numbers separated by commas are needed")
    return tuple(int(part) for part in listed(text))


def _dataset(asked: Asked) -> "Dataset":
    """The dataset that files of another model answer: the named one, else the newest."""
    import seqdata

    return seqdata.open(asked.place.newest("datasets", "manifest.json", asked.dataset, "build"))


def _protocols(asked: Asked, dataset: "Dataset") -> list["Protocol"]:
    """The named protocols, else the dataset's own. Raises: ContractError when there is none."""
    from seqdata.errors import ContractError

    named = asked.protocols or tuple(name for name in (asked.place.protocol(None),) if name)
    if named:
        return [dataset.load_protocol(name) for name in named]
    if dataset.manifest.protocol is None:
        raise ContractError(f"{dataset.location}: built without a protocol; name one with --protocol")
    return [dataset.manifest.protocol]


def _made_under(dataset: "Dataset", info: "PredictionsInfo", path: Path) -> "Protocol":
    """The protocol that predictions were made under. Raises: ContractError when it has changed since."""
    from seqdata.errors import ContractError

    protocol = dataset.load_protocol(info.protocol)
    if protocol.hash != info.protocol_hash:
        made = f"{info.protocol}@{info.protocol_hash}"
        raise ContractError(
            f"{path}: made under {made}, the protocol is now {protocol.label}; name one with --protocol"
        )
    return protocol


def _kept(
    asked: Asked, dataset: "Dataset", protocol: "Protocol", table: "pl.DataFrame", info: "PredictionsInfo", origin: Path
) -> Answered:
    """Another model's predictions, with the folder that keeps them as the product's own."""
    folder = asked.out or asked.place.out / "judged" / f"{asked.name or origin.stem}-{protocol.name}-{dataset.id[:12]}"
    path = folder / f"{protocol.hash}-{info.split}.parquet"
    return Answered(dataset, protocol, table, info, folder, path, origin=origin)
