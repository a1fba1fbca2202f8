"""What a source is: a listing of frame records, and a way to read one image's bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import polars as pl

from seqdata.contracts import table_contract
from seqdata.errors import ContractError, InputError

_MODULES = {
    "folder": "seqdata.sources.folder",
    "msls": "seqdata.sources.msls",
    "nordland": "seqdata.sources.nordland",
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Listing:
    """All that a dump holds: frame records to store and inputs that are left out already.

    `records` follows the contract `records`, sorted by (city, role, trajectory, position); `quarantine` follows the
    contract `quarantine`.
    """

    records: pl.DataFrame
    quarantine: pl.DataFrame


class Source(Protocol):
    """One kind of raw dump at one place; a module of this package has `open(raw, options)` that returns it.

    `attribution` credits the dump's makers and names its licence.
    """

    attribution: str

    def listing(self) -> Listing:
        """Every frame of the dump. Raises: InputError when it is of another kind, ContractError for a bad table."""
        ...

    def read(self, source: str) -> bytes:
        """The bytes of the image that a record's `source` names. Raises: OSError or KeyError when it is gone."""
        ...


def source_names() -> list[str]:
    """Kinds of raw dumps that can be built."""
    return sorted(_MODULES)


def default_protocol(kind: str) -> str:
    """Name of the protocol whose tables a build of `kind` writes when the user names none. Raises: ContractError."""
    name: str = _module(kind).DEFAULT_PROTOCOL
    return name


def _module(kind: str) -> ModuleType:
    if kind not in _MODULES:
        raise ContractError(f"no source '{kind}'; there are {', '.join(source_names())}")
    return import_module(_MODULES[kind])


def open_source(kind: str, raw: str | Path, options: Mapping[str, str]) -> Source:
    """The source of `kind` at `raw`; `options` are the source's own settings as text.

    Raises: ContractError for an unknown kind or option, InputError when the folder is missing or is another dump.
    """
    module = _module(kind)
    if not Path(raw).is_dir():
        raise InputError(f"{raw}: no such folder; name the raw dump with --raw")
    source: Source = module.open(Path(raw), dict(options))
    return source


def take_option(options: dict[str, str], name: str, default: str = "") -> str:
    """Remove and return one option."""
    return options.pop(name, default)


def refuse_unknown(options: Mapping[str, str], kind: str, known: str) -> None:
    """Raise ContractError when options are left that the source does not know."""
    if options:
        raise ContractError(f"source {kind} has no option '{next(iter(options))}'; it has {known}")


def quarantine_rows(frames: pl.DataFrame, reason: str, message: str) -> pl.DataFrame:
    """Quarantine rows for `frames` (needs `source`; key, trajectory and position are taken where present)."""
    rows = frames.with_columns(pl.lit(reason).alias("reason"), pl.lit(message).alias("message"))
    return table_contract("quarantine").conform(rows)


def read_csv(path: Path, needed: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A CSV with at least the columns `needed`, cast to those types; text that does not fit becomes null.

    Raises: InputError when the file is missing or not CSV, ContractError naming a missing column.
    """
    try:
        table = pl.read_csv(path, infer_schema=False, encoding="utf8-lossy")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the dump is incomplete") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).splitlines()[0] if str(error) else "not a table"
        raise InputError(f"{path}: not readable as CSV ({first_line})") from error
    for name in needed:
        if name not in table.columns:
            raise ContractError(f"{path}: column '{name}' is missing; found {', '.join(table.columns) or 'none'}")
    return table.with_columns(_parse(name, kind) for name, kind in needed.items())


def _parse(name: str, kind: pl.DataType) -> pl.Expr:
    """Text to `kind`; booleans are written True/False by these dumps, and NaN counts as absent."""
    text = pl.col(name).str.strip_chars()
    if kind == pl.Boolean():
        return text.str.to_lowercase().is_in(["true", "1"]).alias(name)
    if kind.is_float():
        return text.cast(kind, strict=False).fill_nan(None).alias(name)
    if kind.is_integer():
        return text.cast(pl.Float64, strict=False).round().cast(kind, strict=False).alias(name)
    return text


def list_images(folder: Path) -> pl.DataFrame:
    """Image files directly in `folder`: columns file (name) and bytes, sorted by name."""
    entries = []
    if folder.is_dir():
        entries = [(path.name, path.stat().st_size) for path in folder.iterdir() if is_image(path.name)]
    return pl.DataFrame(sorted(entries), schema={"file": pl.String, "bytes": pl.Int64}, orient="row")


def is_image(name: str) -> bool:
    """Whether a file name has an image suffix that the build can read."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def split_duplicates(records: pl.DataFrame) -> Listing:
    """Keep the first record of each key; the others go to quarantine as `duplicate_key`."""
    first = pl.col("key").is_first_distinct()
    return Listing(
        records=table_contract("records").conform(records.filter(first)),
        quarantine=quarantine_rows(records.filter(~first), "duplicate_key", "another frame has the same key"),
    )


def inside(raw: Path, name: str) -> Path:
    """The path of `name` below `raw`. Raises: KeyError when it leads outside."""
    path = (raw / name).resolve()
    if not path.is_relative_to(raw.resolve()):
        raise KeyError(f"{name} lies outside {raw}")
    return path
