"""Which kind of raw dump lies in a folder, by the names in it; nothing is unpacked and no table is read whole."""

import shlex
from pathlib import Path

from seqdata.errors import InputError
from seqdata.sources.files import first_images, has_table
from seqdata.sources.registry import OWN_DRIVES, SOURCES


def recognise(raw: Path) -> str:
    """Find the kind of the raw dump in a folder.

    Published layouts are looked for first; a folder of one's own is what none of them is. Of the latter only the first
    images are opened, and only where no CSV or GPX lies on top.

    Args:
        raw: Folder of the dump.

    Returns:
        Name of the kind, such as "msls" or "folder" (see `seqdata.sources.source_names`).

    Raises:
        InputError: If the folder holds no dump, or two kinds of dump; the message says what was looked for.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "2014-11-18-13-20-12").mkdir()
        >>> recognise(folder)
        'robotcar'
    """
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder")
    kinds = _published_kinds(raw)
    if len(kinds) > 1:
        raise InputError(f"{raw}: holds {' and '.join(kinds)} dumps; name the kind, as seqdata build {kinds[0]}")
    if kinds:
        return kinds[0]
    is_own = SOURCES[OWN_DRIVES].recognises(raw)
    # A table on top says that the folders below are its drives. Without one they may be dumps of their own, and the
    # first pictures with positions would make one dataset of all.
    if is_own and has_table(raw):
        return OWN_DRIVES
    inner = dumps_below(raw)
    if inner:
        commands = "; ".join(f"seqdata build {kind} {shlex.quote(str(path))}" for path, kind in inner.items())
        raise InputError(f"{raw}: no dump itself, but holds {len(inner)}; type one of: {commands}")
    if is_own:
        return OWN_DRIVES
    contents = "images, but no position of them" if first_images(raw, 1) else "no dump that is known"
    *layouts, last = (kind.layout for kind in SOURCES.values())
    raise InputError(f"{raw}: {contents}; looked for {', '.join(layouts)}, and {last}")


def _published_kinds(raw: Path) -> list[str]:
    """The published kinds whose dump lies in a folder; all are tried, so that two are not taken for the first."""
    return sorted(kind.name for kind in SOURCES.values() if kind.name != OWN_DRIVES and kind.recognises(raw))


def dumps_below(raw: Path) -> dict[Path, str]:
    """Find the dumps in the folders directly below one, with their kinds.

    Args:
        raw: Folder that is no dump itself.

    Returns:
        Kind of each dump by its folder, sorted by name; a folder of pictures without a table is none.
    """
    dumps = {}
    for folder in sorted(path for path in raw.iterdir() if path.is_dir() and not path.name.startswith(".")):
        kinds = _published_kinds(folder)
        if len(kinds) == 1:
            dumps[folder] = kinds[0]
        elif not kinds and has_table(folder) and SOURCES[OWN_DRIVES].recognises(folder):
            dumps[folder] = OWN_DRIVES
    return dumps


def looks_like_another(raw: Path, kind: str) -> str:
    """Write the end of a message that `raw` is no dump of `kind`: the kind that it looks like, "" when unknown."""
    # The message is a help only: a folder of no kind, or of two, adds nothing to it.
    try:
        other = recognise(raw)
    except InputError:
        return ""
    return "" if other == kind else f"; this looks like a {other} dump: use seqdata build {other}"
