"""Rows of the table of `make gpu`: a figure, a plain peer's on the same card in the same run, a ceiling, a goal."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        stage: What was measured.
        ours: Our figure.
        unit: Of `ours`, `peer` and `ceiling`.
        peer: The peer's figure; None where there is none.
        ceiling: What the card allows at best, computed from measured rates; None where that has no meaning.
        goal: What is to be reached, by `of`.
        of: "peer": `ours` is so many times better than the peer; "ceiling": it is such a share of the ceiling; "ours":
            it is at least (or where less is better, at most) the goal itself.
        is_higher_better: Whether more of the unit is better.
    """

    stage: str
    ours: float
    unit: str
    peer: float | None = None
    ceiling: float | None = None
    goal: float | None = None
    of: Literal["peer", "ceiling", "ours"] = "peer"
    is_higher_better: bool = False

    @property
    def gain(self) -> float | None:
        """Factor by which ours is better than the peer; None without one, or where ours is zero."""
        if self.peer is None or not self.ours:
            return None
        return self.ours / self.peer if self.is_higher_better else self.peer / self.ours

    @property
    def share(self) -> float | None:
        """Share of the ceiling that is reached, at most 1 by definition of a ceiling."""
        if self.ceiling is None:
            return None
        return self.ours / self.ceiling if self.is_higher_better else self.ceiling / self.ours

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        if self.of == "ours":
            return self.ours >= self.goal if self.is_higher_better else self.ours <= self.goal
        reached = self.gain if self.of == "peer" else self.share
        return reached is not None and reached >= self.goal

    def as_json(self) -> dict[str, Any]:
        """The row with what follows from it."""
        return {**asdict(self), "gain": self.gain, "share": self.share, "is_reached": self.is_reached}


def from_json(values: dict[str, Any]) -> Row:
    """Read a row that `as_json` wrote."""
    return Row(**{name: value for name, value in values.items() if name in Row.__dataclass_fields__})


def table(rows: list[Row]) -> str:
    """Lay out rows as text."""
    lines = [f"{'stage':<44}{'ours':>11}{'peer':>11}{'gain':>8}{'ceiling':>11}{'share':>7}{'goal':>7}  unit"]
    for row in rows:
        gain = "-" if row.gain is None else f"{row.gain:.2f}x"
        verdict = {None: "", True: "reached", False: "MISSED"}[row.is_reached]
        share = "-" if row.share is None else f"{row.share:.2f}"
        goal = "-" if row.goal is None else f"{row.goal:g}"
        ours, peer, ceiling = ("-" if value is None else f"{value:.4g}" for value in (row.ours, row.peer, row.ceiling))
        lines.append(
            f"{row.stage:<44}{ours:>11}{peer:>11}{gain:>8}{ceiling:>11}{share:>7}{goal:>7}  {row.unit} {verdict}"
        )
    return "\n".join(lines)
