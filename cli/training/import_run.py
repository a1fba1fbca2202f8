"""`seqdata import`: weights that a paper's program released, as a run."""

from pathlib import Path
from typing import Annotated

import typer

from cli.flags import OptionFlag, parse_choice, parse_json_pairs
from cli.output import JsonFlag, emit, note
from seqdata import protocols


def import_run(
    kind: Annotated[
        str,
        typer.Argument(
            help="Whose file it is: vg-transformers, sta, timesformer, netvlad, seqnet, seqmatchnet; backbone: weights "
            "of a backbone alone."
        ),
    ],
    file: Annotated[Path, typer.Argument(help="The released file.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    frames: Annotated[
        Path | None,
        typer.Option(help="seqnet, seqmatchnet: NetVLAD checkpoint of their frame vectors.", show_default=False),
    ] = None,
    model: Annotated[str | None, typer.Option(help="backbone: preset that it is put into.", show_default=False)] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Protocol that the run names; default: that of the kind's paper.", show_default=False),
    ] = None,
    options: OptionFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a run from weights that a paper's program released.

    The run is whole: index, eval and pack take it. Only tensors and plain numbers of the file are read.

    seqdata import vg-transformers best_model.pth --out runs/seqvlad
    """
    from train.released.importing import BACKBONE, ImportRequest, import_run  # heavy
    from train.released.programs import PROGRAMS  # heavy
    from train.runs.record import run_record  # heavy

    name = parse_choice(kind, "KIND", (*PROGRAMS, BACKBONE))
    paper_protocol = "own" if name == BACKBONE else PROGRAMS[name].protocol
    judge = protocols.load(protocol or paper_protocol)
    request = ImportRequest(name, file, out, judge, frames, model, parse_json_pairs(options, "--option"))
    record = run_record(import_run(request))
    config = record["model"]
    if name == BACKBONE and config.get("pooling") in ("vlad", "netvlad"):
        note("its VLAD words are random; seqdata train --epochs 0 --weights FILE takes them from frames")
    result = {
        "path": str(out),
        "model": config,
        "descriptor_size": record["descriptor_size"],
        "protocol": judge.label,
        **record["imported"],
    }
    text = f"{out}: {config['name']}, {record['descriptor_size']} numbers, SHA-256 {result['sha256'][:12]}"
    emit(result, text, as_json=as_json)
