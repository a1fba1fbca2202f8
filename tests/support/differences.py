"""The table "component, public program, largest difference" of docs/methods.md: python -m tests.support.differences.

Each line compares a run that was imported from a file of the program's own names, filled at random, with the literal
version of the program in `tests.support.released_literal`.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import train
from seqdata import protocols
from tests.support import released_literal as literal
from tests.support import released_names as names
from tests.train.models import test_place_heads as heads
from tests.train.released import test_importing as cases
from tests.train.released import test_place_models as places
from train.released.importing import ImportRequest, import_run


def model_of(kind: str, content: Any, frames: Any = None, **options: Any) -> Any:
    """The model of a run that is imported from this content."""
    with tempfile.TemporaryDirectory() as folder:
        file, other = Path(folder) / "file.pth", Path(folder) / "frames.pth"
        torch.save(content, file)
        torch.save(frames or {}, other)
        request = ImportRequest(
            kind, file, Path(folder) / "run", protocols.load("own"), frames=other if frames else None, options=options
        )
        return train.load_model(import_run(request))


def show(component: str, program: str, ours: Tensor, theirs: Tensor) -> None:
    """Print one line: the greatest difference, and that as a share of the greatest number."""
    difference = float((ours - theirs).abs().max())
    print(f"| {component} | {program} | {difference:.1e} | {difference / float(theirs.abs().max()):.1e} |")


@torch.no_grad()
def main() -> None:
    """Print the table."""
    print("| component | public program | largest difference | of the largest number |\n|---|---|---|---|")
    for name, (shapes, size, descriptor) in cases.VG.items():
        state, window = names.filled(shapes), cases.pixels(2, size)
        model = model_of("vg-transformers", state, **({"size": cases.SMALL} if size == cases.SMALL else {}))
        show(f"`{name}`", "vg-transformers", model(window[None])[0], descriptor(state, literal.normalised(window)))
    for relative in (True, False):
        state, window = names.filled(names.sta(4, relative=relative)), cases.pixels(5, (384, 384))
        model = model_of("sta", state)
        position = "relative" if relative else "absolute"
        theirs = literal.sta(state, literal.normalised(window), 4)
        show(f"`sta`, {position} positions in time", "Spatio-Temporal-SeqVPR", model(window[None])[0], theirs)
    state = names.filled(names.timesformer(8))
    model = model_of("timesformer", {"model_state": names.below("model.", state)})
    for length in (1, 3, 8):
        window = cases.pixels(length, (224, 224))
        theirs = literal.timesformer(state, literal.normalised(window))
        show(f"`timesformer`, 8 frames learnt, {length} shown", "TimeSformer", model(window[None])[0], theirs)
    base = cases.netvlad_file(24)
    window = cases.pixels(5, cases.SMALL)
    vectors = cases.frame_vectors(base, window)
    model = model_of("netvlad", base, size=cases.SMALL)
    show("`netvlad-vgg16` with PCA", "pytorch-NetVlad", model.encode_frames(window), vectors)
    head = names.filled({"pool.0.conv.weight": (24, 24, 3), "pool.0.conv.bias": (24,)}, seed=2)
    model = model_of("seqnet", head, base, size=cases.SMALL)
    theirs = F.conv1d(vectors.T[None], head["pool.0.conv.weight"], head["pool.0.conv.bias"]).mean(-1)
    show("`seqnet-vgg16`", "seqNet", model(window[None]), F.normalize(theirs, dim=-1))
    head = names.filled({"pool.1.conv.weight": (24, 24, 1), "pool.1.conv.bias": (24,)}, seed=2)
    model = model_of("seqmatchnet", head, base, size=cases.SMALL)
    theirs = vectors @ head["pool.1.conv.weight"].squeeze(-1).T + head["pool.1.conv.bias"]
    show("`seqmatchnet-vgg16`", "SeqMatchNet", model(window[None])[0], F.normalize(theirs, dim=-1).flatten())
    for name, (kind, shapes, vector, size) in places.CASES.items():
        state, frames = names.filled(shapes()), cases.pixels(2, size)
        theirs = torch.stack([vector(state, literal.normalised(frame[None])) for frame in frames])
        show(f"`{name}`", kind, model_of(kind, state, size=size).encode_frames(frames), theirs)
    for name, head in heads.HEADS.items():
        show(f"{name} alone, in float64", "its formula", *head())


if __name__ == "__main__":
    main()
