"""Step 0 of an index built in shares: what all shares have in common, trained once.

INDEX/<name>/.parts/<id>/ holds transform.safetensors, trained.faiss (kinds with a quantiser), plan.json, which is
written last, and later the parts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from indexer.builder import merge_lists
from indexer.builder.held_arrays import write_arrays
from indexer.pca.exact_product import ARITHMETIC
from indexer.pca.transform import Transform
from indexer.search.file_layout import FACTORY, write
from indexer.search.flat_file import wrap
from indexer.selection.held_out import DATABASE_ROWS
from indexer.versions.folders import VERSIONS
from indexer.versions.locks import changing
from indexer.versions.manifest import TRANSFORM, version_id
from seqdata.contracts.records import Frozen, describe_first
from seqdata.errors import ContractError, InputError
from seqdata.geometry import Float32Array, IntArray
from seqdata.storage.files import atomic_path, explain_write_failure, json_bytes, write_bytes_atomic
from seqdata.storage.names import FlatName

if TYPE_CHECKING:
    import faiss

PARTS = ".parts"
PLAN = "plan.json"
TRAINED = "trained.faiss"
HELD_OUT = "held.safetensors"


class BuildPlan(Frozen):
    """What all shares of one build have in common.

    `rows` in all, `storage` and `factory` of the index, `settings` and `inputs` behind its `id`, `seed` and `threads`
    of the quantiser's training, `seconds` that the transform and the training took, `queries_of` whose the held-out
    queries are, `arithmetic` and `origin` as in the manifest.
    """

    schema_version: Literal[1] = 1
    id: FlatName
    rows: int
    input_size: int
    size: int
    normalised: bool
    storage: str = "flat"
    factory: str = "Flat"
    inputs: dict[str, Any]
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    threads: int | None = None
    arithmetic: str | None = None
    seconds: float = 0.0
    queries_of: str = DATABASE_ROWS
    origin: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What is fitted once for all shares: a transform, and for kinds with a quantiser the empty, trained FAISS index.

    `index` takes projected vectors; `input_size` is that of a descriptor. `held_out` are held-out queries for measuring
    the merged index, which all kinds but flat need: the database rows (q,) that they are, or -1 where they are none,
    and their projected vectors (q, k); `queries_of` says whose they are.
    """

    transform: Transform | None
    input_size: int
    index: "faiss.Index | None" = None
    held_out: "tuple[IntArray, Float32Array] | None" = None
    storage: str = "flat"
    factory: str = "Flat"
    seed: int = 0
    threads: int | None = None
    queries_of: str = DATABASE_ROWS


def parts_folder(index: Path, identifier: str) -> Path:
    """Where the parts of the version `identifier` lie while it is built in shares."""
    return index / PARTS / identifier


def prepare(
    out: str | Path,
    rows: int,
    inputs: dict[str, Any],
    train: Callable[[], Trained],
    *,
    normalise: bool = False,
    settings: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
    arithmetic: str = ARITHMETIC,
) -> BuildPlan:
    """Read the plan of a build in shares; the first share to come makes it, while the others wait.

    Args:
        out: The named index.
        rows: Database windows in all.
        inputs: All that the vectors depend on, any JSON, as for `indexer.build`.
        train: Fits what all shares have in common; called by one share alone.
        normalise: Whether vectors are L2-normalised after the transform.
        settings: Settings of the kind of index (see `KindSpec.settings`).
        origin: Where the vectors come from; no part of the version's identity.
        arithmetic: How vectors are computed (see `indexer.versions.manifest.IndexManifest`).

    Returns:
        The plan, equal for all shares.

    Raises:
        ContractError: If the parts that lie there are of another number of rows, or the kind cannot be merged.
        OutputError: If the disk refuses.
        SeqdataError: As `train`.
    """
    index = Path(out)
    identifier = version_id(inputs, normalise=normalise, settings=settings, arithmetic=arithmetic)
    folder = parts_folder(index, identifier)
    try:
        (index / PARTS).mkdir(parents=True, exist_ok=True)
        (index / VERSIONS).mkdir(exist_ok=True)
    except OSError as error:
        explain_write_failure(index, error)
    # The lock is held while the first share trains: the others need what it writes, and would only train the same.
    with changing(index / PARTS):
        if not (folder / PLAN).is_file():
            request = {"id": identifier, "rows": rows, "inputs": inputs, "normalised": normalise}
            request |= {"settings": settings or {}, "origin": origin or {}, "arithmetic": arithmetic}
            _publish_plan(folder, train, request)
    plan = read_plan(folder)
    # The id does not know the number of rows: a caller that leaves something out of `inputs` is caught here.
    if plan.rows != rows:
        raise ContractError(f"{folder}: planned for {plan.rows} windows, there are {rows}: name all that it depends on")
    return plan


def _publish_plan(folder: Path, train: Callable[[], Trained], request: dict[str, Any]) -> None:
    """Fit, and write the plan last; `request` holds those of its fields that the caller knows."""
    started = time.monotonic()
    trained = train()
    if trained.storage not in FACTORY and (trained.index is None or not merge_lists.has_lists(trained.index)):
        raise ContractError(
            f"kind {trained.storage} ({trained.factory}) cannot be merged from shares; use flat, fp16, ivf or imi, or "
            "build it without shares"
        )
    if trained.held_out is None and trained.storage != "flat":
        raise ContractError(
            f"kind {trained.storage}: held-out queries are needed, without them its recall cannot be measured"
        )
    folder.mkdir(exist_ok=True)
    if trained.transform is not None:
        trained.transform.save(folder / TRANSFORM)
    if trained.index is not None and trained.storage not in FACTORY:
        with atomic_path(folder / TRAINED) as temporary:
            write(wrap(trained.index, trained.transform, request["normalised"]), temporary)
    if trained.held_out is not None:
        write_arrays(folder / HELD_OUT, rows=trained.held_out[0], vectors=trained.held_out[1])
    size = trained.input_size if trained.transform is None else trained.transform.output_size
    plan = BuildPlan(
        **request,
        size=size,
        seconds=round(time.monotonic() - started, 3),
        input_size=trained.input_size,
        storage=trained.storage,
        factory=trained.factory,
        seed=trained.seed,
        threads=trained.threads,
        queries_of=trained.queries_of,
    )
    # Last: a plan that can be read names files that are whole.
    write_bytes_atomic(folder / PLAN, json_bytes(plan.model_dump(mode="json")))


def read_plan(folder: Path) -> BuildPlan:
    """The plan of a build in shares.

    Raises:
        InputError: When there is none.
        ContractError: When it is damaged.
    """
    path = folder / PLAN
    try:
        return BuildPlan.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run seqdata index --shard-range 1/N first") from error
    except (ValidationError, OSError) as error:
        reason = describe_first(error) if isinstance(error, ValidationError) else error.strerror
        raise ContractError(f"{path}: not the plan of a build in shares, or damaged: {reason}") from error
