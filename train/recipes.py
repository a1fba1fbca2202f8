"""Named training recipes: values of `train.settings.TrainSettings` that were published or measured together.

docs/methods.md#recipes lists them. A recipe is one entry of `RECIPES`; an earlier name goes into `ALIASES`.
"""

from typing import Any

# What SeqNet (Garg and Milford, RA-L 2021) and SeqMatchNet (Garg et al., CoRL 2021) share: plain L2, margin √0.1,
# 10 negatives, the mean over violating ones.
_SEQNET: dict[str, Any] = {
    "regime": "triplet",
    "batch": 16,
    "negatives": 10,
    "margin": 0.1**0.5,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "schedule": "halve",
    "violating_only": True,
}
# What the papers' programs share: float32, and all of a query's positives as candidates.
_PAPER: dict[str, Any] = {"positives_cap": None, "amp": False, "precision": "fp32"}

RECIPES: dict[str, dict[str, Any]] = {
    # Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. IV-A:
    # for pretrained backbones; at most 100 epochs, of which patience leaves fewer.
    "seqvlad-triplet": {"regime": "triplet", "epochs": 100, **_PAPER},
    # Zhang et al., Learning Sequence Descriptor based on Spatio-Temporal Attention for Visual Place Recognition,
    # sec. IV-B: two learning rates; the cache lasts 1,000 steps of 4 triplets, which are an epoch here, because the
    # paper does not say how long an epoch is.
    "sta-triplet": {
        "model": "sta",
        "regime": "triplet",
        "lr": 1e-4,
        "lr_groups": {"temporal": 1e-3},
        "rounds": 1,
        "round_queries": 4000,
        "negative_cache": 1000,
        **_PAPER,
    },
    # SeqNet on stored frame features, in rounds of 1,000 queries against 1,000 windows, to the last epoch.
    "seqnet": {
        "model": "seqnet-vgg16",
        **_SEQNET,
        **_PAPER,
        "lr": 1e-4,
        "halve_every": 50,
        "epochs": 200,
        "patience": 200,
    },
    # SeqMatchNet the same way, with its own rate and pace.
    "seqmatchnet": {
        "model": "seqmatchnet-vgg16",
        **_SEQNET,
        **_PAPER,
        "lr": 1e-3,
        "halve_every": 5,
        "epochs": 50,
        "patience": 50,
    },
    # Berton et al., JIST: Joint Image and Sequence Training for Sequential Visual Place Recognition, RA-L 2023, by the
    # defaults of its program, which classes the frames of another dataset (SF-XL).
    "jist": {
        "model": "jist-r18",
        "regime": "joint",
        "round_queries": 1000,
        "negative_cache": 3000,
        "rounds": 10,
        "positives_cap": None,
        "epochs": 5,
    },
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

# The SeqVLAD that Zhang et al. compare with, trained as STA: one rate, because it has no temporal stack.
RECIPES["sta-seqvlad"] = {**RECIPES["sta-triplet"], "model": "seqvlad-cct384-four", "lr_groups": {}}

# Names of earlier versions, which stored runs and people's notes hold.
ALIASES = {"p1-triplet": "seqvlad-triplet", "p2-sta": "sta-triplet"}
