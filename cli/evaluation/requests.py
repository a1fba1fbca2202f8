"""Predictions on their way through `seqdata eval`, what was asked, and names that tell them apart."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.config import Config

if TYPE_CHECKING:
    import polars as pl

    from indexer.evaluation.predictions import PredictionsInfo
    from seqdata.contracts.protocol import Protocol
    from seqdata.dataset.dataset import Dataset
    from train.stages.evaluate import Answer


@dataclass(frozen=True)
class Answered:
    """Predictions with the dataset and the protocol that judges them; `folder` keeps the recall, where one does.

    `path` is the file that keeps them, `stored` whether it does already, `origin` the file that was named for them.
    `shorter` are those of the same index by fewer dimensions.
    """

    dataset: "Dataset"
    protocol: "Protocol"
    table: "pl.DataFrame"
    info: "PredictionsInfo"
    folder: Path | None = None
    path: Path | None = None
    stored: bool = False
    origin: Path | None = None
    shorter: "tuple[Answer, ...]" = ()


@dataclass(frozen=True)
class Asked:
    """The flags that more than one source of predictions needs."""

    place: Config
    protocols: tuple[str, ...]
    dataset: Path | None
    split: str | None
    name: str | None
    out: Path | None


@dataclass(frozen=True)
class Searched:
    """How an index answers: `sizes` of fewer dimensions too, `again` even where it did before, device and engine."""

    run: Path | None = None
    sizes: tuple[int, ...] = ()
    again: bool = False
    device: str = "auto"
    engine: str = "auto"
    model_from: str | None = None


def told_apart(found: list[Answered]) -> list[Answered]:
    """The same; where several have one method's name, each with its index, else its file, behind the name."""
    kinds: tuple[Callable[[Answered], str], ...] = (
        lambda each: (each.info.index or "")[:8],
        lambda each: each.origin.stem if each.origin else "",
        lambda each: str(each.origin or ""),
    )
    done = []
    for each in found:
        twins = [other for other in found if other.info.method == each.info.method]
        several = len({(other.info.index, other.origin) for other in twins})
        mark = next((kind for kind in kinds if len({kind(other) for other in twins}) == several), kinds[-1])(each)
        method = f"{each.info.method} [{mark}]" if several > 1 and mark else each.info.method
        done.append(replace(each, info=each.info.model_copy(update={"method": method})))
    return done
