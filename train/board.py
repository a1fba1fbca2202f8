"""TensorBoard events of a run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from train.runs import RunFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def open_board(folder: RunFolder, epoch: int) -> "SummaryWriter":
    """TensorBoard events; those of an epoch that is trained again are purged."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder.path / "tensorboard"), purge_step=epoch + 1)


def log_epoch(writer: "SummaryWriter", epoch: int, entry: Mapping[str, Any]) -> None:
    """Losses by step, learning rate and recalls of one epoch."""
    steps = len(entry["losses"])
    for i, loss in enumerate(entry["losses"]):
        writer.add_scalar("loss", loss, (epoch - 1) * steps + i)
    writer.add_scalar("learning_rate", entry["lr"], epoch)
    for name, value in (entry["val"] or {}).items():
        writer.add_scalar(f"val/{name}", value, epoch)
