"""What a source is: a listing of frame records, and a way to read one image's bytes."""

import errno
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import polars as pl

import seqdata.protocols
from seqdata.contracts import table_contract
from seqdata.errors import ContractError, InputError
from seqdata.pixels import BadImageError

_MODULES = {
    "folder": "seqdata.sources.folder",
    "msls": "seqdata.sources.msls",
    "nordland": "seqdata.sources.nordland",
    "robotcar": "seqdata.sources.robotcar",
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_RESOURCE_FORKS = "__MACOSX"
_SEPARATORS = (",", ";", "\t")
_HEADER_WITHIN = 1 << 16
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""What a damaged, encrypted or unknown zip member raises; NotImplementedError is a RuntimeError."""
_UNREADABLE = {None, errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL, errno.EBADMSG}
"""errno of an OSError that is the one file's fault (decoders give none); the others are the machine's."""


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
        """The bytes of the image that a record's `source` names.

        Raises: FileNotFoundError or KeyError when it is gone, BadImageError (`unreadable_image`) when it is there but
        cannot be read, OSError for what is no fault of the file.
        """
        ...

    def check_protocol(self, protocol: seqdata.protocols.Protocol) -> None:
        """Nothing where the dump holds what `protocol` needs. Raises: InputError that names what is missing."""
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
        what = "a file; name the folder that it lies in" if Path(raw).exists() else "no such folder"
        raise InputError(f"{raw}: {what}, as --raw FOLDER")
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


def quarantine_skipped(archive: str, skipped: pl.DataFrame) -> pl.DataFrame:
    """Quarantine rows for what is never read from `archive` (its name below the dump): columns name and message."""
    rows = skipped.select(
        (pl.lit(f"{archive}!") + pl.col("name")).alias("source"),
        pl.lit("unreadable_image").alias("reason"),
        (pl.lit("never read from an archive: ") + pl.col("message")).alias("message"),
    )
    return table_contract("quarantine").conform(rows)


def read_text_csv(path: Path) -> pl.DataFrame:
    """The CSV in the file `path`, as `parse_text_csv`. Raises: InputError when it is missing, and as there."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the dump is incomplete") from error
    except OSError as error:
        raise InputError(f"{path}: the table cannot be read ({error.strerror})") from error
    return parse_text_csv(data, path)


def parse_text_csv(data: bytes, path: Path | str) -> pl.DataFrame:
    """A CSV as it is written, all text: separated by comma, semicolon or tab, spaces around column names left out.

    Where the semicolon separates, spreadsheets write the decimal comma; it is a point in the result. `path` names the
    table in messages. Raises: InputError when it is no CSV, ContractError for a column that is there twice.
    """
    header = next((line for line in data[:_HEADER_WITHIN].splitlines() if line.strip()), b"").decode(errors="replace")
    separator = max(_SEPARATORS, key=header.count)
    try:
        table = pl.read_csv(data, infer_schema=False, encoding="utf8-lossy", separator=separator)
    except pl.exceptions.PolarsError as error:
        first_line = str(error).splitlines()[0] if str(error) else "not a table"
        raise InputError(f"{path}: not readable as CSV ({first_line})") from error
    names = [name.strip() for name in table.columns]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ContractError(f"{path}: column '{repeated[0]}' is there twice")
    table.columns = names
    if separator == ";":
        return table.with_columns(pl.all().str.replace(r"^\s*([+-]?\d+),(\d+)\s*$", "$1.$2"))
    return table


def parse_columns(table: pl.DataFrame, path: Path | str, needed: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The text table of `path` with the columns `needed` cast. Raises: ContractError naming a missing column."""
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


def on_globe(latitude: str, longitude: str) -> pl.Expr:
    """Whether two columns (degrees) are a place that UTM covers, 80° S to 84° N; false where one is empty."""
    inside_utm = pl.col(latitude).is_between(-80, 84) & pl.col(longitude).is_between(-180, 180)
    return inside_utm.fill_null(value=False)


def find_images(folder: Path, pattern: str) -> list[tuple[str, int]]:
    """Image files below `folder` that match the glob `pattern`, sorted: path below `folder` and size in bytes."""
    if not folder.is_dir():
        return []
    names = ((path.relative_to(folder).as_posix(), path) for path in folder.glob(pattern))
    sizes = ((name, _file_size(path)) for name, path in names if is_image(name))
    return sorted((name, size) for name, size in sizes if size is not None)


def _file_size(path: Path) -> int | None:
    """Size of a file in bytes, None where there is none: a dangling link, or a folder that is named like an image."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_text(name: str) -> bool:
    """Whether a path of the file system is UTF-8, so that a table can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_image(name: str) -> bool:
    """Whether a path (with /) is one of an image that the build can read; hidden files and resource forks are none."""
    *folders, base = name.split("/")
    return base.lower().endswith(IMAGE_SUFFIXES) and not base.startswith(".") and _RESOURCE_FORKS not in folders


def image_names(column: str) -> pl.Expr:
    """Whether each path of a column is one of an image, as `is_image`."""
    path = pl.col(column)
    suffixed = path.str.contains(r"(?i)\.(jpe?g|png)$")
    return suffixed & ~path.str.contains(r"(^|/)\.[^/]*$") & ~path.str.contains(rf"(^|/){_RESOURCE_FORKS}/")


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Around the reading of one image: its own damage becomes a BadImageError, what it is not to blame for stays.

    Raises: BadImageError (`unreadable_image`) for a damaged zip member, a bad disk block or a forbidden file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise BadImageError("unreadable_image", f"the file cannot be read ({error.strerror or error})") from error
    except _DAMAGED as error:
        raise BadImageError("unreadable_image", f"the file cannot be read ({error or type(error).__name__})") from error


def split_duplicates(records: pl.DataFrame) -> Listing:
    """Keep the first record of each key; the others go to quarantine as `duplicate_key`."""
    first = pl.col("key").is_first_distinct()
    return Listing(
        records=table_contract("records").conform(records.filter(first)),
        quarantine=quarantine_rows(records.filter(~first), "duplicate_key", "another frame has the same key"),
    )


def inside(raw: Path, name: str) -> Path:
    """The path of `name` below `raw`; links in the dump are followed. Raises: KeyError when the name climbs out."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise KeyError(f"{name} lies outside {raw}")
    return raw / name
