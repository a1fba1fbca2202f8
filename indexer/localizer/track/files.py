"""Files of a track: a table, and the forms that maps and trajectory tools read, written as the camera drives.

Rows of positions.csv are there as soon as they are known; the other files get their names when the recording ends,
however it ends. Only accepted places go on the track of GPX, KML and TUM; a gap in them ends a segment.

Convention: degrees WGS84; TUM's x is east and y north in metres from the first accepted place, z is 0.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from math import cos, radians, sin
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.localizer.localizer import Sighting
from indexer.localizer.track.recording import RecordedFrame
from seqdata.errors import OutputError
from seqdata.storage.files import GrowingFile, atomic_path, explain_write_failure

CSV, PARQUET = "positions.csv", "positions.parquet"
# Rows of a row group: some hundred kilobytes in memory.
_GROUP = 2048


@dataclass(frozen=True)
class TrackRow:
    """One answer: the centre frame of a window, and where it was taken (see `Place` and `Sighting`)."""

    frame: str
    time: float | None
    key: str
    trajectory: str
    position: int
    latitude: float
    longitude: float
    zone: str
    easting: float
    northing: float
    heading: float | None
    distance: float
    confidence: float | None
    belief: float | None
    accepted: bool
    runner_up: str | None
    runner_up_distance: float | None


SCHEMA = pa.schema([
    ("frame", pa.string()), ("time", pa.float64()), ("key", pa.string()), ("trajectory", pa.string()),
    ("position", pa.int32()), ("latitude", pa.float64()), ("longitude", pa.float64()), ("zone", pa.string()),
    ("easting", pa.float64()), ("northing", pa.float64()), ("heading", pa.float32()), ("distance", pa.float64()),
    ("confidence", pa.float64()), ("belief", pa.float64()), ("accepted", pa.bool_()), ("runner_up", pa.string()),
    ("runner_up_distance", pa.float64()),
])  # fmt: skip
"""Columns of positions.parquet, in the order of `TrackRow`."""

Write = Callable[[TrackRow], None]


def row_of(frame: RecordedFrame, sighting: Sighting) -> TrackRow:
    """The row of an answer."""
    place, other = sighting.place, sighting.runner_up
    fields = {name: getattr(place, name) for name in TrackRow.__dataclass_fields__ if hasattr(place, name)}
    return TrackRow(
        **fields,
        frame=frame.name,
        time=frame.time,
        belief=sighting.belief,
        runner_up=None if other is None else other.key,
        runner_up_distance=None if other is None else other.distance,
    )


@contextmanager
def track_writers(folder: Path) -> Iterator[Write]:
    """Yield a function that adds a row to every file of a track; at the end, an error's too, all files are whole.

    Raises:
        OutputError: If the folder holds a track already, or a file cannot be written.
    """
    if (folder / CSV).exists():
        raise OutputError(f"{folder}: holds a track already; name another folder with --out")
    writers = (_parquet, _geojson, _gpx, _kml, _tum)
    with ExitStack() as stack:
        table = stack.enter_context(GrowingFile(folder / CSV))
        writes = [_csv(table), *(stack.enter_context(writer(folder)) for writer in writers)]

        def write(row: TrackRow) -> None:
            try:
                for add in writes:
                    add(row)
            except OSError as error:
                explain_write_failure(folder, error)

        yield write


def _csv(file: GrowingFile) -> Write:
    """Rows as text, a line at a time: whoever follows the file, or finds it after a kill, reads whole rows."""
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, SCHEMA.names)

    def move_lines() -> None:
        file.add(lines.getvalue().encode())
        lines.seek(0)
        lines.truncate()

    def write(row: TrackRow) -> None:
        writer.writerow(asdict(row))
        move_lines()

    writer.writeheader()
    move_lines()
    return write


@contextmanager
def _parquet(folder: Path) -> Iterator[Write]:
    rows: list[dict[str, Any]] = []
    with _whole(folder / PARQUET) as path, pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
            rows.clear()

        def write(row: TrackRow) -> None:
            rows.append(asdict(row))
            if len(rows) == _GROUP:
                flush()

        try:
            yield write
        finally:
            flush()


@contextmanager
def _geojson(folder: Path) -> Iterator[Write]:
    """A point for every answer, accepted or not, with what is known of it."""
    with _text(folder / "track.geojson", '{"type": "FeatureCollection", "features": [\n', "\n]}\n") as file:
        separator = ""

        def write(row: TrackRow) -> None:
            nonlocal separator
            fields = asdict(row)
            point = {"type": "Point", "coordinates": [fields.pop("longitude"), fields.pop("latitude")]}
            feature = {"type": "Feature", "geometry": point, "properties": fields}
            file.write(separator + json.dumps(feature, ensure_ascii=False, allow_nan=False))
            separator = ",\n"

        yield write


@contextmanager
def _gpx(folder: Path) -> Iterator[Write]:
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<gpx version="1.1" creator="seqdata" '
        'xmlns="http://www.topografix.com/GPX/1/1">\n<trk><trkseg>\n'
    )
    with _text(folder / "track.gpx", head, "</trkseg></trk>\n</gpx>\n") as file:
        was_accepted = True

        def write(row: TrackRow) -> None:
            nonlocal was_accepted
            if row.accepted:
                if not was_accepted:
                    file.write("</trkseg><trkseg>\n")
                time = "" if row.time is None else f"<time>{_iso(row.time)}</time>"
                name = f"<name>{escape(row.frame)}</name>"
                file.write(f'<trkpt lat="{row.latitude:.8f}" lon="{row.longitude:.8f}">{time}{name}</trkpt>\n')
            was_accepted = row.accepted

        yield write


@contextmanager
def _kml(folder: Path) -> Iterator[Write]:
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>\n'
        "<Placemark><name>track</name><LineString><tessellate>1</tessellate><coordinates>\n"
    )
    with _text(folder / "track.kml", head, "</coordinates></LineString></Placemark>\n</Document></kml>\n") as file:

        def write(row: TrackRow) -> None:
            if row.accepted:
                file.write(f"{row.longitude:.8f},{row.latitude:.8f},0\n")

        yield write


@contextmanager
def _tum(folder: Path) -> Iterator[Write]:
    """Lines `time x y z qx qy qz qw`; without a time the number of the answer stands for it."""
    with _text(folder / "track.tum", "", "") as file:
        origin: TrackRow | None = None
        count = 0

        def write(row: TrackRow) -> None:
            nonlocal origin, count
            count += 1
            # One frame of metres: places of another zone have no x and y in it.
            if not row.accepted or (origin is not None and row.zone != origin.zone):
                return
            if origin is None:
                origin = row
                file.write(f"# origin {row.zone} {row.easting:.3f} {row.northing:.3f}\n")
            x, y = row.easting - origin.easting, row.northing - origin.northing
            # Headings are clockwise from north, a quaternion's yaw is counterclockwise from east.
            half = radians(90 - (row.heading or 0.0)) / 2
            time = float(count - 1) if row.time is None else row.time
            file.write(f"{time:.6f} {x:.3f} {y:.3f} 0 0 0 {sin(half):.6f} {cos(half):.6f}\n")

        yield write


@contextmanager
def _text(path: Path, head: str, foot: str) -> Iterator[TextIO]:
    """A text file between a head and a foot, which it gets however the block ends."""
    with _whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(head)
        try:
            yield file
        finally:
            file.write(foot)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """As `atomic_path`, but an interrupted recording's file gets its name too: what is in it is whole."""
    interruption: BaseException | None = None
    with atomic_path(path) as temporary:
        try:
            yield temporary
        except BaseException as error:  # Ctrl-C too: raised again when the file has its name
            interruption = error
    if interruption is not None:
        raise interruption


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
