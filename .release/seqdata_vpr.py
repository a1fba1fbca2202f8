"""Start the program `seqdata` with this installation's own `cli` and `train`, whatever else has these names.

People have a `train.py` and a `cli.py`. An installation therefore keeps the two packages in `seqdata/_program`, which
`seqdata_vpr.pth` puts last on the module path: a user's module of the same name comes first everywhere, except in the
program itself, which is started here.
"""

import sys
from importlib import import_module
from pathlib import Path

MISSING_DEPENDENCY = 7
"""Exit code of `seqdata.errors.MissingDependencyError`, which may not be importable here."""


def _import_program() -> None:
    """Import the packages `cli` and `train` that belong to this file."""
    place = Path(__file__).resolve().parent
    installed = place / "seqdata" / "_program"
    # In a checkout this file lies in a folder of its own, beside the packages.
    sys.path.insert(0, str(installed if installed.is_dir() else place.parent))
    try:
        for name in ("cli", "train"):
            import_module(name)
    finally:
        # Their modules are imported by the packages' own paths from here on.
        del sys.path[0]


def _owns_seqdata() -> bool:
    """Whether the module `seqdata` is ours: a genomics package of this name is on the public registry."""
    try:
        return "windows" in getattr(import_module("seqdata"), "__all__", ())
    except ImportError:
        return False


def run() -> None:
    """Run the program; one line and exit code 7 where another package owns the module `seqdata`."""
    if not _owns_seqdata():
        print(  # noqa: T201  (what prints otherwise imports seqdata)
            "error: the module seqdata here belongs to another package; run: "
            "pip uninstall --yes seqdata && pip install --force-reinstall --no-deps seqdata-vpr",
            file=sys.stderr,
        )
        sys.exit(MISSING_DEPENDENCY)
    import_module("cli.main").run()


# At import, not in `run`: processes that a pool starts import this file again, and then what their work is in.
_import_program()
