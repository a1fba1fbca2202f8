"""TensorBoard events of a run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from train.runs import RunFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def open_board(folder: RunFolder) -> "SummaryWriter":
    """TensorBoard events; only whole epochs are written, so none is ever purged."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder.path / "tensorboard"))


def log_epoch(writer: "SummaryWriter", epoch: int, entry: Mapping[str, Any]) -> None:
    """One epoch: losses by step; by epoch learning rates of all groups, active share, hardness, wait and recalls."""
    steps = len(entry["losses"])
    for i, loss in enumerate(entry["losses"]):
        writer.add_scalar("loss", loss, (epoch - 1) * steps + i)
    for name, value in entry["rates"].items():
        writer.add_scalar(f"learning_rate/{name}", value, epoch)
    for name in ("active", "hardness", "wait", "mined_frames"):
        writer.add_scalar(name, entry[name], epoch)
    for name, value in (entry["val"] or {}).items():
        writer.add_scalar(f"val/{name}", value, epoch)
