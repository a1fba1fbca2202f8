"""What commands print of a feature dataset, and the end of one that array jobs have written."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.output import emit, size

if TYPE_CHECKING:
    from train.data.feature_files import FeatureManifest


def print_features(folder: Path, manifest: "FeatureManifest", *, as_json: bool) -> None:
    """Print what a feature dataset holds.

    Args:
        folder: The feature dataset.
        manifest: Its manifest.
        as_json: Whether to print JSON.
    """
    folder_bytes = sum(path.stat().st_size for path in folder.iterdir())
    shape = "×".join(map(str, manifest.shape))
    text = f"{folder}: {manifest.rows} frames of {shape} {manifest.dtype}, {size(folder_bytes)}, id {manifest.id[:12]}"
    emit({"path": str(folder), "id": manifest.id, **manifest.model_dump(mode="json")}, text, as_json=as_json)


def is_features(place: str) -> bool:
    """Whether a place is a folder of features, finished or not."""
    names = (".request.json", "encoder.json")
    return "://" not in place and all((Path(place) / name).is_file() for name in names)


def merge_features(folder: Path, *, as_json: bool) -> None:
    """Seal features whose parts were written by jobs, and print them.

    Args:
        folder: The feature dataset.
        as_json: Whether to print JSON.

    Raises:
        InputError: If parts are missing; they are named.
    """
    from train.data.feature_parts import finish_features  # heavy: NumPy and tables, no PyTorch

    print_features(folder, finish_features(folder), as_json=as_json)
