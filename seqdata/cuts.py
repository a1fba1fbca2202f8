"""Which side of a protocol's cut a frame lies on."""

import numpy as np
import numpy.typing as npt
import polars as pl
import shapely

from seqdata.errors import ContractError
from seqdata.protocol_fields import Cut


def on_side(frames: pl.DataFrame, cut: Cut, side: str) -> npt.NDArray[np.bool_]:
    """Frames on one side of a cut: columns zone, easting, northing (n rows) -> (n,) bool.

    Convention: "inside" is the polygon with its edge, "outside" is at least `cut.buffer` metres away from it; what lies
    between belongs to neither. Raises: ContractError when a frame lies in another zone than the cut.
    """
    other = frames["zone"].filter(frames["zone"] != cut.zone)
    if len(other):
        raise ContractError(f"the protocol's cut is in zone {cut.zone}, frames of the dataset lie in zone {other[0]}")
    points = shapely.points(frames["easting"].to_numpy(), frames["northing"].to_numpy())
    distance = shapely.distance(shapely.Polygon(cut.corners), points)
    chosen: npt.NDArray[np.bool_] = distance == 0 if side == "inside" else (distance > 0) & (distance >= cut.buffer)
    return chosen
