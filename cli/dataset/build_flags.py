"""What a user says about a dataset that is to be built: where it goes, which pixels, which frames, by which hands."""

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
    int | None, typer.Option(help="Quality of JPEGs that are written anew (default 95).", show_default=False)
]
ResampleFlag = Annotated[
    float | None, typer.Option(help="Metres of the resampling flag (default 2).", show_default=False)
]
RuleFlag = Annotated[str | None, typer.Option(help="Its rule: greedy (default) or arc.", show_default=False)]
DropFlag = Annotated[bool, typer.Option("--drop", help="Store no frame that the resampling rule leaves out.")]
MaxRadiusFlag = Annotated[
    float | None,
    typer.Option(help="How far stored pairs reach, where farther than the protocol and 25 m.", show_default=False),
]
ShardMegabytesFlag = Annotated[
    int | None, typer.Option(help="Size of a shard in MB (default 256).", min=1, show_default=False)
]
WorkersFlag = Annotated[int | None, typer.Option(help="Processes (default: one a core).", min=1, show_default=False)]
EngineFlag = Annotated[str, typer.Option(help="What runs the shards: pool (this machine) or ray.")]
ShardRangeFlag = Annotated[
    str | None, typer.Option(help="Write share i/N of the shards only; seqdata merge seals.", show_default=False)
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
