"""TensorBoard events of a run: a file for every process that trained it, which grows by one whole epoch at a time.

PyTorch's own writer is not used, because its thread meets a full disk where nobody can catch the error.
"""

import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from seqdata.storage.files import GrowingFile
from train.runs.folder import RunFolder

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

BY_EPOCH = {"active", "hardness", "wait", "mined_frames"}
_VERSION = "brain.Event:2"
"""What the first record of an event file says; TensorBoard reads no others."""


def open_board(folder: RunFolder) -> GrowingFile:
    """Begin the events of this process; only epochs that are kept are written, so none is ever purged.

    Raises:
        OutputError: If the disk refuses.
    """
    from tensorboard.compat.proto.event_pb2 import Event  # heavy

    # TensorBoard takes files by this name, and reads those of one folder one after another, in the order of the times.
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
    board = GrowingFile(folder.path / "tensorboard" / name)
    board.add(_records([Event(wall_time=time.time(), file_version=_VERSION)]))
    return board


def log_epoch(board: GrowingFile, entry: Mapping[str, Any], before: int) -> None:
    """Write one line of metrics.jsonl, all of it or nothing.

    Args:
        board: Where to.
        entry: The line: losses by step; by epoch learning rates of all groups, active share, hardness, wait, mined
            frames and recalls.
        before: Losses of earlier epochs.

    Raises:
        OutputError: If the disk refuses.
    """
    epoch = entry["epoch"]
    scalars = [("loss", loss, before + number) for number, loss in enumerate(entry.get("losses", ()))]
    scalars += [(f"learning_rate/{name}", value, epoch) for name, value in entry.get("rates", {}).items()]
    scalars += [(name, entry[name], epoch) for name in BY_EPOCH & entry.keys()]
    scalars += [(f"val/{name}", value, epoch) for name, value in (entry["val"] or {}).items()]
    board.add(_records([_scalar(*scalar) for scalar in scalars]))


def _scalar(tag: str, value: float, step: int) -> "Event":
    from tensorboard.compat.proto.event_pb2 import Event  # heavy
    from tensorboard.compat.proto.summary_pb2 import Summary  # heavy

    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return Event(wall_time=time.time(), step=step, summary=summary)


def _records(events: "list[Event]") -> bytes:
    """Events as an event file holds them: each with its length and checksums."""
    from tensorboard.summary.writer.record_writer import RecordWriter  # heavy

    file = BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
    return file.getvalue()
