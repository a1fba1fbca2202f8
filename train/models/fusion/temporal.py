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
    """FC: one linear map of the flattened window, `(M, C)` → `(B, width)`; one length only, no activation.

    Source: P1 Table II, "NetVLAD + FC" and "CLS + FC": Linear(L·D → 4096), not normalised in practice.
    """

    def __init__(self, features: int, length: int, width: int, *, normalize: bool = False) -> None:
        super().__init__()
        self.length = length
        self.normalize = normalize
        self.linear = nn.Linear(features * length, width)

    def descriptor_size(self, features: int, length: int) -> int:
        """The linear map's width."""
        return self.linear.out_features

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, width)`."""
        mapped: Tensor = self.linear(features[rows].flatten(1))
        return F.normalize(mapped, dim=-1) if self.normalize else mapped


class MeanConvolution(nn.Conv1d):
    """A convolution over time and the mean over its positions, as one linear map: `(B, C·w)` → `(B, width)`.

    It is given what each tap sees in the mean; both steps are linear, so their order does not matter.
    """

    def forward(self, means: Tensor) -> Tensor:
        """Means of each tap `(B, C·w)`, channel by channel → `(B, width)`."""
        return F.linear(means, self.weight.flatten(1), self.bias)


class SeqNet(Fusion):
    """A temporal convolution over frame vectors, mean over time, L2: `(M, C)` → `(B, width)`.

    No padding: a window of L frames gives L − w + 1 positions; L below the kernel's w is refused. Convolution and mean
    are both linear, so each tap is applied once, to the mean of the frames that it sees, not at every position.
    Source: SeqNet as P1 ran it: Conv1d 4096 → 4096, w = 3 at L = 5 (5 when trained at L = 10, 1 for S1).
    """

    def __init__(self, features: int, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = MeanConvolution(features, width, kernel)

    def descriptor_size(self, features: int, length: int) -> int:
        """The convolution's width."""
        return self.conv.out_channels

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, width)`. Raises: ContractError for windows shorter than the kernel."""
        kernel = self.conv.kernel_size[0]
        if rows.shape[1] < kernel:
            raise ContractError(
                f"SeqNet with a kernel of {kernel} frames cannot take windows of {rows.shape[1]}; use --option kernel=1"
            )
        count = rows.shape[1] - kernel + 1
        seen = [window_sums(features, rows[:, k : k + count]) for k in range(kernel)]
        means = torch.stack(seen, dim=2).flatten(1) / count
        return F.normalize(self.conv(means), dim=-1)


class LastState(Fusion):
    """The last hidden state of an LSTM over frame vectors, L2: `(M, C)` → `(B, width)`; any L.

    Source: P1 section II names an LSTM over frame features and gives no settings; one layer here.
    """

    def __init__(self, features: int, width: int, *, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize
        self.lstm = nn.LSTM(features, width, batch_first=True)

    def descriptor_size(self, features: int, length: int) -> int:
        """The hidden state's width."""
        return self.lstm.hidden_size

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, width)`."""
        state: Tensor = self.lstm(features[rows])[1][0][-1]
        return F.normalize(state, dim=-1) if self.normalize else state


class Delta(Fusion):
    """Delta descriptors: the later frames' mean minus the earlier frames' mean, L2: `(M, C)` → `(B, C)`; no training.

    `form` "halves": means of the two halves, whose middle frame at odd L belongs to neither; weights sum to zero.
    "seqnet": −2/L on the first ⌊L/2⌋ frames and +2/L on the rest, which at odd L do not sum to zero.
    Source: methods, "Delta descriptors"; the original form is "halves" over an even 16 to 64 frames and cosine.
    """

    def __init__(self, form: DeltaForm = "halves") -> None:
        super().__init__()
        self.form = form

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, C)`. Raises: ContractError for windows of one frame."""
        length = rows.shape[1]
        if length < 2:
            raise ContractError("Delta descriptors are differences in time: windows need two frames or more")
        weights = self.weights(length).to(features)
        return F.normalize(torch.einsum("blc,l->bc", features[rows], weights), dim=-1)

    def weights(self, length: int) -> Tensor:
        """Weight of each frame of a window: `(L,)` float32."""
        half = length // 2
        weights = torch.zeros(length)
        if self.form == "seqnet":
            weights[:half], weights[half:] = -2.0 / length, 2.0 / length
        else:
            weights[:half], weights[length - half :] = -1.0 / half, 1.0 / half
        return weights


class AlignedFrames(Fusion):
    """SeqMatchNet's frames: each frame vector mapped and brought to unit length, `(M, C)` → `(B, L·width)`.

    Two windows are compared by the mean of their aligned frames' distances (`distance` "aligned"), not by the distance
    of the long vectors. Source: methods, "SeqMatchNet".
    """

    distance: Distance = "aligned"

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)

    def descriptor_size(self, features: int, length: int) -> int:
        """L·width."""
        return self.linear.out_features * length

    def gather(self, features: Tensor, rows: Tensor) -> Tensor:
        """`(M, C)`, `(B, L)` → `(B, L·width)`; each distinct frame is mapped once."""
        return F.normalize(self.linear(features), dim=-1)[rows].flatten(1)
