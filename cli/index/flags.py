"""Flags of `seqdata index`: which index, how vectors are made and stored, and how the work is divided."""

from pathlib import Path
from typing import Annotated

import typer

IndexFlag = Annotated[Path | None, typer.Option("--index", help="Index folder.", show_default="the newest")]
VersionArgument = Annotated[
    str | None,
    typer.Argument(
        help="Version: latest, a tag, an id or the beginning of one, or its folder.",
        metavar="VERSION",
        show_default=False,
    ),
]
KindFlag = Annotated[
    str,
    typer.Option(
        help="Kind of index; auto: the fastest that reaches the recall target.",
        metavar="[flat|fp16|ivf|hnsw|pq|imi|auto]",
    ),
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
        help="L2-normalise after PCA, or not.",
        show_default="not for the papers' models",
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
SearchPathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="[INDEX] then image folders (read in driving order), images, videos, or .npy descriptors.",
        metavar="PATH",
        show_default=False,
    ),
]
SearchKFlag = Annotated[int, typer.Option("-k", help="Places for each window.", min=1)]
SearchDatasetFlag = Annotated[
    Path | None, typer.Option(help="Search for the queries of this dataset instead.", show_default=False)
]
SearchSplitFlag = Annotated[
    str | None,
    typer.Option(help="Split of --dataset whose queries are searched for.", show_default="test"),
]
SearchEveryFlag = Annotated[int, typer.Option(help="Take every n-th frame of a video.", min=1)]
SearchFpsFlag = Annotated[
    float | None, typer.Option(help="Take this many frames a second of a video.", show_default=False)
]
SearchOrderFlag = Annotated[
    str | None,
    typer.Option(
        help="Order of a folder's images.",
        metavar="[name|time]",
        show_default="what the folder says",
    ),
]
SearchCsvFlag = Annotated[
    Path | None,
    typer.Option(help="CSV that lists a folder's images in order: image, drive, time.", show_default=False),
]
SearchDatabaseFlag = Annotated[
    list[Path] | None,
    typer.Option(
        help="Search these folders of images with --model: no index needed.", metavar="FOLDER", show_default=False
    ),
]
SearchModelFlag = Annotated[
    str | None, typer.Option(help="With --database: model preset, taken as it is.", show_default=False)
]
SearchWeightsFlag = Annotated[
    str | None, typer.Option(help="With --database: file of backbone weights.", show_default=False)
]
SearchRandomInitFlag = Annotated[bool, typer.Option("--random-init", help="With --database: random weights.")]
SearchLengthFlag = Annotated[
    int | None, typer.Option(help="With --database: frames of a window.", min=1, show_default="5")
]
SearchThumbnailsFlag = Annotated[
    Path | None, typer.Option(help="Folder for a page that shows query frames and places.", show_default=False)
]
SearchFramesFlag = Annotated[
    Path | None,
    typer.Option(
        help="Dataset that holds the frames of the index, for --thumbnails.",
        show_default="the one of its id",
    ),
]
BuildDatasetArgument = Annotated[Path | None, typer.Argument(help="Dataset folder.", show_default="the run's")]
BuildRunFlag = Annotated[Path | None, typer.Option(help="Run folder.", show_default="the newest")]
BuildModelFlag = Annotated[
    str | None,
    typer.Option(help="Pretrained model taken as it is, instead of a run (see models get).", show_default=False),
]
BuildWeightsFlag = Annotated[
    str | None, typer.Option(help="With --model: file of backbone weights.", show_default=False)
]
BuildRandomInitFlag = Annotated[bool, typer.Option("--random-init", help="With --model: random weights.")]
BuildPcaFlag = Annotated[int | None, typer.Option(help="Dimensions after PCA.", min=1, show_default="no PCA")]
BuildWhitenFlag = Annotated[bool, typer.Option("--whiten", help="Whiten after PCA (the papers' models do not).")]
BuildExactPcaFlag = Annotated[
    bool, typer.Option("--exact-pca", help="Solve the whole eigenproblem, which takes minutes for large samples.")
]
BuildProtocolFlag = Annotated[str | None, typer.Option(help="Protocol name or .toml.", show_default="the run's")]
BuildSplitFlag = Annotated[str, typer.Option(help="Split whose database is indexed.")]
BuildSampleFlag = Annotated[int, typer.Option(help="Training windows that PCA is fitted on.", min=2)]
BuildSeedFlag = Annotated[int, typer.Option(help="Seed of the PCA sample.", min=0)]
BuildOutFlag = Annotated[Path | None, typer.Option(help="Index folder to write versions into.", show_default=False)]
BuildWorkersFlag = Annotated[int, typer.Option(help="Parts of the database that are described at once.", min=1)]
