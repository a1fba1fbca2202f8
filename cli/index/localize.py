"""`seqdata localize`: from a recording to a track on a map, through a pack."""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.flags import IndexOption, refuse_idle
from cli.output import JsonFlag, emit, next_step, note
from indexer.localizer.localizer import FILTERS, Localizer
from indexer.localizer.pack import TEST, is_pack
from indexer.localizer.track.files import TrackRow
from indexer.localizer.track.follow import Followed, ShownFrame, ShownPoint, follow
from indexer.localizer.track.recording import Recording, open_camera, open_recording, parse_time, read_odometry
from indexer.localizer.track.truth import Judgement, read_truth
from indexer.report.pictures import data_uri
from indexer.report.track import PAGE, TrackPoint, TrackScene, TrackStrip, write_track
from seqdata.errors import ContractError, InputError, SeqdataError, UsageError

# Fraction of the calibrated distances that rounding on another processor may move an answer by.
_SELF_TEST_TOLERANCE = 1e-3


def localize(
    pack: Annotated[
        Path | None,
        typer.Argument(help="Pack, or an index whose run is there.", metavar="PACK|INDEX", show_default=False),
    ] = None,
    recording: Annotated[
        Path | None, typer.Argument(help="Video, or folder of frames in driving order.", show_default=False)
    ] = None,
    index_flag: IndexOption = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder of the track.", show_default="the recording's name")
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Live camera instead: 0, /dev/video0, rtsp://…", show_default=False)
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop the camera after this time.", show_default=False)] = None,
    odometry: Annotated[
        Path | None, typer.Option(help="CSV of the way driven: time, and metres or speed.", show_default=False)
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="When a video begins: seconds or an ISO 8601 time, for --truth.", show_default=False),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="GPX track or CSV of true positions.", show_default=False)] = None,
    motion: Annotated[
        str,
        typer.Option(
            "--filter", help="forward: follow the camera along the database's drives.", metavar="[none|forward]"
        ),
    ] = "none",
    frames: Annotated[
        Path | None, typer.Option(help="Dataset of the index, for pictures of its places.", show_default=False)
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run behind an index.", show_default="the index's own")] = None,
    device: Annotated[
        str, typer.Option(help="What ONNX Runtime computes on.", metavar="[cpu|cuda|tensorrt|openvino|coreml]")
    ] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads of the CPU.", min=1, show_default="every core")] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Answer the pack's recorded frames and compare with its places.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Localize a recording, frame by frame, and write its track.

    The track is written as table, GeoJSON, GPX, KML, TUM text, and as a page that works offline.
    """
    pack, recording = _named(pack, index_flag, recording)
    with ExitStack() as stack:
        refuse_idle("--truth", truth is not None, "start")
        refuse_idle("an index, and not with a pack", not is_pack(pack), "run")
        idle = ("recording", "out", "camera", "seconds", "odometry", "start", "truth", "motion", "frames")
        refuse_idle("a recording, and not with --self-test", not self_test, *idle)
        folder = pack if is_pack(pack) else _packed(pack, run, stack)
        choice = next((name for name in FILTERS if name == motion), None)
        if choice is None:
            raise UsageError(f"--filter {motion}: expected {', '.join(FILTERS)}")
        localizer = Localizer(folder, keep_rejected=True, device=device, threads=threads, motion=choice)
        if self_test:
            next_step(None)
            _self_test(localizer, folder, as_json=as_json)
            return
        recordings = _recordings(recording, camera, seconds, odometry)
        judgement = None if truth is None else Judgement(read_truth(truth))
        begin = 0.0 if start is None else parse_time(Path("--start"), start) or 0.0
        name = recording.stem if recording is not None else "camera"
        target = out or Path(f"{name}-track")
        note(_cut_text(localizer, recordings[0], odometry is not None))
        _run(localizer, recordings, target, begin, judgement, frames, as_json=as_json)


def _named(pack: Path | None, index_flag: Path | None, recording: Path | None) -> tuple[Path, Path | None]:
    """The pack or index, and the recording: with --index the first word is the recording. Raises: UsageError."""
    if index_flag is not None:
        if recording is not None:
            raise UsageError(f"{pack} and --index {index_flag}: name one of them")
        return index_flag, pack
    if pack is None:
        raise UsageError("name a pack, as seqdata pack writes it, or an index")
    return pack, recording


def _packed(path: Path, run_flag: Path | None, stack: ExitStack) -> Path:
    """A pack of an index, in a folder that lasts as long as the command. Raises: InputError where there is no index."""
    # An index needs the run's model and PyTorch to become a pack; a robot, which has packs, imports none of it.
    from cli.config import load  # heavy
    from cli.lookup import find_dataset, find_run, open_index  # heavy
    from train.runs.folder import weights_file  # heavy
    from train.runs.record import run_record  # heavy

    work = load(None)
    index = open_index(work, path)
    run = find_run(work, run_flag, index)
    weights_file(run)
    from train.stages.pack import PackRequest, calibration_split, write_pack  # heavy

    split, dataset = calibration_split(index, None), None
    try:
        dataset = find_dataset(work, None, index.manifest.inputs["dataset"], run_record(run)["dataset_path"])
    except InputError as error:
        note(f"no threshold is calibrated, every place is accepted: {error}")
    note(f"packing {path} for this command; seqdata pack {path} does so once and for all")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seqdata-"))) / "place.pack"
    return write_pack(index, PackRequest(run=run, out=folder, dataset=dataset, split=split if dataset else None))


def _recordings(path: Path | None, camera: str | None, seconds: float | None, odometry: Path | None) -> list[Recording]:
    """What is to be localized. Raises: UsageError unless it is one recording or one camera."""
    if (path is None) == (camera is None):
        raise UsageError("name a video or a folder of frames, or a camera with --camera: one of them")
    if camera is not None:
        if odometry is not None:
            raise UsageError("--odometry: only together with a recording")
        return [open_camera(camera, seconds)]
    if seconds is not None:
        raise UsageError("--seconds: only together with --camera")
    assert path is not None  # noqa: S101  (one of the two is there)
    return open_recording(path, None if odometry is None else read_odometry(odometry))


def _cut_text(localizer: Localizer, recording: Recording, has_odometry: bool) -> str:
    """How windows are cut, in one line."""
    manifest = localizer.manifest
    if manifest.spacing is not None and has_odometry:
        rule = f"a frame every {manifest.spacing:g} m of odometry"
    elif manifest.interval is not None and recording.order != "numbers in names":
        rule = f"a frame every {manifest.interval:.3g} s, the database's median interval"
    else:
        rule = "every frame: the pack or the recording has no times, so frames must be spaced as the database's"
    return f"windows of {manifest.length} frames, {rule}; frames in the order of {recording.order}"


def _run(
    localizer: Localizer,
    recordings: list[Recording],
    out: Path,
    start: float,
    judgement: Judgement | None,
    frames: Path | None,
    *,
    as_json: bool,
) -> None:
    """Localize, and say what came of it, also of a recording that ended early."""
    followed = Followed()
    failure: BaseException | None = None
    try:
        follow(localizer, recordings, out, start=start, judgement=judgement, watch=_live_line(), followed=followed)
    except (SeqdataError, KeyboardInterrupt) as error:
        # What was localized so far is a track too; the error comes after it.
        failure = error
    finally:
        if sys.stderr.isatty():
            note("")
    if failure is not None and not followed.answers:
        raise failure
    figures = None
    try:
        figures = None if judgement is None or failure is not None else judgement.figures()
    except ContractError as error:  # the truth of another drive: the track is whole all the same
        failure = error
    page = write_track(out / PAGE, _scene(localizer, recordings, followed, figures, frames))
    result: dict[str, Any] = {
        "path": str(out), "page": str(page), "frames": followed.frames, "answers": followed.answers,
        "accepted": followed.accepted, "frames_a_second": round(followed.rate, 2), "truth": figures,
    }  # fmt: skip
    lines = [
        f"{out}: {followed.frames} frames, {followed.answers} answers, {followed.accepted} accepted, "
        f"{followed.rate:.1f} frames/s",
        *(f"  {name}: {text}" for name, text in _figure_texts(figures)),
        str(page),
    ]
    emit(result, "\n".join(lines), as_json=as_json)
    if failure is not None:
        raise failure


def _live_line() -> Any:
    """A callback that keeps one line on a terminal: rate, place, confidence."""
    if not sys.stderr.isatty():
        return lambda followed, row: None

    def show(followed: Followed, row: TrackRow | None) -> None:
        if row is None:
            return
        place = f"{row.latitude:.6f} {row.longitude:.6f}" if row.accepted else "I do not know"
        sure = "" if row.confidence is None else f", confidence {row.confidence:.2f}"
        sys.stderr.write(f"\r\x1b[K{followed.rate:6.1f} frames/s  {place}, distance {row.distance:.3f}{sure}")
        sys.stderr.flush()

    return show


def _scene(
    localizer: Localizer,
    recordings: list[Recording],
    followed: Followed,
    figures: dict[str, Any] | None,
    frames: Path | None,
) -> TrackScene:
    """The page's content."""
    manifest, places = localizer.manifest, localizer.index.places
    points: list[Any] = followed.points.items
    # Metres of one zone: the one of the first answer; places of others cannot stand on the same map.
    zone = points[0].row.zone if points else ""
    database = localizer.positions_in(zone)
    threshold = "none" if manifest.calibration is None else f"{manifest.calibration.threshold:.4f}"
    facts = [
        ("Recording", ", ".join(recording.name for recording in recordings[:3])),
        ("Frames", f"{followed.frames}, {followed.rate:.1f} a second"),
        ("Answers", f"{followed.answers}, of which {followed.accepted} accepted"),
        ("Database", f"{len(places)} windows of {manifest.length} frames, index {manifest.index}"),
        ("Threshold", f"{threshold} {manifest.calibration_note}"),
        ("Images of the database", f"{manifest.attribution} {manifest.licence}"),
    ]
    return TrackScene(
        title="Localized recording",
        facts=facts,
        database=database,
        points=[_point(item) for item in points if item.row.zone == zone],
        strips=_strips(localizer, followed, frames),
        figures=_figure_texts(figures),
    )


def _point(point: ShownPoint) -> TrackPoint:
    row = point.row
    return TrackPoint(row.easting, row.northing, row.distance, row.confidence, row.accepted, point.error)


def _strips(localizer: Localizer, followed: Followed, frames: Path | None) -> list[TrackStrip]:
    """Frames beside the pictures of their places, where the index's dataset is named."""
    items: list[ShownFrame] = followed.strips.items  # type: ignore[assignment]  # what `follow` puts in
    pictures: dict[int, str] = {}
    if frames is not None:
        # Only where pictures of places are asked for: it needs polars, which a robot may not have.
        import seqdata  # heavy

        dataset = seqdata.open(frames)
        if dataset.id != localizer.manifest.dataset:
            raise ContractError(
                f"--frames {frames}: not the dataset {localizer.manifest.dataset[:12]} that the pack was made from"
            )
        table = localizer.index.sequences
        centres = table["centre"]
        pictures = {item.place_row: data_uri(dataset.read_frames([centres[item.place_row]])[0]) for item in items}
    return [
        TrackStrip(
            frame=item.row.frame,
            place=f"{item.row.trajectory} #{item.row.position}, distance {item.row.distance:.4f}",
            accepted=item.row.accepted,
            picture=data_uri(item.pixels),
            place_picture=pictures.get(item.place_row),
        )
        for item in items
    ]


def _figure_texts(figures: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The figures of a comparison with the truth, as pairs of a name and a text."""
    if figures is None:
        return []
    texts = [("answers with truth", f"{figures['answers']} ({figures['unknown_to_truth']} without)")]
    for name, title in (("error_metres", "error"), ("error_metres_accepted", "error of accepted")):
        if figures[name] is not None:
            texts.append((title, ", ".join(f"{share} {metres:.1f} m" for share, metres in figures[name].items())))
    for name, title in (
        ("within_25m", "nearest place within 25 m"),
        ("localized", "localized (accepted and within 25 m)"),
        ("precision", "precision of accepted"),
    ):
        if figures[name] is not None:
            share, low, high = (100 * figures[name][part] for part in ("share", "low", "high"))
            texts.append((title, f"{share:.1f}% ({low:.1f} … {high:.1f})"))
    return texts


def _self_test(localizer: Localizer, folder: Path, *, as_json: bool) -> None:
    """Answer the recorded frames. Raises: ContractError where an answer is another, or nothing is recorded."""
    tests = localizer.manifest.tests
    if not tests:
        raise ContractError(f"{folder}: holds no recorded frames; pack again where the index's dataset is")
    for number, test in enumerate(tests, start=1):
        localizer.reset()
        place = [localizer.push(folder / TEST / name) for name in test.frames][-1]
        # An int8 program rounds to steps that differ between processors, float32 in its last bits.
        is_same = place is not None and abs(place.distance - test.distance) <= max(
            _SELF_TEST_TOLERANCE, 0.05 * test.distance * (localizer.manifest.quantised is not None)
        )
        if place is None or place.key != test.key or not is_same:
            answer = "nothing" if place is None else f"{place.key} at distance {place.distance:.5f}"
            raise ContractError(
                f"{folder}: self-test {number} of {len(tests)}: {answer}, recorded was {test.key} at "
                f"{test.distance:.5f}"
            )
    emit({"tests": len(tests), "passed": True}, f"{folder}: {len(tests)} recorded windows answered as recorded",
         as_json=as_json)  # fmt: skip
