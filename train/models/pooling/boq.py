"""Bag of Queries: learnt queries ask the tokens of a frame by cross-attention.

Ali-bey, Chaib-draa and Giguère, BoQ: A Place is Worth a Bag of Learnable Queries, CVPR 2024, sec. 3, and the program of
its authors; docs/methods.md#boq.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from train.models.pooling.basic import Pooling, PoolingOptions

HEAD = 64  # numbers of an attention head, as in the authors' program


class BoqOptions(PoolingOptions):
    """Sizes of BoQ; the defaults are those that its authors released for DINOv2."""

    width: int = Field(default=384, ge=HEAD, multiple_of=HEAD)
    """Numbers that tokens are mapped to; 512 behind ResNet-50."""
    queries: int = Field(default=64, ge=1)
    """Learnt queries of each block."""
    blocks: int = Field(default=2, ge=1)
    """Blocks of a Transformer layer and its queries."""
    rows: int = Field(default=32, ge=1)
    """Numbers that the answers of all queries are mapped to, channel by channel."""


class BoqBlock(nn.Module):
    """A Transformer layer over the tokens, and the answers that this block's queries get from them.

    Shape:
        tokens `(N, T, W)` → tokens `(N, T, W)` of the next block, and answers `(N, Q, W)`.
    """

    def __init__(self, width: int, queries: int) -> None:
        """Set the layers up with `width` / 64 heads."""
        super().__init__()
        heads = width // HEAD
        self.encoder = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, queries, width))
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.query_norm = nn.LayerNorm(width)
        self.cross_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.answer_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens `(N, T, W)`, and ask them."""
        tokens = self.encoder(tokens)
        queries = self.queries
        # They see each other before any frame: the same for all frames, so computed once a batch.
        queries = self.query_norm(queries + self.self_attention(queries, queries, queries, need_weights=False)[0])
        queries = queries.expand(len(tokens), -1, -1)
        answers = self.cross_attention(queries, tokens, tokens, need_weights=False)[0]
        return tokens, self.answer_norm(answers)


class Boq(Pooling):
    """Bag of Queries over one frame's grid of tokens.

    A 3×3 convolution maps the grid to W channels; each block gives the answers of its Q queries; a linear map turns the
    answers of all blocks into R numbers a channel.

    Shape:
        `(N, T, C)`, T = h·w of the grid row by row → `(N, W·R)` of unit length.

    Example:
        >>> layer = Boq(channels=8, grid=(2, 3), options=BoqOptions(width=64, queries=4, rows=2)).eval()
        >>> layer(torch.ones(5, 6, 8)).shape
        torch.Size([5, 128])
    """

    def __init__(self, channels: int, grid: tuple[int, int], options: BoqOptions | None = None) -> None:
        """Set the layers up for a `grid` (h, w) of tokens, random from torch's generator."""
        options = options or BoqOptions()
        super().__init__(options.width * options.rows)
        self.grid = grid
        self.project = nn.Conv2d(channels, options.width, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(options.width)
        self.blocks = nn.ModuleList(BoqBlock(options.width, options.queries) for _ in range(options.blocks))
        self.mix = nn.Linear(options.blocks * options.queries, options.rows)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `(N, T, C)` → `(N, W·R)`."""
        # The convolution needs neighbours in both directions, which a row of tokens does not show.
        grid = tokens.transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        tokens = self.norm(self.project(grid).flatten(2).transpose(1, 2))
        answers = []
        for block in self.blocks:
            tokens, of_block = block(tokens)
            answers.append(of_block)
        mixed = self.mix(torch.cat(answers, dim=1).transpose(1, 2))
        return F.normalize(mixed.flatten(1), dim=-1)
