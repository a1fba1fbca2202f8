"""Leakage: how much of each test ground lies near the training ground.

A recall on ground that was trained on says less than one on new ground, and several published splits share one route.
For every split and role the frames, and the metres of route, within a radius of any training frame are counted.

Convention: the training ground is every frame of the split `train`, of both roles. Distances are metres between frames
of one UTM zone, strictly less than a radius; other zones are never near. Half of each step between neighbouring frames
of a run belongs to the frame at either end; steps of more than 100 m are no route.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from seqdata.contracts.protocol import Protocol
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError
from seqdata.geometry import BoolArray, Float64Array, IntArray
from seqdata.parallel.steps import step
from seqdata.sequences.nearest import distance_to
from seqdata.sequences.sequencer import ROLES, Sequencer, TrackPolicy

RADII = (5.0, 10.0, 25.0, 50.0, 100.0)
STEP_METRES = 100.0  # longer steps are jumps, as in the trajectories table
SHARED = 0.5  # from this share of frames on, a split is said to share the training route: a wording, not a measure


@dataclass(frozen=True)
class _Ground:
    """The protocol's track: coordinates (n, 2) in metres, the zone's number (n,), and the track table of n rows."""

    xy: Float64Array
    zone: IntArray
    track: pl.DataFrame


@step("measure leakage")
def leakage(
    sequencer: Sequencer, protocol: Protocol, radii: tuple[float, ...] = RADII, train: str = "train"
) -> pl.DataFrame:
    """Measure the shares of every other split's ground near the training ground.

    Args:
        sequencer: Windows over the frames of a dataset.
        protocol: The protocol.
        radii: Radii in metres.
        train: Name of the split that trains.

    Returns:
        Contract `leakage`, by split, role and radius; a role without a frame in a split has no row.

    Raises:
        ContractError: If the protocol has no split `train`, a radius is not positive, or no frame trains.
    """
    if not radii or not all(0 < radius < np.inf for radius in radii):
        raise ContractError(f"radii {list(radii)}: expected positive numbers of metres")
    protocol.split(train)
    ground = _ground(sequencer, protocol)
    # Both roles: mining draws its queries and its database from the training split, so the model sees the frames of
    # either.
    trained = sequencer.frames_of(protocol, train, "database") | sequencer.frames_of(protocol, train, "query")
    if not trained.any():
        raise ContractError(f"protocol {protocol.name}: no frame of this dataset belongs to its split '{train}'")
    rows = []
    for split in protocol.splits:
        for role in ROLES if split != train else ():
            mask = sequencer.frames_of(protocol, split, role)
            if mask.any():
                rows += _shares(ground, mask, trained, sorted(radii), split, role)
    contract = table_contract("leakage")
    return contract.conform(pl.DataFrame(rows, schema=contract.polars_schema(), orient="row"))


def sentences(table: pl.DataFrame, radius: float = 25.0) -> list[str]:
    """Summarise a leakage table at one of its radii, a sentence a split: whether it shares its ground with train.

    Args:
        table: Table of `leakage`.
        radius: One of its radii, in metres.

    Raises:
        ContractError: If the table has no such radius.
    """
    at_radius = table.filter(pl.col("radius") == radius)
    if table.height and not at_radius.height:
        raise ContractError(f"radius {radius:g}: the table has {sorted(table['radius'].unique())}")
    return [_sentence(rows, radius) for rows in at_radius.partition_by("split", maintain_order=True)]


def _sentence(roles: pl.DataFrame, radius: float) -> str:
    """Write the sentence of one split, from its rows at one radius."""
    split, least = roles["split"][0], roles["least_distance"].drop_nulls()
    shares = roles["frame_share"].to_list()
    if least.is_empty():
        return f"{split} is held out: it shares no zone with train"
    if max(shares) == 0:
        away = f"the nearest is {least.to_numpy().min():.1f} m away"
        return f"{split} is held out: no frame lies within {radius:g} m of train, {away}"
    parts = [f"{share:.1%} of its {role} frames" for share, role in zip(shares, roles["role"], strict=True)]
    verdict = "shares its route with train" if max(shares) >= SHARED else "touches train"
    return f"{split} {verdict}: {' and '.join(parts)} lie within {radius:g} m of a training frame"


def _ground(sequencer: Sequencer, protocol: Protocol) -> _Ground:
    """Place the frames of the protocol's track."""
    track = sequencer.track(TrackPolicy.from_protocol(protocol).key)
    frames = sequencer.frames.select("easting", "northing", "zone")[track["frame"]]
    xy = np.ascontiguousarray(frames.select("easting", "northing").to_numpy())
    return _Ground(xy, frames["zone"].rank("dense").to_numpy().astype(np.int64), track)


def _shares(
    ground: _Ground,
    mask: BoolArray,
    trained: BoolArray,
    radii: list[float],
    split: str,
    role: str,
) -> list[tuple[object, ...]]:
    """Compute a row of the table for each radius."""
    rows = np.flatnonzero(mask)
    distance = np.full(len(rows), np.inf)
    for zone in np.unique(ground.zone[rows]):
        here = ground.zone[rows] == zone
        # Eastings of two zones differ by hundreds of kilometres for one place, so distances are taken within a zone
        # only.
        distance[here] = distance_to(ground.xy[rows[here]], ground.xy[trained & (ground.zone == zone)])
    metres = _route(ground, mask)[rows]
    least = float(distance.min()) if np.isfinite(distance.min()) else None
    whole = float(metres.sum())
    table: list[tuple[object, ...]] = []
    for radius in radii:
        near = distance < radius
        close = float(metres[near].sum())
        counts = (len(rows), int(near.sum()), float(near.mean()))
        table.append((split, role, radius, *counts, whole, close, close / whole if whole else None, least))
    return table


def _route(ground: _Ground, mask: BoolArray) -> Float64Array:
    """Measure the route that each row of the track stands for, among the rows of `mask`: (n,) metres."""
    run = ground.track["run"].to_numpy()
    step = np.sqrt((np.diff(ground.xy, axis=0) ** 2).sum(axis=1))
    # A step counts where both of its frames play the role, lie in one run, and are no jump apart.
    step[(run[1:] != run[:-1]) | ~(mask[1:] & mask[:-1]) | (step > STEP_METRES)] = 0.0
    metres = np.zeros(len(ground.xy))
    # Half a step to either end, so that the metres of any set of frames add up, and those of all frames are the route.
    metres[:-1] += step / 2
    metres[1:] += step / 2
    return metres
