"""The flags of `seqdata index` that say how vectors are made, kept and shared out."""

from typing import Annotated

import typer

KindFlag = Annotated[
    str, typer.Option(help="flat, fp16, ivf, hnsw, pq, imi, or auto: the fastest that reaches the recall target.")
]
FactoryFlag = Annotated[str | None, typer.Option(help="A FAISS factory string instead of a kind.", show_default=False)]
RecallTargetFlag = Annotated[float, typer.Option(help="Share of the exact 10 nearest to find.", min=0.0, max=1.0)]
MemoryFlag = Annotated[str | None, typer.Option(help="What an auto index may take, such as 8GB.", show_default=False)]
ReverseFlag = Annotated[
    bool, typer.Option("--reverse", help="Describe database windows last frame first, as if driven backward.")
]
NormaliseFlag = Annotated[
    bool | None,
    typer.Option(
        "--normalise/--raw", help="L2 after PCA, or not; default: not for the papers' models.", show_default=False
    ),
]
ShardRangeFlag = Annotated[
    str | None,
    typer.Option(metavar="i/N", help="Describe share i of N only; seqdata index merge joins them.", show_default=False),
]
