"""Small video files, written by PyAV: frames at any times, with a display rotation."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

MILLISECONDS = Fraction(1, 1000)


def write_video(path: Path, frames: Sequence[np.ndarray], seconds: Sequence[float], rotation_degrees: int = 0) -> Path:
    """Write frames uint8 (H, W, 3) RGB as Motion JPEG at these presentation times; needs PyAV."""
    import av

    with av.open(str(path), "w") as container:
        rate = round(1 / (seconds[1] - seconds[0]))
        stream = container.add_stream("mjpeg", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj444p"
        stream.codec_context.time_base = Fraction(1, rate) if path.suffix == ".avi" else MILLISECONDS
        stream.codec_context.options = {"q:v": "2"}
        if rotation_degrees:
            stream.set_display_rotation(rotation_degrees)
        for pixels, time in zip(frames, seconds, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
