"""What belongs together: the index that a flag names, its dataset and run, and the protocol that judges."""

from pathlib import Path
from typing import Any, get_args

import indexer
import seqdata
from cli.config import Config, check_kind
from cli.flags import parse_choice
from cli.output import note, progress_bar
from indexer.place_index import PlaceIndex
from indexer.search.file_layout import FACTORY
from indexer.search.pools import EngineName
from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, SeqdataError, UsageError
from seqdata.storage.remote import without_password
from train.runs.record import run_behind, run_record

ENGINES: tuple[EngineName, ...] = get_args(EngineName)


def open_any_index(config: Config, flag: Path | None, engine: str = "auto") -> PlaceIndex:
    """Open the named index, else the newest below indexes/, whichever program built it.

    Raises:
        ContractError: If the engine is unknown, or a GPU is named for an index of another kind than flat and fp16.
        MissingDependencyError: If the engine's device is not there.
    """
    engine_name = parse_choice(engine, "--engine", ENGINES)
    index = indexer.open(config.newest("indexes", "latest", flag, "index"), engine=engine_name)
    if engine_name in ("cuda", "faiss-gpu") and index.manifest.storage not in FACTORY:
        raise UsageError(
            f"--engine {engine_name}: for flat and fp16 indexes only; {index.path} is {index.manifest.storage}, which "
            "is searched on the CPU"
        )
    return index


def open_index(config: Config, flag: Path | None, engine: str = "auto") -> PlaceIndex:
    """As `open_any_index`.

    Raises:
        ContractError: Also when seqdata index did not build it.
    """
    index = open_any_index(config, flag, engine)
    missing = {"dataset", "protocol", "split", "checkpoint", "windows"} - index.manifest.inputs.keys()
    if missing:
        raise ContractError(
            f"{index.path}: not built by seqdata index (its inputs lack '{min(missing)}'); use it in Python"
        )
    return index


def find_dataset(
    config: Config, flag: Path | None, identifier: str, hint: str = "", remedy: str = "name its folder with --dataset"
) -> Dataset:
    """Open the named dataset, else the one of an id: at a path, or below datasets/.

    Args:
        config: The work folder.
        flag: Dataset that the command line names.
        identifier: Id of the dataset that is looked for.
        hint: Path where it was last; a URL is shown, never contacted, because a run may come from somebody else.
        remedy: End of the message where there is none.

    Raises:
        InputError: If there is none.
    """
    if flag is not None:
        check_kind(flag, "datasets")
        return seqdata.open(flag)
    hinted = [Path(hint)] if hint and not is_url(hint) and (Path(hint) / "manifest.json").is_file() else []
    folders = [path.parent for path in sorted((config.out / "datasets").glob("*/manifest.json"))]
    for folder in [*hinted, *folders]:
        # Another dataset may be half built or damaged: it must not keep the wanted one from being found.
        try:
            dataset = seqdata.open(folder)
        except SeqdataError as error:
            note(f"passing over a broken dataset: {error}")
            continue
        if dataset.id == identifier:
            return dataset
    if is_url(hint):
        remedy = f"the run names {without_password(hint)}, which is not contacted unasked; if you trust it, {remedy}"
    if not identifier:
        raise InputError(f"the run was imported and belongs to no dataset; {remedy}")
    raise InputError(f"no dataset with id {identifier[:12]} in {config.out / 'datasets'}; {remedy}")


def is_url(place: str) -> bool:
    """Whether a place is remote; one slash is enough, because `Path` folds the two of a URL."""
    return ":/" in place


def find_run(config: Config, flag: Path | None, index: PlaceIndex) -> Path:
    """The named run, else the one that the index was built from.

    Raises:
        InputError: When it is gone.
        UsageError: When the command line does not fit together.
    """
    if flag is not None:
        check_kind(flag, "runs")
    return flag if flag is not None else run_behind(index, config.out / "runs")


def untrained_run(
    dataset: Dataset, out: Path, *, model: str, weights: str | None, protocol: str, options: dict[str, Any]
) -> Path:
    """Write a run whose model has its start weights; one that is there already with the same settings is taken.

    Args:
        dataset: Gives the frames that the words of a VLAD layer are found in.
        out: Folder of the run.
        model: Preset.
        weights: "pretrained", "random" or a file; None for the settings' own.
        protocol: Name or file of the protocol that cuts windows.
        options: Model options over the preset's.

    Raises:
        UsageError: For an unknown model or option.
        OutputError: If `out` holds something else.
        MissingDependencyError: If the weights cannot be downloaded.
    """
    from train.loop.fit import fit  # heavy
    from train.settings import TrainSettings  # heavy

    settings = TrainSettings.create(
        None, model=model, weights=weights, protocol=protocol, options=options or None, epochs=0
    )
    if (out / "run.json").is_file() and run_record(out)["settings"] == settings.model_dump(mode="json"):
        note(f"using {out} (written before)")
        return out
    with progress_bar("step") as bar:
        folder = fit(dataset, settings, out, progress=lambda phase, count, total, _: bar.update(phase, count, total))
    note(f"wrote {folder}: {model}, not trained")
    return folder


def find_protocol(flag: str | None, index: PlaceIndex, dataset: Dataset) -> Protocol:
    """The protocol that the flag names, else the one that the index was built under."""
    if flag is None:
        return protocols.parse(index.manifest.inputs["protocol"], index.path / "manifest.json")
    return dataset.load_protocol(flag)
