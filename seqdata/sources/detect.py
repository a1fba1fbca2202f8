"""Which kind of raw dump lies in a folder, by the names in it; nothing is unpacked and no table is read whole."""

from pathlib import Path

from seqdata.errors import InputError
from seqdata.sources.files import first_images
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
    # All published kinds are tried, so that a folder with two of them is not taken for the first.
    kinds = sorted(kind.name for kind in SOURCES.values() if kind.name != OWN_DRIVES and kind.recognises(raw))
    if len(kinds) > 1:
        raise InputError(f"{raw}: holds {' and '.join(kinds)} dumps; name the kind, as seqdata build {kinds[0]}")
    if kinds:
        return kinds[0]
    if SOURCES[OWN_DRIVES].recognises(raw):
        return OWN_DRIVES
    contents = "images, but no position of them" if first_images(raw, 1) else "no dump that is known"
    *layouts, last = (kind.layout for kind in SOURCES.values())
    raise InputError(f"{raw}: {contents}; looked for {', '.join(layouts)}, and {last}")


def looks_like_another(raw: Path, kind: str) -> str:
    """Write the end of a message that `raw` is no dump of `kind`: the kind that it looks like, "" when unknown."""
    # The message is a help only: a folder of no kind, or of two, adds nothing to it.
    try:
        other = recognise(raw)
    except InputError:
        return ""
    return "" if other == kind else f"; this looks like a {other} dump: use seqdata build {other}"
