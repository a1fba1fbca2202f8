"""`seqdata gc`: remove old versions of a dataset or an index, and what killed commands left behind."""

from typing import Annotated

import typer

from cli.index.versions import collect_index
from cli.output import JsonFlag, emit, size
from indexer.versions.folders import is_index, named_index
from seqdata.dataset.collect import collect
from seqdata.errors import UsageError
from seqdata.storage.store import Store


def gc(
    path: Annotated[str, typer.Argument(help="Folder or URL of a dataset, or folder of an index.", metavar="PATH")],
    keep: Annotated[
        list[int] | None,
        typer.Option(help="Number of an older version of a dataset that stays (repeat).", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove old versions of a dataset or index, and what kills left.

    Of a dataset the latest version stays, and those of --keep. Of an index the latest and the tagged ones stay.

    Programs that have an older version of a dataset open may find files gone.
    """
    store = Store(path)
    if store.is_local and is_index(store.path("")):
        if keep:
            raise UsageError(
                "--keep numbers versions of a dataset; a tag keeps a version of an index: seqdata index tag"
            )
        collect_index(named_index(store.path("")), dry_run=dry_run, as_json=as_json)
        return
    removal = collect(path, keep or (), dry_run=dry_run)
    word = "would be removed" if dry_run else "removed"
    numbers = ", ".join(map(str, removal.versions)) or "none"
    text = f"{path}: versions {word}: {numbers}; {len(removal.files)} files, {size(removal.bytes)}"
    result = {
        "path": path,
        "dry_run": dry_run,
        "versions": removal.versions,
        "files": removal.files,
        "bytes": removal.bytes,
    }
    emit(result, "\n".join([text, *(f"  {name}" for name in removal.files)]), as_json=as_json)
