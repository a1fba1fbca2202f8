"""Flags of `seqdata eval` and `baseline`."""

from pathlib import Path
from typing import Annotated

import typer

ProtocolsFlag = Annotated[
    str | None,
    typer.Option(help="Protocol name or .toml, or several, comma-separated.", show_default="the index's"),
]
PredictionsFlag = Annotated[
    list[Path] | None,
    typer.Option(
        help="Score stored predictions, or another model's (Parquet, CSV, JSON); may repeat.", show_default=False
    ),
]
DescriptorsFlag = Annotated[
    Path | None, typer.Option(help="Another model's query descriptors (.npy).", show_default=False)
]
DatabaseFlag = Annotated[Path | None, typer.Option(help="Its database descriptors (.npy).", show_default=False)]
QueryIdsFlag = Annotated[Path | None, typer.Option(help="Keys of the queries' rows.", show_default="the table's order")]
DatabaseIdsFlag = Annotated[Path | None, typer.Option(help="Keys of the database's rows.", show_default=False)]
MetricFlag = Annotated[
    str | None, typer.Option(help="Comparison of --descriptors.", metavar="[l2|cosine]", show_default="l2")
]
IdsFlag = Annotated[
    str | None,
    typer.Option(
        help="What ids in another model's --predictions are, where both fit: keys of centre frames, or rows.",
        metavar="[keys|rows]",
        show_default=False,
    ),
]
NameFlag = Annotated[str | None, typer.Option(help="Name of another model in tables of results.", show_default=False)]
SplitFlag = Annotated[
    str | None,
    typer.Option(help="Split.", show_default="the index's or the predictions' own, test for another model"),
]
AgainFlag = Annotated[
    bool,
    typer.Option("--again", help="Search the index again, even where stored predictions serve."),
]
RerankFlag = Annotated[
    int | None, typer.Option(help="Re-rank the first K places of each query frame by frame.", min=1, show_default=False)
]
FrameMetricFlag = Annotated[
    str | None,
    typer.Option(help="Comparison of frames.", metavar="[l1|l2|cosine]", show_default="l1 of thumbnails, else cosine"),
]
CompareFlag = Annotated[
    Path | None,
    typer.Option(
        help="Other predictions, or their folder: is the difference in recall beyond chance?", show_default=False
    ),
]
FullFlag = Annotated[bool, typer.Option("--full", help="Also print mean rank, mAP and precision-recall.")]
ByFlag = Annotated[
    str | None, typer.Option(help="Also print recall of groups: subtask,city,night,heading.", show_default=False)
]
RadiusFlag = Annotated[str | None, typer.Option(help="Recall at other radii too, comma-separated.", show_default=False)]
SizeFlag = Annotated[
    str | None,
    typer.Option(
        help="Recall by fewer dimensions too: numbers of first PCA components, comma-separated.", show_default=False
    ),
]
AgainstFlag = Annotated[
    str | None,
    typer.Option(
        help="Add a table of recall against one of these.", metavar="[radius|length|size]", show_default=False
    ),
]
WideFlag = Annotated[bool, typer.Option("--wide", help="One row a method, 140 columns wide; else two lines in 80.")]
CsvFlag = Annotated[Path | None, typer.Option(help="Write the figures to this CSV file.", show_default=False)]
OutFlag = Annotated[
    Path | None, typer.Option(help="Folder for another model's predictions and recall.", show_default=False)
]
QueryRangeFlag = Annotated[
    str | None,
    typer.Option(
        "--shard-range",
        metavar="i/N",
        help="Search for part i of N of the queries only; the same command without it joins the parts.",
        show_default=False,
    ),
]
QueryWorkersFlag = Annotated[
    int, typer.Option("--workers", help="Parts of the queries that are searched for at once.", min=1)
]
QueryEngineFlag = Annotated[
    str,
    typer.Option("--parts-engine", help="How several --workers are run: processes, or Ray.", metavar="[pool|ray]"),
]
