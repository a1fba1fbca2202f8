"""Training on stored features: the encoder is the feature dataset's own, and rows are read where it would run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seqdata.errors import ContractError
from train.data.feature_files import ENCODER, FeatureFiles, Level
from train.data.frames import WindowSource
from train.models import registry as models
from train.models.base import SequenceModel
from train.models.frame_model import FrameModel
from train.models.pooling.registry import token_part
from train.runs import checkpoint

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

OF_THE_HEAD = ("fusion", "width", "kernel", "length", "delta", "normalize", "normalise_after_pca")
OF_THE_POOLING = ("pooling", "pooling_options", "clusters", "bias", "projection")


class FeatureSource(WindowSource):
    """Frame features from files, where `FrameSource` reads pixels."""

    def __init__(self, files: FeatureFiles) -> None:
        self.files = files

    @property
    def level(self) -> Level:
        """What a row is."""
        return self.files.manifest.level

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read features of frame rows (n,), in order.

        Raises:
            ContractError: For frames that were not described.
        """
        return self.files.read(rows)

    def encode(self, model: SequenceModel, frames: Tensor) -> Tensor:
        """Compute what `model.encode_frames` would give, from stored features."""
        return cast(FrameModel, model).pool(frames.float()) if self.level == "token" else frames.float()

    def tokens(self, model: SequenceModel, frames: Tensor) -> Tensor:
        """Return stored tokens (N, T, C).

        Raises:
            ContractError: At frame level, where there are none.
        """
        if self.level != "token":
            raise ContractError(f"{self.files.folder}: holds frame vectors; VLAD words need features of level token")
        return frames.float()


def open_features(folder: str | Path, dataset: "Dataset") -> FeatureSource:
    """Open the features of a dataset.

    Raises:
        InputError: When it is absent or cannot be read.
        ContractError: When they are of another dataset or damaged.
    """
    files = FeatureFiles(folder)
    if files.manifest.dataset != dataset.id:
        raise ContractError(
            f"{folder}: features of dataset {files.manifest.dataset[:12]}, not of {dataset.id[:12]}; describe this one"
        )
    return FeatureSource(files)


def create_head(source: FeatureSource, name: str, seed: int, options: dict[str, Any]) -> FrameModel:
    """Create a model on top of stored features: its head is new, everything before is the features' own, frozen.

    At level "frame" the head is the fusion, at level "token" pooling and fusion; other options of the preset do not
    count.

    Args:
        source: The stored features.
        name: Name of the model preset.
        seed: Of the head's random weights.
        options: Options of the head.

    Raises:
        ContractError: If `name` is no late or intermediate fusion, or an option is not the head's.
    """
    free = OF_THE_HEAD + (OF_THE_POOLING if source.level == "token" else ())
    refused = sorted(set(options) - set(free))
    if refused:
        raise ContractError(f"option '{refused[0]}' belongs to the stored features; free are {', '.join(free)}")
    settings = models.resolve(name, options).model_dump(mode="json")
    if "fusion" not in settings:
        raise ContractError(f"model {name} is no function of frame features; choose a late or intermediate fusion")
    stem = source.files.folder / ENCODER
    base = checkpoint.load_model(stem)
    config = {
        **base.config,
        **{key: settings[key] for key in free if key in settings},
        "weights": "random",
        "seed": seed,
    }
    if source.level == "token":
        # A projection belongs to one vector a frame, which tokens do not have yet.
        config["projection"] = None
    _check_tokens(source, base.config, config)
    model = cast(FrameModel, models.restore(config))
    resolved = {"normalise_after_pca": model.config["normalise_after_pca"]}
    model.config = {**config, "weights": base.config["weights"], **resolved}
    frozen = ("encoder.",) if source.level == "token" else ("encoder.", "pooling.", "projection.")
    # The stored features were computed by exactly these weights: a checkpoint of the head must hold the same ones.
    state = {key: value for key, value in base.state_dict().items() if key.startswith(frozen)}
    model.load_state_dict({**model.state_dict(), **state})
    for key, parameter in model.named_parameters():
        if key.startswith(frozen):
            parameter.requires_grad_(False)
    return model.eval()


def _check_tokens(source: FeatureSource, base: dict[str, Any], head: dict[str, Any]) -> None:
    """Raise ContractError where a head reads other tokens than were stored, such as the CLS token among them."""
    parts = [token_part(config["pooling"], config.get("pooling_options")) for config in (base, head)]
    if source.level == "token" and parts[0] != parts[1]:
        raise ContractError(
            f"{source.files.folder}: holds tokens of '{parts[0]}', pooling '{head['pooling']}' reads '{parts[1]}'; "
            f"describe with a model of that pooling (seqdata describe --level token)"
        )
