"""The protocol files of the synthetic laps and seasons: which part of the way is for training, and what is a positive.

They are not the shipped protocols, whose counts are those of the published dumps and whose splits are kilometres apart.
"""

from __future__ import annotations

from collections.abc import Sequence

PROTOCOL = "protocol.toml"
TRAIN_SHARE, TEST_SHARE = 0.55, 0.65
"""Where training ends and testing begins, as shares of the way: between them lies ground that neither sees."""

_ROBOTCAR = """\
name = "demo-laps"
version = 1
title = "Synthetic laps of one route: train on its beginning, test on its end, 2 m, any frame within 10 m"
source = "robotcar"
length = 5
spacing = 2.0
spacing_rule = "greedy"
pose_source = "rtk"
pose_mode = "interpolate"
panoramas = "keep"
rule = "any"
radius = 10.0

[train]
positive_radius = 5.0
negative_radius = 25.0
rule = "any"
"""
_NORDLAND = """\
name = "demo-seasons"
version = 1
title = "Synthetic seasons of one line: train on its beginning, test on its end, centre frame within 1 rank"
source = "nordland"
length = 5
unit = "frames"
rule = "centre"
radius = 1.0
clean = true
panoramas = "keep"

[train]
positive_radius = 1.0
negative_radius = 4.0
rule = "centre"
"""


def robotcar_protocol(laps: Sequence[str], metres: float) -> str:
    """The TOML of protocol `demo-laps`: the first lap is the database, the others are queries.

    Args:
        laps: Names of the laps.
        metres: Length of the route.
    """
    # 2 m between frames, as the protocol's spacing says.
    return _ROBOTCAR + _splits(laps[:1], laps[1:], int(metres / 2))


def nordland_protocol(clean: int) -> str:
    """The TOML of protocol `demo-seasons`: the summer is the database, the winter queries.

    Args:
        clean: Frames of one season that the clean list names.
    """
    return _NORDLAND + _splits(["summer"], ["winter"], clean)


def _splits(database: Sequence[str], query: Sequence[str], frames: int) -> str:
    """The two splits of drives of so many frames, as ranges of ranks."""
    train, test = round(TRAIN_SHARE * frames), round(TEST_SHARE * frames)
    # A lap that swerves has some frames more than its length says; they belong to the end.
    ranges = {"train": (0, max(train, 1)), "test": (test, max(2 * frames, test + 1))}
    return "".join(
        f"\n[splits.{split}]\ndatabase = {_listed(database)}\nquery = {_listed(query)}\npositions = [{first}, {stop}]\n"
        for split, (first, stop) in ranges.items()
    )


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
