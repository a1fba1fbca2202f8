"""An index built in shares: one trained transform and quantiser, one part file a share, one merge on disk.

A part appears whole, by a rename, and its seal (size and hash) after it: any share killed is simply run again. `merge`
ends in the version that an unsharded build from the same inputs has, under the same id.
"""

import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy.typing as npt
import polars as pl
from pydantic import ValidationError

from indexer.builder import merge_lists
from indexer.builder.grow import Shape, check_arithmetic, encode, join_exact
from indexer.builder.held_arrays import read_arrays, write_arrays
from indexer.builder.share_plan import HELD_OUT, PARTS, PLAN, TRAINED, BuildPlan, parts_folder, read_plan
from indexer.builder.share_recall import Nearest, calibrate, held_out_of_shares
from indexer.pca import transform as transforms
from indexer.pca.project import projected
from indexer.search.flat_file import write_exact
from indexer.selection.timing import Phases
from indexer.versions.folders import adopt, building, find_whole, sweep, version_folder
from indexer.versions.manifest import TRANSFORM, VECTORS, FileRecord, IndexManifest, TransformRecord, measure
from indexer.versions.publish import file_record, seal
from seqdata.errors import ContractError, InputError
from seqdata.storage.files import atomic_path, write_bytes_atomic

SEAL = ".json"
NEAREST = ".nearest"


def share(rows: int, number: int, of: int) -> range:
    """The rows of share `number` (from 1) of `of`: equal runs, side by side.

    Raises:
        ContractError: If `number` is not from 1 to `of`.
    """
    if not 1 <= number <= of:
        raise ContractError(f"share {number}/{of}: expected i/N with i from 1 to N, such as 2/8")
    return range(rows * (number - 1) // of, rows * number // of)


def part_file(index: Path, identifier: str, number: int, of: int) -> Path:
    """Where share `number` of `of` lies once it is whole."""
    return parts_folder(index, identifier) / f"part-{number:05d}-of-{of:05d}"


def write_part(out: str | Path, plan: BuildPlan, number: int, of: int, blocks: Iterable[npt.NDArray[Any]]) -> Path:
    """Encode one share; nothing is done when it is there already.

    The nearest of its vectors to the plan's held-out queries are stored beside it, computed while the vectors are still
    float32.

    Args:
        out: The named index.
        plan: What all shares have in common (see `indexer.builder.share_plan.prepare`).
        number: Which share, from 1.
        of: Shares in all.
        blocks: Descriptors (m, d) float32 of the share's windows, before the transform.

    Returns:
        The file of the share.

    Raises:
        ContractError: If the blocks do not fit the share.
        OutputError: If the disk refuses.
    """
    index = Path(out)
    path = part_file(index, plan.id, number, of)
    seal_path = path.with_suffix(SEAL)
    if seal_path.is_file():
        return path
    rows = share(plan.rows, number, of)
    shape = _shape(path.parent, plan)
    vectors = projected(iter(blocks), len(rows), shape.transform, plan.normalised)
    nearest = None
    if (path.parent / HELD_OUT).is_file():
        nearest = Nearest(read_arrays(path.parent / HELD_OUT, "vectors")[0])
        vectors = nearest.watch(vectors, rows.start)
    with atomic_path(path) as temporary:
        if shape.exact is not None:
            write_exact(temporary, vectors, len(rows), shape.exact, None, False)
        else:
            encode(path.parent / TRAINED, vectors, rows.start, temporary, shape.is_wrapped)
    if nearest is not None:
        write_arrays(path.with_suffix(NEAREST), apart=nearest.distances, rows=nearest.rows)
    # The seal comes after the part and its neighbours: a share without one is run again from the beginning.
    write_bytes_atomic(seal_path, file_record(path).model_dump_json().encode())
    return path


def _delete_parts(folder: Path) -> None:
    """Delete the parts of a published version, the plan last: a killed deletion is then ended by the same merge."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != PLAN and path.is_file():
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _shape(folder: Path, plan: BuildPlan) -> Shape:
    has_transform = (folder / TRANSFORM).is_file()
    transform = transforms.load(folder / TRANSFORM) if has_transform else None
    check_arithmetic(plan.arithmetic, plan.storage, transform, folder)
    return Shape(plan.storage, transform, plan.normalised, plan.input_size, plan.size)


def merge(out: str | Path, identifier: str, places: pl.DataFrame) -> Path:
    """Join the parts of a build into its version and publish it; the parts are then deleted.

    Memory: one block, or one inverted list of one part. Exact kinds and those with inverted lists come out in the bytes
    of an unsharded build by the same transform and quantiser.

    Args:
        out: The named index.
        identifier: The version's id.
        places: The database windows of all shares, one row a vector.

    Returns:
        The folder of the version.

    Raises:
        InputError: If shares are missing; they are named.
        ContractError: If places or parts do not fit, or a part is damaged.
        OutputError: If the disk refuses.
    """
    index = Path(out)
    folder = parts_folder(index, identifier)
    if find_whole(index, identifier) is not None and adopt(index, identifier):
        _delete_parts(folder)
        return version_folder(index, identifier)
    plan = read_plan(folder)
    if len(places) != plan.rows:
        raise ContractError(f"{folder}: {len(places)} places for {plan.rows} windows")
    parts = _complete(folder)
    shape = _shape(folder, plan)
    started, phases = time.monotonic(), Phases({"train": plan.seconds})
    search: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    with building(index, identifier) as private:
        sweep(index)
        if shape.exact is not None:
            counts = [len(share(plan.rows, number, len(parts))) for number in range(1, len(parts) + 1)]
            # A share without rows holds nothing that could be mapped.
            filled = [(part, count) for part, count in zip(parts, counts, strict=True) if count]
            join_exact(filled, shape, private / VECTORS)
        else:
            merge_lists.join(parts, private / VECTORS)
        if shape.exact != "flat":
            held_out = held_out_of_shares(folder / HELD_OUT, [part.with_suffix(NEAREST) for part in parts], plan)
            with phases.timed("measure"):
                search, measured = calibrate(private / VECTORS, held_out, plan)
        manifest = IndexManifest(
            name=index.name,
            id=identifier,
            rows=plan.rows,
            search=search,
            transform=TransformRecord.from_transform(shape.transform),
            files={},
            libraries={},
            storage=plan.storage,
            factory=plan.factory,
            input_size=plan.input_size,
            size=plan.size,
            normalised=plan.normalised,
            inputs=plan.inputs,
            origin=plan.origin,
            settings=plan.settings,
            seed=plan.seed,
            threads=plan.threads,
            arithmetic=plan.arithmetic,
        )
        seconds = {**phases, "merge": time.monotonic() - started}
        published = seal(private, index, manifest, places, shape.transform, measure(seconds, **measured))
    _delete_parts(folder)
    return published


def _complete(folder: Path) -> list[Path]:
    """The parts of the one division whose shares are all there. Raises: InputError that names missing ones."""
    numbers_by_division: dict[int, set[int]] = {}
    for path in folder.glob(f"part-*-of-*{SEAL}"):
        share_of = path.stem.removeprefix("part-").split("-of-")
        if all(text.isdigit() for text in share_of):
            numbers_by_division.setdefault(int(share_of[1]), set()).add(int(share_of[0]))
    # Shares of several divisions may lie side by side (1/4 … and 1/8 …): only those of one division fit together.
    for of, numbers in sorted(numbers_by_division.items()):
        if len(numbers) == of:
            return [_whole(folder / f"part-{number:05d}-of-{of:05d}") for number in range(1, of + 1)]
    if not numbers_by_division:
        raise InputError(f"{folder}: no share is there; run seqdata index --shard-range i/N for every i")
    of, numbers = max(numbers_by_division.items(), key=lambda item: len(item[1]) / item[0])
    missing = [f"{number}/{of}" for number in range(1, of + 1) if number not in numbers]
    more = f" (and {len(missing) - 3} more)" if missing[3:] else ""
    raise InputError(
        f"{folder}: shares {', '.join(missing[:3])}{more} are missing; run seqdata index --shard-range i/N"
    )


def _whole(path: Path) -> Path:
    """The part, compared with its seal: FAISS does not survive every damaged file. Raises: ContractError."""
    sealed = path.with_suffix(SEAL)
    try:
        same = FileRecord.model_validate_json(sealed.read_bytes()) == file_record(path)
    except (ValidationError, OSError):
        same = False
    if not same:
        raise ContractError(f"{path}: damaged; delete {sealed.name} and run its share again")
    return path


def unfinished(index: Path) -> list[str]:
    """Versions whose parts lie there, sorted."""
    return sorted(path.parent.name for path in (index / PARTS).glob(f"*/{PLAN}"))
