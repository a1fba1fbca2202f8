"""`seqdata import`: weights that a paper's program released, as a run."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.flags import OptionFlag, parse_choice, parse_json_pairs
from cli.output import JsonFlag, emit, next_step, note
from seqdata import protocols
from seqdata.errors import UsageError

# The names of train.released.programs, which is imported with torch.
KINDS = (
    *("vg-transformers", "sta", "timesformer", "netvlad", "seqnet", "seqmatchnet", "salad", "cliquemining", "megaloc"),
    *("boq", "mixvpr", "cosplace", "eigenplaces", "jist", "backbone"),
)


def import_run(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"Whose file it is: {', '.join(KINDS)}; backbone: weights of a backbone alone.",
            metavar="KIND",
            autocompletion=lambda: list(KINDS),
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The released file; left out, it is downloaded (salad, megaloc, boq, cosplace, eigenplaces).",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            help="seqnet, seqmatchnet: NetVLAD checkpoint of frame vectors.", metavar="FILE", show_default=False
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="backbone: preset that it is put into.", show_default=False)] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Protocol that the run names.", show_default="that of the kind's paper"),
    ] = None,
    options: OptionFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a run from weights that a paper's program released.

    The run is whole: index, eval and pack take it. Only tensors and plain numbers of the file are read.
    """
    from train.released.download import download  # heavy
    from train.released.importing import BACKBONE, ImportRequest, import_run  # heavy
    from train.released.programs import PROGRAMS  # heavy
    from train.runs.record import run_record  # heavy

    name = parse_choice(kind, "KIND", KINDS)
    paper_protocol = "own" if name == BACKBONE else PROGRAMS[name].protocol
    judge = protocols.load(protocol or paper_protocol)
    if file is None and name == BACKBONE:
        raise UsageError("import backbone: name its file: seqdata import backbone FILE --model NAME --out RUN")
    released = download(name, PROGRAMS[name]) if file is None else file
    request = ImportRequest(name, released, out, judge, frames, model, parse_json_pairs(options, "--option"))
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
    next_step(f"seqdata index DATASET --run {shlex.quote(str(out))}")
