"""From a declared method to what is really run: the papers' presets and recipes, or small ones for small data."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from seqdata.errors import ContractError, MissingDependencyError
from seqdata.storage.hashing import xxh3_file
from train.data.features import OF_THE_HEAD
from train.experiments.grid import Match, Method, backbones
from train.models import registry as models
from train.models.frame_model import ENCODER_OPTIONS
from train.models.presets import METHODS
from train.settings import TrainSettings

Scale = Literal["full", "smoke"]

# A few steps of the same recipe. From random weights a rate of 1e-5 would leave the model where it started.
SMALL_TRAINING: dict[str, Any] = {
    "epochs": 1, "rounds": 1, "round_queries": 48, "negatives": 3, "positives_cap": 3, "lr": 1e-3, "lr_groups": {},
    "warmup": 0, "kmeans_frames": 60, "kmeans_features": 6000,
}  # fmt: skip
# Small enough for the few windows that a smoke dataset has.
SMALL_PCA = 32
SMALL_WORDS = 4
SMALL_SAMPLE = 1000
FULL_SAMPLE = 16_384
# Numbers a frame behind SeqNet, SeqMatchNet, Delta, HVPR and SeqSLAM (Mereu et al. 2022, Table II).
FRAME_VECTORS = 4096
# STA needs its own small preset: its blocks are copies of the encoder's, so the encoder cannot simply be replaced.
SMALL_STA = "sta-small"
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Resolved:
    """What a method is at one scale: `settings` are fields of `TrainSettings` without protocol and features.

    `frames`: numbers of a stored frame vector where heads work on such, with `base` the settings of the model that
    makes them; None where the model sees pixels. `pca`, `sample`: of the index. `match`: how windows are compared.
    """

    settings: dict[str, Any]
    recipe: str
    match: Match
    pca: int | None
    sample: int
    frames: int | None = None
    base: dict[str, Any] | None = None

    def inputs(self) -> dict[str, Any]:
        """Everything of it that decides numbers: settings with recipe and preset filled in, weights by their bytes."""
        models_of = [(self.recipe, self.settings), *([] if self.base is None else [("seqvlad-triplet", self.base)])]
        return {
            "models": [_filled(recipe, settings) for recipe, settings in models_of],
            **self.search_inputs(),
            "frames": self.frames,
        }

    def search_inputs(self) -> dict[str, Any]:
        """What of it decides numbers where the models are there already."""
        return {"match": self.match, "pca": self.pca, "sample": self.sample}


def _filled(recipe: str, settings: dict[str, Any]) -> dict[str, Any]:
    complete = TrainSettings.create(recipe, **settings, protocol="")
    dumped = complete.model_dump(mode="json", exclude={"protocol", "device", "features"})
    options = models.resolve(complete.model, complete.options).model_dump(mode="json")
    return {**dumped, "options": options, "weights": weights_id(complete.weights)}


def resolve(method: Method, scale: Scale, weights: str = "default", seed: int = 0, device: str = "auto") -> Resolved:
    """What is run for a method. `weights`: "default" (pretrained at full scale, random on small data), "pretrained",
    "random", or a folder that holds a file for each encoder.

    Raises:
        ContractError: For options that no model has.
        MissingDependencyError: Where the folder has no such file.
    """
    small = scale == "smoke"
    name, options = small_model(method) if small else (method.model, dict(method.options))
    common = {"seed": seed, "device": device}
    training = {**(SMALL_TRAINING if small else {}), **({} if method.epochs is None else {"epochs": method.epochs})}
    pca = SMALL_PCA if small and method.pca else method.pca
    result = Resolved({}, method.recipe, method.match, pca, SMALL_SAMPLE if small else FULL_SAMPLE)
    if method.features:
        return _on_features(method, result, name, options, {**training, **common}, small, weights)
    encoder = models.resolve(name, options).encoder
    start_weights = find_weights(encoder, weights, small)
    return replace(result, settings={"model": name, "options": options, "weights": start_weights, **training, **common})


def _on_features(
    method: Method, result: Resolved, name: str, options: dict[str, Any], training: dict[str, Any], small: bool,
    weights: str,
) -> Resolved:  # fmt: skip
    """A head on stored frame vectors: NetVLAD of the backbone with k-means words, then a whitened PCA."""
    whole = models.resolve(name, options)
    of_encoder = ("encoder", "size", "patch_normalised", *ENCODER_OPTIONS)
    frame = {key: getattr(whole, key) for key in of_encoder} | METHODS["netvlad"] | {"trainable": "none"}
    base = {
        "model": "frames",
        "options": {**frame, **({"clusters": SMALL_WORDS} if small else {})},
        "weights": find_weights(whole.encoder, weights, small),
        **training,
        # The frame model is never trained; only the head is.
        "epochs": 0,
    }
    models.resolve("frames", base["options"])
    head = {key: value for key, value in options.items() if key in OF_THE_HEAD}
    settings = {"model": name, "options": head, "weights": "random", **training}
    return replace(result, settings=settings, frames=SMALL_PCA if small else FRAME_VECTORS, base=base)


def small_model(method: Method) -> tuple[str, dict[str, Any]]:
    """Preset and options that stand for a method on small data."""
    if method.model.startswith("sta"):
        branch = models.preset(method.model)[1]
        over_preset = {key: value for key, value in {**branch, **method.options}.items() if key != "cut"}
        return SMALL_STA, {**over_preset, **method.small}
    of_backbone = backbones()[method.backbone].small if method.backbone is not None else {}
    return method.model, {**method.options, **of_backbone, **method.small}


def find_weights(encoder: str, weights: str, small: bool) -> str:
    """The weights of an encoder: "pretrained", "random" or a file of the folder `weights` that begins with its name.

    The tag of a timm name ("resnet18.tv_in1k") says which weights are downloaded. A file named with it goes before one
    named without, as two encoders may differ in their tag alone.

    Raises:
        MissingDependencyError: Where the folder has none.
        ContractError: Where it has several.
    """
    if weights == "default":
        return "random" if small else "pretrained"
    if weights in ("pretrained", "random"):
        return weights
    folder, tagged = Path(weights), encoder
    encoder = encoder.partition(".")[0]
    files = [path for path in _listed(folder) if path.name.startswith(encoder) and path.suffix in WEIGHT_FILES]
    with_tag = [path for path in files if path.stem == tagged != encoder]
    files = with_tag or files
    if not files:
        raise MissingDependencyError(
            f"no weights of {encoder} in {folder}: put {encoder}.safetensors or {encoder}*.pth there"
        )
    if len(files) > 1:
        raise ContractError(f"{folder}: {len(files)} files of {encoder} ({files[0].name}, {files[1].name}); leave one")
    return str(files[0])


def weights_id(weights: str) -> str:
    """What stands for weights in a hash: "pretrained", "random", or the hash of the file's bytes."""
    return weights if weights in ("pretrained", "random") else f"xxh3:{xxh3_file(weights)}"


def _listed(folder: Path) -> list[Path]:
    """Files of a folder. Raises: ContractError when it is none."""
    if not folder.is_dir():
        raise ContractError(f"--weights {folder}: no such folder; name one that holds weights by encoder, or random")
    return sorted(folder.iterdir())
