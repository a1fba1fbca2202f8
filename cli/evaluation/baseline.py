"""`seqdata baseline`: recall of frame matching, without a sequence model."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.config import dataset_protocol, load, open_dataset
from cli.evaluation.evaluate import frame_descriptors
from cli.evaluation.flags import FrameMetricFlag, WideFlag
from cli.evaluation.results import print_evaluations
from cli.flags import DatasetArgument, DeviceFlag, FeaturesFlag, ModelFromFlag, ProtocolFlag, parse_choice, refuse_idle
from cli.output import ConfigFlag, JsonFlag, next_step, note, progress_bar
from indexer.evaluation.prediction_sets import PredictionSet
from indexer.matching.aligned import METRICS
from indexer.matching.baselines import METHODS, match_frames
from train.data.describe_settings import DescribeSettings


def baseline(
    dataset: DatasetArgument = None,
    protocol: ProtocolFlag = None,
    method: Annotated[
        str,
        typer.Option(
            help="frame: centre frames only; aligned: all frames of the window; seqslam: the best line after contrast "
            "enhancement; delta: later half minus earlier half.",
            metavar="[frame|aligned|seqslam|delta]",
        ),
    ] = "frame",
    features: FeaturesFlag = None,
    metric: FrameMetricFlag = None,
    softening: Annotated[
        float | None,
        typer.Option(
            help="Grey levels added to the deviation of a patch.",
            min=0,
            show_default="5, for seqslam 0",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split whose queries are matched.")] = "test",
    wide: WideFlag = False,
    out: Annotated[Path | None, typer.Option(help="Folder for predictions and recall.", show_default=False)] = None,
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Measure recall of frame matching, without a sequence model.

    Frames are matched by grey thumbnails of 64×32 pixels, or by the frame descriptors of --features.
    """
    method_name = parse_choice(method, "--method", tuple(METHODS))
    metric_name = None if metric is None else parse_choice(metric, "--metric", METRICS)
    refuse_idle("--features", features is not None, "device", "model_from")
    refuse_idle("thumbnails, and not with --features", features is None, "softening")
    work = load(config)
    source = open_dataset(work, dataset)
    judge = dataset_protocol(work, protocol, source)
    vectors = frame_descriptors(source, features, DescribeSettings(device, model_from=model_from))
    with progress_bar("frame") as bar:
        table, info = match_frames(
            source,
            judge,
            split,
            method_name,
            bar.stage("read frames"),
            vectors=vectors,
            metric=metric_name,
            softening=softening,
        )
    name = "-".join(part for part in (method, vectors.name if vectors else "", metric or "") if part)
    # Method, protocol and dataset in the name: results of another protocol never replace or stand beside these by
    # accident.
    folder = out or work.out / "baselines" / f"{name}-{judge.name}-{source.id[:12]}"
    path = folder / f"{judge.hash}-{split}.parquet"
    evaluation = PredictionSet(source, judge, table, info, folder, path).score_and_store(note)
    print_evaluations([evaluation], wide=wide, as_json=as_json)
    next_step(f"seqdata report --compare {shlex.quote(str(folder))}")
