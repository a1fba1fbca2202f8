"""The contact sheet of a dataset: a filmstrip a trajectory, by split and role, and pictures that a build left out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from indexer.report.pictures import MOST_FRAMES, data_uri
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import SeqdataError
from seqdata.frames.formats import BadImageError, open_image
from seqdata.frames.images import to_rgb
from seqdata.geometry import IntArray
from seqdata.sequences.sequencer import ROLES, TrackPolicy

THUMBNAIL_WIDTH = 144  # pixels: 7 of them are 5 KB each, and a sheet of a hundred strips stays below 5 MB
MOST_STRIPS = 6  # trajectories a group, those with the most frames
MOST_GROUPS = 16
MOST_RAW_BYTES = 64 << 20  # a picture in quarantine may be anything


@dataclass(frozen=True)
class SheetStrip:
    """One trajectory: name, number of frames, and its pictures as data URIs, None where one cannot be shown."""

    trajectory: str
    frames: int
    pictures: list[str | None]


@dataclass(frozen=True)
class SheetGroup:
    """The strips of one split and role, or city and role, of `trajectories` in all."""

    title: str
    frames: int
    trajectories: int
    strips: list[SheetStrip]


def contact_sheet(dataset: Dataset, protocol: Protocol | None) -> tuple[list[SheetGroup], list[str]]:
    """Make the contact sheet, and a line for each fault that left a picture out.

    Frames of a strip are spread evenly over the trajectory, ends included.
    """
    groups = {title: rows for title, rows in _groups(dataset, protocol).items() if len(rows)}
    trajectory = dataset.frame_columns("trajectory")["trajectory"]
    plan = []
    for title, rows in list(groups.items())[:MOST_GROUPS]:
        parts = pl.DataFrame({"row": rows, "trajectory": trajectory[rows]}).partition_by(
            "trajectory", maintain_order=True
        )
        largest = sorted(parts, key=len, reverse=True)[:MOST_STRIPS]
        strips = [(str(part["trajectory"][0]), part["row"].to_numpy()) for part in largest]
        plan.append((title, len(rows), len(parts), strips))
    selection = [_spread(rows) for _, _, _, strips in plan for _, rows in strips]
    uris, faults = _thumbnails(dataset, np.concatenate(selection) if selection else np.zeros(0, np.int64))
    sheet = [
        SheetGroup(
            title,
            frames,
            count,
            [SheetStrip(name, len(rows), [uris.get(row) for row in _spread(rows).tolist()]) for name, rows in strips],
        )
        for title, frames, count, strips in plan
    ]
    return sheet, faults


def _groups(dataset: Dataset, protocol: Protocol | None) -> dict[str, IntArray]:
    """Frame rows by the title of their group."""
    if protocol is None:
        frames = dataset.frame_columns("city", "role").with_row_index("row")
        parts = frames.partition_by("city", "role", maintain_order=True)
        return {
            f"{part['city'][0]}, {part['role'][0] or 'no role'}": part["row"].to_numpy().astype(np.int64)
            for part in parts
        }
    track = dataset.sequencer.track(TrackPolicy.from_protocol(protocol).key)["frame"].to_numpy().astype(np.int64)
    return {
        f"{split}, {role}": track[dataset.sequencer.frames_of(protocol, split, role)]
        for split in protocol.splits
        for role in ROLES
    }


def _spread(rows: IntArray) -> IntArray:
    """At most seven rows, spread evenly."""
    return np.asarray(rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_FRAMES)).round().astype(int)])


def _thumbnails(dataset: Dataset, rows: IntArray) -> tuple[dict[int, str], list[str]]:
    """Data URIs by frame row; a frame that cannot be read has none, and a line says so."""
    faults: list[str] = []
    uris: dict[int, str] = {}
    if not len(rows):
        return uris, faults
    try:
        reader = dataset.frame_reader()
        images = reader.fetch(rows)
    except SeqdataError as error:
        return uris, [f"pictures cannot be shown: {error}"]
    for row, data in images.items():
        try:
            # One frame at a time: frames of several sources differ in size.
            uris[row] = data_uri(reader.decode(row, data).transpose(2, 0, 1), THUMBNAIL_WIDTH)
        except BadImageError as error:
            faults.append(f"frame {row} ({dataset.frame_key(row)}) cannot be shown: {error}")
    return uris, faults


def raw_thumbnail(raw: Path, source: str) -> str | None:
    """The picture of an input in quarantine as a data URI; None where it is absent, too large or does not decode."""
    path = (raw / source).resolve()
    # A quarantine table of others may name any file, which must not get into a page that is passed on.
    if not path.is_relative_to(raw.resolve()) or not path.is_file() or path.stat().st_size > MOST_RAW_BYTES:
        return None
    try:
        return data_uri(to_rgb(open_image(path.read_bytes())).transpose(2, 0, 1), THUMBNAIL_WIDTH)
    except (BadImageError, OSError):
        return None
