"""Training settings: one frozen model, passed down explicitly and saved with every run."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seqdata.contracts.records import describe_first
from seqdata.errors import ContractError
from train.recipes import RECIPES

Rate = Annotated[float, Field(gt=0, le=10)]
"""A learning rate: whoever means more has slipped in an exponent."""


class TrainSettings(BaseModel):
    """Everything that decides a training run besides the dataset; defaults follow P1's triplet recipe.

    Model: `model`, `weights` ("pretrained", a file, or "random" where that is said), `options` (see
    `train.models.registry.create`); `features`: folder of stored features that the model's head is trained on
    instead of pixels
    (see `train.data.features.create_head`).
    Data: `protocol` (name or file); `positive_radius`, `negative_radius` and `heading_max` (degrees by which a positive
    may face another way), each None = the protocol's; `shift_positives` moves the database frames by N windows against
    their positions, a control that must not learn.
    Regime "triplet": `round_queries` queries a round, `rounds` an epoch, `negatives` a query, `positives_cap`,
    `margin`, `skip_easy` (see `train.losses.triplet.TripletLoss`), `batch` triplets a step.
    Regime "places": `places` × `windows` a batch in runs of `run`, `pairs` "all" or "cross" (query against database
    only: pairs of one drive teach little), `loss` "multi-similarity" or "contrastive" (`temperature`), `steps` an epoch
    (None: each query once).
    Optimiser: `optimizer`, `lr`, `lr_groups` (other rates for parameters below a name, such as {"temporal": 1e-3}),
    `momentum` (SGD), `weight_decay`, `schedule` ("cosine" to zero over all epochs, "halve" every `halve_every` epochs),
    `warmup` steps, `accumulate` steps an update, whose gradients are averaged: one larger batch of triplets, but place
    batches and `skip_easy` count within each step.
    Loop: `epochs` (0 = write the untrained model), `patience` epochs without a better val R@5, `save_every` steps
    (0 = only when interrupted), `seed`, `device`.
    Machine: `frame_batch` frames a pass when describing, `cache_bytes` of decoded frames in memory, `amp` (bf16 on
    CUDA), `compile` (torch.compile), `checkpointing` frames whose activations are kept at a time (0 = all; see
    `train.loop.step.StepModel`).
    VLAD: `kmeans_frames` frames and `kmeans_features` local features for the initialisation (0 frames: none).
    Augmentation: `shift`, `light`, `mirror`, `erase` (see `train.data.augment.Augment`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "seqvlad-r18"
    weights: str = "pretrained"
    options: dict[str, Any] = Field(default_factory=dict)
    features: str | None = None
    protocol: str
    positive_radius: float | None = Field(default=None, ge=0)
    negative_radius: float | None = Field(default=None, ge=0)
    heading_max: float | None = Field(default=None, gt=0, le=180)
    shift_positives: int = 0

    regime: Literal["triplet", "places"] = "triplet"
    round_queries: int = Field(default=1000, ge=1)
    rounds: int = Field(default=5, ge=1)
    negatives: int = Field(default=5, ge=1)
    positives_cap: int = Field(default=10, ge=1)
    margin: float = Field(default=0.1, ge=0)
    skip_easy: bool = False
    batch: int = Field(default=4, ge=1)
    places: int = Field(default=32, ge=1)
    windows: int = Field(default=2, ge=2)
    run: int = Field(default=1, ge=1)
    pairs: Literal["all", "cross"] = "all"
    loss: Literal["multi-similarity", "contrastive"] = "multi-similarity"
    temperature: float = Field(default=0.05, gt=0)
    steps: int | None = Field(default=None, ge=1)

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Rate = 1e-5
    lr_groups: dict[str, Rate] = Field(default_factory=dict)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    schedule: Literal["none", "cosine", "halve"] = "none"
    halve_every: int = Field(default=50, ge=1)
    warmup: int = Field(default=0, ge=0)
    accumulate: int = Field(default=1, ge=1)

    epochs: int = Field(default=30, ge=0)
    patience: int = Field(default=5, ge=1)
    save_every: int = Field(default=500, ge=0)
    seed: int = Field(default=0, ge=0)
    device: str = "auto"

    frame_batch: int = Field(default=64, ge=1)
    cache_bytes: int = Field(default=1 << 30, ge=0)
    amp: bool = True
    compile: bool = False
    checkpointing: int = Field(default=0, ge=0)

    kmeans_frames: int = Field(default=500, ge=0)
    kmeans_features: int = Field(default=50_000, ge=1)

    shift: float = Field(default=0.0, ge=0, lt=0.5)
    light: float = Field(default=0.0, ge=0, lt=1)
    mirror: bool = False
    erase: float = Field(default=0.0, ge=0, le=1)

    @classmethod
    def create(
        cls, recipe: str | None = None, base: Mapping[str, Any] | None = None, /, **fields: Any
    ) -> "TrainSettings":
        """Settings of a named recipe with `fields` over it (None fields are left at the recipe's value).

        `base`: what stands below the recipe, such as the settings of a run to go on with; default: the defaults.

        Raises: ContractError for an unknown recipe or a wrong field, naming what is valid.
        """
        if recipe is not None and recipe not in RECIPES:
            raise ContractError(f"no training recipe '{recipe}'; choose one of {', '.join(sorted(RECIPES))}")
        given = {key: value for key, value in fields.items() if value is not None}
        try:
            return cls.model_validate({**(base or {}), **RECIPES.get(recipe or "", {}), **given})
        except ValidationError as error:
            raise ContractError(f"training settings: {describe_first(error)}") from error

    def same_course(self) -> dict[str, Any]:
        """The fields that decide the numbers of a run: two runs with equal ones may continue each other.

        The number of epochs is one of them only where the learning rate follows it.
        """
        free = {
            "features",
            "patience",
            "save_every",
            "device",
            "frame_batch",
            "cache_bytes",
            "compile",
            "checkpointing",
        }
        if self.schedule != "cosine":
            free.add("epochs")
        return self.model_dump(mode="json", exclude=free)
