"""Flags of `seqdata index`: which index, how vectors are made and stored, and how the work is divided."""

from pathlib import Path
from typing import Annotated

import typer

IndexFlag = Annotated[
    Path | None, typer.Option("--index", help="Index folder; default: the newest.", show_default=False)
]
VersionArgument = Annotated[
    str | None,
    typer.Argument(
        help="Version: latest, a tag, an id or the beginning of one, or its folder.",
        metavar="[VERSION]",
        show_default=False,
    ),
]
KindFlag = Annotated[
    str, typer.Option(help="flat, fp16, ivf, hnsw, pq, imi, or auto: the fastest that reaches the recall target.")
]
FactoryFlag = Annotated[str | None, typer.Option(help="A FAISS factory string instead of a kind.", show_default=False)]
RecallTargetFlag = Annotated[
    float, typer.Option(help="Share of the 10 exact nearest that must be found.", min=0.0, max=1.0)
]
MemoryFlag = Annotated[
    str | None, typer.Option(help="Most memory that an auto index may take, such as 8GB.", show_default=False)
]
ReverseFlag = Annotated[
    bool, typer.Option("--reverse", help="Describe database windows last frame first, as if driven backward.")
]
NormaliseFlag = Annotated[
    bool | None,
    typer.Option(
        "--normalise/--raw",
        help="L2-normalise after PCA, or not; default: not for the papers' models.",
        show_default=False,
    ),
]
ShardRangeFlag = Annotated[
    str | None,
    typer.Option(
        metavar="i/N",
        help="Compute descriptors for part i of N (1 ≤ i ≤ N); merge the parts with seqdata index merge.",
        show_default=False,
    ),
]
