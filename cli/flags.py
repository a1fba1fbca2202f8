"""Flags that are written as name=value and may repeat."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def text_pairs(texts: list[str] | None, flag: str) -> dict[str, str]:
    """name=value texts. Raises: ContractError for another form, or for a name that is given twice."""
    from seqdata.errors import ContractError

    values: dict[str, str] = {}
    for text in texts or []:
        name, mark, value = text.partition("=")
        if not mark:
            raise ContractError(f"{flag} {text}: write it as name=value")
        if name in values:
            raise ContractError(f"{flag} {name}: given twice")
        values[name] = value
    return values


def json_pairs(texts: list[str] | None, flag: str) -> dict[str, Any]:
    """As `text_pairs`; a value is read as JSON where it is JSON."""
    return {name: _json_or_text(value) for name, value in text_pairs(texts, flag).items()}


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


IndexArgument = Annotated[Path | None, typer.Argument(help="Index folder; default: the newest.", show_default=False)]

DatasetFlag = Annotated[Path | None, typer.Option(help="Dataset; default: the index's own.", show_default=False)]

RunFlag = Annotated[Path | None, typer.Option(help="Run folder; default: the index's own.", show_default=False)]

FeaturesFlag = Annotated[
    Path | None,
    typer.Option(
        help="Feature dataset or run whose frame descriptors are matched; default: thumbnails.", show_default=False
    ),
]

DeviceFlag = Annotated[str, typer.Option(help="auto, cpu or cuda.")]

ModelFromFlag = Annotated[
    str | None,
    typer.Option("--model-from", help="package.module:factory behind the run, if you trust it.", show_default=False),
]

EngineFlag = Annotated[
    str, typer.Option(help="What searches a flat or fp16 index: auto, cpu, cuda or faiss-gpu (auto: a GPU if there).")
]
