"""What to type when a dataset has no training windows: the protocol, or the build, that would give some."""

from pathlib import Path

from cli.config import Config
from seqdata import protocols
from seqdata.build.advice import Advice, advise, advised_out, counts_text, lacking, plan_counts
from seqdata.build.request import BuildRequest
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import NotEnoughDataError
from seqdata.sequences.sequencer import ROLES
from seqdata.sources.registry import OWN_DRIVES, default_protocol, path_options

TRAIN = "train"


def check_training_split(config: Config, dataset: Dataset, protocol: Protocol) -> None:
    """Check that a dataset has windows to train on.

    Args:
        config: Settings of the work folder, which may name the raw dump.
        dataset: The dataset.
        protocol: The protocol of the training.

    Raises:
        NotEnoughDataError: If its split `train` is absent or lacks a role; the message ends in a command.
    """
    counts = _counts(dataset, protocol)
    if TRAIN in counts and all(counts[TRAIN].values()):
        return
    problem = lacking({TRAIN: counts[TRAIN]}) if TRAIN in counts else f"no split {TRAIN}; {counts_text(counts)}"
    advice = _advice(config, dataset)
    raise NotEnoughDataError(
        f"{dataset.location}: nothing to train on under protocol {protocol.name} ({problem}); {advice}"
    )


def _counts(dataset: Dataset, protocol: Protocol) -> dict[str, dict[str, int]]:
    """Windows by split and role."""
    return {
        split: {role: dataset.sequences(protocol, split, role).height for role in ROLES} for split in protocol.splits
    }


def _advice(config: Config, dataset: Dataset) -> str:
    """The end of the message: another protocol of these frames, or how to build them again."""
    source = dataset.manifest.source
    if source.kind != OWN_DRIVES:
        for name in protocols.names():
            protocol = protocols.load(name)
            if protocol.source == source.kind and TRAIN in protocol.splits:
                counts = _counts(dataset, protocol)[TRAIN]
                if all(counts.values()):
                    return f"train under another protocol: seqdata train {dataset.location} --protocol {name}"
        return f"add the drives that train: seqdata protocols show {default_protocol(source.kind)}"
    options = {name: value for name, value in source.options.items() if name not in path_options(source.kind)}
    raw = Path(str(config.root / str(config.values["raw"]))) if "raw" in config.values else Path("RAW")
    request = BuildRequest(
        kind=source.kind,
        raw=raw,
        out=dataset.location,
        options={"cut": "0.6", "buffer": "50", **options},
        protocol=protocols.load("own-cut"),
    )
    advice = _planned(request) if raw.is_dir() else Advice(request, {}, is_complete=True)
    if advice is None:
        return "it needs images of a second drive over the same ground"
    gain = f", which gives {counts_text(advice.counts)}" if advice.counts else ""
    return f"build it with a part to train{gain}: {advice.command(advised_out(request.out, advice))}"


def _planned(request: BuildRequest) -> Advice | None:
    """The request itself where it gives windows, else one near it."""
    counts = plan_counts(request)
    if counts.get(TRAIN) and all(counts[TRAIN].values()):
        return Advice(request, counts, is_complete=True)
    advice = advise(request)
    return advice if advice is not None and advice.is_complete and TRAIN in advice.counts else None
