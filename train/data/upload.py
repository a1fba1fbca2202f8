"""Frames on their way to a device, copied while the device computes."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor


class Streams(Protocol):
    """What an upload needs of a device."""

    def copy(self, host: Tensor) -> tuple[Tensor, Any]:
        """Start copying a tensor to the device, beside its work; returns the copy, and an event after it."""
        ...

    def wait(self, copy: Tensor, event: Any) -> None:
        """Let the device, not the host, wait for the event before it uses the copy."""
        ...


class CudaStreams:
    """A stream for copies beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        """`device`: a CUDA device."""
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, host: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """See `Streams.copy`."""
        # Only from pinned memory does a copy run by itself. PyTorch uses pinned memory again once its copy is over.
        pinned = host.pin_memory()
        with torch.cuda.stream(self._stream):
            copy = pinned.to(self._device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return copy, event

    def wait(self, copy: Tensor, event: torch.cuda.Event) -> None:
        """See `Streams.wait`."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        # Taken on the other stream: without this its memory could be given away there while it is still read here.
        copy.record_stream(stream)


@dataclass(frozen=True)
class Sent:
    """A tensor that was sent; `event` comes after its copy, None where nothing had to be copied."""

    tensor: Tensor
    event: Any = None


class Upload:
    """Sends arrays to a device: `send` in the thread that reads ahead, `receive` in the one that computes."""

    def __init__(self, device: torch.device, streams: Streams | None = None) -> None:
        """Set up for a device; `streams` are made for CUDA where none are given."""
        self.device = device
        self._streams = streams
        if streams is None and device.type == "cuda":
            self._streams = CudaStreams(device)

    def send(self, array: npt.NDArray[Any] | Tensor) -> Sent:
        """Start to copy an array to the device; its memory layout stays. A tensor is there already."""
        if isinstance(array, Tensor):
            return Sent(array)
        host = torch.from_numpy(array)
        return Sent(host.to(self.device)) if self._streams is None else Sent(*self._streams.copy(host))

    def receive(self, sent: Sent) -> Tensor:
        """Return the tensor on the device, safe to use by what is queued from now on."""
        if self._streams is not None and sent.event is not None:
            self._streams.wait(sent.tensor, sent.event)
        return sent.tensor
