"""What a parameter of a name is in every command: the panel of its help, the word for its value, its completion.

One table, because a flag of one name means one thing: its value is called alike, and completed alike, wherever it is.
An option that differs (`--out` of a page is a file) says so where it is declared, and the table leaves it alone.
"""

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from typing import Annotated, Any, get_args, get_origin

from typer.models import OptionInfo, ParameterInfo

from cli.program.common import COMMON
from cli.program.completion import completer

COMMON_PANEL = "Common"
PANELS: Mapping[str, Mapping[str, str]] = {
    "Input": {
        "raw_flag": "RAW", "dataset": "DATASET", "run": "RUN", "index_flag": "INDEX", "index": "INDEX",
        "protocol": "PROTOCOL", "split": "SPLIT", "model": "MODEL", "weights": "FILE", "random_init": "",
        "features": "FEATURES", "cities": "CITY,…", "laps": "LAP,…", "positions": "FILE", "clean_list": "FILE",
        "predictions": "FILE", "descriptors": "FILE", "database": "FILE", "query_ids": "FILE", "database_ids": "FILE",
        "keys_file": "FILE", "csv": "FILE", "frames": "DATASET", "order": "", "every": "N", "fps": "FRAMES/S",
        "camera": "CAMERA", "odometry": "FILE", "truth": "FILE", "start": "TIME", "seconds": "SECONDS",
        "track": "FILE", "track_zone": "ZONE",
    },
    "Output": {
        "out": "FOLDER", "wide": "", "dry_run": "", "thumbnails": "FOLDER", "name": "NAME", "full": "",
        "keep_png": "", "short_side": "PIXELS", "quality": "1…100", "drop": "", "format": "", "dtype": "",
    },
    "Advanced": {
        "device": "", "precision": "", "runtime": "", "engine": "", "workers": "N", "seed": "N", "model_from": "CODE",
        "option": "NAME=VALUE", "options": "NAME=VALUE", "settings": "NAME=VALUE", "shard_range": "i/N",
        "shard_megabytes": "MB", "max_radius": "METRES", "check": "", "sample": "WINDOWS", "factory": "FACTORY",
        "recall_target": "0…1", "memory": "SIZE", "normalise": "", "accumulate": "STEPS", "strict": "",
        "threads": "N", "again": "", "ids": "", "softening": "LEVELS", "repeats": "N", "undistort": "FILE",
        "crop": "CROP", "pose_gap": "SECONDS", "whiten": "", "reverse": "",
        "resize": "", "parts_engine": "", "exact_pca": "", "quantise": "", "plan": "",
    },
    "Options": {
        "kind": "KIND", "raw": "RAW", "datasets": "DATASET", "index_folder": "INDEX", "version": "VERSION",
        "keys": "KEY", "pack": "PACK|INDEX", "recording": "RECORDING", "file": "FILE", "recipe": "RECIPE",
        "length": "FRAMES", "stride": "FRAMES", "spacing": "METRES", "radius": "METRES", "size": "N,…",
        "resample": "METRES", "pca": "N", "k": "K", "rerank": "K", "encoder": "ENCODER", "pool": "POOLING",
        "fusion": "FUSION", "epochs": "N", "lr": "RATE", "batch_size": "N", "negatives": "N", "patience": "EPOCHS",
        "loss": "LOSS", "width": "PIXELS", "height": "PIXELS", "dimensions": "N", "only": "ROW,…", "n": "N",
        "compare": "FOLDER", "repair": "RAW", "reason": "TEXT", "roles": "ROLE:DRIVE,…", "cut": "STRETCH",
        "buffer": "METRES", "by": "GROUP,…", "what": "ACTION", "keep": "N", "runs": "FOLDER",
        "log_file": "FILE", "config": "FILE",
    },
}  # fmt: skip
"""Panels in the order of the help, each with its parameters and the words for their values ("" for a flag)."""
_PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
_VALUE_OF = {name: value for names in PANELS.values() for name, value in names.items()}


def dress(function: Callable[..., None]) -> None:
    """Add panel, word for the value and completion to the parameters of a command's function.

    Args:
        function: Has a signature whose annotations hold Typer's information; what an option states itself stays.
    """
    signature = inspect.signature(function)
    parameters = [item.replace(annotation=_dress(name, item.annotation)) for name, item in signature.parameters.items()]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    # Typer reads defaults from the signature and types from the annotations.
    function.__annotations__ = {item.name: item.annotation for item in parameters}


def _dress(name: str, annotation: Any) -> Any:
    """One annotation, its information copied: flags are declared once and shared by commands."""
    if get_origin(annotation) is not Annotated:
        return annotation
    base, *rest = get_args(annotation)
    place = next((number for number, item in enumerate(rest) if isinstance(item, ParameterInfo)), None)
    if place is None:
        return annotation
    info = copy(rest[place])
    if isinstance(info, OptionInfo):
        panel = COMMON_PANEL if name in COMMON else _PANEL_OF.get(name)
        info.rich_help_panel = info.rich_help_panel or panel
    info.metavar = info.metavar or _VALUE_OF.get(name) or None
    complete: Callable[[str], list[str]] | None = completer(info.metavar)
    info.autocompletion = info.autocompletion or complete
    return Annotated[(base, *rest[:place], info, *rest[place + 1 :])]
