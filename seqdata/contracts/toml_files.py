"""Where the contracts lie, and how a TOML file is read: without polars, so that a robot's pack needs none."""

import sys
from pathlib import Path
from typing import Any

from seqdata.errors import InputError

# Python 3.10 has no TOML parser; this goes when 3.10 does.
if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the same parser under its older name
    import tomli as tomllib


def schema_root() -> Path:
    """The folder of the contracts: inside the installed package, or `schemas/` beside it in a checkout."""
    # The wheel carries the contracts inside the package; a checkout has them beside it.
    installed = Path(__file__).parents[1] / "_schemas"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "schemas"


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        InputError: When it is missing or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from error
