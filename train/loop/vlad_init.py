"""How a SeqVLAD model starts: its centres from the training frames themselves."""

import numpy as np
import torch
from torch import Tensor

from seqdata.parallel.steps import step
from train.data.frames import WindowSource
from train.models.base import SequenceModel
from train.models.pooling.vlad import initialise_from_tokens
from train.sampling.windows import TrainData
from train.settings import TrainSettings


@step("find the VLAD words")
def initialise_vlad(model: SequenceModel, data: TrainData, source: WindowSource, settings: TrainSettings) -> None:
    """k-means initialisation of a SeqVLAD model from random training frames; nothing for other models.

    Which frames and tokens are drawn depends on the seed alone, not on how many frames are encoded at once.
    About 500 frames and 50,000 local features, as NetVLAD starts (docs/methods.md#netvlad).
    """
    if settings.kmeans_frames == 0 or model.vlad is None or not model.vlad.centres.requires_grad:
        return
    rng = np.random.default_rng(settings.seed)
    frames = np.unique(data.frame_rows)
    rows = np.sort(rng.choice(frames, min(settings.kmeans_frames, len(frames)), replace=False))
    tokens_a_frame = -(-settings.kmeans_features // len(rows))
    generator = torch.Generator().manual_seed(settings.seed)
    device = next(model.parameters()).device
    sample = []
    with torch.no_grad():
        for start in range(0, len(rows), settings.frame_batch):
            # A frame alone is a window of one: a damaged one then shows its nearest neighbour.
            part = source.read_windows(rows[start : start + settings.frame_batch, None])
            tokens = source.tokens(model.eval(), torch.as_tensor(part.frames[part.index[:, 0]]).to(device))
            sample.append(_some(tokens, tokens_a_frame, generator))
    initialise_from_tokens(
        model.vlad,
        torch.cat(sample).unsqueeze(0),
        sample=settings.kmeans_features,
        seed=settings.seed,
        frames=len(rows),
    )


def _some(tokens: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` random tokens of each frame, at places of its own: `(B, T, C)` → `(B · count, C)`."""
    # Drawn on the CPU: a device has another generator, and words would depend on it.
    rank = torch.rand(tokens.shape[:2], generator=generator).to(tokens.device)
    places = rank.topk(min(count, tokens.shape[1]), dim=1).indices
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2])).flatten(0, 1)
