"""Facets of a ViT's last block: the queries, keys or values of its attention, in place of its output.

Amir et al., Deep ViT Features as Dense Visual Descriptors, ECCVW 2022, sec. 3; used for places by Keetha et al.,
AnyLoc: Towards Universal Visual Place Recognition, RA-L 2024, sec. III-A.
"""

from typing import Any, Literal

from torch import Tensor, nn

from seqdata.errors import ContractError

Facet = Literal["token", "query", "key", "value"]
_THIRDS = ("query", "key", "value")


class FacetBlock(nn.Module):
    """The first half of a Transformer block: its norm, and one third of the map to queries, keys and values.

    Shape:
        `(N, T, C)` → `(N, T, C)`, all heads side by side.
    """

    def __init__(self, block: nn.Module, facet: Facet) -> None:
        """Take over the norm and the map of a block of timm."""
        super().__init__()
        self.norm: Any = block.norm1
        self.qkv: Any = block.attn.qkv  # type: ignore[union-attr]
        self.third = _THIRDS.index(facet)

    def forward(self, tokens: Tensor, **_unused: Any) -> Tensor:
        """Compute the facet; rotary positions and masks, which act later in the block, are ignored."""
        third: Tensor = self.qkv(self.norm(tokens)).chunk(3, dim=-1)[self.third]
        return third


def end_in_facet(backbone: nn.Module, name: str, facet: Facet, *, is_cut: bool) -> None:
    """Replace a cut ViT's last block by a `FacetBlock`.

    Raises:
        ContractError: For a backbone that is not cut, or whose blocks have no such map in one piece.
    """
    blocks = getattr(backbone, "blocks", None)
    last = blocks[-1] if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) else None
    attention = getattr(last, "attn", None)
    # Where biases stand apart from the map (EVA), a third of the map is not yet a facet.
    has_one_map = isinstance(getattr(attention, "qkv", None), nn.Linear) and getattr(attention, "q_bias", None) is None
    if last is None or not is_cut or not has_one_map:
        raise ContractError(
            f"encoder '{name}' has no facet '{facet}': it belongs to a ViT that is cut after a block; set cut=blocks.N"
        )
    blocks[-1] = FacetBlock(last, facet)  # type: ignore[index]
