"""Flags of `seqdata build`: where the dataset goes, which pixels and frames it stores, and how the work is divided."""

from typing import Annotated

import typer

OutFlag = Annotated[
    str | None, typer.Option(help="Where the dataset goes: a folder or a URL such as s3://…", show_default=False)
]
ProtocolFlag = Annotated[
    str | None,
    typer.Option(help="Protocol whose windows and positives are stored; 'none' for no tables.", show_default=False),
]
KeepPngFlag = Annotated[bool | None, typer.Option("--keep-png", help="Store PNG as it is.", show_default=False)]
CheckFlag = Annotated[
    str | None, typer.Option(help="header (default) or decode: decode every frame.", show_default=False)
]
ShortSideFlag = Annotated[
    int | None,
    typer.Option(help="Shrink larger images to this shorter side, in pixels.", show_default=False),
]
QualityFlag = Annotated[
    int | None, typer.Option(help="Quality of JPEGs that are encoded again (default 95).", show_default=False)
]
ResampleFlag = Annotated[
    float | None, typer.Option(help="Metres between frames by the resampling rule (default 2).", show_default=False)
]
RuleFlag = Annotated[str | None, typer.Option(help="Resampling rule: greedy (default) or arc.", show_default=False)]
DropFlag = Annotated[bool, typer.Option("--drop", help="Do not store the frames that the resampling rule leaves out.")]
MaxRadiusFlag = Annotated[
    float | None,
    typer.Option(help="Radius of stored pairs in metres, if larger than the protocol's and 25 m.", show_default=False),
]
ShardMegabytesFlag = Annotated[
    int | None, typer.Option(help="Size of a shard in MB (default 256).", min=1, show_default=False)
]
WorkersFlag = Annotated[int | None, typer.Option(help="Processes (default: one a core).", min=1, show_default=False)]
EngineFlag = Annotated[
    str, typer.Option(help="How shards are built in parallel: pool (processes of this machine) or ray.")
]
ShardRangeFlag = Annotated[
    str | None,
    typer.Option(help="Build part i of N only (1 ≤ i ≤ N); seqdata merge then seals the dataset.", show_default=False),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
