"""Finding what belongs together: the dataset and the run behind an index, the protocol that a flag names."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.config import Config
from cli.output import note
from seqdata.errors import InputError

if TYPE_CHECKING:
    from indexer.reading import PlaceIndex
    from seqdata.dataset import Dataset
    from seqdata.protocols import Protocol


def open_index(config: Config, flag: Path | None) -> "PlaceIndex":
    """The named index, else the newest below indexes/."""
    import indexer

    return indexer.open(config.newest("indexes", "latest", flag, "index"))


def find_dataset(config: Config, flag: Path | None, wanted: str) -> "Dataset":
    """The named dataset, else the one below datasets/ whose id is `wanted`. Raises: InputError when there is none."""
    import seqdata
    from seqdata.errors import SeqdataError

    if flag is not None:
        return seqdata.open(flag)
    for path in sorted((config.out / "datasets").glob("*/manifest.json")):
        try:
            opened = seqdata.open(path.parent)
        except SeqdataError as error:
            note(f"passing over a broken dataset: {error}")
            continue
        if opened.id == wanted:
            return opened
    raise InputError(f"no dataset with id {wanted[:12]} in {config.out / 'datasets'}; name it with --dataset")


def find_run(config: Config, flag: Path | None, index: "PlaceIndex") -> Path:
    """The named run, else the one below runs/ that the index was built from. Raises: InputError when it is gone."""
    if flag is not None:
        return flag
    named = config.out / "runs" / str(index.manifest.inputs["run"])
    beside = index.path.parents[3] / "runs" / named.name
    for folder in (named, beside):
        if (folder / "run.json").is_file():
            return folder
    raise InputError(f"{named}: the run behind the index {index.id} is not there; name it with --run")


def index_protocol(config: Config, flag: str | None, index: "PlaceIndex") -> "Protocol":
    """The protocol that the flag names, else the one that the index was built under."""
    from seqdata import protocols

    if flag is None:
        return protocols.parse(index.manifest.inputs["protocol"], index.path / "manifest.json")
    return protocols.load(flag)
