"""What other commands need to know of a run: its record, protocol, weights hash, and where its predictions lie."""

import os
from pathlib import Path
from typing import Any

import indexer
from indexer.evaluation import predictions
from indexer.evaluation.external_files import is_own
from indexer.evaluation.predictions import PredictionsInfo
from indexer.place_index import PlaceIndex
from indexer.versions.folders import RUNS
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError
from seqdata.frames.resize import Kernel, parse_kernel
from seqdata.storage.files import folders_by_age, read_json, write_bytes_atomic
from seqdata.storage.hashing import xxh3_file
from train.runs.best_epoch import best_epoch
from train.runs.folder import read_metrics, weights_file


def predictions_path(run: Path, index: PlaceIndex, protocol: Protocol) -> Path:
    """Path at which a run stores what an index answers under a protocol."""
    return run / "predictions" / f"{protocol.name}-{protocol.hash}{_tail(index)}"


def _tail(index: PlaceIndex) -> str:
    """End of the names of the predictions files of an index version."""
    return f"-{index.manifest.inputs['split']}-{index.id}.parquet"


def stored_predictions(run: Path, index: PlaceIndex, protocol: Protocol) -> list[Path]:
    """List the files in which a run stores answers of an index version, the protocol's own file first."""
    own = predictions_path(run, index, protocol)
    paths = sorted(path for path in own.parent.glob("*.parquet") if path.name.endswith(_tail(index)))
    # False sorts before True, so the protocol's own file leads; the others stay in order of names.
    return sorted(paths, key=lambda path: path != own)


def predictions_below(folder: Path) -> list[Path]:
    """List the predictions files that belong to a run, a baseline or an index.

    Args:
        folder: Folder of a run, a baseline or an index, or of one version of an index.

    Returns:
        The files in the folder and in its `predictions/`, sorted; of an index without any, those that the runs in
        `runs/` beside it stored for its opened version.
    """
    paths = sorted([*folder.glob("*.parquet"), *folder.glob("predictions/*.parquet")])
    if not paths and ((folder / "latest").is_file() or (folder / "manifest.json").is_file()):
        index = indexer.open(folder)
        runs = index.path.resolve().parents[3] / "runs"  # OUT/indexes/NAME/versions/ID
        paths = sorted(runs.glob(f"*/predictions/*-{index.id}.parquet"))
    return paths


def comparable_predictions(folder: Path, info: PredictionsInfo) -> list[Path]:
    """List the predictions of a folder (see `predictions_below`) that answer the protocol and split of `info`."""
    paths = [path for path in predictions_below(folder) if is_own(path)]
    infos = {path: predictions.read_info(path) for path in paths}
    question = (info.protocol_hash, info.split)
    return [path for path in paths if (infos[path].protocol_hash, infos[path].split) == question]


def remember_run(version: Path, run: Path) -> None:
    """Note beside an index where the run of a version lies, relative to the index, so that both can be moved together.

    Args:
        version: Folder of the version, INDEX/<name>/versions/<id>.
        run: Folder of the run.

    Raises:
        OutputError: If the disk refuses.
    """
    index = version.resolve().parents[1]
    place = os.path.relpath(run.resolve(), index)
    write_bytes_atomic(index / RUNS / version.name, f"{place}\n".encode())


def _remembered_run(version: Path) -> Path | None:
    """The place that `remember_run` noted for a version, None where there is none, or no relative path."""
    index = version.resolve().parent.parent
    try:
        place = Path((index / RUNS / version.name).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None
    return None if place.is_absolute() else index / place


def run_behind(index: PlaceIndex, runs: Path) -> Path:
    """Find the folder of the run that an index was built from.

    Args:
        index: An index that `seqdata index` built.
        runs: Folder of runs to look in first; then comes the `runs/` beside the index's own folder, and then the place
            that the index remembers.

    Returns:
        Folder of the run.

    Raises:
        InputError: If it is in none of them.
    """
    facts = index.manifest
    run = runs / str({**facts.inputs, **facts.origin}["run"])
    parents = index.path.resolve().parents  # OUT/indexes/NAME/versions/ID
    beside = [parents[3] / "runs" / run.name] if len(parents) > 3 else []
    for folder in (run, *beside, _remembered_run(index.path)):
        if folder is not None and (folder / "run.json").is_file():
            return folder
    raise InputError(f"{run}: the run behind the index {index.id} is not there; name it with --run")


def newest_unfinished(runs: Path) -> Path:
    """Find the run folder below `runs` that was written last and has not ended.

    Raises:
        InputError: If every run has ended, or there is none.
    """
    unfinished = [folder for folder in folders_by_age(runs, "run.json") if not _stored_record(folder).get("finished")]
    if not unfinished:
        raise InputError(f"{runs}: no unfinished run; to train a finished one further, name it with --out")
    return unfinished[-1]


def run_record(run: Path) -> dict[str, Any]:
    """Read the run.json of a run.

    Raises:
        InputError: If the folder is no run.
        ContractError: If a field is missing.
    """
    record = _stored_record(run)
    missing = [name for name in ("dataset", "dataset_path", "protocol", "settings", "model") if name not in record]
    if missing:
        raise ContractError(f"{run / 'run.json'}: field '{missing[0]}' is missing; this is no run of seqdata train")
    return record


def _stored_record(run: Path) -> dict[str, Any]:
    """The JSON object in run.json, with whatever fields it has. Raises: ContractError for other JSON."""
    record = read_json(run / "run.json")
    if not isinstance(record, dict) or not isinstance(record.get("settings", {}), dict):
        raise ContractError(f"{run / 'run.json'}: holds no object with settings; this is no run of seqdata train")
    return record


def run_summary(run: Path) -> dict[str, Any]:
    """Read the result of a run.

    Returns:
        `path`, `epochs` (without epoch 0), `best` (the metrics of the best epoch, see `train.runs.best_epoch`), and
        `dataset`, `protocol`, `model`, `descriptor_size` and `settings` of the record.
    """
    record, epochs = read_json(run / "run.json"), read_metrics(run)
    facts = {name: record[name] for name in ("dataset", "protocol", "model", "descriptor_size", "settings")}
    # metrics.jsonl begins with epoch 0, the validation before any training.
    return {"path": str(run), "epochs": len(epochs) - 1, "best": dict(best_epoch(epochs)), **facts}


def checkpoint_hash(run: Path) -> str:
    """XXH3-128 of the run's best weights.

    Raises:
        InputError: When they are gone.
    """
    return xxh3_file(weights_file(run))


def recorded_kernel(run: Path) -> Kernel:
    """Read how a run's frames were resized; of older runs, and of weights without one, by Pillow.

    Raises:
        ContractError: If the record is damaged, or names none that exists.
    """
    folder = run if run.is_dir() else run.parent.parent  # RUN/checkpoints/best.safetensors
    settings = _stored_record(folder).get("settings", {}) if (folder / "run.json").is_file() else {}
    return parse_kernel(str(settings.get("resize", "pillow")))


def run_protocol(dataset: Dataset, run: Path) -> Protocol:
    """Load the protocol that a run was trained under, from the dataset or by its name.

    Raises:
        ContractError: If the protocol file has changed since.
    """
    record = run_record(run)
    loaded = recorded_protocol(dataset, record)
    if loaded.hash != record["protocol"]["hash"]:
        trained = f"{record['protocol']['name']}@{record['protocol']['hash']}"
        raise ContractError(
            f"{run / 'run.json'}: trained under {trained}, the protocol is now {loaded.label}; name one with --protocol"
        )
    return loaded


def recorded_protocol(dataset: Dataset, record: dict[str, Any]) -> Protocol:
    """Load the version of the protocol that a run.json names, else what its settings name by now.

    Raises:
        InputError, ContractError: As `Dataset.load_protocol`.
    """
    protocol = record["protocol"]
    try:
        return dataset.load_protocol(f"{protocol['name']}@{protocol['hash']}")
    except ContractError:  # a file of the user's
        return dataset.load_protocol(record["settings"]["protocol"])
