"""`seqdata index list | show | diff | verify | tag | rollback | gc`: the versions of a place index."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.config import load
from cli.flags import IndexArgument, either
from cli.index.flags import IndexFlag, VersionArgument
from cli.output import ConfigFlag, JsonFlag, emit, size
from indexer.selection.held_out import DATABASE_ROWS
from indexer.text import plural
from indexer.versions.checks import check_version
from indexer.versions.folders import list_versions, named_index, resolve, version_folder
from indexer.versions.listing import VersionEntry, differences, entries, flatten
from indexer.versions.manifest import Measured, read_manifest, read_measured
from indexer.versions.tags import collect, remove_tag, set_tag
from indexer.versions.tags import rollback as move_back
from seqdata.errors import ContractError, UsageError


def recall_text(measured: Measured) -> str:
    """The recall that a build measured, as the end of its line; nothing where nothing was measured."""
    queries = f"{measured.queries} {measured.queries_of or DATABASE_ROWS}"
    recalls = (f", recall@{k} {recall:.2%} of exact ({queries})" for k, recall in (measured.recall or {}).items())
    note = caveat(measured)
    return "".join(recalls) + (f"; {note}" if note else "")


def caveat(measured: Measured) -> str | None:
    """What a recall does not say; None where its queries are no rows of the database, or nothing was measured."""
    if not measured.recall or measured.queries_of not in (None, DATABASE_ROWS):
        return None
    return (
        "this recall was measured on rows of the database, each without itself: queries of another drive may find "
        "fewer of their nearest"
    )


def find_index(config: Path | None, flag: Path | None) -> Path:
    """The folder of the named index, else of the newest below indexes/.

    Raises:
        InputError: When there is none.
    """
    return named_index(load(config).newest("indexes", "latest", flag, "index"))


def find_folder(config: Path | None, flag: Path | None, version: str | None) -> Path:
    """The folder of a version of the index, or the folder that `version` is.

    Raises:
        InputError: When it is absent or cannot be read.
        ContractError: When it does not fit its contract.
    """
    # A folder first, so that a version of any index can be named by its path; ids and tags are looked up in one index.
    if version is not None and Path(version).is_dir():
        return resolve(Path(version))
    return resolve(find_index(config, flag), version or "latest")


def is_index_folder(path: Path) -> bool:
    """Whether a path is an index with its versions, not one version of it."""
    return (path / "latest").is_file()


def list_(
    index_folder: IndexArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """List the versions of an index, oldest first.

    Each with rows, size, kind, recall against exact search, and tags.
    """
    folder = find_index(config, either(index_folder, index, "--index"))
    versions = entries(folder)
    lines = [f"{folder}: {plural(len(versions), 'version')}", *map(_entry_line, versions)]
    emit({"index": str(folder), "versions": [asdict(entry) for entry in versions]}, "\n".join(lines), as_json=as_json)


def _entry_line(entry: VersionEntry) -> str:
    marks = ", ".join([*(["latest"] if entry.latest else []), *entry.tags, *(["in use"] if entry.in_use else [])])
    if entry.fault is not None:
        return f"  {entry.id}  DAMAGED: {entry.fault}  {marks}".rstrip()
    # Flat stores vectors as they are, so there is nothing to measure; any other kind without a figure was not measured.
    exact = "exact" if entry.storage == "flat" else "recall not measured"
    recall = exact if entry.recall is None else f"recall {entry.recall:.2%}"
    kind = f"{entry.storage} {entry.rows:,}×{entry.size:,}"
    date = entry.created[:16].replace("T", " ")
    line = f"  {entry.id}  {date}  {kind:<17} {size(entry.bytes):>8}  {recall}"
    return f"{line}\n      {marks}" if marks else line


def show(
    version: VersionArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """Print the inputs of a version and what was measured on it."""
    folder = find_folder(config, index, version)
    manifest = read_manifest(folder).model_dump(mode="json", exclude_none=True)
    measurements = read_measured(folder)
    measured, note = measurements.model_dump(mode="json", exclude_none=True), caveat(measurements)
    text = [f"{folder}", *_fields(flatten(manifest)), "measured:", *_fields(flatten(measured))]
    text += [f"note: {note}"] if note else []
    result = {"path": str(folder), "manifest": manifest, "measured": measured, "note": note}
    emit(result, "\n".join(text), as_json=as_json)


def _fields(leaves: dict[str, Any]) -> list[str]:
    return [f"  {name} = {value}" for name, value in leaves.items()]


def diff(
    a: Annotated[str, typer.Argument(help="One version.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The other.", metavar="B")],
    index: IndexFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Print the differences between two versions.

    These are the inputs behind their ids, and the results of the build.
    """
    left, right = (read_manifest(find_folder(config, index, version)) for version in (a, b))
    groups = differences(left, right)
    lines = [f"{left.id} -> {right.id}"]
    for title, fields in groups.items():
        lines.append(f"{title}: {'no difference' if not fields else ''}".rstrip(" "))
        lines += [f"  {name}: {old} -> {new}" for name, (old, new) in fields.items()]
    emit({"a": left.id, "b": right.id, **groups}, "\n".join(lines), as_json=as_json)


def verify(
    version: VersionArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """Check every file of a version, or of all, against its hash.

    A damaged file is named, and the command ends with exit code 4.
    """
    if version is not None and index is None and is_index_folder(Path(version)):
        index, version = Path(version), None
    if version is not None:
        folders = [find_folder(config, index, version)]
    else:
        whole = find_index(config, index)
        folders = [version_folder(whole, identifier) for identifier in list_versions(whole)]
    faults = []
    for folder in folders:
        try:
            check_version(folder)
        except ContractError as error:
            faults.append(str(error))
    text = f"{plural(len(folders), 'version')}, {len(faults)} damaged"
    emit({"versions": [folder.name for folder in folders], "faults": faults}, text, as_json=as_json)
    # After every version was checked: the damage of one says nothing of the others.
    if faults:
        raise ContractError(faults[0] + (f" (and {len(faults) - 1} more; --json lists them)" if faults[1:] else ""))


def tag(
    name: Annotated[str, typer.Argument(help="The tag.", show_default=False)],
    version: VersionArgument = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the tag.")] = False,
    index: IndexFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Name a version; gc keeps what has a name.

    A tag that exists already moves to the version.
    """
    if version is not None and index is None and is_index_folder(Path(version)):
        index, version = Path(version), None
    if delete and version is not None:
        raise UsageError("--delete removes a tag from whatever version it names: leave VERSION out")
    folder = find_index(config, index)
    identifier = remove_tag(folder, name) if delete else set_tag(folder, name, version or "latest")
    text = f"{folder}: {name} no longer names {identifier}" if delete else f"{folder}: {name} is {identifier}"
    emit({"index": str(folder), "tag": name, "id": identifier, "deleted": delete}, text, as_json=as_json)


def rollback(
    version: VersionArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """Make an earlier version the latest.

    Without a name that is the version built before the latest one. The pointer moves by one rename.
    """
    if version is not None and index is None and is_index_folder(Path(version)):
        index, version = Path(version), None
    folder = find_index(config, index)
    before, latest = move_back(folder, version)
    text = f"{folder}: latest is {latest}, it was {before or 'nothing'}"
    emit({"index": str(folder), "before": before, "latest": latest}, text, as_json=as_json)


def gc(
    index_folder: IndexArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    index: IndexFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Delete versions that are neither latest nor tagged.

    A version that a reader on this machine has open stays.
    """
    collect_index(find_index(config, either(index_folder, index, "--index")), dry_run=dry_run, as_json=as_json)


def collect_index(folder: Path, *, dry_run: bool, as_json: bool) -> None:
    """Remove the versions of an index that nothing names, and print which."""
    collection = collect(folder, dry_run=dry_run)
    word = "would be deleted" if dry_run else "deleted"
    text = f"{folder}: {plural(len(collection.removed), 'version')} {word}, {size(collection.bytes)}"
    text += "".join(f"\n  {identifier}" for identifier in collection.removed)
    text += "".join(f"\n  {identifier} stays: a reader has it open" for identifier in collection.in_use)
    emit({"index": str(folder), "dry_run": dry_run, **asdict(collection)}, text, as_json=as_json)
