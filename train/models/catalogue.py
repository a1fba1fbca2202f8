"""Every model by name, without PyTorch: what lists models, completes names or checks one reads this.

The families themselves, with the code that builds them, stand in `train.models.registry`.
"""

import json
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path

from seqdata.errors import UsageError
from train.models.encoders.public_files import PublicFile, public_file
from train.models.presets import R2PLUS1D, STA, TIMESFORMER, Options, frame_presets

PLUGINS = "seqdata.models"
"""Group of entry points by which other packages offer models."""
PRESETS: dict[str, dict[str, Options]] = {
    "frames": {**frame_presets(), "frames": {}},
    "sta": STA,
    "timesformer": TIMESFORMER,
    "r2plus1d": R2PLUS1D,
}
"""Options of every preset, by family and name."""
DEFAULT_ENCODERS = {
    "frames": "resnet18",
    "sta": "cct_14_7x2_384",
    "timesformer": "vit_base_patch16_224",
    "r2plus1d": "resnet50",
}
"""Encoder of a family's presets that name none."""
START_FILES = Path(__file__).parent / "encoders" / "public_files.json"
"""What timm's data say about the encoders of presets; `docs/write_public_files.py` writes it."""


def names() -> list[str]:
    """List the names of all presets and installed plug-ins, sorted.

    Example:
        >>> "seqvlad-r18" in names()
        True
    """
    return sorted({name for presets in PRESETS.values() for name in presets} | {*plugin_names()})


def check_known(name: str) -> None:
    """Refuse a name that is neither a preset nor an installed plug-in.

    Raises:
        UsageError: With similar names.

    Example:
        >>> check_known("seqvlad-r18")
    """
    if not any(name in presets for presets in PRESETS.values()) and name not in plugin_names():
        raise UsageError(unknown_text(name))


def unknown_text(name: str) -> str:
    """Say that there is no model of a name, and which names are near it."""
    # Names that contain what was typed say more than names that are spelled like it.
    similar = [other for other in names() if name and name in other] or get_close_matches(
        name, names(), n=8, cutoff=0.5
    )
    hint = f"near it: {', '.join(similar[:8])}; " if similar else ""
    return f"no model '{name}'; {hint}seqdata models lists all"


def plugin_names() -> list[str]:
    """List the names that installed packages offer, sorted."""
    return sorted(entry_points(group=PLUGINS).names)


def encoders() -> dict[str, str]:
    """Return the encoder (a timm name) of every preset by name."""
    return {
        name: str(options.get("encoder", DEFAULT_ENCODERS[family]))
        for family, presets in PRESETS.items()
        for name, options in presets.items()
    }


def stored_files() -> dict[str, dict[str, str] | None]:
    """Read what timm's data say about the encoders of presets: fields of `PublicFile`, or None where there are none."""
    files: dict[str, dict[str, str] | None] = json.loads(START_FILES.read_text(encoding="utf-8"))
    return files


def start_files() -> dict[str, PublicFile | None]:
    """Return the public weights that each preset can start from, None where nobody published any."""
    # timm's own data take three seconds to load, so those of the presets are stored beside the encoders.
    stored = stored_files()
    files: dict[str, PublicFile | None] = {}
    for name, encoder in encoders().items():
        if encoder not in stored:
            files[name] = public_file(encoder)
        else:
            fields = stored[encoder]
            files[name] = None if fields is None else PublicFile(**fields)
    return files
