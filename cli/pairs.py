"""Flags that are written as name=value and may repeat."""

import json
from typing import Any


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
