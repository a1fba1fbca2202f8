"""The GPS log of one season as the receiver left it: lone CRs, missing seconds, damaged rows.

Convention: the columns of the published logs; `tid` is HHMMSScc without leading zeros, latitude and longitude are
degrees × 1e5, speed knots × 100, course degrees × 100, altitude centimetres.
"""

from __future__ import annotations

import numpy as np

from seqdata import geometry
from seqdata.geometry import Float64Array
from seqdata.synth.settings import generator
from seqdata.synth.tracks import Track

HEADER = "tid,lat,lon,speed,course,alt"
START = {"spring": 21_540, "summer": 20_280, "fall": 21_630, "winter": 21_480}
"""Second of the day at which each season's log begins (summer: 05:38)."""
KNOTS = 1.943844
# The first is a row of a published log; the others are damaged in ways of their own.
_GARBAGE = ("322.28,-0.36,1.41,0,,", "", "0,0,0,0,0,0", "53,8")


def log_bytes(timed: Track, season: str, dirt: float, seed: int) -> bytes:
    """Write the log of a track with a fix a second.

    The first and last two rows stay whole: every season's clock is read from them.

    Args:
        timed: The track.
        season: Season, which decides when the log begins.
        dirt: Share of the rows that are missing; as many are damaged.
        seed: The same seed gives the same log.
    """
    rows = _rows(timed, START[season])
    rng = generator(seed, season, "log")
    fate = rng.random(len(rows))
    fate[:2] = fate[-2:] = 1.0
    lines = [HEADER]
    for row, chance in zip(rows, fate, strict=True):
        if chance >= dirt:
            lines.append(_damaged(row, rng) if chance < 2 * dirt else ",".join(map(str, row)))
    # Lone CRs, as in the published files: a reader that splits at LF sees one line.
    return "\r".join(lines).encode()


def _rows(timed: Track, start: int) -> list[list[int]]:
    """The six whole numbers of every row."""
    latitude, longitude = geometry.to_latlon(timed.easting, timed.northing, timed.zone)
    speed = np.gradient(geometry.track_metres(timed.easting, timed.northing))
    course = np.nan_to_num(geometry.driving_headings(timed.easting, timed.northing))
    columns = (_tid(start + timed.time), latitude * 1e5, longitude * 1e5, speed * KNOTS * 100, course * 100)
    table = np.stack([*(np.rint(column) for column in columns), np.full(len(timed), 1050.0)], -1)
    return [[int(value) for value in row] for row in table]


def _tid(second: Float64Array) -> Float64Array:
    """HHMMSScc of seconds of the day, as a number."""
    whole = second.astype(np.int64)
    return np.asarray(whole // 3600 * 1_000_000 + whole // 60 % 60 * 10_000 + whole % 60 * 100, np.float64)


def _damaged(row: list[int], rng: np.random.Generator) -> str:
    """A row with its columns shifted by one, a digit lost, or something else altogether."""
    kind = rng.integers(6)
    if kind == 4:
        return ",".join(map(str, [row[0], *row[2:], 0]))
    if kind == 5:
        return ",".join([str(row[0]), str(row[1])[:3], *map(str, row[2:])])
    return _GARBAGE[kind]
