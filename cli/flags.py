"""Flags that several commands share, and the one reading of their forms (name=value; a,b,c; one of some words; 8GB)."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from seqdata.errors import UsageError
from train.models.catalogue import check_known


@dataclass
class CommandLine:
    """What this process was called with."""

    typed: Mapping[str, str] = field(default_factory=dict)
    """Parameters that are given, whatever their values: the flag, or an argument's word in the help, by name."""


command_line = CommandLine()
"""The process's own: it is filled before a command runs."""
Choice = TypeVar("Choice", bound=str)
Value = TypeVar("Value")


def parse_pairs(texts: Sequence[str] | None, flag: str) -> dict[str, str]:
    """Read texts of the form name=value.

    Args:
        texts: The texts, or None.
        flag: Name of the flag, for errors.

    Raises:
        UsageError: For another form, or a name that is given twice.
    """
    values: dict[str, str] = {}
    for text in texts or ():
        name, mark, value = text.partition("=")
        if not mark:
            raise UsageError(f"{flag} {text}: write it as name=value")
        if name in values:
            raise UsageError(f"{flag} {name}: given twice")
        values[name] = value
    return values


def parse_json_pairs(texts: Sequence[str] | None, flag: str) -> dict[str, Any]:
    """As `parse_pairs`; a value that is JSON is read as JSON, any other is text."""
    return {name: _json_or_text(value) for name, value in parse_pairs(texts, flag).items()}


def _json_or_text(value: str) -> Any:
    """A value as JSON, else as text: numbers, true and lists need no other syntax, and names need no quotes."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def parse_list(text: str | None) -> tuple[str, ...]:
    """Split a comma-separated value; empty parts and repetitions are dropped.

    >>> parse_list("own, own-L3,,own")
    ('own', 'own-L3')
    """
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def parse_numbers(text: str | None, flag: str) -> tuple[float, ...]:
    """Read comma-separated numbers.

    Raises:
        UsageError: When a part is no number.
    """
    try:
        return tuple(float(part) for part in parse_list(text))
    except ValueError as error:
        raise UsageError(f"{flag} {text}: numbers separated by commas are needed") from error


def parse_counts(text: str | None, flag: str) -> tuple[int, ...]:
    """Read comma-separated whole numbers.

    Raises:
        UsageError: When a part is none.
    """
    # int() alone would also take "-4", "+4" and "1_000".
    parts = parse_list(text)
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"{flag} {text}: whole numbers separated by commas are needed")
    return tuple(int(part) for part in parts)


def parse_choice(value: str, flag: str, choices: Sequence[Choice]) -> Choice:
    """Check a word against those that a flag takes.

    Args:
        value: The word.
        flag: Name of the flag, for errors.
        choices: The words that it takes.

    Raises:
        UsageError: For any other word; it lists the choices.
    """
    # Compared one by one, so that the result has the type of the choices and not that of the text.
    for choice in choices:
        if choice == value:
            return choice
    raise UsageError(f"{flag} {value}: expected {', '.join(choices)}")


def parse_bytes(text: str, flag: str) -> int:
    """Read a size as people write it (powers of 1000).

    Raises:
        UsageError: When the command line does not fit together.

    >>> parse_bytes("8GB", "--memory"), parse_bytes("500 mb", "--memory")
    (8000000000, 500000000)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d{1,2})?)\s*([kMGT]?)B?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise UsageError(f"{flag} {text}: expected a size such as 8GB or 500MB")
    # The index of the letter in " KMGT" is the power of 1000; no letter counts as the blank at the front.
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def either(argument: Value | None, flag: Value | None, name: str) -> Value | None:
    """The value of an argument that may also be given as a flag.

    Raises:
        UsageError: When both are.
    """
    if argument is not None and flag is not None:
        raise UsageError(f"{argument} and {name} {flag}: name one of them")
    return argument if argument is not None else flag


def refuse_without(partner: str, is_present: bool, **flags: object) -> None:
    """Refuse a flag that would do nothing without its partner.

    Args:
        partner: Name of the flag or input that the others need.
        is_present: Whether it is there.
        **flags: Values of the others by name; None is not given.

    Raises:
        UsageError: If one is given without it.
    """
    idle = next((name for name, value in flags.items() if value is not None), None)
    if idle is not None and not is_present:
        raise UsageError(f"--{idle.replace('_', '-')}: only together with {partner}")


def refuse_idle(partner: str, is_present: bool, *names: str) -> None:
    """Refuse options that stand on the command line and would do nothing without their partner.

    As `refuse_without`, for options that have a value anyway.

    Args:
        partner: What the options need, for the message.
        is_present: Whether it is there.
        *names: The options, by the names of their parameters.

    Raises:
        UsageError: If one is given without it.
    """
    idle = next((command_line.typed[name] for name in names if name in command_line.typed), None)
    if idle is not None and not is_present:
        raise UsageError(f"{idle}: only together with {partner}")


def start_weights(weights: str | None, random_init: bool) -> str | None:
    """The start weights that --weights and --random-init name. Raises: UsageError when both are given."""
    if weights is not None and random_init:
        raise UsageError(f"--weights {weights} and --random-init: name one of them")
    return "random" if random_init else weights


DatasetArgument = Annotated[Path | None, typer.Argument(help="Dataset folder.", show_default="the newest")]

ProtocolFlag = Annotated[str | None, typer.Option(help="Protocol name or .toml.", show_default="the dataset's")]

OptionFlag = Annotated[
    list[str] | None,
    typer.Option("--option", help="Any model option, as name=value; may repeat.", show_default=False),
]

EncoderFlag = Annotated[str | None, typer.Option(help="Any timm encoder.", show_default=False)]

PoolFlag = Annotated[str | None, typer.Option(help="Pooling of the encoder: vlad, netvlad, gem, …", show_default=False)]

FusionFlag = Annotated[str | None, typer.Option(help="Fusion: sum, cat, mean, gem, fc, …", show_default=False)]

IndexArgument = Annotated[Path | None, typer.Argument(help="Index folder.", show_default="the newest")]

IndexOption = Annotated[
    Path | None, typer.Option("--index", help="The same, as a flag.", metavar="INDEX", show_default=False)
]

DatasetFlag = Annotated[Path | None, typer.Option(help="Dataset.", show_default="the index's own")]

RunFlag = Annotated[Path | None, typer.Option(help="Run folder.", show_default="the index's own")]

FeaturesFlag = Annotated[
    Path | None,
    typer.Option(help="Stored features or a run whose frame descriptors are matched.", show_default="thumbnails"),
]

DeviceFlag = Annotated[
    str,
    typer.Option(help="Where the model computes; auto: on a GPU if one is there.", metavar="[auto|cpu|cuda|cuda:N]"),
]
ResizeFlag = Annotated[
    str | None,
    typer.Option(
        help="How frames of several sizes are resized (docs/speed.md).",
        metavar="[pillow|fast|scaled]",
        show_default="the run's",
    ),
]
PrecisionFlag = Annotated[
    str | None,
    typer.Option(
        help="Numbers on a CUDA device; tf32: products of 10 bits.", metavar="[fp32|tf32|bf16]", show_default="tf32"
    ),
]

RuntimeFlag = Annotated[
    str | None,
    typer.Option(
        help="What encodes frames; onnx: on CPU-only machines (needs onnxruntime, onnxscript).",
        metavar="[torch|onnx]",
        show_default=False,
    ),
]

ModelFromFlag = Annotated[
    str | None,
    typer.Option(
        "--model-from", help="Code of the run's model, as package.module:factory, if you trust it.", show_default=False
    ),
]

OwnModelFlag = Annotated[
    str | None,
    typer.Option("--model-from", help="Your own model: package.module:factory.", show_default=False),
]


def check_model_name(name: str | None, model_from: str | None) -> None:
    """Refuse a model that does not exist, or is code, `package.module:factory`, unless --model-from names the same.

    One door for code, so that no pasted command, file or record of somebody else chooses what runs.

    Args:
        name: Name of a model, wherever it comes from.
        model_from: What --model-from names.

    Raises:
        UsageError: Naming the flag to add.
    """
    if name is not None and ":" in name and name != model_from:
        raise UsageError(f"model '{name}' is code; if you trust it, name it with --model-from {name}")
    # A mistyped name is told before PyTorch, which makes models, is loaded.
    if name is not None and ":" not in name:
        check_known(name)


PartsEngineFlag = Annotated[
    str, typer.Option(help="How several --workers are run: processes, or a Ray cluster.", metavar="[pool|ray]")
]
EngineFlag = Annotated[
    str,
    typer.Option(
        help="How a flat or fp16 index is searched; auto: on a GPU if one is there.",
        metavar="[auto|cpu|cuda|faiss-gpu]",
    ),
]
