"""`seqdata compare A B`: is the difference in recall of two methods beyond chance, and which queries does one win?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.config import check_kind, kind_of_folder, load
from cli.evaluation.evaluate import JudgedSource
from cli.flags import DatasetFlag, DeviceFlag, ModelFromFlag, parse_list, refuse_idle
from cli.output import ConfigFlag, JsonFlag, emit
from indexer.evaluation.comparison import won_queries
from indexer.evaluation.prediction_sets import PredictionSet, compare_sets
from indexer.evaluation.text_tables import format_comparison
from indexer.text import elide, plural
from indexer.versions.folders import is_index
from seqdata.errors import UsageError
from train.data.describe_settings import DescribeSettings
from train.stages.answers import AnswerOptions, other_predictions

LISTED = 10
"""Queries of each side that the text lists; JSON has all."""


def compare(
    a: Annotated[
        Path,
        typer.Argument(
            help="An index, a predictions file, or the folder of a run or a baseline.", metavar="A", show_default=False
        ),
    ],
    b: Annotated[
        Path,
        typer.Argument(
            help="Another, or the folder of a run, a baseline or an index.", metavar="B", show_default=False
        ),
    ],
    protocol: Annotated[str | None, typer.Option(help="Protocol that judges both.", show_default="A's")] = None,
    n: Annotated[int, typer.Option("-n", help="Queries are listed by hits among the N nearest.", min=1)] = 1,
    dataset: DatasetFlag = None,
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Compare the recall of two methods query by query.

    Differences have paired 95 % intervals (see docs/methods.md#intervals); below them stand the queries that one of the
    two alone places rightly.
    """
    source = JudgedSource(load(config), parse_list(protocol), dataset, None, None, None, "auto")
    refuse_idle("an index as A", is_index(a), "device", "model_from")
    if kind_of_folder(a) == "datasets":
        check_kind(a, "indexes")
    if is_index(a):
        first = source.from_index(
            a, None, "auto", AnswerOptions(settings=DescribeSettings(device, model_from=model_from))
        )[0]
    else:
        first = source.from_files([_predictions(a)])[0]
    second = other_predictions(b, first, any_protocol=protocol is not None)
    comparison = compare_sets(first, second)
    won = [_keys(first, rows) for rows in won_queries(first.dataset, first.protocol, _of(first), _of(second), n)]
    result = {"n": n, "comparison": comparison.model_dump(mode="json"), "only_a": won[0], "only_b": won[1]}
    lines = [format_comparison(comparison), ""]
    for name, keys in zip((comparison.first, comparison.second), won, strict=True):
        lines.append(f"{plural(len(keys), 'query', 'queries')} placed within R@{n} by {name} alone")
        lines += [f"  {elide(key, 76)}" for key in keys[:LISTED]]
        lines += [f"  and {len(keys) - LISTED:,} more (--json lists all)"] if len(keys) > LISTED else []
    emit(result, "\n".join(lines), as_json=as_json)


def _predictions(place: Path) -> Path:
    """A predictions file, or the only one of a run or a baseline. Raises: UsageError where there is not one."""
    files = [place] if place.is_file() else sorted([*place.glob("*.parquet"), *place.glob("predictions/*.parquet")])
    if len(files) != 1:
        names = ", ".join(map(str, files)) or "none there"
        raise UsageError(f"{place}: name an index, or one predictions file ({names})")
    return files[0]


def _of(item: PredictionSet) -> Any:
    return item.table, item.info


def _keys(item: PredictionSet, rows: list[int]) -> list[str]:
    """Names of query windows: trajectory and key of the centre frame."""
    queries = item.dataset.sequences(item.protocol, item.info.split, "query")
    places = item.dataset.places(queries)
    return [f"{places['trajectory'][row]} {places['key'][row]}" for row in rows]
