"""Rows of the table of `make gpu`: a figure, a plain peer's on the same card in the same run, a ceiling, a goal."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        stage: What was measured.
        ours: Our figure.
        unit: Of `ours`, `peer` and `ceiling`.
        peer: The peer's figure; None where the goal is absolute.
        ceiling: What the card allows at best, computed from measured rates; None where that has no meaning.
        goal: The ratio to reach: `ours` to the peer (or to the ceiling where `of_ceiling`), or `ours` itself.
        is_higher_better: Whether more of the unit is better.
        of_ceiling: Whether the goal is a share of the ceiling.
    """

    stage: str
    ours: float
    unit: str
    peer: float | None = None
    ceiling: float | None = None
    goal: float | None = None
    is_higher_better: bool = False
    of_ceiling: bool = False

    @property
    def gain(self) -> float:
        """Factor by which ours is better than the peer; ours itself without a peer."""
        if self.peer is None:
            return self.ours
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
        if self.of_ceiling:
            return self.share is not None and self.share >= self.goal
        return self.gain <= self.goal if self.peer is None and not self.is_higher_better else self.gain >= self.goal

    def as_json(self) -> dict[str, Any]:
        """The row with what follows from it."""
        return {**asdict(self), "gain": self.gain, "share": self.share, "is_reached": self.is_reached}


def table(rows: list[Row]) -> str:
    """Lay out rows as text."""
    lines = [f"{'stage':<42}{'ours':>11}{'peer':>11}{'gain':>8}{'ceiling':>11}{'share':>7}{'goal':>7}  unit"]
    for row in rows:
        gain = "-" if row.peer is None else f"{row.gain:.2f}x"
        verdict = {None: "", True: "reached", False: "MISSED"}[row.is_reached]
        share = "-" if row.share is None else f"{row.share:.2f}"
        goal = "-" if row.goal is None else f"{row.goal:g}"
        ours, peer, ceiling = ("-" if value is None else f"{value:.4g}" for value in (row.ours, row.peer, row.ceiling))
        lines.append(
            f"{row.stage:<42}{ours:>11}{peer:>11}{gain:>8}{ceiling:>11}{share:>7}{goal:>7}  {row.unit} {verdict}"
        )
    return "\n".join(lines)
