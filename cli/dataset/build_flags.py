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
    str | None,
    typer.Option(
        help="Check frames by header and end marker, or decode every one.",
        metavar="[header|decode]",
        show_default="header",
    ),
]
ShortSideFlag = Annotated[
    int | None,
    typer.Option(help="Shrink larger images to this shorter side.", show_default=False),
]
QualityFlag = Annotated[int | None, typer.Option(help="Quality of JPEGs that are encoded again.", show_default="95")]
ResampleFlag = Annotated[
    float | None, typer.Option(help="Distance between frames by the resampling rule.", show_default="2")
]
RuleFlag = Annotated[str | None, typer.Option(help="Resampling rule.", metavar="[greedy|arc]", show_default="greedy")]
DropFlag = Annotated[bool, typer.Option("--drop", help="Do not store the frames that the resampling rule leaves out.")]
MaxRadiusFlag = Annotated[
    float | None,
    typer.Option(help="Radius of stored pairs, if larger than the protocol's and 25 m.", show_default=False),
]
ShardMegabytesFlag = Annotated[int | None, typer.Option(help="Size of a shard.", min=1, show_default="256")]
WorkersFlag = Annotated[int | None, typer.Option(help="Processes.", min=1, show_default="one a core")]
EngineFlag = Annotated[
    str,
    typer.Option(
        help="How shards are built in parallel: processes of this machine, or a Ray cluster.", metavar="[pool|ray]"
    ),
]
ShardRangeFlag = Annotated[
    str | None,
    typer.Option(help="Build part i of N only (1 ≤ i ≤ N); seqdata merge then seals the dataset.", show_default=False),
]
PlanFlag = Annotated[
    bool,
    typer.Option("--plan", help="List the dump and write the plan that --shard-range jobs read; store no frame."),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
