"""Flags of `seqdata train`."""

from pathlib import Path
from typing import Annotated

import typer

TrainModelFlag = Annotated[str | None, typer.Option(help="Model preset.", show_default="seqvlad-r18")]
TrainRecipeFlag = Annotated[
    str | None, typer.Option(help="seqvlad-triplet, sta-triplet, seqnet, places-finetune, …", show_default=False)
]
TrainOutFlag = Annotated[Path | None, typer.Option(help="Run folder to write.", show_default=False)]
TrainWeightsFlag = Annotated[
    str | None, typer.Option(help="File of backbone weights.", show_default="timm's pretrained")
]
TrainRandomInitFlag = Annotated[bool, typer.Option("--random-init", help="Start from random weights.")]
TrainFeaturesFlag = Annotated[
    Path | None, typer.Option(help="Stored features (seqdata describe) to train a head on.", show_default=False)
]
TrainEpochsFlag = Annotated[
    int | None, typer.Option(help="Epochs; 0 writes the untrained model.", min=0, show_default=False)
]
TrainSeedFlag = Annotated[int | None, typer.Option(help="Seed of everything random.", min=0, show_default="0")]
TrainDeviceFlag = Annotated[
    str | None, typer.Option(help="Where the model computes.", metavar="[auto|cpu|cuda|cuda:N]", show_default="auto")
]
TrainAccumulateFlag = Annotated[
    int | None, typer.Option(help="Steps whose gradients are averaged into one update.", min=1, show_default=False)
]
TrainStrictFlag = Annotated[
    bool, typer.Option("--strict", help="End at the first damaged frame instead of showing its neighbour.")
]
TrainResumeFlag = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
TrainLrFlag = Annotated[float | None, typer.Option("--lr", help="Learning rate.", show_default=False)]
TrainBatchSizeFlag = Annotated[
    int | None, typer.Option("--batch-size", help="Triplets a step; places a step with place batches.", min=1)
]
TrainNegativesFlag = Annotated[
    int | None, typer.Option(help="Hardest negatives of each query (triplets).", min=1, show_default=False)
]
TrainPatienceFlag = Annotated[
    int | None, typer.Option(help="Epochs without a better val R@5 before the end.", min=1, show_default=False)
]
TrainLossFlag = Annotated[
    str | None, typer.Option(help="Loss of place batches: multi-similarity, contrastive, …", show_default=False)
]
TrainListSettingsFlag = Annotated[
    bool, typer.Option("--settings", help="List every setting: type, unit, default, meaning.")
]
