"""Models by name: presets, their options, and `create`.

A new model is one encoder, pooling or fusion module and one entry in `train.models.presets`; a model of another shape
is a family of its own, one entry in `FAMILIES`.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seqdata.contracts.records import describe_first
from seqdata.errors import UsageError
from train.models import frame_model
from train.models.base import Family, SequenceModel
from train.models.catalogue import names, unknown_text
from train.models.early import r2plus1d, timesformer
from train.models.plugins import create_plugin, find_factory
from train.models.sta import model as sta

__all__ = ["FAMILIES", "Family", "SequenceModel", "create", "names", "preset", "resolve", "restore"]

FAMILIES: dict[str, Family] = {
    "frames": frame_model.FAMILY,
    "sta": sta.FAMILY,
    "timesformer": timesformer.FAMILY,
    "r2plus1d": r2plus1d.FAMILY,
}


def preset(name: str) -> tuple[Family, dict[str, Any]]:
    """Return the family and the options of a preset.

    Raises:
        ContractError: For an unknown name, with similar ones.
    """
    for family in FAMILIES.values():
        if name in family.presets:
            return family, family.presets[name]
    raise UsageError(unknown_text(name))


def create(name: str, *, weights: str | Path = "random", seed: int = 0, **options: Any) -> SequenceModel:
    """Make a model, in eval mode on the CPU.

    Args:
        name: A preset, an installed plug-in, or `package.module:factory` of your own.
        weights: "random" (drawn from `seed`), "pretrained" (timm's download) or a file of the backbone's weights.
        seed: Seed of everything random.
        **options: Options over the preset's, as `seqdata models show NAME` lists them.

    Returns:
        A model of windows `(B, L, 3, H, W)`, RGB in 0…255, to descriptors `(B, D)`.

    Raises:
        ContractError: For an unknown name, option or stage, or a combination that cannot work.
        InputError: For a weights file that cannot be read.
        MissingDependencyError: For a download or a plug-in that is not there.

    Example:
        >>> import torch
        >>> model = create("seqvlad-small", encoder="resnet10t", cut="layer1", clusters=4)
        >>> windows = torch.zeros(2, 5, 3, 32, 64, dtype=torch.uint8)
        >>> model(windows).shape
        torch.Size([2, 256])
    """
    # A plug-in goes before a preset of the same name: its user installed or named it on purpose.
    factory = find_factory(name)
    if factory is not None:
        return create_plugin(factory, name, weights, seed, options).eval()
    family, _ = preset(name)
    checked = resolve(name, options)
    config = {"name": name, "weights": str(weights), "seed": seed, **checked.model_dump(mode="json")}
    return family.build(checked, weights, seed, config).eval()


def restore(config: dict[str, Any]) -> SequenceModel:
    """Make the model of a stored `SequenceModel.config`, in eval mode on the CPU.

    An option that came after the model had been stored takes the value that the model has without it, not the one
    that its preset has by now: what exists keeps its numbers.

    Raises:
        ContractError, InputError, MissingDependencyError: As `create`.
    """
    name = str(config.get("name"))
    added = {} if find_factory(name) is not None else preset(name)[0].added
    return create(**{**added, **config})


def resolve(name: str, options: dict[str, Any]) -> Any:
    """Check the options of preset `name` with `options` over them.

    Raises:
        ContractError: Naming what is valid.
    """
    family, values = preset(name)
    fields = family.options.model_fields
    unknown = sorted(set(options) - set(fields))
    if unknown:
        # Of some thirty options the nearest by spelling; the command lists them all.
        nearest = ", ".join(get_close_matches(unknown[0], fields, n=5, cutoff=0.0))
        raise UsageError(
            f"model {name}: no option '{unknown[0]}'; near it: {nearest}; seqdata models show {name} --json lists all"
        )
    try:
        checked = family.options.model_validate(family.complete(values, options))
    except ValidationError as error:
        raise UsageError(f"model {name}: {describe_first(error)}") from error
    family.check(name, checked)
    return checked
