"""`seqdata index list | show | diff | verify | tag | rollback | gc`: the versions of a place index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import ConfigFlag, JsonFlag, emit, size

if TYPE_CHECKING:
    from indexer.versions.listing import VersionEntry
    from indexer.versions.manifest import Measured

IndexFlag = Annotated[
    Path | None, typer.Option("--index", help="Index folder; default: the newest.", show_default=False)
]
VersionArgument = Annotated[
    str | None,
    typer.Argument(
        help="Version: latest, a tag, an id or the beginning of one, or its folder.",
        metavar="[VERSION]",
        show_default=False,
    ),
]


def recall_text(measured: "Measured") -> str:
    """What a build's one line tells of its measured recall; nothing where there was nothing to measure."""
    told = [
        f"recall@{k} {share:.4f} of exact ({measured.queries} {measured.queries_of or 'database rows'})"
        for k, share in (measured.recall or {}).items()
    ]
    return "".join(f", {each}" for each in told)


def find_index(config: Path | None, flag: Path | None) -> Path:
    """The named index's folder, else the newest below indexes/. Raises: InputError when there is none."""
    from cli.config import load
    from indexer.versions.folders import named_index

    return named_index(load(config).newest("indexes", "latest", flag, "index"))


def find_folder(config: Path | None, flag: Path | None, version: str | None) -> Path:
    """The folder of a version: of the index's, or the folder that `version` is. Raises: InputError, ContractError."""
    from indexer.versions.folders import resolve

    if version is not None and Path(version).is_dir():
        return resolve(Path(version))
    return resolve(find_index(config, flag), version or "latest")


def list_(index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None) -> None:
    """List the versions of an index, oldest first.

    Each with rows, size, kind, recall against exact search, and tags.
    """
    from dataclasses import asdict

    from indexer.versions.listing import entries

    folder = find_index(config, index)
    found = entries(folder)
    lines = [f"{folder}: {len(found)} versions", *(_entry_line(entry) for entry in found)]
    emit({"index": str(folder), "versions": [asdict(each) for each in found]}, "\n".join(lines), as_json=as_json)


def _entry_line(entry: "VersionEntry") -> str:
    marks = [*(["latest"] if entry.latest else []), *entry.tags, *(["in use"] if entry.in_use else [])]
    if entry.fault is not None:
        return f"  {entry.id}  DAMAGED: {entry.fault}  {', '.join(marks)}".rstrip()
    exact = "exact" if entry.storage == "flat" else "recall not measured"
    recall = exact if entry.recall is None else f"recall {entry.recall:.4f}"
    kind = f"{entry.storage} {entry.rows} x {entry.size}"
    date = entry.created[:16].replace("T", " ")
    return f"  {entry.id}  {date}  {kind:<22} {size(entry.bytes):>9}  {recall}  {', '.join(marks)}".rstrip()


def show(
    version: VersionArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """Print the inputs of a version and what was measured on it."""
    from indexer.versions.listing import flatten
    from indexer.versions.manifest import read_manifest, read_measured

    folder = find_folder(config, index, version)
    manifest = read_manifest(folder).model_dump(mode="json", exclude_none=True)
    measured = read_measured(folder).model_dump(mode="json", exclude_none=True)
    text = [f"{folder}", *_fields(flatten(manifest)), "measured:", *_fields(flatten(measured))]
    emit({"path": str(folder), "manifest": manifest, "measured": measured}, "\n".join(text), as_json=as_json)


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
    from indexer.versions.listing import differences
    from indexer.versions.manifest import read_manifest

    left, right = (read_manifest(find_folder(config, index, each)) for each in (a, b))
    found = differences(left, right)
    lines = [f"{left.id} -> {right.id}"]
    for title, fields in found.items():
        lines.append(f"{title}: {'no difference' if not fields else ''}".rstrip(" "))
        lines += [f"  {name}: {was} -> {now}" for name, (was, now) in fields.items()]
    emit({"a": left.id, "b": right.id, **found}, "\n".join(lines), as_json=as_json)


def verify(
    version: VersionArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """Check every file of a version, or of all, against its hash.

    A damaged file is named, and the command ends with exit code 4.
    """
    from indexer.versions.checks import check_version
    from indexer.versions.folders import list_versions, version_folder
    from seqdata.errors import ContractError

    if version is not None:
        folders = [find_folder(config, index, version)]
    else:
        whole = find_index(config, index)
        folders = [version_folder(whole, each) for each in list_versions(whole)]
    faults = []
    for folder in folders:
        try:
            check_version(folder)
        except ContractError as error:
            faults.append(str(error))
    text = f"{len(folders)} versions, {len(faults)} damaged"
    emit({"versions": [each.name for each in folders], "faults": faults}, text, as_json=as_json)
    if faults:
        raise ContractError(faults[0] + (f" (and {len(faults) - 1} more; --json lists them)" if faults[1:] else ""))


def tag(
    name: Annotated[str, typer.Argument(help="The tag.", show_default=False)],
    version: VersionArgument = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take the tag away.")] = False,
    index: IndexFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Name a version; gc keeps what has a name.

    A tag that exists already moves to the version.
    """
    from indexer.versions.tags import remove_tag, set_tag
    from seqdata.errors import ContractError

    folder = find_index(config, index)
    if delete and version is not None:
        raise ContractError("--delete takes a tag away wherever it points: leave VERSION out")
    identifier = remove_tag(folder, name) if delete else set_tag(folder, name, version or "latest")
    text = f"{folder}: {name} no longer names {identifier}" if delete else f"{folder}: {name} is {identifier}"
    emit({"index": str(folder), "tag": name, "id": identifier, "deleted": delete}, text, as_json=as_json)


def rollback(
    version: VersionArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """Make an earlier version the latest.

    Without a name that is the version built before the latest one. The pointer moves by one rename.
    """
    from indexer.versions.tags import rollback as run_rollback

    folder = find_index(config, index)
    before, now = run_rollback(folder, version)
    emit(
        {"index": str(folder), "before": before, "latest": now},
        f"{folder}: latest is {now}, it was {before or 'nothing'}",
        as_json=as_json,
    )


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    index: IndexFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Delete versions that are neither latest nor tagged.

    A version that a reader on this machine has open stays.
    """
    from dataclasses import asdict

    from indexer.versions.tags import collect

    folder = find_index(config, index)
    found = collect(folder, dry_run=dry_run)
    word = "would be deleted" if dry_run else "deleted"
    text = f"{folder}: {len(found.removed)} versions {word}, {size(found.bytes)}"
    text += "".join(f"\n  {each}" for each in found.removed)
    text += "".join(f"\n  {each} stays: a reader has it open" for each in found.in_use)
    emit({"index": str(folder), "dry_run": dry_run, **asdict(found)}, text, as_json=as_json)
