"""What the index floor needs of a trained model: descriptors of windows in blocks, their size, and who made them.

The training floor implements it (`train.stages.describer.RunDescriber`); any other model can too, without torch.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from seqdata.errors import ContractError
from seqdata.geometry import Float32Array
from seqdata.parallel import Progress

if TYPE_CHECKING:
    import polars as pl

    from seqdata.dataset.dataset import Dataset


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

    def use_threads(self, count: int) -> None:
        """Limit this process to `count` threads, as one of several workers on a machine."""
        ...


def check_weights(describer: Describer, index_id: str, checkpoint: str) -> None:
    """Raise ContractError when an index was built with other weights (hash `checkpoint`) than a describer's."""
    if describer.weights != checkpoint:
        raise ContractError(
            f"{describer.name}: the index {index_id} was built from another checkpoint; name its run with --run"
        )
