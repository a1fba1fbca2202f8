"""`seqdata leakage`: how much of a protocol's test ground lies near its training ground."""

from typing import Annotated

import typer

from cli.config import dataset_protocol, load, open_dataset
from cli.flags import DatasetArgument, ProtocolFlag
from cli.output import ConfigFlag, JsonFlag, emit
from seqdata.dataset.leakage import RADII, sentences
from seqdata.dataset.leakage import leakage as measure


def leakage(
    dataset: DatasetArgument = None,
    protocol: ProtocolFlag = None,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="Distance within which ground is shared; may repeat.", show_default="5 10 25 50 100"),
    ] = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Measure how much test ground lies near the training ground.

    For each split: the share of frames and of route within some metres of the training split, and what that means.
    """
    work = load(config)
    opened = open_dataset(work, dataset)
    audited = dataset_protocol(work, protocol, opened)
    radii = tuple(sorted(set(radius or RADII)))
    table = measure(opened.sequencer, audited, radii)
    # 25 m is the radius at which most protocols of the field call a place recognised.
    verdicts = sentences(table, 25.0 if 25.0 in radii else radii[-1])
    lines = [f"{audited.label}, {opened.location}", ""]
    lines += [
        f"{'split':<10}{'role':<10}{'radius':>8}{'frames':>10}{'near':>8}{'route km':>10}{'near':>8}{'nearest':>10}"
    ]
    for row in table.to_dicts():
        share = "-" if row["route_share"] is None else f"{row['route_share']:.1%}"
        least = "-" if row["least_distance"] is None else f"{row['least_distance']:.1f} m"
        lines.append(
            f"{row['split']:<10}{row['role']:<10}{row['radius']:>6g} m{row['frames']:>10}{row['frame_share']:>8.1%}"
            f"{row['route_m'] / 1000:>10.2f}{share:>8}{least:>10}"
        )
    result = {"protocol": audited.label, "dataset": opened.id, "sentences": verdicts, "rows": table.to_dicts()}
    emit(result, "\n".join([*lines, "", *verdicts]), as_json=as_json)
