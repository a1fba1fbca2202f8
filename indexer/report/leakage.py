"""The block of a page that says how much of the test ground was trained on."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from seqdata.dataset.leakage import sentences

QUOTED_RADIUS = 25.0  # metres: the sentences quote the radius within which most protocols call a place the same


@dataclass(frozen=True)
class LeakageBlock:
    """What `leakage.html.j2` shows.

    Attributes:
        sentences: One sentence a split.
        radii: Radii in metres, rising.
        lines: One a split and role: split, role, frames, route_km, least (metres, None where no zone is shared), and
            the frame shares and route shares in the order of the radii.
    """

    sentences: list[str]
    radii: list[float]
    lines: list[dict[str, Any]]


def leakage_block(table: pl.DataFrame) -> LeakageBlock:
    """Make the block of a leakage table (contract `leakage`)."""
    radii = sorted(table["radius"].unique())
    lines = []
    for rows in table.sort("radius", maintain_order=True).partition_by("split", "role", maintain_order=True):
        first = rows.row(0, named=True)
        lines.append(
            {
                "split": first["split"],
                "role": first["role"],
                "frames": first["frames"],
                "route_km": first["route_m"] / 1000,
                "least": first["least_distance"],
                "shares": rows["frame_share"].to_list(),
                "route_shares": rows["route_share"].to_list(),
            }
        )
    quoted = sentences(table, QUOTED_RADIUS if QUOTED_RADIUS in radii else radii[-1]) if radii else []
    return LeakageBlock(quoted, radii, lines)
