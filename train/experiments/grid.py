"""Declared experiments: rows, groups of columns and values, read from the TOML files beside this module."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from indexer.evaluation.recall import SHORT_RANKS
from seqdata.contracts.records import Frozen, describe_first
from seqdata.contracts.toml_files import read_toml
from seqdata.errors import ContractError
from train.profiling import matching as match_profiling

HERE = Path(__file__).parent
ALIASES = {"p1": "seqvlad", "p2": "sta"}
"""First words of experiments in earlier versions, and what they are called now."""
Kind = Literal["recall", "counts", "extraction", "matching"]
Match = Literal["index", "seqslam", "aligned", "hvpr"]
Fact = Literal["dimension", "memory"]
VALUES = (
    *(f"r{n}" for n in SHORT_RANKS), "database", "query", "p50", "p95", "fusion", "ms", "megabytes", "agreement"
)  # fmt: skip
"""Names of what columns hold: recalls, counts by role, seconds of extraction, cost of matching."""


def _check_value(name: str) -> str:
    if name not in VALUES:
        raise ValueError(f"no value '{name}'; there are {', '.join(VALUES)}")
    return name


Value = Annotated[str, AfterValidator(_check_value)]


class Backbone(Frozen):
    """A backbone's name in tables, and the encoder options that stand for it on small data."""

    label: str
    small: dict[str, Any]


class Method(Frozen):
    """One way to a descriptor, or to a match, that can stand in a row.

    `model`, `options`, `recipe`: see `train.settings.TrainSettings`; `epochs` 0 = untrained, None = the recipe's. `pca`
    dimensions. `features`: works on stored frame vectors instead of pixels. `match`: how windows are compared.
    `small`: options over all others on small data.
    """

    category: str
    method: str
    backbone: str | None = None
    model: str
    options: dict[str, Any] = Field(default_factory=dict)
    recipe: str = "seqvlad-triplet"
    epochs: int | None = None
    pca: int | None = None
    features: bool = False
    match: Match = "index"
    small: dict[str, Any] = Field(default_factory=dict)


class Group(Frozen):
    """Columns that one measurement fills.

    `protocol`: a paper's, None = that of the grid. `split`: of a count. `city`: one test city alone, "each" = a group
    for each. `train_city`: "largest" = only the training city with most database windows. `length` of tested windows;
    `centres`: only windows whose centre frame has a window of that many frames too, judged at the centre. `backward`:
    database windows are read last frame first. `database`: vectors in a matching study, `small` on small data.
    """

    label: str
    protocol: str | None = None
    split: str | None = None
    city: str | None = None
    train_city: Literal["largest"] | None = None
    length: int | None = Field(default=None, ge=1)
    centres: int | None = Field(default=None, ge=1)
    backward: bool = False
    database: int | None = Field(default=None, ge=1)
    small: int | None = Field(default=None, ge=1)


class Subject(Frozen):
    """What a row of a table of counts counts, under a protocol, its own length unless `length` says another.

    `split`: None = that of the group of columns. `counted`: ending of the count's name in a protocol's
    `expected_counts`: windows (empty), frames, images, or images of a city.
    """

    dataset: str
    name: str
    protocol: str
    length: int | None = Field(default=None, ge=1)
    split: str | None = None
    counted: str = Field(default="", pattern=r"^(_frames|_images(_\w+)?)?$")


class Grid(Frozen):
    """A paper's table or figure: `rows` by name, `groups` of columns, `values` of each group.

    `own_title`: the title where the columns are not the paper's, for a `title` that names the paper's datasets.
    `protocol`: the paper's, of groups that name none. `subjects`: what the rows of a table of counts count. `facts` of
    a row stand once, before the groups. `own`: the groups where the dataset is none of the paper's (empty: one group).
    `difference`: last columns, each second group against the one before. `chart`: the page's figure.
    """

    title: str
    own_title: str | None = None
    paper: str
    kind: Kind = "recall"
    rows: tuple[str, ...] = Field(min_length=1)
    groups: tuple[Group, ...] = Field(min_length=1)
    protocol: str | None = None
    subjects: dict[str, Subject] = Field(default_factory=dict)
    own: tuple[Group, ...] = ()
    facts: tuple[Fact, ...] = ()
    values: tuple[Value, ...] = Field(min_length=1)
    difference: bool = False
    chart: Literal["memory", "bars"] | None = None
    notes: tuple[str, ...] = ()

    @property
    def protocols(self) -> tuple[str, ...]:
        """The paper's protocols that columns and rows are bound to, each once."""
        named = [self.protocol_of(group) for group in self.groups]
        named += [subject.protocol for subject in self.subjects.values()]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def protocol_of(self, group: Group) -> str | None:
        """Name of the paper's protocol of a group of columns; None where it is bound to none."""
        return group.protocol or self.protocol


def canonical(name: str) -> str:
    """The present name of an experiment: names before the papers had words (p1-table2) are aliases.

    >>> canonical("p1-table2"), canonical("sta-table3")
    ('seqvlad-table2', 'sta-table3')
    """
    prefix, _, rest = name.partition("-")
    return f"{ALIASES[prefix]}-{rest}" if prefix in ALIASES else name


def names() -> list[str]:
    """Names of the declared experiments, sorted."""
    # The folder is the registry: a new grid is one file and no entry elsewhere.
    return sorted(path.stem for path in (HERE / "grids").glob("*.toml"))


def load(name: str) -> Grid:
    """The experiment `name`.

    Raises:
        ContractError: For an unknown name, with those there are.
    """
    stem = canonical(name)
    if stem not in names():
        raise ContractError(f"no experiment '{name}'; there are {', '.join(names())}")
    path = HERE / "grids" / f"{stem}.toml"
    try:
        return Grid.model_validate(read_toml(path))
    except ValidationError as error:
        raise ContractError(f"{path}: {describe_first(error)}") from error


@cache
def backbones() -> dict[str, Backbone]:
    """The declared backbones by name."""
    return {name: Backbone.model_validate(fields) for name, fields in _declared()["backbones"].items()}


@cache
def methods() -> dict[str, Method]:
    """The declared methods by name."""
    return {name: Method.model_validate(fields) for name, fields in _declared()["methods"].items()}


def method(name: str) -> Method:
    """The method `name`.

    Raises:
        ContractError: For an unknown one.
    """
    if name not in methods():
        raise ContractError(f"no method '{name}'; there are {', '.join(methods())}")
    return methods()[name]


@cache
def paper_protocols() -> frozenset[str]:
    """Names of the protocols that some experiment's columns or rows are bound to."""
    return frozenset(protocol for name in names() for protocol in load(name).protocols)


def engine(row: str) -> tuple[str, int]:
    """Engine, and frames of a query, of a row of a matching study: "aligned-15" is `aligned` over 15 frames."""
    name, _, length = row.partition("-")
    return name, int(length) if length else match_profiling.LENGTH


def _declared() -> dict[str, Any]:
    return read_toml(HERE / "methods.toml")
