"""Where the predictions that `seqdata eval` judges come from: an index, files, or another model's descriptors."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.config import Config
from cli.output import note, progress_bar

if TYPE_CHECKING:
    import polars as pl

    from indexer.evaluation import Evaluation
    from indexer.frame_vectors import FrameVectors
    from indexer.matching import Metric
    from indexer.paired import Comparison
    from indexer.predictions import PredictionsInfo
    from indexer.reading import PlaceIndex
    from seqdata.dataset import Dataset
    from seqdata.protocols import Protocol
    from train.eval_stage import Answer


@dataclass(frozen=True)
class Answered:
    """Predictions with the dataset and the protocol that judges them; `folder` keeps the recall, where one does.

    `shorter` are those of the same index by fewer dimensions.
    """

    dataset: "Dataset"
    protocol: "Protocol"
    table: "pl.DataFrame"
    info: "PredictionsInfo"
    folder: Path | None = None
    path: Path | None = None
    shorter: "tuple[Answer, ...]" = ()


@dataclass(frozen=True)
class Asked:
    """The flags that more than one source of predictions needs."""

    place: Config
    protocols: tuple[str, ...]
    dataset: Path | None
    split: str
    name: str | None
    out: Path | None


def of_index(
    asked: Asked, index: Path | None, run: Path | None, sizes: tuple[int, ...], device: str, model_from: str | None
) -> list[Answered]:
    """An index answers each protocol; where two cut the same windows, it searches once. Raises: as `answer`."""
    from cli.places import find_dataset, find_protocol, find_run, open_index
    from indexer.scoring import fits
    from train.eval_stage import answer
    from train.index_stage import run_record

    opened = open_index(asked.place, index)
    folder = find_run(asked.place, run, opened)
    hint = run_record(folder)["dataset_path"]
    source = find_dataset(asked.place, asked.dataset, opened.manifest.inputs["dataset"], hint)
    done: list[Answered] = []
    with progress_bar("window") as bar:
        for named in asked.protocols or (None,):
            chosen = find_protocol(named, opened, source)
            known = next((each for each in done if fits(source, chosen, each.info)), None)
            if known is not None:
                done.append(replace(known, protocol=chosen))
                continue
            (table, info), *shorter = answer(
                source, opened, folder, chosen, sizes=sizes, device=device, model_from=model_from,
                progress=lambda at, total: bar.to("describe queries", at, total),
            )  # fmt: skip
            path = folder / "predictions" / _index_name(opened, chosen, info)
            done.append(Answered(source, chosen, table, info, opened.path, path, tuple(shorter)))
    return done


def of_files(asked: Asked, paths: list[Path]) -> list[Answered]:
    """Stored predictions, the product's own or another model's, under each protocol (own ones: default their own).

    Raises: ContractError where a file of another model comes without a protocol.
    """
    from cli.places import find_dataset
    from indexer import predictions
    from indexer.foreign_files import is_own, read_predictions
    from seqdata.errors import ContractError

    done = []
    for path in paths:
        if is_own(path):
            table, info = predictions.read(path)
            source = find_dataset(asked.place, asked.dataset, info.dataset)
            chosen = [source.load_protocol(name) for name in asked.protocols] or [_made_under(source, info, path)]
            done += [Answered(source, protocol, table, info) for protocol in chosen]
            continue
        if not asked.protocols:
            raise ContractError(f"{path}: of another model; name what judges it with --protocol")
        source = _dataset(asked)
        for name in asked.protocols:
            protocol = source.load_protocol(name)
            table, info = read_predictions(source, protocol, asked.split, path, asked.name)
            done.append(_kept(asked, source, protocol, table, info, path.stem))
    return done


def of_descriptors(
    asked: Asked, query: Path, database: Path, query_ids: Path | None, database_ids: Path | None, metric: str
) -> list[Answered]:
    """Descriptors of another model, searched exactly under each protocol. Raises: as `search_descriptors`."""
    from indexer.foreign import search_descriptors
    from seqdata.errors import ContractError

    if metric not in ("l2", "cosine"):
        raise ContractError(f"--metric {metric}: descriptors are compared by l2 or cosine")
    source = _dataset(asked)
    done = []
    for protocol in _protocols(asked, source):
        table, info = search_descriptors(
            source, protocol, asked.split, query, database, query_ids=query_ids, database_ids=database_ids,
            cosine=metric == "cosine", name=asked.name,
        )  # fmt: skip
        done.append(_kept(asked, source, protocol, table, info, query.stem))
    return done


def reranked(
    answered: Answered, k: int, features: Path | None, metric: str | None, device: str, model_from: str | None
) -> Answered:
    """The same predictions with the first k re-ranked frame by frame; stored beside the plain ones."""
    from indexer.shortlist import rerank_frames

    vectors = frame_vectors(answered.dataset, features, device, model_from)
    with progress_bar("frame") as bar:
        table, info = rerank_frames(
            answered.dataset, answered.protocol, answered.table, answered.info, k, vectors=vectors,
            metric=a_metric("--rerank-metric", metric), progress=lambda at, total: bar.to("read frames", at, total),
        )  # fmt: skip
    plain = answered.path
    tail = f"rerank{k}" + (f"-{features.resolve().name}" if features else "") + (f"-{metric}" if metric else "")
    path = None if plain is None else plain.with_name(f"{plain.stem}-{tail}.parquet")
    return replace(answered, table=table, info=info, path=path)


def judge(answered: Answered, full: bool, by: tuple[str, ...]) -> "Evaluation":
    """The evaluation; predictions are written to their file and the recall recorded, where they have a place."""
    from indexer import predictions
    from indexer.scoring import record, score

    if answered.path is not None:
        predictions.write(answered.path, answered.table, answered.info)
        note(f"predictions: {answered.path}")
    found = score(answered.dataset, answered.protocol, answered.table, answered.info, full=full, by=by)
    if answered.folder is not None:
        record(answered.folder, found)
    return found


def at_radius(answered: Answered, radius: float) -> "Evaluation":
    """The same predictions judged at another radius, which is another protocol."""
    from indexer.scoring import score

    return score(answered.dataset, answered.protocol, answered.table, answered.info, radius=radius)


def at_sizes(answered: Answered) -> "list[Evaluation]":
    """What the same index finds by fewer dimensions, judged."""
    from indexer.scoring import score

    return [score(answered.dataset, answered.protocol, table, info) for table, info in answered.shorter]


def compared(asked: Asked, first: Answered, other: Path) -> "Comparison":
    """The paired comparison with what --compare names. Raises: as `other_of` and `indexer.compare.compare`."""
    from indexer.compare import compare

    second = other_of(asked, other, first)
    return compare(first.dataset, first.protocol, (first.table, first.info), (second.table, second.info))


def other_of(asked: Asked, path: Path, first: Answered) -> Answered:
    """What --compare names: a predictions file, or the folder of a baseline, run or index with one that fits.

    Raises: InputError when there is none or more than one, ContractError when it answers under another protocol.
    """
    from indexer import predictions
    from indexer.foreign_files import is_own, read_predictions
    from seqdata.errors import ContractError, InputError

    if path.is_file() and not is_own(path):
        table, info = read_predictions(first.dataset, first.protocol, first.info.split, path)
        return Answered(first.dataset, first.protocol, table, info)
    found = [path] if path.is_file() else [each for each in _stored_below(path) if _same_question(each, first)]
    if len(found) != 1:
        known = ", ".join(str(each) for each in found) or "none there"
        raise InputError(f"{path}: one predictions file of {first.protocol.label} is needed ({known}); name the file")
    table, info = predictions.read(found[0])
    if not asked.protocols and info.protocol_hash != first.info.protocol_hash:
        raise ContractError(
            f"{found[0]}: made under {info.protocol}@{info.protocol_hash}, the other under {first.info.protocol}@"
            f"{first.info.protocol_hash}; name what judges both with --protocol"
        )
    return Answered(first.dataset, first.protocol, table, info)


def frame_vectors(
    dataset: "Dataset", folder: Path | None, device: str, model_from: str | None
) -> "FrameVectors | None":
    """Frame descriptors of --features: a feature dataset or a run; None for thumbnails."""
    if folder is None:
        return None
    from train.frame_stage import frame_vectors as described

    return described(dataset, folder, device=device, model_from=model_from)


def a_metric(flag: str, value: str | None) -> "Metric | None":
    """The metric that a flag names. Raises: ContractError for a word that is none."""
    from indexer.matching import METRICS
    from seqdata.errors import ContractError

    found = next((metric for metric in METRICS if metric == value), None)
    if value is not None and found is None:
        raise ContractError(f"{flag} {value}: expected {', '.join(METRICS)}")
    return found


def listed(text: str | None) -> tuple[str, ...]:
    """The parts of a flag's comma-separated value."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


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


def _index_name(index: "PlaceIndex", protocol: "Protocol", info: "PredictionsInfo") -> str:
    return f"{protocol.name}-{protocol.hash}-{info.split}-{index.id}.parquet"


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
    asked: Asked, dataset: "Dataset", protocol: "Protocol", table: "pl.DataFrame", info: "PredictionsInfo", stem: str
) -> Answered:
    """Another model's predictions, with the folder that keeps them as the product's own."""
    folder = asked.out or asked.place.out / "judged" / f"{asked.name or stem}-{protocol.name}-{dataset.id[:12]}"
    return Answered(dataset, protocol, table, info, folder, folder / f"{protocol.hash}-{info.split}.parquet")


def _stored_below(folder: Path) -> list[Path]:
    """Predictions files in a folder, in its predictions/, and, for an index, in those of the run beside it."""
    found = sorted([*folder.glob("*.parquet"), *folder.glob("predictions/*.parquet")])
    if not found and ((folder / "latest").is_file() or (folder / "manifest.json").is_file()):
        import indexer

        opened = indexer.open(folder)
        runs = opened.path.resolve().parents[3] / "runs"
        found = sorted(runs.glob(f"*/predictions/*-{opened.id}.parquet"))
    return found


def _same_question(path: Path, first: Answered) -> bool:
    from indexer import predictions
    from indexer.foreign_files import is_own

    if not is_own(path):
        return False
    info = predictions.read(path)[1]
    return (info.protocol_hash, info.split) == (first.info.protocol_hash, first.info.split)
