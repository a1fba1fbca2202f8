"""Runs, frame vectors and indexes that the cells of an experiment share; each is made once, below one folder."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

import indexer
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.place_index import PlaceIndex
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import SeqdataError
from seqdata.geometry import IntArray
from seqdata.parallel import StageProgress, stage_progress
from seqdata.sequences.sequencer import ROLES
from seqdata.storage.files import read_json, write_bytes_atomic
from seqdata.storage.hashing import sha256_json
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import MANIFEST
from train.experiments.measure.scale import weights_id
from train.experiments.measure.targets import protocol_toml
from train.loop.fit import fit
from train.models.frame_model import FrameModel
from train.runs import checkpoint
from train.runs.folder import RunFolder
from train.settings import TrainSettings
from train.stages.describer import RunDescriber
from train.stages.features import FeatureRequest, write_features

# Settings that say where something lies or runs, and change no number; what they name is hashed by its content.
OF_THE_MACHINE = ("device", "features", "protocol", "weights")


@dataclass(frozen=True)
class Artifacts:
    """Makes runs, frame vectors and indexes below `folder`; what is there already is used again.

    `progress` is called with the stage, steps finished and steps in all.
    """

    folder: Path
    progress: StageProgress
    _loaded: dict[tuple[Path, str], RunDescriber] = field(default_factory=dict, repr=False)

    def describer(self, run: Path, device: str) -> RunDescriber:
        """The describer of a run; the last one is kept, because the cells of a row mostly share their run."""
        key = run, device
        if key not in self._loaded:
            # One model at a time: at full scale two may not fit on a device.
            self._loaded.clear()
            self._loaded[key] = RunDescriber(run, DescribeSettings(device))
        return self._loaded[key]

    def run(
        self,
        dataset: Dataset,
        protocol: Protocol,
        recipe: str,
        settings: Mapping[str, Any],
        features: Path | None = None,
    ) -> Path:
        """Train the run of these settings where it is missing or was interrupted.

        Args:
            dataset: What it is trained on.
            protocol: Cuts the windows.
            recipe: A name of `train.recipes`.
            settings: Fields of `TrainSettings` over the recipe.
            features: Stored frame vectors that its head is trained on; None for pixels.

        Returns:
            The run's folder.

        Raises:
            SeqdataError: As `train.loop.fit.fit`.
        """
        named = {**settings, "protocol": self._named(dataset, protocol)}
        complete = TrainSettings.create(recipe, **named, features=None if features is None else str(features))
        decides = {
            "dataset": dataset.id,
            "protocol": protocol.hash,
            "settings": complete.model_dump(mode="json", exclude=set(OF_THE_MACHINE)),
            "weights": weights_id(complete.weights),
            "features": None if features is None else features.name,
        }
        folder = self.folder / "runs" / f"{complete.model}-{sha256_json(decides)[:12]}"
        if not any(folder == run for run, _ in self._loaded):
            self._loaded.clear()
        # The folder's name hashes all that decides its weights, so a finished run need not be compared again.
        if RunFolder(folder).recorded and read_json(folder / "run.json").get("finished"):
            return folder

        def show(phase: str, finished: int, total: int, values: Mapping[str, float]) -> None:
            self.progress(phase, finished, total)

        return fit(dataset, complete, folder, progress=show, resume=True)

    def frame_vectors(
        self, dataset: Dataset, protocol: Protocol, base: Mapping[str, Any], size: int, sample: int
    ) -> Path:
        """Store vectors of every frame that the protocol uses: the untrained model `base`, then a whitened PCA to
        `size` numbers, fitted on `sample` frames.

        A folder without its manifest is an interrupted one and is made again.

        Raises:
            NotEnoughDataError: Where there are fewer frames than the PCA needs, and as `train.loop.fit.fit`.
        """
        run = self.run(dataset, protocol, "seqvlad-triplet", base)
        folder = self.folder / "features" / f"{run.name}-{size}-{sample}"
        if (folder / MANIFEST).is_file():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        model = cast(FrameModel, checkpoint.load_model(run))
        request = FeatureRequest(
            pca=size, sample=sample, seed=int(base["seed"]), settings=DescribeSettings(str(base["device"]))
        )
        frames = frames_of(dataset, protocol)
        write_features(model, dataset, folder, request, frames, stage_progress(self.progress, "frames"))
        return folder

    def index(
        self, dataset: Dataset, protocol: Protocol, run: Path, pca: int | None, sample: int, device: str
    ) -> PlaceIndex:
        """Build the index of the protocol's test database.

        Errors are those of `indexer.builder.pipeline.build.build_index`.
        """
        request = IndexRequest(self.folder / "indexes" / run.name, protocol, pca=pca, sample=sample)
        return indexer.open(build_index(dataset, self.describer(run, device), request, self.progress))

    def _named(self, dataset: Dataset, protocol: Protocol) -> str:
        """The protocol's name where the dataset knows it by that, else the path of a file that holds it."""
        try:
            if dataset.load_protocol(protocol.name).hash == protocol.hash:
                return protocol.name
        except SeqdataError:
            pass  # a protocol that was made here
        path = self.folder / "protocols" / f"{protocol.name}-{protocol.hash}.toml"
        write_bytes_atomic(path, protocol_toml(protocol).encode())
        return str(path)


def frames_of(dataset: Dataset, protocol: Protocol) -> IntArray:
    """Frame rows int64 (n,), rising, of all splits of a protocol."""
    single = protocol.variant(length=1)
    tables = [dataset.sequences(single, split, role) for split in protocol.splits for role in ROLES]
    return np.unique(np.concatenate([dataset.frame_rows(table).ravel() for table in tables]))
