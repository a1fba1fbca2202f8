"""Named training recipes: values of `TrainSettings` that were published or measured together."""

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    # P1 section IV-A: the papers' recipe, for pretrained backbones.
    "p1-triplet": {"regime": "triplet"},
    # Nordland's recipe: from random weights, on small frames, on a CPU; places are runs of neighbours of a long drive.
    "places-scratch": {
        "model": "seqvlad-small",
        "regime": "places",
        "loss": "contrastive",
        "places": 96,
        "run": 32,
        "windows": 2,
        "pairs": "cross",
        "steps": 60,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup": 20,
        "epochs": 12,
        "patience": 12,
        "shift": 0.03,
        "light": 0.2,
        "mirror": True,
    },
    # The demo city's recipe: short streets, so places are drawn one by one, three windows each.
    "demo-city": {
        "model": "seqvlad-small",
        "options": {"cut": "layer2", "size": (60, 80)},
        "regime": "places",
        "loss": "contrastive",
        "places": 16,
        "run": 1,
        "windows": 3,
        "steps": 30,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup": 20,
        "epochs": 3,
        "shift": 0.03,
        "light": 0.2,
        "mirror": True,
    },
    # Place batches on a pretrained backbone, as newer place-recognition work trains.
    "places-finetune": {
        "regime": "places",
        "loss": "multi-similarity",
        "places": 16,
        "windows": 4,
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup": 100,
    },
}

# The same for a route filmed at 250 m a frame: only the very frame is positive, the next but one is negative already,
# because neighbouring windows, which share frames, are what a query is mistaken for.
RECIPES["nordland-scratch"] = {**RECIPES["places-scratch"], "positive_radius": 0.0, "negative_radius": 1.0}
