"""CosFace: classification of single frames by the cosine to a learnt vector of each class, with a margin.

H. Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018, eq. (4), with the scale and
margin of Berton et al., Rethinking Visual Geo-localization for Large-Scale Applications (CosPlace), CVPR 2022.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# As in the programs of CosPlace and JIST.
SCALE = 30.0
MARGIN = 0.4


class CosFaceLoss(nn.Module):
    """Cross-entropy of s·(cos(x, w_k) − m·[k is the frame's class]) over the classes k of one group.

    Shape:
        vectors: `(n, C)`, brought to unit length here; labels: int64 `(n,)`; output: a scalar.

    Example:
        >>> loss = CosFaceLoss([2], 2)
        >>> with torch.no_grad():
        ...     _ = loss.classes[0].copy_(torch.eye(2))
        >>> loss(torch.tensor([[1.0, 1.0]]), torch.tensor([0]), group=0).detach()  # log(1 + e^(30·0.4))
        tensor(12.0000)
    """

    def __init__(self, sizes: Sequence[int], channels: int) -> None:
        """Set the vectors of each group's classes, random from torch's generator.

        Args:
            sizes: Classes of each group.
            channels: C.
        """
        super().__init__()
        self.classes = nn.ParameterList(nn.Parameter(torch.empty(size, channels)) for size in sizes)
        for vectors in self.classes:
            nn.init.xavier_uniform_(vectors)

    def forward(self, vectors: Tensor, labels: Tensor, group: int) -> Tensor:
        """Compute the loss of frames of one group."""
        # In the classes' own precision: under bfloat16 a margin of .4 and cosines near 1 leave few digits.
        classes = self.classes[group]
        cosines = F.normalize(vectors.to(classes.dtype), dim=-1) @ F.normalize(classes, dim=-1).T
        own = F.one_hot(labels, len(classes)).to(cosines)
        return F.cross_entropy(SCALE * (cosines - MARGIN * own), labels)
