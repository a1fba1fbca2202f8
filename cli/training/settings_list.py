"""`seqdata train --settings`: every training setting with its type, unit, default and meaning."""

import json
import textwrap
from typing import Any

from indexer.text import TEXT_COLUMNS
from train.settings import TrainSettings

# What a number counts, where the setting's name does not say it.
UNITS = {
    "positive_radius": "m or frames", "negative_radius": "m or frames", "heading_max": "degrees",
    "shift_positives": "windows", "round_queries": "queries", "negative_cache": "windows", "rounds": "an epoch",
    "negatives": "a query", "positives_cap": "a query", "margin": "L2 distance", "batch": "triplets",
    "places": "a step", "windows": "a place", "run": "places", "steps": "an epoch", "halve_every": "epochs",
    "warmup": "steps", "accumulate": "steps", "patience": "epochs", "save_every": "steps", "frame_batch": "frames",
    "cache_bytes": "bytes", "decode_threads": "threads", "checkpointing": "frames", "kmeans_frames": "frames",
    "class_batch": "frames", "class_cell": "m", "class_heading": "degrees", "class_spacing": "cells",
    "class_frames": "frames", "kmeans_features": "features", "shift": "share", "light": "share", "erase": "share",
}  # fmt: skip
# Settings with a flag of their own; every other is given as --set NAME=VALUE.
FLAGS = {
    "model": "--model", "weights": "--weights", "protocol": "--protocol", "features": "--features", "lr": "--lr",
    "batch": "--batch-size", "negatives": "--negatives", "epochs": "--epochs", "patience": "--patience",
    "loss": "--loss", "seed": "--seed", "device": "--device", "accumulate": "--accumulate", "strict": "--strict",
    "options": "--option",
}  # fmt: skip


def settings_rows(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """List the settings: name, flag, type, unit, default and meaning of each.

    Args:
        values: Values of a recipe, which stand in place of the defaults.
    """
    properties = TrainSettings.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "flag": FLAGS.get(name, f"--set {name}="),
            "type": _type(schema),
            "unit": UNITS.get(name, ""),
            "default": (values or {}).get(name, schema.get("default")),
            "meaning": " ".join(str(schema.get("description", "")).split()),
        }
        for name, schema in properties.items()
    ]


def settings_text(rows: list[dict[str, Any]]) -> str:
    """The settings for people: a line of facts and the meaning below it, at most 80 columns."""
    lines = []
    for row in rows:
        default = "needed" if row["name"] == "protocol" else f"default {_value(row['default'])}"
        unit = f", {row['unit']}" if row["unit"] else ""
        flag = f" ({row['flag']})" if not row["flag"].startswith("--set") else ""
        lines += textwrap.wrap(f"{row['name']}{flag}: {row['type']}{unit}, {default}", TEXT_COLUMNS)
        lines += textwrap.wrap(row["meaning"], TEXT_COLUMNS, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([*lines, "", "Settings without a flag of their own: seqdata train --set NAME=VALUE"])


def _type(schema: dict[str, Any]) -> str:
    """The type of a setting in words: its choices, or a kind of value with its bounds."""
    if "enum" in schema:
        return "[" + "|".join(map(str, schema["enum"])) + "]"
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"] if part.get("type") != "null") + " or null"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    word = words.get(str(schema.get("type")), "JSON object")
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([word, *(f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema)])


def _value(default: Any) -> str:
    return default if isinstance(default, str) else json.dumps(default)
