"""How a SeqVLAD model starts: its centres from the training frames themselves."""

import numpy as np
import torch

from train.data import TrainData
from train.frames import FrameSource
from train.sequence_model import SequenceModel
from train.settings import TrainSettings
from train.vlad import initialise_from_tokens


def initialise_vlad(model: SequenceModel, data: TrainData, source: FrameSource, settings: TrainSettings) -> None:
    """k-means initialisation of a SeqVLAD model from random training frames; nothing for other models.

    Source: methods, "VLAD initialisation": about 500 frames, 50,000 local features.
    """
    if settings.kmeans_frames == 0 or model.vlad is None or not model.vlad.centres.requires_grad:
        return
    rng = np.random.default_rng(settings.seed)
    frames = np.unique(data.frame_rows)
    rows = np.sort(rng.choice(frames, min(settings.kmeans_frames, len(frames)), replace=False))
    each = -(-settings.kmeans_features // len(rows))
    generator = torch.Generator().manual_seed(settings.seed)
    device = next(model.parameters()).device
    sample = []
    with torch.no_grad():
        for start in range(0, len(rows), settings.frame_batch):
            part = torch.from_numpy(source.read(rows[start : start + settings.frame_batch])).to(device)
            tokens = source.tokens(model.eval(), part)
            pick = torch.randperm(tokens.shape[1], generator=generator)[:each].to(device)
            sample.append(tokens[:, pick].flatten(0, 1))
    initialise_from_tokens(
        model.vlad, torch.cat(sample).unsqueeze(0), sample=settings.kmeans_features, seed=settings.seed
    )
