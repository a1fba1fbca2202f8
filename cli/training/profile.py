"""`seqdata profile`: time and memory of a model and of a search on this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.flags import OwnModelFlag, check_model_name, parse_json_pairs, refuse_idle
from cli.output import JsonFlag, emit, progress_bar, size
from indexer.text import plural
from train.profiling import matching as match_profiling

if TYPE_CHECKING:
    from train.profiling.models import Extraction

MODELS = (
    "seqvlad-r18", "seqvlad-r50", "seqvlad-vgg16", "seqvlad-vit", "seqvlad-cct224", "seqvlad-cct384", "timesformer",
)  # fmt: skip
# 50,000 descriptors of 4,096 float32 values take 0.8 GB of disk.
DATABASES = (10_000, 50_000)


def profile(
    model: Annotated[
        list[str] | None, typer.Option(help="Model preset; may repeat.", show_default="the backbones")
    ] = None,
    model_from: OwnModelFlag = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of these models, as name=value; may repeat.", show_default=False)
    ] = None,
    length: Annotated[
        int, typer.Option(help="Frames of a sequence; aligned matching and HVPR match as many.", min=1)
    ] = 5,
    repeats: Annotated[int, typer.Option(help="Timed passes.", min=1)] = 10,
    database: Annotated[
        list[int] | None,
        typer.Option(
            help="Rows of a temporary database to search; may repeat. 0: none.",
            show_default="10000, 50000",
        ),
    ] = None,
    dimensions: Annotated[int, typer.Option(help="Dimensions of a stored descriptor.", min=8)] = 4096,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind of search; may repeat.", metavar="[flat|fp16|ivf|imi|hnsw|pq|aligned|hvpr]", show_default="flat"
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where models compute; matching runs on the CPU.", metavar="[auto|cpu|cuda|cuda:N]")
    ] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Measure time and memory of models and of search.

    A model describes one sequence; a search finds one descriptor, for each size of database.
    """
    options = parse_json_pairs(option, "--option")
    names = [*(model or ([] if model_from else MODELS)), *([model_from] if model_from else [])]
    for name in names:
        check_model_name(name, model_from)
    from train.models import registry  # heavy
    from train.models.plugins import find_factory  # heavy
    from train.profiling import models as model_profiling  # heavy

    # Names and options are checked before the first of several minutes of measuring.
    for name in names:
        if find_factory(name) is None:
            registry.resolve(name, options)
    sizes = [count for count in (database or DATABASES) if count]
    refuse_idle("a database to search, and not with --database 0", bool(sizes), "dimensions", "engine")
    engines = list(engine or ["flat"])
    extractions: dict[str, Extraction] = {}
    searches: list[match_profiling.Matching] = []
    with progress_bar("model") as bar:
        for number, name in enumerate(names):
            bar.update(name, number, len(names))
            network = registry.create(name, **options)
            extractions[name] = model_profiling.extraction(network, length, device=device, repeats=repeats)
        for number, count in enumerate(sizes):
            bar.update(f"{count} vectors", number, len(sizes))
            searches += [match_profiling.matching(kind, count, dimensions, length=length) for kind in engines]
    result = {
        "extraction": {name: extraction.to_json() for name, extraction in extractions.items()},
        "matching": [matching.to_json() for matching in searches],
    }
    emit(result, _text(extractions, searches), as_json=as_json)


def _text(extractions: "dict[str, Extraction]", searches: list[match_profiling.Matching]) -> str:
    """Both tables."""
    first = next(iter(extractions.values()))
    head = ["model", "L", "pixels", "size", "ms", "p95", "fusion", "memory", "weights"]
    lines = [
        f"one sequence of L frames on {first.device}, {plural(first.threads, 'thread')}, random weights; milliseconds: "
        "median, 95th percentile, median of the fusion alone",
        *_columns([head, *map(_extraction_row, extractions.items())]),
    ]
    if searches:
        head = ["engine", "rows", "size", "L", "ms", "threads", "memory", "agreement"]
        rows = _columns([head, *map(_search_row, searches)])
        lines += [
            "",
            "one query at a time; agreement: share of the 10 exact neighbours found (aligned, hvpr: of the first)",
            rows[0],
        ]
        for row, search in zip(rows[1:], searches, strict=True):
            lines += [row, f"      {', '.join(filter(None, (search.factory, search.search)))}"]
    return "\n".join(lines)


def _extraction_row(item: "tuple[str, Extraction]") -> list[str]:
    name, extraction = item
    times = [f"{1000 * seconds:.2f}" for seconds in (extraction.p50, extraction.p95, extraction.fusion)]
    pixels = f"{extraction.size[0]}×{extraction.size[1]}"
    costs = [size(extraction.memory), size(extraction.weights)]
    return [name, str(extraction.frames), pixels, str(extraction.descriptor), *times, *costs]


def _search_row(search: match_profiling.Matching) -> list[str]:
    sizes = [str(search.database), str(search.dimensions), str(search.length)]
    costs = [f"{search.ms:.3f}", str(search.threads), size(1e6 * search.megabytes), f"{search.agreement:.3f}"]
    return [search.engine, *sizes, *costs]


def _columns(rows: list[list[str]]) -> list[str]:
    """Rows as aligned lines: words flush left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_word = [not cell[:1].isdigit() for cell in rows[-1]]
    return [
        "  "
        + "  ".join(
            text.ljust(width) if word else text.rjust(width)
            for text, width, word in zip(row, widths, is_word, strict=True)
        )
        for row in rows
    ]
