"""A training run as the index floor sees it: `indexer.describer.Describer` over the model of a run folder."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from indexer.localizer.pack import FRAMES
from indexer.localizer.programs.session import Program, open_program
from indexer.place_index import PlaceIndex
from seqdata.dataset.dataset import Dataset
from seqdata.frames.prefetch import prefetch
from seqdata.frames.resize import Kernel
from seqdata.geometry import Float32Array
from seqdata.parallel import Progress
from seqdata.storage.files import read_json
from train.data.describe import describe, device_blocks
from train.data.describe_settings import DEFAULT, DescribeSettings, Runtime
from train.data.frames import FrameSource, native_size
from train.data.program_frames import OpenProgram, ProgramFrames, encode_by_program
from train.devices import to_host
from train.models.base import SequenceModel
from train.models.presets import is_paper_method
from train.runs.checkpoint import load_model
from train.runs.folder import checkpoint_stem
from train.runs.record import checkpoint_hash, recorded_kernel
from train.stages.export_onnx import export_encoder


@dataclass(frozen=True)
class RunDescriber:
    """The model of a run, which is loaded when it is first needed (see `indexer.describer.Describer`).

    Args:
        run: Folder of a run, or its weights file.
        settings: Where and how it computes, and where a model of one's own is.
    """

    run: Path
    settings: DescribeSettings = DEFAULT

    def __reduce__(self) -> tuple[Callable[..., "RunDescriber"], tuple[Any, ...]]:
        """Pickle without the loaded model, and with a path that holds in a worker's own working directory."""
        return RunDescriber, (self.run.resolve(), self.settings)

    @property
    def arithmetic(self) -> dict[str, str]:
        """See `train.data.describe_settings.DescribeSettings.arithmetic`."""
        return replace(self.settings, resize=self.kernel).arithmetic

    @cached_property
    def kernel(self) -> Kernel:
        """How frames are resized: as the settings say, else as the run recorded."""
        return self.settings.resize or recorded_kernel(self.run)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.run.resolve().name

    @cached_property
    def weights(self) -> str:
        """XXH3-128 of the run's best weights.

        Raises:
            InputError: When they are gone.
        """
        return checkpoint_hash(self.run)

    @cached_property
    def model(self) -> dict[str, Any]:
        """Configuration that the run's model was made from.

        Raises:
            InputError: When it is gone.
        """
        stem = checkpoint_stem(self.run)
        config: dict[str, Any] = read_json(stem.parent / f"{stem.name}.json")["model"]
        return config

    @property
    def normalised_after_pca(self) -> bool:
        """Whether its vectors are normalised behind a PCA: the model's recorded option, by its name in older runs."""
        recorded: bool | None = self.model.get("normalise_after_pca")
        return recorded if recorded is not None else not is_paper_method(str(self.model["name"]))

    @cached_property
    def network(self) -> SequenceModel:
        """The model itself.

        Errors are those of `train.runs.checkpoint.load_model`.
        """
        return load_model(self.run, self.settings.model_from)

    @property
    def distance(self) -> str:
        """How two descriptors are compared: "l2", or "aligned" (the mean distance of their frames)."""
        return self.network.distance

    def descriptor_size(self, length: int) -> int:
        """Numbers in the descriptor of a window of `length` frames.

        Raises:
            ContractError: For another length.
        """
        return self.network.descriptor_size(length)

    def source(self, dataset: Dataset, windows: pl.DataFrame, size: tuple[int, int] | None) -> FrameSource | None:
        """What reads and encodes frames of windows, brought to `size` where there is one; None for the usual source."""
        if self.settings.runtime == "torch" and size is None and self.kernel == "pillow":
            return None
        size = size or native_size(dataset, lambda: dataset.frame_rows(windows), self.network.size)
        if self.settings.runtime == "torch":
            is_cuda = self.settings.torch_device.type == "cuda"
            return FrameSource(dataset, size, channels_last=is_cuda, kernel=self.kernel)
        return ProgramFrames(dataset, size, self.program, self.kernel)

    @cached_property
    def program(self) -> OpenProgram:
        """The exported first half of the model, by (height, width): exported once a size."""

        @cache
        def open_frames(size: tuple[int, int]) -> Program:
            # After the threads of PyTorch, so that one setting holds for both.
            return open_program(export_encoder(self.network, size), Path(FRAMES), threads=torch.get_num_threads())

        return open_frames

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames `(N, 3, H, W)` uint8 by the runtime, to the features `(N, …)` that the model fuses."""
        if self.settings.runtime == "torch":
            return self.network.encode_frames(frames)
        return encode_by_program(self.program, self.network.size, frames)

    def blocks(
        self, dataset: Dataset, windows: pl.DataFrame, progress: Progress | None = None
    ) -> Iterator[Float32Array]:
        """Yield descriptors (m, D) float32 of the windows in table order.

        Errors are those of `describe_blocks`.
        """
        blocks = map(to_host, self._tensors(dataset, windows, progress))
        # A card goes on describing while the block before is written.
        return prefetch(blocks, lambda block: block) if self.settings.torch_device.type == "cuda" else blocks

    def device_blocks(
        self, dataset: Dataset, windows: pl.DataFrame, progress: Progress | None = None
    ) -> Iterator[Tensor] | Iterator[Float32Array]:
        """As `blocks`; on a card they stay there, as tensors (see `indexer.describer.blocks_to_project`)."""
        if self.settings.torch_device.type != "cuda":
            return self.blocks(dataset, windows, progress)
        return prefetch(self._tensors(dataset, windows, progress), lambda block: block, depth=1)

    def _tensors(self, dataset: Dataset, windows: pl.DataFrame, progress: Progress | None) -> Iterator[Tensor]:
        return device_blocks(
            self.network,
            dataset,
            windows,
            device=self.settings.place,
            progress=progress,
            source=self.source(dataset, windows, None),
            precision=self.settings.precision,
        )

    def vectors(
        self,
        dataset: Dataset,
        windows: pl.DataFrame,
        progress: Progress | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> Float32Array:
        """Return descriptors (n, D) float32, row i of window i.

        Errors are those of `train.data.describe.describe`.
        """
        size = None if self.network.size is not None else frame_size
        return describe(
            self.network,
            dataset,
            windows,
            device=self.settings.place,
            progress=progress,
            source=self.source(dataset, windows, size),
            precision=self.settings.precision,
        )

    def as_worker(self, number: int, threads: int) -> "RunDescriber":
        """See `indexer.describer.Describer`: workers share out the cards that this process sees."""
        torch.set_num_threads(threads)
        device = self.settings.torch_device
        if device.type != "cuda" or device.index is not None:
            return self
        card = f"cuda:{(number - 1) % torch.cuda.device_count()}"
        return RunDescriber(self.run, replace(self.settings, device=card))


def query_describer(
    index: PlaceIndex, run: Path, settings: DescribeSettings = DEFAULT, runtime: Runtime | None = None
) -> RunDescriber:
    """Make the describer of queries to an index: of its run, in the precision and the runtime of its own vectors.

    A `runtime` overrides theirs: descriptors of the two differ by rounding alone.
    """
    return RunDescriber(run, settings.of_vectors(index.computed, runtime))
