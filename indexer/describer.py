"""What the index floor needs of a trained model: descriptors of windows in blocks, their size, and who made them.

The training floor implements it (`train.stages.describer.RunDescriber`); any other model can too, without torch.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from seqdata.errors import ContractError
from seqdata.geometry import Float32Array
from seqdata.parallel import Progress

if TYPE_CHECKING:
    import polars as pl

    from seqdata.dataset.dataset import Dataset

Precision = Literal["fp32", "tf32", "bf16"]
"""How a CUDA device multiplies float32 numbers: whole ("fp32"), rounded to 10 bits ("tf32"), or in bfloat16 ("bf16").

A CPU always takes them whole."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Describer(Protocol):
    """A model that turns windows of a dataset into descriptors.

    What names and identifies the model must cost nothing: an index that is there already is recognised before any
    weights are loaded. `descriptor_size`, `distance`, `blocks` and `vectors` may load them.
    """

    @property
    def name(self) -> str:
        """Name of the run that the model came from; recorded in the index, and no part of its identity."""
        ...

    @property
    def weights(self) -> str:
        """Hash of the weights; part of the identity of every index built with them."""
        ...

    @property
    def model(self) -> Mapping[str, Any]:
        """The model's configuration (JSON-able, with its `name`); part of the index's identity."""
        ...

    @property
    def arithmetic(self) -> Mapping[str, str]:
        """How it computes, where numbers differ by more than a CPU's rounding (precision, runtime); else empty.

        Part of the identity of every index built with it.
        """
        ...

    @property
    def normalised_after_pca(self) -> bool:
        """Whether its descriptors are brought to unit length after a PCA, where the user does not decide."""
        ...

    @property
    def distance(self) -> str:
        """How two descriptors are compared: "l2" (what an index can do) or another measure."""
        ...

    def descriptor_size(self, length: int) -> int:
        """Numbers D in the descriptor of a window of `length` frames."""
        ...

    def blocks(
        self, dataset: "Dataset", windows: "pl.DataFrame", progress: Progress | None = None
    ) -> Iterator[Float32Array]:
        """Yield descriptors (m, D) float32 of the windows in table order, in bounded memory."""
        ...

    def vectors(
        self,
        dataset: "Dataset",
        windows: "pl.DataFrame",
        progress: Progress | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> Float32Array:
        """Return descriptors (n, D) float32, row i of window i; `windows` may stand in any order.

        `frame_size` (height, width): frames are brought to it where the model itself keeps their size.
        """
        ...

    # A describer whose model is on a card may also have `device_blocks` (see `blocks_to_project`).

    def as_worker(self, number: int, threads: int) -> "Describer":
        """The describer of worker `number` (from 1) of a machine, which takes `threads` threads and one device."""
        ...


def blocks_to_project(
    describer: Describer, dataset: "Dataset", windows: "pl.DataFrame", progress: Progress | None = None
) -> Iterator[Any]:
    """Yield descriptors (m, D) float32 of windows in table order for `indexer.pca.project`, wherever they are.

    A describer may have a method `device_blocks`, with the arguments of `blocks`, which leaves them on its card as
    PyTorch tensors: they are projected there, and only their projections are copied to the host.
    """
    blocks = getattr(describer, "device_blocks", describer.blocks)
    yield from blocks(dataset, windows, progress)


def check_weights(describer: Describer, index_id: str, checkpoint: str) -> None:
    """Raise ContractError when an index was built with other weights (hash `checkpoint`) than a describer's."""
    if describer.weights != checkpoint:
        raise ContractError(
            f"{describer.name}: the index {index_id} was built from another checkpoint; name its run with --run"
        )


def check_arithmetic(describer: Describer, index_id: str, computed: Mapping[str, str]) -> None:
    """Raise ContractError when vectors of an index were computed in another way (`computed`) than a describer does."""
    if dict(describer.arithmetic) != dict(computed):
        theirs, ours = (
            ", ".join(f"{name} {value}" for name, value in sorted(way.items())) or "whole float32"
            for way in (computed, describer.arithmetic)
        )
        raise ContractError(
            f"the vectors of index {index_id} were computed with {theirs}, this would be {ours}; use the same device "
            "and --precision, or build the index again"
        )
