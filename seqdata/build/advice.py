"""What to type where a build gives no query or no database: the one command that would, with the counts it would give.

A split measures nothing unless it has both roles. Requests that change roles, cut or protocol are planned on the same
dump, and the first that fills every split is advised.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from seqdata import protocols
from seqdata.build.builder import list_work
from seqdata.build.dry_run import window_counts
from seqdata.build.request import BuildRequest
from seqdata.contracts.manifest import BuildSettings
from seqdata.errors import SeqdataError
from seqdata.sequences.sequencer import ROLES
from seqdata.sources.registry import OWN_DRIVES, open_source

Counts = Mapping[str, Mapping[str, int]]
"""Windows by split and role."""

# Metres around the test stretch, largest first: short drives leave nothing outside a wide buffer.
BUFFERS = ("25", "10", "5", "2", "0")
# Pairs of drives are compared up to here; the first drives of a dump say enough about it.
_MOST_DRIVES = 40
# A listing of so many frames takes seconds; those of whole MSLS or RobotCar take minutes.
_MOST_FRAMES = 200_000
# Guess: two drives have common ground when a tenth of the one lies near the other.
_COMMON = 0.1
_OWN_FLAGS = ("positions", "roles", "cut", "buffer", "pose_gap")


@dataclass(frozen=True)
class Advice:
    """A request that gives windows where the build's own gave none.

    Attributes:
        request: The request.
        counts: The windows that it would give.
        is_complete: Whether a split has both roles; else a database alone, which can be indexed and searched.
    """

    request: BuildRequest
    counts: Counts
    is_complete: bool

    def command(self, out: str) -> str:
        """The command line of the request, quoted for a shell; the dataset goes to `out`."""
        request = self.request
        words = ["seqdata", "build", request.kind, str(request.raw)]
        for name, value in request.options.items():
            flag = f"--{name.replace('_', '-')}"
            words += (
                [flag, value] if request.kind != OWN_DRIVES or name in _OWN_FLAGS else ["--option", f"{name}={value}"]
            )
        if request.protocol is not None and request.kind != OWN_DRIVES:
            words += ["--protocol", request.protocol.name]
        return shlex.join([*words, *_setting_flags(request), "--out", out])


def has_both_roles(counts: Mapping[str, int]) -> bool:
    """Whether a split has a database and queries."""
    return all(counts[role] > 0 for role in ROLES)


def lacking(counts: Counts) -> str:
    """Say which windows each split lacks.

    Example:
        >>> lacking({"train": {"database": 3, "query": 0}, "test": {"database": 0, "query": 0}})
        'train lacks query windows, test lacks database and query windows'
    """
    clauses = [
        f"{split} lacks {' and '.join(role for role in ROLES if not roles[role])} windows"
        for split, roles in counts.items()
        if not has_both_roles(roles)
    ]
    return ", ".join(clauses)


def counts_text(counts: Counts) -> str:
    """Windows of every split in words.

    Example:
        >>> counts_text({"test": {"database": 25, "query": 7}})
        '25 database and 7 query windows in test'
    """
    return ", ".join(
        f"{roles['database']:,} database and {roles['query']:,} query windows in {split}"
        for split, roles in counts.items()
    )


def advise(request: BuildRequest, frames: int = 0) -> Advice | None:
    """Find the request, near the given one, that gives both roles on the same dump.

    Args:
        request: A request of whose splits some lack a role.
        frames: Frames of the dump; each candidate lists it once, so that large dumps get no advice.

    Returns:
        The first candidate that fills every split, else the first that fills one, else one with a database alone; None
        where no candidate gives any window.
    """
    if frames > _MOST_FRAMES:
        return None
    partial: list[Advice] = []
    for candidate in _own_drives(request) if request.kind == OWN_DRIVES else _other_protocols(request):
        counts = plan_counts(candidate)
        if counts and all(map(has_both_roles, counts.values())):
            return Advice(candidate, counts, is_complete=True)
        if any(map(has_both_roles, counts.values())):
            partial.append(Advice(candidate, counts, is_complete=True))
        elif any(roles["database"] for roles in counts.values()):
            partial.append(Advice(candidate, counts, is_complete=False))
    return min(partial, key=lambda advice: not advice.is_complete, default=None)


def plan_counts(request: BuildRequest) -> Counts:
    """The windows that a request would give, by split and role; none where it would fail."""
    try:
        return window_counts(list_work(request)[1])
    except SeqdataError:  # such as a cut that leaves one side empty
        return {}


def _setting_flags(request: BuildRequest) -> list[str]:
    """Flags of the settings that differ from a build's own."""
    settings, default = request.settings, BuildSettings()
    values = {"check": settings.check, "short_side": settings.short_side, "quality": settings.quality}
    changed = {name: value for name, value in values.items() if value != getattr(default, name)}
    words = [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [*words, *(["--keep-png"] if settings.keep_png else []), *(["--drop"] if settings.drop else [])]


def _other_protocols(request: BuildRequest) -> Iterator[BuildRequest]:
    """The same dump under each shipped protocol of its kind, then under `own`."""
    for name in (*protocols.names(), "own"):
        protocol = protocols.load(name)
        if protocol.source in (request.kind, OWN_DRIVES if name == "own" else request.kind):
            yield replace(request, protocol=protocol)


def _own_drives(request: BuildRequest) -> Iterator[BuildRequest]:
    """Requests with roles for the two drives of most common ground, a narrower buffer, no cut, or a database alone."""
    rest = {name: value for name, value in request.options.items() if name not in ("roles", "cut", "buffer")}
    try:
        records = open_source(request.kind, request.raw, rest).listing().records
    except SeqdataError:
        return
    drives = _drives(records)
    pair = _common_drives(drives)
    roles = request.options.get("roles")
    has_roles = roles is not None or set(records["role"].drop_nulls()) == set(ROLES)
    cut = {name: request.options[name] for name in ("cut", "buffer") if name in request.options}
    if not has_roles and pair is not None:
        roles = f"database:{pair[0]},query:{pair[1]}"
        yield replace(request, options={**rest, "roles": roles, **cut})
    named = {} if roles is None else {"roles": roles}
    if cut and (has_roles or pair is not None):
        narrower = [buffer for buffer in BUFFERS if float(buffer) < float(cut.get("buffer", "50"))]
        for share in dict.fromkeys((cut["cut"], "0.5")):
            for buffer in narrower:
                yield replace(request, options={**rest, **named, "cut": share, "buffer": buffer})
    if has_roles or pair is not None:
        # Without the cut every frame serves the test split.
        yield replace(request, options={**rest, **named}, protocol=protocols.load("own"))
    elif len(drives):
        largest = max(drives, key=lambda name: len(drives[name]))
        yield replace(request, options={**rest, "roles": f"database:{largest}"}, protocol=protocols.load("own"))


def _drives(records: pl.DataFrame) -> dict[str, np.ndarray]:
    """Positions (n, 2) in metres of each drive, by its name; parts that play a role belong to their drive."""
    # Where a table gives one drive both roles, its trajectories are called drive/database and drive/query.
    name = pl.col("trajectory").str.replace(r"/(database|query)$", "").alias("drive")
    groups = records.group_by(name, maintain_order=True).agg("easting", "northing").head(_MOST_DRIVES)
    return {drive: np.column_stack([east, north]) for drive, east, north in groups.iter_rows()}


def _common_drives(drives: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    """The database and the query with the largest share of the query's frames near the database; None without one."""
    radius = protocols.load("own").radius
    trees = {name: cKDTree(points) for name, points in drives.items()}
    shares = {
        (database, query): float(np.mean(trees[database].query(points, distance_upper_bound=radius)[0] < radius))
        for database in drives
        for query, points in drives.items()
        if database != query
    }
    best = max(shares, key=lambda pair: shares[pair], default=None)
    return best if best is not None and shares[best] >= _COMMON else None


def split_counts(described: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The windows by split and role of `seqdata.dataset.info.protocol_counts`."""
    return {split: {role: counts[role] for role in ROLES} for split, counts in described.items()}


def advised_out(out: str | Path, advice: Advice) -> str:
    """A place for the advised dataset beside the one that was built, named by what changes."""
    options, place = advice.request.options, str(out).rstrip("/")
    if advice.request.kind != OWN_DRIVES and advice.request.protocol is not None:
        folder, slash, _ = place.rpartition("/")
        return f"{folder}{slash}{advice.request.protocol.name}"
    place += "-cut" if "cut" in options else "-roles"
    return f"{place}-{options['buffer']}m" if "buffer" in options else place
