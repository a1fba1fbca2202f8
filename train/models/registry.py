"""Models by name: presets, their options, and `create`.

A new model is one encoder, pooling or fusion module and one entry in `train.models.presets`; a model of another
shape is a
family of its own, one entry in `FAMILIES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from seqdata.contracts.records import describe_first
from seqdata.errors import ContractError
from train.models import frame_model as frame_options
from train.models.base import SequenceModel
from train.models.early import r2plus1d, timesformer
from train.models.frame_model import FrameOptions
from train.models.plugins import create_plugin, find_factory, plugin_names
from train.models.presets import frame_presets
from train.models.sta import model as sta

__all__ = ["FAMILIES", "Family", "SequenceModel", "create", "names", "preset", "resolve"]


@dataclass(frozen=True)
class Family:
    """Models that share one set of options.

    `options`: their model. `complete(preset, options)`: the options to validate. `check(name, options)`: raises
    ContractError for what cannot work. `build(options, weights, seed, config)`: the model. `presets`: options by name.
    """

    options: type[BaseModel]
    complete: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
    check: Callable[[str, Any], None]
    build: Callable[[Any, str | Path, int, dict[str, Any]], SequenceModel]
    presets: dict[str, dict[str, Any]]


FAMILIES: dict[str, Family] = {
    "frames": Family(
        FrameOptions,
        frame_options.complete,
        frame_options.check,
        frame_options.build,
        {**frame_presets(), "frames": {}},
    ),
    "sta": Family(sta.StaOptions, sta.complete, sta.check, sta.build, sta.PRESETS),
    "timesformer": Family(
        timesformer.TimeSformerOptions, timesformer.complete, timesformer.check, timesformer.build, timesformer.PRESETS
    ),
    "r2plus1d": Family(r2plus1d.R2Plus1DOptions, r2plus1d.complete, r2plus1d.check, r2plus1d.build, r2plus1d.PRESETS),
}
"""The preset `frames` is an empty one, for encoder, pooling and fusion of one's own choice."""


def names() -> list[str]:
    """Names of the presets and of installed plug-ins, sorted."""
    return sorted({name for family in FAMILIES.values() for name in family.presets} | {*plugin_names()})


def preset(name: str) -> tuple[Family, dict[str, Any]]:
    """The family and the options of a preset. Raises: ContractError for an unknown name, with what is near it."""
    for family in FAMILIES.values():
        if name in family.presets:
            return family, family.presets[name]
    near = [known for known in names() if name and name in known] or get_close_matches(name, names(), n=8, cutoff=0.5)
    hint = f"near it: {', '.join(near[:8])}; " if near else ""
    raise ContractError(f"no model '{name}'; {hint}seqdata models lists all")


def create(name: str, *, weights: str | Path = "random", seed: int = 0, **options: Any) -> SequenceModel:
    """The model of preset or plug-in `name` with `options` over it, in eval mode on the CPU.

    `weights`: "random" (drawn from `seed`), "pretrained" (timm's download) or a file of the backbone's weights.
    Raises: ContractError for an unknown name, option, stage or a combination that cannot work, InputError and
    MissingDependencyError for weights or a plug-in that are not there.
    """
    factory = find_factory(name)
    if factory is not None:
        return create_plugin(factory, name, weights, seed, options).eval()
    family, _ = preset(name)
    chosen = resolve(name, options)
    config = {"name": name, "weights": str(weights), "seed": seed, **chosen.model_dump(mode="json")}
    return family.build(chosen, weights, seed, config).eval()


def resolve(name: str, options: dict[str, Any]) -> Any:
    """The checked options of preset `name` with `options` over them. Raises: ContractError naming what is valid."""
    family, chosen = preset(name)
    known = family.options.model_fields
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ContractError(f"model {name}: no option '{unknown[0]}'; there are {', '.join(known)}")
    try:
        checked = family.options.model_validate(family.complete(chosen, options))
    except ValidationError as error:
        raise ContractError(f"model {name}: {describe_first(error)}") from error
    family.check(name, checked)
    return checked
