"""A protocol as data: its fields, the words they may hold, its splits and its cut of the ground."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from seqdata.contracts.records import Frozen
from seqdata.errors import ContractError, UsageError
from seqdata.storage.hashing import sha256_json

Rule = Literal["any", "centre", "last", "all"]
Unit = Literal["metres", "frames"]
Edges = Literal["drop", "shift"]
Panoramas = Literal["drop", "keep", "centre"]
SpacingRule = Literal["greedy", "arc"]
Count = int | Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?k$")]
"""A count that a paper gives: exact, or rounded as in "5.2k"."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Names of protocols and splits: they become parts of file names."""


class Cut(Frozen):
    """A cut of the ground in two: a polygon, and the buffer around it that belongs to neither side.

    Attributes:
        zone: UTM zone of the corners, such as "30N".
        corners: Corners of the polygon, (easting, northing) in metres.
        buffer: Width in metres of the ground around the polygon that belongs to neither side.

    Convention: corners are (easting, northing), metres of UTM `zone`. A frame is inside when it lies in the polygon or
    on its edge, outside when it is at least `buffer` metres away from it; a window belongs to a side with all frames.
    """

    zone: str = Field(pattern=r"^[0-9]{1,2}[NS]$")
    corners: tuple[tuple[float, float], ...] = Field(min_length=3)
    buffer: float = Field(ge=0)


class Split(Frozen):
    """What belongs to one split: cities, trajectories by role, and a half-open range of positions.

    An absent field admits everything. With `database` and `query` the protocol itself gives the roles (Nordland's
    seasons, RobotCar's laps); without them the frames' own roles hold.

    Attributes:
        cities: Names of cities.
        database: Trajectories of the database.
        query: Trajectories of the queries.
        positions: Ranks [start, stop) within a trajectory.
        part: Part of each drive that a cut along the route left, as in `<drive>/train`.
        side: Side of the protocol's cut.
        subtask: Name among the centre frame's subtasks (MSLS).
    """

    # Fields of later releases; while unset they are left out of hashes, so older protocols keep theirs.
    later = frozenset({"part", "side", "subtask"})
    cities: tuple[str, ...] | None = None
    database: tuple[str, ...] | None = None
    query: tuple[str, ...] | None = None
    positions: tuple[int, int] | None = None
    part: str | None = Field(default=None, pattern=NAME)
    side: Literal["inside", "outside"] | None = None
    subtask: str | None = None

    @field_validator("positions")
    @classmethod
    def _rising(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError(f"[start, stop) must rise from 0 or more, it is {list(value)}")
        return value


class TrainRule(Frozen):
    """Radii of training pairs: positives lie within the first, negatives beyond the second (unit of the protocol).

    Attributes:
        positive_radius: Radius of positives.
        negative_radius: Radius beyond which windows are negatives.
        rule: Which frames of two windows are compared.
        negative_rule: The same for negatives, where it is another one.
    """

    later = frozenset({"negative_rule"})
    positive_radius: float = Field(default=10.0, gt=0)
    negative_radius: float = Field(default=25.0, gt=0)
    rule: Rule = "any"
    negative_rule: Rule | None = None


class Protocol(Frozen):
    """Everything that decides a recall, and nothing else.

    The shipped ones follow section IV of both papers (docs/methods.md#positives).

    Attributes:
        name: Name that stands beside every number.
        version: Version of the file.
        title: What it is, in a line.
        source: Kind of dump that it is meant for.
        length: Frames of a window.
        stride: Frames from window to window.
        spacing: Metres that trajectories are resampled to; None takes all frames.
        max_step: Greatest distance in metres of neighbouring frames in a window.
        unit: Unit of the radii, "metres" or "frames".
        rule: Which distance of two windows counts: "any", "centre", "last" or "all".
        radius: Radius of positives in `unit`.
        heading_max: Greatest difference of the headings of a positive pair, in degrees.
        train: Radii of training pairs.
        pool: Whether all cities are searched together, or each by itself.
        panoramas: Dropped before windows are cut, kept, or judged at the window's centre frame.
        clean: Whether only frames of the clean list count (Nordland).
        first_even: At an even length "skip" leaves out the first window of each trajectory's frames in a split.
        edges: What happens at a run's ends, "drop" or "shift" (see `seqdata.sequences.windows`).
        no_positive: Whether queries without a positive are left out or count as misses.
        splits: The splits by name.
        expected_counts: Published counts of each split.
        expected_at: Published counts at other lengths.
        spacing_rule: Resampling rule that `spacing` needs; None takes the dataset's.
        pose_source: Log that positions must come from (RobotCar).
        pose_mode: How positions must be looked up (RobotCar).
        pose_gap: Longest gap in seconds between two poses around a frame (RobotCar).
        crop: Crop of the pictures, as the source writes it (RobotCar).
        cut: Cut of the ground that the splits' sides refer to.

    Convention: metres are UTM metres within one zone, a pair is positive when its distance is strictly less than
    `radius`; with unit "frames" it is positive when the difference of positions is at most `radius`.
    """

    # As in `Split`. A new field goes here too, unless every protocol is to get a new hash.
    later = frozenset(
        {"spacing_rule", "pose_source", "pose_mode", "pose_gap", "crop", "cut", "expected_at", "first_even"}
    )
    name: str = Field(pattern=NAME)
    version: int = 1
    title: str = ""
    source: str
    length: int = Field(default=5, ge=1)
    stride: int = Field(default=1, ge=1)
    spacing: float | None = Field(default=None, gt=0)
    max_step: float | None = Field(default=None, gt=0)
    unit: Unit = "metres"
    rule: Rule = "any"
    radius: float = Field(default=25.0, gt=0)
    heading_max: float | None = Field(default=None, gt=0, le=180)
    train: TrainRule = TrainRule()
    pool: Literal["together", "each"] = "together"
    panoramas: Panoramas = "drop"
    clean: bool = False
    first_even: Literal["keep", "skip"] | None = None
    edges: Edges = "drop"
    no_positive: Literal["leave-out", "miss"] = "leave-out"
    splits: dict[Annotated[str, Field(pattern=NAME)], Split] = Field(min_length=1)
    expected_counts: dict[str, dict[str, Count]] = Field(default_factory=dict)
    expected_at: dict[str, dict[str, dict[str, Count]]] = Field(default_factory=dict)
    spacing_rule: SpacingRule | None = None
    pose_source: Literal["gps", "ins", "rtk"] | None = None
    pose_mode: Literal["interpolate", "nearest"] | None = None
    pose_gap: float | None = Field(default=None, gt=0)
    crop: str | None = None
    cut: Cut | None = None

    @model_validator(mode="after")
    def _cut_is_used(self) -> "Protocol":
        sides = {name for name, split in self.splits.items() if split.side is not None}
        if bool(sides) != (self.cut is not None):
            raise ValueError("a [cut] and the splits' 'side' need each other")
        return self

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of every field that decides a number (no title, no counts)."""
        return sha256_json(self.model_dump(mode="json", exclude={"title", "expected_counts", "expected_at"}))[:12]

    @property
    def label(self) -> str:
        """`name@hash`, the form in which a protocol stands beside a number."""
        return f"{self.name}@{self.hash}"

    def split(self, name: str) -> Split:
        """Look up a split.

        Raises:
            UsageError: Listing the splits there are.
        """
        if name not in self.splits:
            raise UsageError(f"protocol {self.name}: no split '{name}'; it has {', '.join(self.splits)}")
        return self.splits[name]

    @property
    def pinned_rule(self) -> SpacingRule | None:
        """The resampling rule that a dataset must have for this protocol's spacing; None where any will do."""
        return None if self.spacing is None else self.spacing_rule

    def check_rule(self, rule: str) -> None:
        """Raise ContractError when the protocol's spacing is by another rule than `rule`, the dataset's."""
        if self.pinned_rule not in (None, rule):
            raise ContractError(
                f"protocol {self.name}: its spacing_rule is '{self.spacing_rule}', the dataset's is '{rule}' (field "
                f"'resample_rule'); build the dataset with the rule {self.spacing_rule}, or name another protocol"
            )

    def variant(self, length: int | None = None, stride: int | None = None, spacing: float | None = None) -> "Protocol":
        """Derive the same protocol at another length, stride or spacing, under a name that says so.

        Args:
            length: Frames of a window; None leaves it.
            stride: Frames from window to window; None leaves it.
            spacing: Metres between frames; None leaves it.

        Returns:
            A protocol with a hash of its own, such as `msls-seqvlad-L10`; what stays the same is not named.

        Raises:
            ContractError: If a value is not positive.
        """
        values = {"length": length, "stride": stride, "spacing": spacing}
        change = {field: value for field, value in values.items() if value not in (None, getattr(self, field))}
        if any(not value > 0 for value in change.values()):
            raise ContractError(f"protocol {self.name}: length, stride and spacing must be positive, not {change}")
        if not change:
            return self
        # The marks are parsed again by `seqdata.protocols.variant_of`.
        marks = {"length": "-L{:g}", "stride": "-s{:g}", "spacing": "-{:g}m"}
        name = self.name + "".join(mark.format(change[field]) for field, mark in marks.items() if field in change)
        # Published counts hold for the published length alone.
        expected = self.expected_at.get(str(length), {}) if set(change) == {"length"} else {}
        return self.model_copy(update={**change, "name": name, "expected_counts": expected, "expected_at": {}})
