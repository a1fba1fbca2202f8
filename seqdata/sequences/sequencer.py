"""Window tables of a dataset: the windows of a length, a spacing or a protocol's split, and where they lie.

`Sequencer` holds the few columns of the frames table that geometry needs, so that a build (before anything is sealed)
and an opened dataset cut the same windows and place them alike.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
import shapely

from seqdata.contracts.protocol import Cut, Protocol, Unit
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError
from seqdata.geometry import BoolArray, Float64Array, IntArray
from seqdata.sequences import windows
from seqdata.sequences.tiles import WindowSet

GEOMETRY_COLUMNS = (
    "trajectory", "position", "clean_position", "city", "role", "zone", "easting", "northing", "heading", "panorama",
    "resampled", "subtasks",
)  # fmt: skip
ROLES = ("database", "query")
_KEY = re.compile(r"(?P<panoramas>[a-z]+)(?P<clean>-clean)?(-(?P<spacing>[\d.]+)m)?(-step(?P<step>[\d.]+)m)?")
_PANORAMAS = {"drop": "nopano", "keep": "all", "centre": "panocentre"}


@dataclass(frozen=True)
class TrackPolicy:
    """Which frames of a trajectory form its track.

    Attributes:
        panoramas: "drop", "keep", or "centre" (a window is left out when its centre frame is a panorama).
        clean: Whether only frames of the clean list remain.
        spacing: Spacing in metres that trajectories are resampled to.
        max_step: Greatest distance in metres of neighbouring frames in a run.

    Raises:
        ContractError: If the policy of panoramas is unknown or metres are not positive.

    Example:
        >>> TrackPolicy("keep", spacing=2.0).key
        'all-2m'
    """

    panoramas: str = "drop"
    clean: bool = False
    spacing: float | None = None
    max_step: float | None = None

    def __post_init__(self) -> None:
        if self.panoramas not in _PANORAMAS:
            raise ContractError(f"panoramas {self.panoramas!r}: expected {', '.join(_PANORAMAS)}")
        for name, metres in (("spacing", self.spacing), ("max_step", self.max_step)):
            if metres is not None and not 0 < metres < float("inf"):
                raise ContractError(f"{name} {metres}: expected a positive number of metres")

    @property
    def key(self) -> str:
        """Name of the track table, such as `nopano`, `all-clean`, `nopano-2m` or `nopano-step100m`."""
        parts = [_PANORAMAS[self.panoramas]]
        parts += ["clean"] if self.clean else []
        parts += [f"{_digits(self.spacing)}m"] if self.spacing else []
        parts += [f"step{_digits(self.max_step)}m"] if self.max_step else []
        return "-".join(parts)

    @classmethod
    def from_key(cls, key: str) -> "TrackPolicy":
        """Parse the name of a track table.

        Raises:
            ContractError: For a text that is no key.
        """
        match = _KEY.fullmatch(key)
        policies = {mark: name for name, mark in _PANORAMAS.items()}
        if match is None or match["panoramas"] not in policies:
            raise ContractError(f"'{key}' names no track table; keys look like nopano, all-clean or nopano-2m")
        spacing, step = (float(match[name]) if match[name] else None for name in ("spacing", "step"))
        return cls(policies[match["panoramas"]], match["clean"] is not None, spacing, step)

    @classmethod
    def from_protocol(cls, protocol: Protocol) -> "TrackPolicy":
        """Take the policy that a protocol states."""
        return cls(protocol.panoramas, protocol.clean, protocol.spacing, protocol.max_step)


@dataclass
class Sequencer:
    """Windows over one frames table.

    Attributes:
        frames: The columns `GEOMETRY_COLUMNS` of every frame, in the dataset's order.
        rule: The dataset's resampling rule, used for every spacing so that database and query never mix rules.
        flagged: Spacing in metres whose frames the column `resampled` marks; None where the flags are not to be used.
        stored_track: Reads the track table of a key where one is stored, else gives None.
    """

    frames: pl.DataFrame
    rule: str = "greedy"
    flagged: float | None = None
    stored_track: Callable[[str], pl.DataFrame | None] = lambda key: None
    _tracks: dict[str, pl.DataFrame] = field(default_factory=dict)
    _grounds: dict[tuple[str, Unit], tuple[Float64Array, Float64Array]] = field(default_factory=dict)
    _last_cut: tuple[tuple[str, int, int, str], pl.DataFrame] | None = None

    def track(self, key: str) -> pl.DataFrame:
        """Read or compute the track table of a key (contract `tracks`), once."""
        if key not in self._tracks:
            policy = TrackPolicy.from_key(key)
            is_flagged = policy.spacing is not None and policy.spacing == self.flagged
            # Only a spacing without flags takes long: 2.2 s for a million frames, where reading takes 15 ms. Any other
            # track, and the windows of any, are computed in about the time in which they would be read.
            track = None if policy.spacing is None or is_flagged else self.stored_track(key)
            self._tracks[key] = self._cut_track(policy, is_flagged=is_flagged) if track is None else track
        return self._tracks[key]

    def _cut_track(self, policy: TrackPolicy, *, is_flagged: bool) -> pl.DataFrame:
        return windows.track(
            self.frames.with_row_index("frame"),
            panoramas="drop" if policy.panoramas == "drop" else "keep",
            clean=policy.clean,
            spacing=policy.spacing,
            max_step=policy.max_step,
            rule=self.rule,
            flagged=is_flagged,
        )

    def windows(self, policy: TrackPolicy, length: int, stride: int = 1, edges: str = "drop") -> pl.DataFrame:
        """Cut every window of a policy; the role is the frames' own, and no split is set.

        Args:
            policy: Which frames form the tracks.
            length: Frames of a window.
            stride: Frames of the track from window to window.
            edges: "drop" or "shift", see `seqdata.sequences.windows`.

        Returns:
            Contract `sequences`, one row a window.
        """
        # The last one stays: a command asks for one policy many times, for each role of each split and for its truth.
        key = policy.key, length, stride, edges
        # Read once: another thread may replace it between two looks.
        last = self._last_cut
        if last is None or last[0] != key:
            self._last_cut = last = key, self._cut_windows(policy, length, stride, edges)
        return last[1].clone()

    def _cut_windows(self, policy: TrackPolicy, length: int, stride: int, edges: str) -> pl.DataFrame:
        track = self.track(policy.key)
        cut = windows.windows(track, length=length, stride=stride, edges=edges)
        first = cut["first"].to_numpy()
        centre = track["frame"].to_numpy()[first + windows.centre_index(length) * cut["step"].to_numpy()]
        of_centre = self.frames.select("trajectory", "city", "role", "panorama")[centre]
        table = pl.concat([cut, of_centre], how="horizontal").with_columns(
            pl.lit(policy.key).alias("track"), pl.Series("centre", centre)
        )
        table = table.filter(~pl.col("panorama")) if policy.panoramas == "centre" else table
        return table_contract("sequences").conform(table)

    def protocol_windows(self, protocol: Protocol, split: str | None = None, role: str | None = None) -> pl.DataFrame:
        """Cut the windows of a protocol.

        Args:
            protocol: Defines length, stride, spacing, policies and splits.
            split: One split; None gives the windows of all frames, in or out of a split.
            role: "database" or "query"; None gives both, database first.

        Returns:
            Contract `sequences`, one row a window.

        Raises:
            ContractError: If the split or role is unknown, or the protocol's spacing rule is not this dataset's.
        """
        protocol.check_rule(self.rule)
        if role not in (None, *ROLES):
            raise ContractError(f"role '{role}': expected database or query")
        table = self.windows(TrackPolicy.from_protocol(protocol), protocol.length, protocol.stride, protocol.edges)
        if split is None:
            return table if role is None else table.filter(pl.col("role") == role)
        return pl.concat([self._of_split(table, protocol, split, name) for name in ROLES if role in (None, name)])

    def _of_split(self, table: pl.DataFrame, protocol: Protocol, split: str, role: str) -> pl.DataFrame:
        """Select rows of `table` that play `role` in a split with all their frames, and a subtask with their centre."""
        # inside[k] counts the members among the first k rows of the track: a window lies inside when as many members as
        # rows stand between its ends. One difference a window, however long it is.
        members = self.frames_of(protocol, split, role)
        inside = np.concatenate([[0], np.cumsum(members)])
        first = table["first"].to_numpy()
        stop = first + (table["length"].to_numpy().astype(np.int64) - 1) * table["step"].to_numpy() + 1
        is_inside = inside[stop] - inside[first] == stop - first
        if protocol.first_even == "skip" and protocol.length % 2 == 0:
            is_inside &= ~np.isin(first, self._first_members(protocol, members))
        inside_split = table.filter(pl.Series(is_inside, dtype=pl.Boolean))
        subtask = protocol.split(split).subtask
        if subtask is not None:
            listed = self.frames["subtasks"][inside_split["centre"].to_numpy()].str.split(" ").list.contains(subtask)
            inside_split = inside_split.filter(listed)
        return inside_split.with_columns(pl.lit(role).alias("role"), pl.lit(split).alias("split"))

    def _first_members(self, protocol: Protocol, members: BoolArray) -> IntArray:
        """Track rows at which each trajectory's members begin: the papers' programs keep each split in a folder."""
        rows = np.flatnonzero(members)
        trajectory = self.track(TrackPolicy.from_protocol(protocol).key)["trajectory"].rle_id().to_numpy()[rows]
        starts: IntArray = rows[np.diff(trajectory.astype(np.int64), prepend=-1) != 0]
        return starts

    def frames_of(self, protocol: Protocol, split: str, role: str) -> BoolArray:
        """Mark the frames that play a role in a split.

        Args:
            protocol: The protocol.
            split: Name of the split.
            role: "database" or "query".

        Returns:
            One bool a row of the protocol's track.

        Raises:
            ContractError: If the split is unknown, or the protocol's cut lies in another zone than the frames.
        """
        members = protocol.split(split)
        track = self.track(TrackPolicy.from_protocol(protocol).key)
        frames = self.frames.select("trajectory", "city", "role", "zone", "easting", "northing")[track["frame"]]
        trajectories = members.database if role == "database" else members.query
        plays_role = pl.col("role") == role if trajectories is None else pl.col("trajectory").is_in(trajectories)
        if members.cities is not None:
            plays_role &= pl.col("city").is_in(members.cities)
        if members.part is not None:
            plays_role &= pl.col("trajectory").str.ends_with(f"/{members.part}")
        mask: BoolArray = frames.select(plays_role.fill_null(False).alias("member"))["member"].to_numpy()
        if members.positions is not None:
            rank = track["rank"].to_numpy()
            mask = mask & (rank >= members.positions[0]) & (rank < members.positions[1])
        if members.side is not None and protocol.cut is not None:
            mask = mask.copy()  # what polars hands out may not be written to
            mask[mask] = on_side(frames.filter(pl.Series(mask)), protocol.cut, members.side)
        return mask

    def frame_rows(self, table: pl.DataFrame) -> IntArray:
        """Look up the frame row of every frame of every window: int64 (n, L).

        Raises:
            ContractError: If the table mixes windows of several tracks.
        """
        if not table.height:
            return np.zeros((0, 0), dtype=np.int64)
        track = self.track(_only(table, "track"))
        return windows.window_frames(
            track, table["first"].to_numpy(), table["length"].to_numpy(), table["step"].to_numpy()
        )

    def window_set(self, table: pl.DataFrame, unit: Unit = "metres") -> WindowSet:
        """Place windows by coordinates.

        Args:
            table: Window table (contract `sequences`).
            unit: "metres" groups them by zone; "frames" puts (rank, 0) into one group.
        """
        xy, heading = self._ground(_only(table, "track"), unit) if table.height else (np.zeros((0, 2)), np.zeros(0))
        # Metres of two zones are never compared: a zone is a group.
        by_zone = unit == "metres" and table.height > 0
        group = self._zone_numbers[table["centre"].to_numpy()] if by_zone else np.zeros(table.height, np.int64)
        return WindowSet.from_coordinates(
            xy,
            table["first"].to_numpy(),
            table["length"].to_numpy(),
            step=table["step"].to_numpy(),
            group=group,
            heading=heading,
        )

    def _ground(self, key: str, unit: Unit) -> tuple[Float64Array, Float64Array]:
        """Coordinates (F, 2) and headings (F,) of a track's frames; gathered once, because mining asks every round."""
        if (key, unit) not in self._grounds:
            track = self.track(key)
            of_track = self.frames.select("easting", "northing", "heading")[track["frame"].to_numpy()]
            if unit == "frames":
                # Ranks on a line: the distance of two frames is then the difference of their ranks.
                xy = np.column_stack([track["rank"].to_numpy().astype(np.float64), np.zeros(track.height)])
            else:
                xy = of_track.select("easting", "northing").to_numpy()
            self._grounds[key, unit] = xy, of_track["heading"].fill_null(float("nan")).to_numpy()
        return self._grounds[key, unit]

    @cached_property
    def _zone_numbers(self) -> IntArray:
        """Number each frame's zone, the same number for equal zones."""
        return self.frames["zone"].rank("dense").to_numpy().astype(np.int64)


def _only(table: pl.DataFrame, column: str) -> str:
    """Return the one value of a column. Raises: ContractError when a table mixes several."""
    values = table[column].unique()
    if len(values) != 1:
        raise ContractError(
            f"a window table mixes {column} values ({', '.join(values.sort().head(3))}); use one at a time"
        )
    return str(values[0])


def _digits(metres: float) -> str:
    """The shortest decimal digits that give exactly this number."""
    return np.format_float_positional(metres, trim="-")


def on_side(frames: pl.DataFrame, cut: Cut, side: str) -> BoolArray:
    """Mark the frames on one side of a cut.

    Args:
        frames: Columns zone, easting and northing, n rows.
        cut: Polygon and buffer, in metres of one zone.
        side: "inside" or "outside".

    Returns:
        One bool a frame, (n,).

    Convention: "inside" is the polygon with its edge, "outside" is at least `cut.buffer` metres away from it; what lies
    between belongs to neither.

    Raises:
        ContractError: If a frame lies in another zone than the cut.
    """
    other = frames["zone"].filter(frames["zone"] != cut.zone)
    if len(other):
        raise ContractError(f"the protocol's cut is in zone {cut.zone}, frames of the dataset lie in zone {other[0]}")
    points = shapely.points(frames["easting"].to_numpy(), frames["northing"].to_numpy())
    distance = shapely.distance(shapely.Polygon(cut.corners), points)
    mask: BoolArray = distance == 0 if side == "inside" else (distance > 0) & (distance >= cut.buffer)
    return mask
