"""What the tensors of a released file are, once a program's names are translated."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Tensors = Mapping[str, Tensor]
Rules = Sequence[tuple[str, str]]
"""Patterns of a program's names and what they are here; the first that matches is applied."""


class UnreadableWeightsError(ValueError):
    """The tensors are not those of the program, or of a form of it that has no model here; the text says which."""


@dataclass(frozen=True)
class Reading:
    """A released model.

    Attributes:
        model: Name of the model preset.
        options: All options that the file decides.
        state: Tensors by the names of the model's state dict; others under the names that they had.
        positions: Key of learnt positions of a square grid, which the program resamples to that of the frames.
    """

    model: str
    options: dict[str, Any]
    state: dict[str, Tensor]
    positions: str | None = None


@dataclass(frozen=True)
class Program:
    """A public program whose weights are read.

    Attributes:
        title: What it is, for people.
        mark: Pattern of a key that all of its files hold, and no other program's.
        parts: Beginnings of the keys that `read` looks at; others are left over. Empty: all.
        read: Translates the tensors of a file, and those of the frame model's file where it needs one.
        needs_frames: Whether its files hold only what stands behind the frame vectors of another program.
        unused: Patterns of keys that its files hold beside the model that is used.
        protocol: Protocol of its paper.
        address: Of the file that its authors released, for download.
        page: Where its authors say how to get the file, where there is no such address.
    """

    title: str
    mark: str
    parts: tuple[str, ...]
    read: Callable[[Tensors, Tensors], Reading]
    needs_frames: bool = False
    unused: tuple[str, ...] = ()
    protocol: str = "msls-seqvlad"
    address: str = ""
    page: str = ""

    def recognises(self, keys: Iterable[str]) -> bool:
        """Whether these are the keys of its files."""
        return any(re.match(self.mark, key) for key in keys)


def above(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Put a prefix before every key."""
    return {f"{prefix}{key}": value for key, value in tensors.items()}


def rename(tensors: Tensors, rules: Rules) -> dict[str, Tensor]:
    r"""Rename keys by the first rule that matches; others stay.

    Example:
        >>> list(rename({"a.weight": None, "b": None}, [(r"^a\.", "first.")]))
        ['first.weight', 'b']
    """
    renamed = {}
    for key, value in tensors.items():
        rule = next((rule for rule in rules if re.match(rule[0], key)), None)
        renamed[key if rule is None else re.sub(*rule, key)] = value
    return renamed


def count_of(tensors: Tensors, pattern: str) -> int:
    r"""Count the numbered parts whose keys match a pattern with one group, the number; 0 without any.

    Example:
        >>> count_of({"blocks.0.a": None, "blocks.1.a": None}, r"blocks\.(\d+)\.")
        2
    """
    numbers = [int(match.group(1)) for key in tensors if (match := re.match(pattern, key))]
    return 1 + max(numbers, default=-1)
