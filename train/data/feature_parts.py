"""Parts of an unfinished feature dataset: what all jobs agree on, the seal of each part, and the manifest in the end.

Beside the parts stand `.plan.json`, written when the encoder is settled, and a hidden JSON that seals each part. A part
follows from the plan alone, so that jobs may share them out in any way and end in the same bytes.
"""

import math
from pathlib import Path
from shutil import rmtree
from typing import Literal

import numpy as np
from pydantic import ValidationError

from indexer.describer import Precision
from seqdata.contracts.records import Frozen, describe_first
from seqdata.errors import ContractError, InputError
from seqdata.frames.resize import Kernel
from seqdata.storage.files import read_json, write_json_atomic
from seqdata.storage.hashing import xxh3_file
from train.data.feature_files import MANIFEST, FeatureManifest, FeaturePart, Level, read_manifest

PLAN = ".plan.json"
SAMPLE = ".sample"
"""Folder of the sample that a PCA is fitted on."""
LOCK = ".plan.lock"
"""Held while the plan is made."""


class FeaturePlan(Frozen):
    """What all parts have in common; the fields are those of the manifest.

    Attributes:
        part_rows: Rows of every part but the last.
    """

    level: Level
    dataset: str
    encoder: str
    shape: tuple[int, ...]
    dtype: Literal["float16", "float32"]
    rows: int
    runtime: Literal["torch", "onnx"]
    precision: Precision
    ids_hash: str
    part_rows: int
    resize: Kernel = "pillow"

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-self.rows // self.part_rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def rows_of(self, number: int) -> range:
        """Feature rows of part `number` (from 0)."""
        return range(number * self.part_rows, min((number + 1) * self.part_rows, self.rows))

    def write(self, folder: Path) -> None:
        """Write the plan.

        Raises:
            OutputError: If the disk refuses.
        """
        write_json_atomic(folder / PLAN, self.model_dump(mode="json"))


def read_plan(folder: Path) -> FeaturePlan | None:
    """Read the plan of an unfinished feature dataset, None where there is none.

    Raises:
        ContractError: If it is broken.
    """
    if not (folder / PLAN).is_file():
        return None
    try:
        return FeaturePlan.model_validate(read_json(folder / PLAN))
    except ValidationError as error:
        raise ContractError(f"{folder / PLAN}: {describe_first(error)}") from error


def part_name(number: int) -> str:
    """Name of the file of a part."""
    return f"part-{number:05d}.npy"


def seal_part(folder: Path, part: FeaturePart) -> None:
    """Write the seal of a part, whose file is whole.

    Raises:
        OutputError: If the disk refuses.
    """
    write_json_atomic(_seal(folder, part.name), part.model_dump(mode="json"))


def sealed_part(folder: Path, plan: FeaturePlan, number: int) -> FeaturePart | None:
    """Read the seal of part `number` (from 0), or seal it where its file is whole; None where it is not.

    Raises:
        OutputError: If the disk refuses.
    """
    rows = len(plan.rows_of(number))
    path, size = folder / part_name(number), rows * plan.row_bytes
    # What the file holds before the rows is its header.
    if not path.is_file() or path.stat().st_size <= size:
        return None
    try:
        part = FeaturePart.model_validate(read_json(_seal(folder, path.name)))
        if part.name == path.name and part.rows == rows and path.stat().st_size == part.start + size:
            return part
    except (InputError, ContractError, ValidationError):
        pass
    # A part has its name only when it is whole; a kill may have come between that and its seal.
    part = FeaturePart(name=path.name, rows=rows, start=path.stat().st_size - size, hash=xxh3_file(path))
    seal_part(folder, part)
    return part


def finish_features(folder: Path) -> FeatureManifest:
    """Write the manifest of a feature dataset whose parts are all sealed; a finished one is returned as it is.

    Raises:
        InputError: If no parts were begun there, or some are missing (they are named).
        OutputError: If the disk refuses.
    """
    plan = read_plan(folder)
    if plan is None:
        return read_manifest(folder)
    parts = [sealed_part(folder, plan, number) for number in range(plan.parts)]
    missing = [part_name(number) for number, part in enumerate(parts) if part is None]
    if missing:
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise InputError(f"{folder}: {len(missing)} of {plan.parts} parts are missing ({names}); run their jobs again")
    fields = plan.model_dump(exclude={"part_rows"})
    manifest = FeatureManifest(**fields, parts=tuple(part for part in parts if part is not None))
    write_json_atomic(folder / MANIFEST, manifest.model_dump(mode="json"))
    rmtree(folder / SAMPLE, ignore_errors=True)
    for path in (folder / LOCK, *folder.glob(".part-*")):
        path.unlink(missing_ok=True)
    # The plan goes last: what a kill leaves here is removed by the same command again.
    (folder / PLAN).unlink(missing_ok=True)
    return manifest


def _seal(folder: Path, name: str) -> Path:
    return folder / f".{name}.json"
