"""Training settings: one frozen model, passed down explicitly and saved with every run."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexer.describer import Precision
from seqdata.contracts.records import describe_first
from seqdata.errors import UsageError
from seqdata.frames.resize import Kernel, default_kernel
from train.recipes import ALIASES, RECIPES

# Above 10 an exponent has slipped: every published rate of the field is far below 1.
Rate = Annotated[float, Field(gt=0, le=10)]

# Fields that change speed or memory, or when a run stops, but no number of a step.
_FIELDS_WITHOUT_EFFECT = {
    "features",
    "patience",
    "save_every",
    "validate_start",
    "device",
    "frame_batch",
    "cache_bytes",
    "decode_threads",
    "strict",
    "compile",
    "checkpointing",
}


# Settings that only some values of another setting read.
_READ_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("round_queries", "negative_cache", "rounds", "negatives", "positives_cap", "margin", "skip_easy",
         "violating_only", "batch"),
        ("regime", ("triplet", "joint")),
    ),
    **dict.fromkeys(("places", "windows", "run", "pairs", "loss", "temperature", "steps"), ("regime", ("places",))),
    **dict.fromkeys(
        ("class_batch", "class_weight", "class_lr", "class_cell", "class_heading", "class_spacing",
         "class_heading_spacing", "class_frames", "class_groups"),
        ("regime", ("joint",)),
    ),
    "momentum": ("optimizer", ("sgd",)),
    "halve_every": ("schedule", ("halve",)),
}  # fmt: skip


class TrainSettings(BaseModel):
    """Everything that decides a training run besides the dataset.

    Defaults follow the triplet recipe of Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place
    Recognition, RA-L 2022, sec. IV-A, unless a field says otherwise.

    Example:
        >>> settings = TrainSettings.create("places-scratch", protocol="own", epochs=3)
        >>> settings.regime, settings.places, settings.epochs
        ('places', 96, 3)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    # Model
    model: str = "seqvlad-r18"
    """Model preset (`seqdata models` lists them), or `package.module:factory` of your own."""
    weights: str = "pretrained"
    """Start weights of the backbone: "pretrained" (timm's download), a file, or "random"."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Model options over the preset's, as `seqdata models show` names them."""
    features: str | None = None
    """Folder of stored features (`seqdata describe`) that the model's head is trained on instead of pixels."""

    # Data
    protocol: str
    """Protocol: a name, or a TOML file."""
    positive_radius: float | None = Field(default=None, ge=0)
    """Windows nearer than this are positives; metres, or frames where the protocol counts frames. None: the
    protocol's (10 m in practice)."""
    negative_radius: float | None = Field(default=None, ge=0)
    """Windows farther than this may be negatives; unit as above. None: the protocol's (25 m in practice)."""
    heading_max: float | None = Field(default=None, gt=0, le=180)
    """Degrees by which a positive may face another way than the query. None: the protocol's."""
    shift_positives: int = 0
    """Windows by which the database frames are moved against their positions: a control that must not learn."""

    regime: Literal["triplet", "places", "joint"] = "triplet"
    """How steps are made: "triplet" (mined triplets), "places" (batches of places), or "joint" (mined triplets, and
    single frames that are classed by where they are)."""

    # Regime "triplet"
    round_queries: int = Field(default=1000, ge=1)
    """Queries drawn a round."""
    negative_cache: int | None = Field(default=None, ge=1)
    """Database windows drawn a round, among which negatives are mined. None: as many as `round_queries`."""
    rounds: int = Field(default=5, ge=1)
    """Rounds an epoch; the present weights describe the drawn windows anew in each."""
    negatives: int = Field(default=5, ge=1)
    """Hardest negatives mined for each query."""
    positives_cap: int | None = Field(default=10, ge=1)
    """Positives a query, drawn at random, among which the nearest is chosen; ours, so that a stop at a light does not
    fill the round. None: all of them, as the papers' recipes take."""
    margin: float = Field(default=0.1, ge=0)
    """Margin of the triplet loss, in units of L2 distance between descriptors."""
    skip_easy: bool = False
    """Leave queries without a violating negative out of the mean, instead of counting them as zero."""
    violating_only: bool = False
    """Take the loss's mean over violating negatives alone, as the programs of SeqNet and SeqMatchNet do."""
    batch: int = Field(default=4, ge=1)
    """Triplets (one query, one positive, `negatives` negatives) a step."""

    # Regime "places"
    places: int = Field(default=32, ge=1)
    """Places a step. Ours."""
    windows: int = Field(default=2, ge=2)
    """Windows of each place in a step, one query among them. Ours."""
    run: int = Field(default=1, ge=1)
    """Neighbouring places that are drawn together, so that steps hold near misses. Ours; 1 draws one by one."""
    pairs: Literal["all", "cross"] = "all"
    """Pairs that the loss counts: "all", or "cross" for query against database only, because pairs of one drive teach
    little."""
    loss: str = "multi-similarity"
    """Loss of place batches: a name of `train.losses.registry.PAIR_LOSSES`."""
    temperature: float = Field(default=0.05, gt=0)
    """Temperature of the contrastive loss, by which cosines are divided."""
    steps: int | None = Field(default=None, ge=1)
    """Steps an epoch. None: as many as give each query once."""

    # Regime "joint", as CosPlace and JIST class frames
    class_batch: int = Field(default=64, ge=2)
    """Frames a step, one of each of as many classes."""
    class_weight: float = Field(default=0.01, gt=0)
    """Weight of the frames' loss beside that of the triplets (100 beside 10,000 in JIST's program)."""
    class_lr: Rate = 0.01
    """Learning rate of the classes' vectors."""
    class_cell: float = Field(default=10.0, gt=0)
    """Side in metres of the cell that a class covers."""
    class_heading: float = Field(default=30.0, gt=0, le=360)
    """Degrees of heading that a class covers."""
    class_spacing: int = Field(default=5, ge=1)
    """Cells from one cell of a group of classes to the next: neighbours are never told apart."""
    class_heading_spacing: int = Field(default=2, ge=1)
    """Classes of heading from one of a group to the next."""
    class_frames: int = Field(default=10, ge=1)
    """Least frames of a class; smaller ones are left out."""
    class_groups: int = Field(default=8, ge=1)
    """Most groups of classes; each epoch trains one, in turn."""

    # Optimiser
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser of torch."""
    lr: Rate = 1e-5
    """Learning rate."""
    lr_groups: dict[str, Rate] = Field(default_factory=dict)
    """Other learning rates for the parameters below a name, such as {"temporal": 1e-3}."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Weight decay of the optimiser."""
    schedule: Literal["none", "cosine", "halve"] = "none"
    """Learning rate over time: constant, "cosine" to zero over all epochs, or halved every `halve_every` epochs."""
    halve_every: int = Field(default=50, ge=1)
    """Epochs after which the schedule "halve" halves the rate (50: SeqNet)."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the rate rises from zero."""
    accumulate: int = Field(default=1, ge=1)
    """Steps whose gradients are averaged before an update. This equals one larger batch of triplets, but place
    batches, `skip_easy` and `violating_only` count within each step."""

    # Loop
    epochs: int = Field(default=30, ge=0)
    """Epochs; 0 writes the untrained model."""
    patience: int = Field(default=5, ge=1)
    """Epochs without a better R@5 on the validation split after which training stops."""
    validate_start: bool = True
    """Validate before the first step too; without, the first epoch that is validated is the best so far."""
    save_every: int = Field(default=500, ge=0)
    """Steps between two saved states; 0 saves only when interrupted."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    device: str = "auto"
    """Where to compute: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N"."""

    # Machine
    frame_batch: int = Field(default=64, ge=1)
    """Frames a pass through the encoder when windows are described. A guess that fits 8 GiB at 480×640."""
    cache_bytes: int = Field(default=1 << 30, ge=0)
    """Bytes of decoded frames that are cached in memory."""
    decode_threads: int = Field(default=0, ge=0)
    """Threads that decode frames; 0: one a core, shared among the processes of a machine."""
    decode_device: str = "cpu"
    """What decodes frames: "cpu", or "cuda" with torchcodec, whose pixels differ by rounding."""
    resize: Kernel = "pillow"
    """How frames of several sizes are resized when they are read: "pillow", "fast" or "scaled" (docs/speed.md). A new
    run takes "fast" where its package is installed."""
    strict: bool = False
    """End the run at the first damaged frame; by default it shows its nearest good neighbour, and is counted."""
    amp: bool = True
    """bfloat16 arithmetic in training steps, on a CUDA device that has it."""
    precision: Precision = "tf32"
    """Arithmetic on a CUDA device of mining and validation, and of what a step does not do in bfloat16: "fp32" (whole),
    "tf32" (rounded to 10 bits), "bf16"."""
    deterministic: bool = False
    """Take only CUDA kernels that add up in a fixed order, so that a run repeats to the bit on one card; slower. A CPU
    always does."""
    compile: bool = False
    """Compile the model (`torch.compile`)."""
    checkpointing: int = Field(default=0, ge=0)
    """Frames whose activations are in memory at a time, the others being computed again backwards; 0: all of them."""

    # Start of the VLAD layer
    kmeans_frames: int = Field(default=500, ge=0)
    """Training frames whose local features the VLAD centres are found in by k-means; 0 leaves them random."""
    kmeans_features: int = Field(default=50_000, ge=1)
    """Local features that k-means runs on."""

    # Augmentation of training frames
    shift: float = Field(default=0.0, ge=0, lt=0.5)
    """Greatest shift of frames, as a share of their width and of half their height; edges repeat."""
    light: float = Field(default=0.0, ge=0, lt=1)
    """Contrast factor within 1 ± light, and brightness within ± 64 · light grey levels."""
    mirror: bool = False
    """Mirror a whole batch with chance one half, so that positives stay positives."""
    erase: float = Field(default=0.0, ge=0, le=1)
    """Share of frames of which a block is painted over."""

    @classmethod
    def create(
        cls, recipe: str | None = None, base: Mapping[str, Any] | None = None, /, **fields: Any
    ) -> "TrainSettings":
        """Make the settings of a named recipe with single fields over it.

        Args:
            recipe: Name of a recipe, or an older name of one; None for the defaults.
            base: Values below the recipe, such as the settings of a run to continue.
            **fields: Values above the recipe; None leaves the recipe's value.

        Raises:
            UsageError: For an unknown recipe, a wrong field, or a field that the regime does not read; the message
                names what is valid.

        Example:
            >>> TrainSettings.create(protocol="own", margin=0.2, epochs=None).margin
            0.2
        """
        values = {key: value for key, value in fields.items() if value is not None}
        unknown = next((key for key in values if key not in cls.model_fields), None)
        if unknown is not None:
            nearest = get_close_matches(unknown, list(cls.model_fields), n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise UsageError(f"training settings: no setting '{unknown}'; {hint}seqdata train --settings lists them")
        try:
            # A run that is resumed keeps the kernel that it began with, which older records do not name.
            begun = {"resize": default_kernel()} if base is None else base
            settings = cls.model_validate({**begun, **recipe_values(recipe), **values})
        except ValidationError as error:
            raise UsageError(f"training settings: {describe_first(error)}") from error
        # What the user gave by hand and nothing reads would be ignored without a word.
        for key in values:
            partner = _READ_WITH.get(key)
            if partner is not None and getattr(settings, partner[0]) not in partner[1]:
                name, value = partner[0], partner[1][0]
                raise UsageError(
                    f"training settings: '{key}' is read by {name}={value} only; leave it out, or add --set "
                    f"{name}={value}"
                )
        return settings

    def same_course(self) -> dict[str, Any]:
        """Return the fields that decide the numbers of a run, as JSON values.

        Two runs with equal ones may continue each other. The number of epochs is among them only where the learning
        rate follows it.
        """
        free = _FIELDS_WITHOUT_EFFECT if self.schedule == "cosine" else {*_FIELDS_WITHOUT_EFFECT, "epochs"}
        return self.model_dump(mode="json", exclude=free)


def recipe_values(recipe: str | None) -> dict[str, Any]:
    """The settings of a recipe, by its name or an earlier one; none for None.

    Raises:
        UsageError: For another name.
    """
    name = ALIASES.get(recipe or "", recipe)
    if name is not None and name not in RECIPES:
        nearest = get_close_matches(name, list(RECIPES), n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise UsageError(f"no training recipe '{recipe}'; {hint}choose one of {', '.join(sorted(RECIPES))}")
    return RECIPES.get(name or "", {})
