"""Fields of a protocol: the words it may use, its splits, its cut, and the base of every stored model."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

Rule = Literal["any", "centre", "last", "all"]
Unit = Literal["metres", "frames"]
Edges = Literal["drop", "shift"]
Panoramas = Literal["drop", "keep", "centre"]
SpacingRule = Literal["greedy", "arc"]
Count = int | Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?k$")]
"""A count that a paper gives: exact, or rounded as in "5.2k"."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Names of protocols and splits: they become parts of file names."""


class Frozen(BaseModel):
    """Base of every stored model: immutable, and an unknown field is an error.

    Fields named in `later` were added after the first release. At their default they are left out of everything that
    is stored or hashed, so that older files keep their bytes, their hashes and their ids.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        stored: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        defaults = {name: fields[name].get_default(call_default_factory=True) for name in self.later}
        unused = {name for name, default in defaults.items() if getattr(self, name) == default}
        return {name: value for name, value in stored.items() if name not in unused}


class Cut(Frozen):
    """A cut of the ground in two: a polygon, and the buffer around it that belongs to neither side.

    Convention: corners are (easting, northing), metres of UTM `zone`. A frame is inside when it lies in the polygon or
    on its edge, outside when it is at least `buffer` metres away from it; a window belongs to a side with all frames.
    """

    zone: str = Field(pattern=r"^[0-9]{1,2}[NS]$")
    corners: tuple[tuple[float, float], ...] = Field(min_length=3)
    buffer: float = Field(ge=0)


class Split(Frozen):
    """What belongs to one split: cities, trajectories by role, and a half-open range of positions.

    An absent field admits everything. With `database` and `query` the protocol itself gives the roles (Nordland's
    seasons, RobotCar's laps); without them the frames' own roles hold. `positions` is [start, stop). `part` is the part
    of each drive that a cut along the route left, as in `<drive>/train`; `side` is the side of the protocol's cut,
    `subtask` a name among the centre frame's subtasks (MSLS).
    """

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
    """Radii of training pairs: positives lie within the first, negatives beyond the second (unit of the protocol)."""

    positive_radius: float = Field(default=10.0, gt=0)
    negative_radius: float = Field(default=25.0, gt=0)
    rule: Rule = "any"
