"""The page of a dataset: contact sheet, maps, histograms, counts beside what is expected, and what was left out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from indexer.report.html import render
from indexer.report.leakage import LeakageBlock, leakage_block
from indexer.report.preview.histogram import Histogram, make_histogram
from indexer.report.preview.sheet import contact_sheet, raw_thumbnail
from indexer.report.preview.views import (
    FASTEST,
    QUARTERS,
    SPEEDS,
    UNKNOWN,
    CityMap,
    Colouring,
    Labels,
    heading_quarters,
    light,
    make_city_maps,
    speed_classes,
)
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.info import describe, read_steps
from seqdata.dataset.leakage import leakage
from seqdata.errors import SeqdataError
from seqdata.parallel.steps import step
from seqdata.sequences.nearest import distance_to
from seqdata.sequences.sequencer import ROLES, TrackPolicy
from seqdata.storage.files import write_bytes_atomic

LENGTHS = (1, 3, 5, 7, 10, 15)  # the lengths of the papers' tables
SHARED_METRES = 25.0  # the radius within which most protocols call a place the same
MOST_REJECTS = 100  # rows in quarantine that the page lists
Result = TypeVar("Result")


@dataclass(frozen=True)
class Reject:
    """An input that the build left out: path in the raw dump, reason, what was wrong, and its picture or None."""

    source: str
    reason: str
    message: str
    picture: str | None


@dataclass(frozen=True)
class LengthRow:
    """Windows of one split and role by length, in the order of `LENGTHS`."""

    title: str
    windows: list[int]


@step("write the page")
def write_preview(out: str | Path, dataset: Dataset, *, raw: Path | None = None, command: str = "") -> list[str]:
    """Write the preview as one offline HTML file.

    Args:
        out: The file.
        dataset: The dataset.
        raw: Folder of the raw dump, from which pictures in quarantine are shown.
        command: The command line that made the page, printed on it.

    Returns:
        A line for each part that could not be read and is not on the page.

    Raises:
        OutputError: If the file cannot be written.
    """
    page, faults = render_preview(dataset, raw=raw, command=command)
    write_bytes_atomic(out, page.encode())
    return faults


def render_preview(dataset: Dataset, *, raw: Path | None = None, command: str = "") -> tuple[str, list[str]]:
    """Render the preview as HTML; see `write_preview`."""
    protocol = dataset.manifest.protocol
    described = describe(dataset)
    faults: list[str] = list(described["faults"])

    def attempt(read: Callable[[], Result]) -> Result | None:
        # A page with a gap says more of a damaged dataset than no page; the gap is named at its head.
        try:
            return read()
        except SeqdataError as error:
            faults.append(str(error))
            return None

    sheet, unreadable = attempt(lambda: contact_sheet(dataset, protocol)) or ([], [])
    faults += unreadable
    rejects = attempt(lambda: _rejects(dataset, raw)) or []
    page = render(
        "preview",
        described=described,
        licence=", ".join(dict.fromkeys(source.licence for source in dataset.manifest.sources if source.licence)),
        command=command,
        label=None if protocol is None else protocol.label,
        sheet=sheet,
        maps=attempt(lambda: _maps(dataset, protocol)),
        histograms=attempt(lambda: _histograms(dataset, protocol)),
        lengths=LENGTHS,
        windows=attempt(lambda: _windows_by_length(dataset, protocol)),
        leakage=None if protocol is None else attempt(lambda: _leakage(dataset, protocol)),
        rejects=rejects,
        faults=(lines := list(dict.fromkeys(faults))),
        has_raw=raw is not None,
    )
    return page, lines


def _maps(dataset: Dataset, protocol: Protocol | None) -> tuple[CityMap, ...]:
    """The maps of all frames, in every view that the dataset has."""
    frames = dataset.frame_columns("city", "easting", "northing", "heading", "night")
    speed = read_steps(dataset.frames)["speed"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    heading = frames["heading"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    speeds = (*(name for _, name in SPEEDS), FASTEST, UNKNOWN)
    views = {
        "role": Colouring("role", _roles(dataset, protocol), (*ROLES, "no role")),
        "heading": Colouring("heading", heading_quarters(heading), (UNKNOWN, *QUARTERS)),
        "speed": Colouring("speed", speed_classes(speed), speeds),
        "light": Colouring("day and night", light(frames["night"]), (UNKNOWN, "day", "night")),
    }
    xy = frames.select("easting", "northing").to_numpy()
    if protocol is not None:
        views |= _split_views(dataset, protocol)
    return make_city_maps(frames["city"].to_numpy().astype(np.str_), xy, views)


def _roles(dataset: Dataset, protocol: Protocol | None) -> Labels:
    """Role of every frame: the protocol's where the dump, such as Nordland, gives none."""
    roles = dataset.frame_columns("role")["role"].fill_null("no role").to_numpy().astype("<U8")
    if protocol is not None:
        track = dataset.sequencer.track(TrackPolicy.from_protocol(protocol).key)["frame"].to_numpy()
        for split in protocol.splits:
            for role in ROLES:
                rows = track[dataset.sequencer.frames_of(protocol, split, role)]
                roles[rows] = np.where(roles[rows] == "no role", role, roles[rows])
    return roles


def _split_views(dataset: Dataset, protocol: Protocol) -> dict[str, Colouring]:
    """Views by split, and by whether test ground was trained on."""
    sequencer = dataset.sequencer
    track = sequencer.track(TrackPolicy.from_protocol(protocol).key)["frame"].to_numpy()
    height = sequencer.frames.height
    width = max(len("in no split"), *(len(name) for name in protocol.splits))
    split = np.full(height, "in no split", dtype=f"<U{width}")
    for name in protocol.splits:
        for role in ROLES:
            split[track[sequencer.frames_of(protocol, name, role)]] = name
    views = {"split": Colouring("split", split, ("in no split", *protocol.splits))}
    trained = split == "train"
    if trained.any() and (~trained & (split != "in no split")).any():
        words = (
            "in no split",
            "training ground",
            f"farther than {SHARED_METRES:g} m",
            f"within {SHARED_METRES:g} m of it",
        )
        ground = np.where(trained, words[1], words[0])
        zone = sequencer.frames["zone"].to_numpy()
        xy = sequencer.frames.select("easting", "northing").to_numpy()
        judged = ~trained & (split != "in no split")
        for name in np.unique(zone[judged]):
            rows = np.flatnonzero(judged & (zone == name))
            is_near = distance_to(xy[rows], xy[trained & (zone == name)]) < SHARED_METRES
            ground[rows] = np.where(is_near, words[3], words[2])
        views["leakage"] = Colouring("shared ground", ground, words)
    return views


def _histograms(dataset: Dataset, protocol: Protocol | None) -> list[Histogram]:
    """Spacing and speed of all frames, and positives a query of each split."""
    steps = read_steps(dataset.frames)
    values = {name: steps[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("step", "speed")}
    charts = [
        make_histogram("Spacing of neighbouring frames", "m", values["step"]),
        make_histogram("Speed", "m/s", values["speed"]),
    ]
    if protocol is not None:
        charts += [_positives_histogram(dataset, protocol, split) for split in protocol.splits]
    return [chart for chart in charts if chart is not None]


def _positives_histogram(dataset: Dataset, protocol: Protocol, split: str) -> Histogram | None:
    """Positives a query of one split; None without queries or without a database."""
    queries = dataset.sequences(protocol, split, "query").height
    if not queries or not dataset.sequences(protocol, split, "database").height:
        return None
    pairs = dataset.protocol_positives(protocol, split)["query"].to_numpy()
    counts = np.bincount(pairs, minlength=queries).astype(np.float64)
    return make_histogram(f"Positives a query, {split}", "positives", counts, is_whole=True)


def _windows_by_length(dataset: Dataset, protocol: Protocol | None) -> list[LengthRow]:
    """How many windows of each length the dataset gives."""
    if protocol is None:
        return [
            LengthRow(role, [dataset.sequences(role=role, length=length).height for length in LENGTHS])
            for role in ROLES
        ]
    variants = [protocol.model_copy(update={"length": length}) for length in LENGTHS]
    return [
        LengthRow(f"{split}, {role}", [dataset.sequences(variant, split, role).height for variant in variants])
        for split in protocol.splits
        for role in ROLES
    ]


def _leakage(dataset: Dataset, protocol: Protocol) -> LeakageBlock | None:
    """The leakage block; None where the protocol trains on nothing of this dataset."""
    if "train" not in protocol.splits:
        return None
    is_training = [dataset.sequencer.frames_of(protocol, "train", role).any() for role in ROLES]
    table = leakage(dataset.sequencer, protocol) if any(is_training) else None
    return None if table is None or not table.height else leakage_block(table)


def _rejects(dataset: Dataset, raw: Path | None) -> list[Reject]:
    """The first rows in quarantine, with pictures where the raw dump is at hand."""
    rows: list[dict[str, Any]] = dataset.quarantine.head(MOST_REJECTS).to_dicts()
    return [
        Reject(row["source"], row["reason"], row["message"], None if raw is None else raw_thumbnail(raw, row["source"]))
        for row in rows
    ]
