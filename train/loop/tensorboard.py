"""TensorBoard events of a run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from train.runs.folder import RunFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

BY_EPOCH = {"active", "hardness", "wait", "mined_frames"}


def open_board(folder: RunFolder) -> "SummaryWriter":
    """TensorBoard events; only epochs that are kept are written, so none is ever purged."""
    from torch.utils.tensorboard import SummaryWriter  # heavy

    return SummaryWriter(str(folder.path / "tensorboard"))


def log_epoch(writer: "SummaryWriter", entry: Mapping[str, Any], before: int) -> None:
    """One line of metrics.jsonl, on disk when this returns: losses by step, `before` of which came in earlier epochs;
    by epoch learning rates of all groups, active share, hardness, wait, mined frames and recalls.
    """
    epoch = entry["epoch"]
    for i, loss in enumerate(entry.get("losses", ())):
        writer.add_scalar("loss", loss, before + i)
    for name, value in entry.get("rates", {}).items():
        writer.add_scalar(f"learning_rate/{name}", value, epoch)
    for name in BY_EPOCH & entry.keys():
        writer.add_scalar(name, entry[name], epoch)
    for name, value in (entry["val"] or {}).items():
        writer.add_scalar(f"val/{name}", value, epoch)
    writer.flush()
