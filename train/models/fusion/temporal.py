"""Fusions over frame vectors that depend on frame order: FC, SeqNet, LSTM, Delta and SeqMatchNet's projection."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.models.base import Distance
from train.models.fusion.basic import Fusion, window_sums

DeltaForm = Literal["halves", "seqnet"]


class FullyConnected(Fusion):
    """FC: one linear map of the concatenated frames, without activation; one length only.

    Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, Table II, rows
    "NetVLAD + FC" and "CLS + FC": Linear(L·C → 4096), not normalised in practice.

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, width)`.
    """

    def __init__(self, features: int, length: int, width: int, *, normalize: bool = False) -> None:
        """Set up the map of `length` frames of `features` numbers to `width`."""
        super().__init__()
        self.length = length
        self.normalize = normalize
        self.linear = nn.Linear(features * length, width)

    def descriptor_size(self, features: int, length: int) -> int:
        """Return the linear map's width."""
        return self.linear.out_features

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Concatenate and map: `(M, C)`, `(B, L)` → `(B, width)`."""
        mapped: Tensor = self.linear(features[rows].flatten(1))
        return F.normalize(mapped, dim=-1) if self.normalize else mapped


class MeanConvolution(nn.Conv1d):
    """A convolution over time and the mean over its positions, as one linear map.

    Its input is what each tap sees in the mean; both steps are linear, so their order does not matter. It is a Conv1d
    so that its parameters have the names and shapes of SeqNet's.

    Shape:
        `(B, C·w)`, channel by channel → `(B, width)`.
    """

    def forward(self, means: Tensor) -> Tensor:
        """Map the means of each tap `(B, C·w)` to `(B, width)`."""
        return F.linear(means, self.weight.flatten(1), self.bias)


class SeqNet(Fusion):
    """A temporal convolution over frame vectors, mean over time, L2.

    No padding: a window of L frames gives L − w + 1 positions; L below the kernel's w is refused.
    Garg and Milford, SeqNet: Learning Descriptors for Sequence-based Hierarchical Place Recognition, RA-L 2021, sec.
    III: 4,096 numbers in and out, w = 3 at L = 5 (5 when trained at L = 10, 1 for S1).

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, width)` of unit length.
    """

    def __init__(self, features: int, width: int, kernel: int) -> None:
        """Set up the convolution of `features` numbers over `kernel` frames to `width` numbers."""
        super().__init__()
        self.conv = MeanConvolution(features, width, kernel)

    def descriptor_size(self, features: int, length: int) -> int:
        """Return the convolution's width."""
        return self.conv.out_channels

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Convolve and average: `(M, C)`, `(B, L)` → `(B, width)`.

        Raises:
            ContractError: For too short windows.
        """
        kernel = self.conv.kernel_size[0]
        if rows.shape[1] < kernel:
            raise ContractError(
                f"SeqNet with a kernel of {kernel} frames cannot take windows of {rows.shape[1]}; use --option kernel=1"
            )
        # Tap k sees frames k … k + count − 1. It is applied once, to their mean, instead of at every position.
        count = rows.shape[1] - kernel + 1
        sums = [window_sums(features, rows[:, k : k + count]) for k in range(kernel)]
        # (B, C, w) flattened is channel by channel, as Conv1d's weight (width, C, w) is.
        means = torch.stack(sums, dim=2).flatten(1) / count
        return F.normalize(self.conv(means), dim=-1)


class LastState(Fusion):
    """The last hidden state of an LSTM over frame vectors, L2; any L.

    Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. II, names
    an LSTM over frame features without settings; one layer here.

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, width)`.
    """

    def __init__(self, features: int, width: int, *, normalize: bool = True) -> None:
        """Set up an LSTM of `features` numbers a frame with `width` states, and whether a final L2 is applied."""
        super().__init__()
        self.normalize = normalize
        self.lstm = nn.LSTM(features, width, batch_first=True)

    def descriptor_size(self, features: int, length: int) -> int:
        """Return the hidden state's width."""
        return self.lstm.hidden_size

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Run the LSTM: `(M, C)`, `(B, L)` → `(B, width)`."""
        # An LSTM gives (outputs, (hidden, cell)); hidden is (layers, B, width).
        state: Tensor = self.lstm(features[rows])[1][0][-1]
        return F.normalize(state, dim=-1) if self.normalize else state


class Delta(Fusion):
    """Delta descriptors: the later frames' mean minus the earlier frames' mean, L2; nothing is trained.

    Garg et al., Delta Descriptors: Change-Based Place Representation for Robust Visual Localization, RA-L 2020: form
    "halves" over an even 16 to 64 frames, compared by cosine. Form "seqnet" is that of SeqNet's comparison.

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, C)` of unit length.

    Example:
        >>> Delta("halves").weights(5).tolist()
        [-0.5, -0.5, 0.0, 0.5, 0.5]
    """

    def __init__(self, form: DeltaForm = "halves") -> None:
        """Set the form of the weights."""
        super().__init__()
        self.form = form

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Weigh and sum: `(M, C)`, `(B, L)` → `(B, C)`.

        Raises:
            ContractError: For windows of one frame.
        """
        length = rows.shape[1]
        if length < 2:
            raise ContractError("Delta descriptors are differences in time: windows need two frames or more")
        # Made where the features are: copied there, the host would wait for all that is queued.
        weights = self.weights(length, features.device).to(features.dtype)
        return F.normalize(torch.einsum("blc,l->bc", features[rows], weights), dim=-1)

    def weights(self, length: int, device: torch.device | None = None) -> Tensor:
        """Return the weight of each frame of a window: `(L,)` float32, on the CPU unless a device is named.

        "halves": −1/h on the first h = ⌊L/2⌋ frames and +1/h on the last; the middle frame of an odd L belongs to
        neither, so they sum to zero. "seqnet": −2/L on the first h frames and +2/L on the rest.
        """
        half = length // 2
        weights = torch.zeros(length, device=device)
        if self.form == "seqnet":
            # At odd L these do not sum to zero; so does SeqNet's public program.
            weights[:half], weights[half:] = -2.0 / length, 2.0 / length
        else:
            weights[:half], weights[length - half :] = -1.0 / half, 1.0 / half
        return weights


class AlignedFrames(Fusion):
    """SeqMatchNet's frames: each frame vector is mapped and brought to unit length.

    Two windows are compared by the mean of their aligned frames' distances (`distance` "aligned"), not by the distance
    of the long vectors. Garg, Vankadari and Milford, SeqMatchNet: Contrastive Learning with Sequence Matching for Place
    Recognition and Relocalization, CoRL 2021, sec. 3.

    Shape:
        `(M, C)`, rows `(B, L)` → `(B, L·width)`.
    """

    distance: Distance = "aligned"

    def __init__(self, features: int, width: int) -> None:
        """Set up the map of each frame's `features` numbers to `width`."""
        super().__init__()
        self.linear = nn.Linear(features, width)

    def descriptor_size(self, features: int, length: int) -> int:
        """Return L·width."""
        return self.linear.out_features * length

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """Map and concatenate: `(M, C)`, `(B, L)` → `(B, L·width)`."""
        # Mapped before the rows are taken, so that each distinct frame is mapped once.
        return F.normalize(self.linear(features), dim=-1)[rows].flatten(1)
