"""Opening a version of an index and searching it."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.arrays import StoredVectors
from indexer.pca import transform as transforms
from indexer.pca.project import check_descriptors, project
from indexer.search.approximate import FaissVectors, open_faiss
from indexer.search.exact import ExactVectors
from indexer.search.file_layout import FACTORY, Exact
from indexer.search.flat_file import map_exact
from indexer.search.foreign import try_file
from indexer.search.pools import EngineName
from indexer.versions.checks import check_file
from indexer.versions.folders import resolve
from indexer.versions.locks import hold
from indexer.versions.manifest import MANIFEST, PLACES, TRANSFORM, VECTORS, IndexManifest, read_manifest
from indexer.versions.places import PlaceTable
from indexer.versions.published import is_recorded, remember
from seqdata.contracts.facts import Facts
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray

if TYPE_CHECKING:
    import polars as pl


class PlaceIndex(Facts):
    """One open, immutable version of a place index; `indexer.open` makes it.

    The vectors are memory-mapped; publishing or rolling back other versions does not disturb it.
    """

    def __init__(self, folder: Path, check: bool = True, engine: EngineName = "auto") -> None:
        self.path = folder
        # Taken before anything is read: from here on `gc` leaves the version alone.
        self._lease = hold(folder)
        self.manifest: IndexManifest = read_manifest(folder)
        has_transform = self.manifest.transform is not None
        needed = [PLACES, VECTORS, *([TRANSFORM] if has_transform else [])]
        for name in dict.fromkeys([*needed, *self.manifest.files]):
            # The places are hashed when they are first read: a search by rows alone needs none of them. What FAISS
            # opens is hashed always: the record of files that it survives goes by their hashes.
            is_for_faiss = name == VECTORS and self.manifest.storage not in FACTORY
            check_file(folder, self.manifest, name, hashed=is_for_faiss or (check and name != PLACES))
        self.transform = transforms.load(folder / TRANSFORM, self.manifest.arithmetic) if has_transform else None
        self._check_sizes()
        self._engine: EngineName = engine
        self._vectors = self._open_vectors()
        self._shorter: dict[int, ExactVectors] = {}

    def _facts(self) -> dict[str, object]:
        return {
            "at": self.path,
            "windows": self.manifest.rows,
            "dimensions": self.manifest.size,
            "of": f"{self.manifest.input_size:,} before PCA" if self.transform is not None else "no PCA",
            "kind": self.manifest.storage,
            "id": self.id,
        }

    @property
    def id(self) -> str:
        """The version's identifier: 16 hex digits."""
        return self.manifest.id

    @property
    def engine(self) -> EngineName:
        """What searches the exact kinds, as it was opened."""
        return self._engine

    @property
    def size(self) -> int:
        """d, the size of the descriptors that `search` takes (before PCA)."""
        return self.manifest.input_size

    @property
    def computed(self) -> Mapping[str, str]:
        """How its vectors were computed, where that is not whole float32 (see `indexer.describer.Describer`)."""
        computed: Mapping[str, str] = self.manifest.inputs.get("computed", {})
        return computed

    @cached_property
    def sequences(self) -> "pl.DataFrame":
        """The database windows, one row a stored vector, in the same order (table contract `places`).

        Raises:
            ContractError: When the file is damaged.
        """
        # A robot has `places` alone, without polars.
        from seqdata.contracts.table_files import read_table

        check_file(self.path, self.manifest, PLACES, hashed=True)
        return read_table("places", self.path / PLACES, self.manifest.rows)

    @cached_property
    def places(self) -> pa.Table:
        """What a place is told by, one row a stored vector, as Arrow: read without polars.

        Raises:
            ContractError: When the file is damaged, or a column is absent or of another type.
        """
        return self._places.whole

    def places_of(self, rows: IntArray) -> pa.Table:
        """Read what the places of rows (n,) are told by, in their order; of a large index not the places of all.

        Raises:
            ContractError: When the file is damaged, or a column is absent or of another type.
        """
        return self._places.take(rows)

    @cached_property
    def _places(self) -> PlaceTable:
        return PlaceTable(self.path, self.manifest)

    def __len__(self) -> int:
        return self.manifest.rows

    def search(
        self,
        descriptors: npt.ArrayLike,
        k: int,
        rows: npt.ArrayLike | None = None,
        components: int | None = None,
    ) -> tuple[Float32Array, IntArray]:
        """Find the k nearest database windows of each descriptor.

        Args:
            descriptors: Descriptors (q, d) float32 *before* PCA, or one (d,).
            k: Neighbours a descriptor.
            rows: Rows of `.sequences` to search among, a city's say; all by default.
            components: Compare the first so many principal components only, which is what an index of a smaller PCA of
                the same sample would do.

        Returns:
            Plain (not squared) L2 distances (q, k) float32, nearest first, and rows of `.sequences` (q, k) int64; with
            fewer than k windows, as many columns as there are windows.

        Raises:
            ContractError: If the descriptors have another size or are not finite, k < 1, or the index cannot be
                searched by fewer components.
        """
        if k < 1:
            raise ContractError(f"k = {k}: at least one neighbour must be asked for")
        queries = check_descriptors(descriptors, self.size)
        among = None if rows is None else self._check_rows(rows)
        projected = project(queries, self.transform, self.manifest.normalised)
        if components is None:
            return self._vectors.nearest(projected, k, among)
        # Principal components come in falling order of variance and do not depend on how many are kept, so a prefix is
        # the smaller PCA.
        shorter = self._first_components(components)
        return shorter.nearest(np.ascontiguousarray(projected[:, :components]), k, among)

    def verify(self) -> None:
        """Hash every file of the version.

        Raises:
            ContractError: Naming the first damaged file.
        """
        for name in self.manifest.files:
            check_file(self.path, self.manifest, name, hashed=True)

    def _check_rows(self, rows: npt.ArrayLike) -> IntArray:
        among = np.asarray(rows, dtype=np.int64)
        if among.ndim != 1 or (len(among) and (among.min() < 0 or among.max() >= len(self))):
            raise ContractError(f"rows to search must be a list of numbers from 0 to {len(self) - 1}")
        # Rising and distinct rows let exact search read contiguous blocks, and keep the order of ties.
        return np.unique(among)

    def _open_vectors(self) -> ExactVectors | FaissVectors:
        facts = self.manifest
        if facts.storage in FACTORY:
            return ExactVectors(self._map_vectors(), self._engine)
        path, shape = self.path / VECTORS, (facts.rows, facts.size, facts.input_size)
        if not is_recorded(facts.files[VECTORS]):
            try_file(path, *shape, facts.factory, facts.search)
            remember(facts.files[VECTORS])
        vectors = open_faiss(path, *shape, facts.factory, facts.search)
        if self._engine == "faiss-gpu":
            vectors.use_gpu()
        return vectors

    def _map_vectors(self) -> StoredVectors:
        facts = self.manifest
        return map_exact(self.path / VECTORS, facts.rows, facts.size, facts.input_size, cast("Exact", facts.storage))

    def _first_components(self, count: int) -> ExactVectors:
        """The first `count` components of all vectors. Raises: ContractError where that means nothing."""
        facts = self.manifest
        # A unit vector's prefix is no unit vector, and codes of a quantiser mix all components.
        if self.transform is None or facts.normalised or facts.storage not in FACTORY:
            raise ContractError(
                f"{self.path}: only a flat or fp16 index with a PCA and without normalisation can be searched by its "
                "first components"
            )
        if not 1 <= count <= facts.size:
            raise ContractError(f"{count} components: the index {self.id} has {facts.size}")
        if count not in self._shorter:
            self._shorter[count] = cast(ExactVectors, self._vectors).first_components(count)
        return self._shorter[count]

    def _check_sizes(self) -> None:
        facts = self.manifest
        if self.transform is None and (facts.input_size != facts.size or TRANSFORM in facts.files):
            raise ContractError(f"{self.path / MANIFEST}: its transform is missing; build the index again")
        sizes = None if self.transform is None else (self.transform.input_size, self.transform.output_size)
        if sizes is not None and sizes != (self.manifest.input_size, self.manifest.size):
            raise ContractError(f"{self.path / TRANSFORM}: a transform of {sizes} does not fit the manifest")
        path = self.path / PLACES
        try:
            # The footer alone knows the number of rows; the places themselves may be large.
            rows = pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowException) as error:
            raise ContractError(f"{path}: not readable as Parquet ({error})") from error
        if rows != self.manifest.rows:
            raise ContractError(f"{path}: holds {rows} places, the manifest says {self.manifest.rows}")


def open_index(
    path: str | Path, version: str = "latest", check: bool = True, engine: EngineName = "auto"
) -> PlaceIndex:
    """Open an index for search (public name: `indexer.open`).

    Args:
        path: INDEX/<name>, INDEX when it holds one name, or a version folder.
        version: `latest`, a tag, an identifier or the beginning of one.
        check: Compare the files with their hashes first (0.2 s a GB): FAISS does not survive every damaged file.
        engine: What searches the exact kinds: see `indexer.search.exact.choose_engine`.

    Returns:
        The open version; others may be published meanwhile.

    Raises:
        InputError: If no index is there.
        ContractError: If a file is damaged or foreign; it is named.
        MissingDependencyError: If the engine's device is not there.

    Example:
        >>> open_index("no/such/index")
        Traceback (most recent call last):
        ...
        seqdata.errors.InputError: no/such/index: no such index; run seqdata index, or name the folder it wrote
    """
    while True:
        folder = resolve(Path(path), version)
        try:
            return PlaceIndex(folder, check, engine)
        except ContractError:
            if folder.is_dir():
                raise  # else gc took the version away after its name was read: it is read again


open = open_index  # `indexer.open`
