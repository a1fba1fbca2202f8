"""`seqdata profile`: what a model and a search cost on this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import JsonFlag, emit, progress_bar, size

if TYPE_CHECKING:
    from train.profiling.matching import Matching
    from train.profiling.models import Extraction

MODELS = (
    "seqvlad-r18", "seqvlad-r50", "seqvlad-vgg16", "seqvlad-vit", "seqvlad-cct224", "seqvlad-cct384", "timesformer",
)  # fmt: skip
DATABASES = (10_000, 50_000)


def profile(
    model: Annotated[
        list[str] | None, typer.Option(help="Model preset; may repeat. Default: the backbones.", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of these models, as name=value; may repeat.", show_default=False)
    ] = None,
    length: Annotated[int, typer.Option(help="Frames of a sequence, also where frames are matched.", min=1)] = 5,
    repeats: Annotated[int, typer.Option(help="Timed passes.", min=1)] = 10,
    database: Annotated[
        list[int] | None,
        typer.Option(
            help="Database size for matching, in a temporary file; may repeat. 0: none. Default: 10000, 50000.",
            show_default=False,
        ),
    ] = None,
    dimensions: Annotated[int, typer.Option(help="Numbers of a stored descriptor.", min=8)] = 4096,
    engine: Annotated[
        list[str] | None, typer.Option(help="flat, fp16, ivf, imi, hnsw, pq, aligned, hvpr.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; matching runs on the CPU.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Measure time and memory of models and of search.

    A model describes one sequence; a search finds one descriptor, for each size of database.
    """
    from cli.flags import json_pairs
    from train.models import registry as models
    from train.models.plugins import find_factory
    from train.profiling import matching as match_profiling
    from train.profiling import models as profiling

    options = json_pairs(option, "--option")
    chosen = list(model or MODELS)
    for name in chosen:
        if find_factory(name) is None:
            models.resolve(name, options)
    sizes = [count for count in (database or DATABASES) if count]
    engines = list(engine or ["flat"])
    found: dict[str, Extraction] = {}
    searched: list[Matching] = []
    with progress_bar("model") as bar:
        for number, name in enumerate(chosen):
            bar.to(name, number, len(chosen))
            made = models.create(name, **options)
            found[name] = profiling.extraction(made, length, device=device, repeats=repeats)
        for number, count in enumerate(sizes):
            bar.to(f"{count} vectors", number, len(sizes))
            searched += [match_profiling.matching(each, count, dimensions, length=length) for each in engines]
    result = {
        "extraction": {name: each.to_json() for name, each in found.items()},
        "matching": [each.to_json() for each in searched],
    }
    emit(result, _text(found, searched), as_json=as_json)


def _text(found: "dict[str, Extraction]", searched: "list[Matching]") -> str:
    """Both tables."""
    first = next(iter(found.values()))
    head = ["model", "frames", "pixels", "dimensions", "ms, median", "ms, p95", "ms, fusion", "memory", "weights"]
    lines = [
        f"one sequence on {first.device}, {first.threads} threads, random weights",
        *_columns([head, *map(_model, found.items())]),
    ]
    if searched:
        sizes = ["database", "dimensions", "frames"]
        wide = ["engine", "factory", "search", *sizes, "ms a query", "threads", "memory", "agreement"]
        lines += [
            "",
            "one query at a time; agreement: share of the 10 exact neighbours found (aligned, hvpr: of the first)",
        ]
        lines += _columns([wide, *map(_search, searched)])
    return "\n".join(lines)


def _model(item: "tuple[str, Extraction]") -> list[str]:
    name, each = item
    times = [f"{1000 * seconds:.2f}" for seconds in (each.p50, each.p95, each.fusion)]
    pixels = f"{each.size[0]}×{each.size[1]}"
    return [name, str(each.frames), pixels, str(each.descriptor), *times, size(each.memory), size(each.weights)]


def _search(each: "Matching") -> list[str]:
    sizes = [str(each.database), str(each.dimensions), str(each.length)]
    cost = [f"{each.ms:.3f}", str(each.threads), size(1e6 * each.megabytes), f"{each.agreement:.3f}"]
    return [each.engine, each.factory, each.search or "-", *sizes, *cost]


def _columns(rows: list[list[str]]) -> list[str]:
    """Rows as aligned lines: names flush left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [not rows[-1][at][:1].isdigit() for at in range(len(widths))]
    return [
        "  "
        + "  ".join(
            text.ljust(width) if flush else text.rjust(width)
            for text, width, flush in zip(row, widths, left, strict=True)
        )
        for row in rows
    ]
