"""Fusions by name: a new one is one class and one entry here."""

from collections.abc import Callable
from dataclasses import dataclass

from train.models.fusion.basic import CentreFrame, Concatenate, Fusion, Mean, SeqGeM, VLADSum
from train.models.fusion.temporal import AlignedFrames, Delta, DeltaForm, FullyConnected, LastState, SeqNet


@dataclass(frozen=True)
class FusionSettings:
    """What a fusion may be made of.

    Attributes:
        features: Numbers of a frame's vector.
        length: Frames of the only window that FC takes.
        width: Numbers that FC, SeqNet, LSTM (all of the window) and SeqMatchNet (of each frame) give.
        kernel: Frames that SeqNet's convolution sees.
        delta: Form of Delta descriptors.
        normalize: Whether a final L2 is applied, where that is an option.
    """

    features: int
    length: int
    width: int
    kernel: int
    delta: DeltaForm
    normalize: bool


@dataclass(frozen=True)
class FusionEntry:
    """A fusion and what others need to know of it.

    Attributes:
        build: Makes it of settings.
        normalizes: Whether it ends in L2 unless the option `normalize` says otherwise.
        always_normalizes: Its L2 cannot be turned off.
        takes_sums: It adds the unnormalised sums of a VLAD layer; every other fusion takes one vector a frame.
    """

    build: Callable[[FusionSettings], Fusion]
    normalizes: bool = False
    always_normalizes: bool = False
    takes_sums: bool = False


FUSIONS: dict[str, FusionEntry] = {
    "sum": FusionEntry(lambda s: VLADSum(), always_normalizes=True, takes_sums=True),
    "cat": FusionEntry(lambda s: Concatenate(normalize=s.normalize)),
    "mean": FusionEntry(lambda s: Mean(normalize=s.normalize), normalizes=True),
    "gem": FusionEntry(lambda s: SeqGeM(normalize=s.normalize), normalizes=True),
    "centre": FusionEntry(lambda s: CentreFrame()),
    "fc": FusionEntry(lambda s: FullyConnected(s.features, s.length, s.width, normalize=s.normalize)),
    "seqnet": FusionEntry(lambda s: SeqNet(s.features, s.width, s.kernel), always_normalizes=True),
    "lstm": FusionEntry(lambda s: LastState(s.features, s.width, normalize=s.normalize), normalizes=True),
    "delta": FusionEntry(lambda s: Delta(s.delta), always_normalizes=True),
    "aligned": FusionEntry(lambda s: AlignedFrames(s.features, s.width), always_normalizes=True),
}
