"""Oxford RobotCar: laps of one camera with positions looked up in time, unpacked or straight from the tar chunks.

Convention: a trajectory is a lap, `position` a frame's index in the timestamps file, so that an absent frame breaks
windows. All laps are in one UTM zone, chosen by their median; the published eastings and northings are used, and where
they lie more than a kilometre from latitude and longitude in that zone (another zone's metres), these are projected.
Roles are the protocol's; the dump does not say what is night. The default camera is stereo_left, that of the published
2 m lists (seqNet); the papers' own pictures of 1280×960 are the stereo camera's, and neither names which of the three.
Source: the dataset's documentation and SDK; the project's format notes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

import seqdata.protocols
from seqdata import geometry
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError, InputError, UsageError
from seqdata.frames.images import Pixels
from seqdata.sources.base import Listing, Source, quarantine_rows, split_duplicates
from seqdata.sources.detect import looks_like_another
from seqdata.sources.files import reading
from seqdata.sources.robotcar.images import Development, crop_text, develop, lookup_file, parse_crop
from seqdata.sources.robotcar.layout import CAMERAS, Layout
from seqdata.sources.robotcar.layout import recognise as recognise
from seqdata.sources.robotcar.pose import PoseMode, PoseSource, clock_hint, look_up

SAME_ZONE_METRES = 1000.0
_VIEWS = {"mono_left": "Sideways", "mono_right": "Sideways", "mono_rear": "Backward"}


@dataclass(frozen=True)
class PoseOptions:
    """Where positions come from.

    Attributes:
        source: The log.
        mode: Between the two log rows around a frame, or at the nearer of them.
        gap: Longest time between the two rows, in seconds.
    """

    source: PoseSource = "rtk"
    mode: PoseMode = "interpolate"
    gap: float = 0.5


def open(raw: Path, options: Mapping[str, str]) -> "RobotcarSource":
    """Open the RobotCar dump at `raw`; for the options see `seqdata.sources.registry`.

    Raises:
        UsageError: If an option has a bad value.
        InputError: If the lookup table is missing.
    """
    laps = tuple(name.strip() for name in options.get("laps", "").split(",") if name.strip())
    camera = _choice(options, "camera", "stereo_left", CAMERAS)
    source: Any = _choice(options, "pose", "rtk", get_args(PoseSource))
    mode: Any = _choice(options, "pose_mode", "interpolate", get_args(PoseMode))
    pose = PoseOptions(source, mode, _seconds(options.get("pose_gap", "0.5")))
    table = lookup_file(options.get("undistort", ""), camera)
    try:
        crop = parse_crop(options.get("crop", "none"))
    except ContractError as error:
        raise UsageError(str(error)) from error
    return RobotcarSource(raw, laps, pose, Development(camera, table, crop))


def _choice(options: Mapping[str, str], name: str, default: str, values: tuple[str, ...]) -> str:
    value = options.get(name, default)
    if value not in values:
        raise UsageError(f"{name} '{value}': expected {', '.join(values)}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"pose_gap '{text}': expected seconds above 0")
    return value


@dataclass(frozen=True)
class RobotcarSource(Source):
    """A folder of laps; the fields follow from the options of `open`.

    Attributes:
        raw: The folder.
        laps: Laps to build; empty means all that have pictures of the camera.
        pose: Where positions come from.
        development: The camera, and what is done to its raw pictures.
        attribution: Credits the dump's makers.
    """

    raw: Path
    laps: tuple[str, ...] = ()
    pose: PoseOptions = field(default_factory=PoseOptions)
    development: Development = field(default_factory=lambda: Development("stereo_left"))
    attribution: str = "Oxford RobotCar Dataset (CC BY-NC-SA 4.0), Maddern et al., IJRR 2017"

    @cached_property
    def layout(self) -> Layout:
        """Where the files are."""
        return Layout(self.raw, self.development.camera)

    def listing(self) -> Listing:
        """List every frame of the laps that is there and has a position.

        Raises:
            InputError: If this is no RobotCar dump, a named lap has no picture of the camera, a lap lacks the log that
                the option `pose` names, or an archive is damaged.
            ContractError: If a log lacks a column.
        """
        parts = [self._list_lap(lap) for lap in self._laps()]
        placed = [part.records for part in parts if part.records.height]
        records = (
            _one_zone(pl.concat(placed)) if placed else pl.DataFrame(schema=table_contract("records").polars_schema())
        )
        listing = split_duplicates(records.sort("trajectory", "position"))
        return Listing(listing.records, pl.concat([part.quarantine for part in parts] + [listing.quarantine]))

    def read(self, source: str) -> bytes | Pixels:
        """Read one raw picture: RGB pixels uint8 (H, W, 3), or its own bytes where nothing is to be done to it."""
        with reading():
            data = self.layout.images(source.split("/")[0]).read(source)
        return develop(data, self.development)

    def check_protocol(self, protocol: seqdata.protocols.Protocol) -> None:
        """Check what `protocol` pins.

        Raises:
            InputError: For positions or a crop that this build does not have.
        """
        for option, (pinned, own) in self.pinned_options(protocol).items():
            flag = f"--{option.replace('_', '-')}"
            raise InputError(
                f"{self.raw}: protocol {protocol.name} wants {flag} {pinned}, this build has {own}: "
                f"give {flag} {pinned}, or another --protocol"
            )

    def pinned_options(self, protocol: seqdata.protocols.Protocol) -> dict[str, tuple[str, str]]:
        """Options that `protocol` pins to another value than this source has: option → (pinned value, own value)."""
        crop = None if protocol.crop is None else crop_text(parse_crop(protocol.crop))
        pins: dict[str, tuple[str | float | None, str | float]] = {
            "pose": (protocol.pose_source, self.pose.source),
            "pose_mode": (protocol.pose_mode, self.pose.mode),
            "pose_gap": (protocol.pose_gap, self.pose.gap),
            "crop": (crop, crop_text(self.development.crop)),
        }
        return {
            option: (str(pinned), str(own))
            for option, (pinned, own) in pins.items()
            if pinned is not None and pinned != own
        }

    def _laps(self) -> list[str]:
        """The laps to build. Raises: InputError when one is absent or without a picture of the camera, or all are."""
        camera, laps = self.development.camera, self.layout.laps()
        absent = [lap for lap in self.laps if lap not in laps]
        if absent:
            raise InputError(f"{self.raw}: no lap '{absent[0]}'; it has {', '.join(laps) or 'none'}")
        selected = [lap for lap in laps if lap in self.laps or not self.laps]
        empty = [lap for lap in selected if not self.layout.files(lap).height]
        if self.laps and empty:
            raise InputError(f"{self.raw}: lap {empty[0]} has no picture of {camera}; name another --camera or --laps")
        if len(empty) == len(selected):
            raise InputError(
                f"{self.raw}: no lap yyyy-mm-dd-hh-mm-ss with pictures of {camera}, "
                f"unpacked or as <lap>_{camera}_01.tar{looks_like_another(self.raw, 'robotcar')}"
            )
        return selected

    def _list_lap(self, lap: str) -> Listing:
        """Records of one lap in the published metres, without a zone, and what is left out of it."""
        time, files = self.layout.timestamps(lap), self.layout.files(lap)
        if time is None and files.height:
            raise InputError(f"{self.raw}: no {self.layout.timestamps_file(lap)}; it comes with every chunk")
        times = pl.Series("time", [] if time is None else time, dtype=pl.Int64)
        # A line that is there twice must not take a position of its own: it would break every window.
        rows = _frames(lap, times.filter(times.is_first_distinct()), self.development.camera)
        repeated = _frames(lap, times.filter(~times.is_first_distinct()), self.development.camera)
        joined = rows.join(files, on="stem", how="left", maintain_order="left")
        missing = pl.format("{}/{}.png", pl.lit(self.layout.folder(lap)), "stem")
        absent = joined.filter(pl.col("name").is_null()).with_columns(missing.alias("source"))
        orphans = files.join(rows, on="stem", how="anti").sort("name").rename({"name": "source"})
        placed, unplaced, hint = self._place(
            lap, joined.filter(pl.col("name").is_not_null()).rename({"name": "source"})
        )
        gap = f"no two good rows of the {self.pose.source} log lie around it within {self.pose.gap:g} s{hint}"
        left_out = [
            quarantine_rows(absent, "absent_image", "listed in the timestamps file, but not downloaded"),
            quarantine_rows(orphans, "no_row", "an image file that the timestamps file does not list"),
            quarantine_rows(unplaced, "pose_gap", gap),
            quarantine_rows(
                repeated.drop("position").with_columns(missing.alias("source")),
                "duplicate_key",
                "the timestamps file lists this frame again",
            ),
            self.layout.skipped(lap),
        ]
        return Listing(placed, pl.concat(left_out))

    def _place(self, lap: str, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, str]:
        """Rows with their positions, those for which the log has none, and why none has one; "" where some have.

        A lap without pictures needs no log.
        """
        if not rows.height:
            return rows, rows, ""
        log, time = self.layout.log(lap, self.pose.source), rows["time"].to_numpy()
        poses = look_up(log, time, self.pose.mode, self.pose.gap)
        metres = {name: getattr(poses, name) for name in ("latitude", "longitude", "easting", "northing")}
        heading = pl.Series("heading", poses.heading.astype(np.float32)).fill_nan(None)
        # 359.999999 degrees in 32 bits are 360
        heading = heading.set(heading.fill_null(0) >= 360.0, 0.0)
        has_pose = pl.Series(poses.has_pose)
        placed = rows.with_columns(heading, **{name: pl.Series(values) for name, values in metres.items()})
        hint = "" if has_pose.any() else clock_hint(log, time)
        return placed.filter(has_pose), rows.filter(~has_pose), hint


def _frames(lap: str, time: pl.Series, camera: str) -> pl.DataFrame:
    """One row a line of the timestamps file: `stem` (its picture's name) and what is known of a frame without a log."""
    rows = time.to_frame("time").with_row_index("position")
    return rows.with_columns(
        pl.col("position").cast(pl.Int32),
        pl.col("time").cast(pl.String).alias("stem"),
        pl.format("{}_{}", pl.lit(lap), "time").alias("key"),
        pl.lit(lap).alias("trajectory"),
        pl.lit("oxford").alias("city"),
        pl.lit(value=False).alias("night"),
        pl.lit(value=False).alias("panorama"),
        pl.lit(_VIEWS.get(camera, "Forward")).alias("view_direction"),
        pl.lit("").alias("subtasks"),
    )


def _one_zone(records: pl.DataFrame) -> pl.DataFrame:
    """Records with the zone of their median; metres that are another zone's are projected again."""
    latitude, longitude = records["latitude"].to_numpy(), records["longitude"].to_numpy()
    zone = geometry.choose_zone(latitude, longitude)
    easting, northing = geometry.to_utm(latitude, longitude, zone)
    east, north = records["easting"].to_numpy(), records["northing"].to_numpy()
    # Published metres are used as they are: a projection of our own would move them by its rounding.
    own = np.hypot(east - easting, north - northing) <= SAME_ZONE_METRES
    return records.with_columns(
        pl.lit(zone).alias("zone"),
        pl.Series("easting", np.where(own, east, easting)),
        pl.Series("northing", np.where(own, north, northing)),
    )
