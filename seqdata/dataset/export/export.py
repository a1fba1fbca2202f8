"""Export: windows of a dataset in the forms that other code bases read, from the stored bytes, never re-encoded.

- `sequences`: webdataset tars with one sample a window, `<number>.000.jpg … <number>.json`;
- `folders`: the image-folder tree with `@`-names of the SeqVLAD reference code, see `seqdata.dataset.export.folders`.

Both lie below `OUT/<split>/{database,queries}/` beside an `export.json` that says what they are. The folder appears
whole: an export killed half-way goes on where it was in `.<name>.partial` beside it.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.export.folders import write_folders
from seqdata.dataset.export.tars import write_tars
from seqdata.errors import ContractError, InputError, OutputError, UsageError
from seqdata.parallel import Progress
from seqdata.storage.files import explain_write_failure, flush_tree, read_json, rename_flushed, write_json_atomic
from seqdata.storage.hashing import sha256_json, xxh3_hex
from seqdata.storage.leftovers import sweep

Format = Literal["sequences", "folders"]
"""Tars of one sample a window, or image folders with @-names."""

REPORT_NAME = "export.json"
DEFAULT_SHARD_BYTES = 256 << 20
_ROLE_FOLDERS = {"database": "database", "query": "queries", None: "all"}
_NO_SPLIT = {"sequences": "all", "folders": "test"}


def windows_of(
    dataset: Dataset,
    protocol: str | Path | Protocol | None = None,
    split: str | None = None,
    role: str | None = None,
    length: int = 5,
    stride: int = 1,
) -> pl.DataFrame:
    """Cut the window table to export.

    Args:
        dataset: The dataset.
        protocol: Protocol that cuts the windows; None takes `length` and `stride`.
        split: One split of the protocol; None takes all, one after another.
        role: "database" or "query"; None takes both.
        length: Frames of a window, without a protocol.
        stride: Frames from window to window, without a protocol.

    Raises:
        ContractError: As `Dataset.sequences`.
    """
    if protocol is None or split is not None:
        return dataset.sequences(protocol, split, role, length, stride)
    loaded = dataset.load_protocol(protocol)
    return pl.concat([dataset.sequences(loaded, name, role) for name in loaded.splits])


def export(
    dataset: Dataset,
    table: pl.DataFrame,
    out: str | Path,
    format: Format = "sequences",
    *,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write windows to a new folder; memory is bounded by a few dozen windows.

    Windows without a split go to `all/` (sequences) or `test/` (folders), windows without a role to `all/`; folders
    need roles.

    Args:
        dataset: The dataset.
        table: Window table (contract `sequences`).
        out: New folder.
        format: "sequences" or "folders".
        shard_bytes: Bytes of images of a tar.
        progress: Called with (windows finished, windows in all).

    Returns:
        The content of `export.json`.

    Raises:
        ContractError: If the format is unknown, the table empty, or folders cannot express its windows.
        InputError: If a shard is absent.
        OutputError: If `out` holds anything already or cannot be written.
    """
    _check(table, format)
    target = Path(out)
    report = _report(dataset, table, format, shard_bytes)
    with _appearing(target, report) as partial:
        written = 0
        for (split, role), rows in _groups(table):
            place = partial / str(split or _NO_SPLIT[format]) / _ROLE_FOLDERS[role]
            report_done = _shifted(progress, written, table.height)
            if format == "sequences":
                write_tars(dataset, table[rows], place, shard_bytes, report_done)
            else:
                write_folders(dataset, table[rows], place, report_done)
            written += len(rows)
    return report


def _check(table: pl.DataFrame, format: str) -> None:
    """Raise ContractError for windows that the format cannot express."""
    if format not in _NO_SPLIT:
        raise UsageError(f"export format '{format}': expected {' or '.join(_NO_SPLIT)}")
    if not table.height:
        raise ContractError("export: no window to write; name another split, role or length")
    unknown = set(table["role"].unique()) - set(_ROLE_FOLDERS)
    if unknown:
        raise ContractError(f"export: role '{unknown.pop()}' is neither database nor query")
    if format == "folders" and table["role"].null_count():
        raise ContractError(
            "export: the reference code's folders are database and queries, but windows have no role; name a protocol "
            "whose splits give roles, or build frames with roles"
        )
    if format == "folders" and (table["step"] != 1).any():
        raise ContractError("export: folders hold neighbouring frames, but windows have a step above 1")


def _report(dataset: Dataset, table: pl.DataFrame, format: str, shard_bytes: int) -> dict[str, Any]:
    """Describe what is exported, so that a partial folder is continued only by the same export."""
    # By slices, so that a table of millions of windows is never one text.
    fingerprint = [xxh3_hex(part.write_csv().encode()) for part in table.iter_slices(100_000)]
    counts = table.group_by("split", "role").len("windows").sort("split", "role", nulls_last=True)
    return {
        "format": format,
        "dataset": dataset.id,
        "attribution": dataset.manifest.source.attribution,
        "windows": table.height,
        "length": table["length"].unique().sort().to_list(),
        "table": sha256_json(fingerprint),
        "shard_bytes": shard_bytes if format == "sequences" else None,
        "parts": counts.to_dicts(),
    }


def _groups(table: pl.DataFrame) -> Iterator[tuple[tuple[str | None, str | None], np.ndarray[Any, Any]]]:
    """Yield the row numbers of each (split, role), in the table's order."""
    numbered = table.select("split", "role").with_row_index("row")
    for (split, role), part in numbered.group_by("split", "role", maintain_order=True):
        yield (split, role), part["row"].to_numpy()


def _shifted(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    """Make a callback that counts the finished windows of a part after the `before` ones of earlier parts."""
    return lambda finished: progress(before + finished, total) if progress is not None else None


@contextmanager
def _appearing(out: Path, report: dict[str, Any]) -> Iterator[Path]:
    """Yield the partial folder, renamed to `out` at the end; one left by the same export is continued."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: is not empty; choose another --out or remove it")
    if report["format"] == "folders" and "@" in str(out.absolute()):
        raise OutputError(f"{out}: the reference code splits paths at @; choose an --out without one")
    whole = out.resolve()  # "." has no name
    partial = whole.with_name(f".{whole.name}.partial")
    try:
        # What another export left half-written is no part of this one.
        if partial.exists() and _partial_report(partial) != report:
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        write_json_atomic(partial / REPORT_NAME, report)
        sweep(partial)
        yield partial
        flush_tree(partial)
        rename_flushed(partial, whole)  # an empty folder of that name gives way
    except OSError as error:
        explain_write_failure(out, error)


def _partial_report(partial: Path) -> Any:
    """Read the report of a partial folder; None where there is none."""
    try:
        return read_json(partial / REPORT_NAME)
    except InputError:
        return None
