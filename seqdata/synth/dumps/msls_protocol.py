"""The protocol file of the synthetic city: which cities are which split, and what counts as found."""

from __future__ import annotations

from seqdata.synth.settings import CitySettings

PROTOCOL = """\
name = "demo-city"
version = 1
title = "Synthetic city: other visits of the same streets; train, val and test are different cities"
source = "msls"
length = 5
rule = "any"
radius = 10.0
panoramas = "drop"
pool = "together"

[train]
positive_radius = 5.0
negative_radius = 25.0
rule = "any"
"""


def protocol_text(settings: CitySettings) -> str:
    """The TOML of protocol `demo-city`: L = 5, any frame within 10 m, splits by city."""
    splits: dict[str, list[str]] = {}
    for plan in settings.cities:
        splits.setdefault(plan.split, []).append(plan.name)
    parts = []
    for split, cities in splits.items():
        listed = ", ".join(f'"{name}"' for name in cities)
        parts.append(f"\n[splits.{split}]\ncities = [{listed}]\n")
    return PROTOCOL + "".join(parts)
