"""A webdataset stage that turns the frames of our shards into sequences: `seqdata.windows(length)`.

    import seqdata
    import webdataset as wds
    samples = wds.WebDataset("dataset/shards/part-{000000..000011}.tar", shardshuffle=100, empty_check=False)
    for sequence in samples.decode("rgb8").compose(seqdata.windows(5)): ...

Shards may come in any order and be split over nodes and workers, because a shard repeats the frames before it (its
halo): every window lies whole in one shard. Only the order inside a shard matters, so the stage stands before
`.shuffle()`; after `.decode(…)` each frame is decoded once, before it the frames stay bytes. Nothing of webdataset is
imported here: the stage takes any iterator of sample dicts. `empty_check=False` allows more loader workers than shards;
without it webdataset refuses workers that have nothing to read.
"""

import json
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqdata.contracts.manifest import BuildSettings
from seqdata.errors import ContractError

Sample = dict[str, Any]
DEFAULT_HALO: int = BuildSettings.model_fields["halo"].default
IMAGES = ("jpg", "png")


def windows(
    length: int,
    stride: int = 1,
    *,
    halo: int = DEFAULT_HALO,
    keep_panoramas: bool = False,
    without: Collection[str] = (),
) -> "WindowStage":
    """Make the stage that yields every window of neighbouring frames of a webdataset stream of our shards.

    A sequence is a dict: `__key__` (the centre frame's), `__url__`, `frames` (list of L: bytes, or what `.decode` made
    of them), `trajectory`, `positions` int32 (L,), `keys` (list of L), `latitude` and `longitude` float64 (L,) degrees.

    Convention: windows as `Dataset.sequences(length=…)` cuts them: a missing position and a trajectory's end break
    them. A window belongs to the shard in which its last frame is no halo frame, so it comes exactly once.

    Args:
        length: Frames of a window.
        stride: Only windows whose first position is a multiple of it come, whichever shard they are in.
        halo: Halo of the dataset (`manifest.settings.halo`).
        keep_panoramas: Whether panoramas may be in windows; else they count as absent.
        without: Keys that count as absent: for a dataset with withdrawn frames
            `seqdata.dataset.versions.withdrawn(dataset)`, as their bytes stay in the shards.

    Raises:
        ContractError: If the length is below 1 or beyond halo + 1, or the stride below 1.
    """
    if min(length, stride) < 1:
        raise ContractError(f"windows: length {length}, stride {stride}: both must be at least 1")
    if length > halo + 1:
        raise ContractError(
            f"windows: length {length} is beyond the halo limit: shards repeat {halo} frames, so a plain reader meets "
            f"windows of at most {halo + 1}; use seqdata.open(...).sequences(length={length}), or build with a larger "
            "halo"
        )
    return WindowStage(length, stride, keep_panoramas, frozenset(without))


@dataclass(frozen=True)
class WindowStage:
    """What `windows` returns: a picklable callable from an iterator of samples to an iterator of sequences."""

    length: int
    stride: int
    keep_panoramas: bool
    without: frozenset[str]

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The sequences of a stream of samples; at most `length` samples are held.

        Raises: ContractError for a sample that is not one of our shards' frames.
        """
        ring: deque[tuple[Sample, Sample]] = deque(maxlen=self.length)
        for sample in samples:
            frame = _frame_of(sample)
            # An absent frame leaves a gap in the positions, so the next one begins a new window by itself.
            if not self._present(frame):
                continue
            if ring and not _follows(ring[-1], sample, frame):
                ring.clear()
            ring.append((sample, frame))
            # A window that ends in the halo ended in an earlier shard too, and was yielded there.
            whole = len(ring) == self.length and not frame.get("halo")
            # By the position and not by a count: a count would begin anew in each shard, and windows would depend on
            # the cuts.
            if whole and ring[0][1]["position"] % self.stride == 0:
                yield _sequence(ring)

    def _present(self, frame: Sample) -> bool:
        return frame["key"] not in self.without and (self.keep_panoramas or not frame.get("panorama"))


def _frame_of(sample: Sample) -> Sample:
    """The JSON of a frame, decoded already or not."""
    member = sample.get("json")
    frame = json.loads(member) if isinstance(member, bytes) else member
    if not isinstance(frame, dict) or not {"key", "trajectory", "position"} <= frame.keys():
        raise ContractError(
            f"{sample.get('__url__', 'stream')}: sample {sample.get('__key__')} has no json of a frame; "
            "seqdata.windows reads shards that seqdata build wrote, before to_tuple and shuffle"
        )
    return frame


def _follows(last: tuple[Sample, Sample], sample: Sample, frame: Sample) -> bool:
    """Whether a frame is the next one of the same trajectory in the same shard."""
    before, previous = last
    return (
        # Shards come in any order, so the frames before a shard's first one are not its neighbours.
        before.get("__url__") == sample.get("__url__")
        and previous["trajectory"] == frame["trajectory"]
        and int(previous["position"]) + 1 == frame["position"]
    )


def _sequence(ring: Iterable[tuple[Sample, Sample]]) -> Sample:
    samples, frames = zip(*ring, strict=True)
    return {
        "__key__": frames[(len(frames) - 1) // 2]["key"],
        "__url__": samples[-1].get("__url__", ""),
        "frames": [_image_of(sample) for sample in samples],
        "trajectory": frames[0]["trajectory"],
        "positions": np.array([frame["position"] for frame in frames], dtype=np.int32),
        "keys": [frame["key"] for frame in frames],
        "latitude": np.array([frame["lat"] for frame in frames], dtype=np.float64),
        "longitude": np.array([frame["lon"] for frame in frames], dtype=np.float64),
    }


def _image_of(sample: Sample) -> Any:
    for suffix in IMAGES:
        if suffix in sample:
            return sample[suffix]
    raise ContractError(f"{sample.get('__url__', 'stream')}: sample {sample.get('__key__')} has no jpg or png member")
