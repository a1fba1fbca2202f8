"""Finding what belongs together: the dataset and the run behind an index, the protocol that a flag names."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from cli.config import Config
from cli.output import note
from seqdata.errors import ContractError, InputError

if TYPE_CHECKING:
    from indexer.place_index import PlaceIndex
    from indexer.search.pools import EngineName
    from seqdata.contracts.protocol import Protocol
    from seqdata.dataset.dataset import Dataset


def open_any_index(config: Config, flag: Path | None, engine: str = "auto") -> "PlaceIndex":
    """The named index, else the newest below indexes/, whoever built it, to be searched by an engine.

    Raises: ContractError for an unknown engine, or a GPU and an index that has no such choice;
    MissingDependencyError where the engine's device is not there.
    """
    import indexer
    from indexer.search.flat_file import FACTORY

    chosen = _engine(engine)
    opened = indexer.open(config.newest("indexes", "latest", flag, "index"), engine=chosen)
    if chosen in ("cuda", "faiss-gpu") and opened.manifest.storage not in FACTORY:
        raise ContractError(
            f"--engine {chosen}: of flat and fp16 indexes only; {opened.path} is {opened.manifest.storage}, searched "
            "on the CPU"
        )
    return opened


def _engine(name: str) -> "EngineName":
    from indexer.search.pools import EngineName

    found: EngineName | None = next((known for known in get_args(EngineName) if known == name), None)
    if found is None:
        raise ContractError(f"--engine {name}: expected {', '.join(get_args(EngineName))}")
    return found


def open_index(config: Config, flag: Path | None, engine: str = "auto") -> "PlaceIndex":
    """As `open_any_index`. Raises: ContractError also when seqdata index did not build it."""
    opened = open_any_index(config, flag, engine)
    missing = {"dataset", "protocol", "split", "checkpoint", "windows"} - opened.manifest.inputs.keys()
    if missing:
        raise ContractError(
            f"{opened.path}: not built by seqdata index (its inputs lack '{min(missing)}'); use it in Python"
        )
    return opened


def find_dataset(
    config: Config, flag: Path | None, wanted: str, hint: str = "", remedy: str = "name its folder with --dataset"
) -> "Dataset":
    """The named dataset, else the one whose id is `wanted`: at the path `hint`, or below datasets/.

    Raises: InputError with a `remedy` when there is none.
    """
    import seqdata
    from seqdata.errors import SeqdataError

    if flag is not None:
        return seqdata.open(flag)
    remembered = [Path(hint)] if "://" in hint or (hint and (Path(hint) / "manifest.json").is_file()) else []
    found = [path.parent for path in sorted((config.out / "datasets").glob("*/manifest.json"))]
    for place in [*remembered, *found]:
        try:
            opened = seqdata.open(place)
        except SeqdataError as error:
            note(f"passing over a broken dataset: {error}")
            continue
        if opened.id == wanted:
            return opened
    raise InputError(f"no dataset with id {wanted[:12]} in {config.out / 'datasets'}; {remedy}")


def find_run(config: Config, flag: Path | None, index: "PlaceIndex") -> Path:
    """The named run, else the one below runs/ that the index was built from. Raises: InputError when it is gone."""
    if flag is not None:
        return flag
    facts = index.manifest
    named = config.out / "runs" / str({**facts.inputs, **facts.origin}["run"])
    above = index.path.resolve().parents
    beside = [above[3] / "runs" / named.name] if len(above) > 3 else []
    for folder in (named, *beside):
        if (folder / "run.json").is_file():
            return folder
    raise InputError(f"{named}: the run behind the index {index.id} is not there; name it with --run")


def find_protocol(flag: str | None, index: "PlaceIndex", dataset: "Dataset") -> "Protocol":
    """The protocol that the flag names, else the one that the index was built under."""
    from seqdata import protocols

    if flag is None:
        return protocols.parse(index.manifest.inputs["protocol"], index.path / "manifest.json")
    return dataset.load_protocol(flag)
