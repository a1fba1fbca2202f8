"""Code that a stranger plants where a command reads: none of it may run.

Each plant leaves a file `RAN` in the working folder if its code is run. What a command then says is not judged here.
"""

import io
import json
import os
import pickle
import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.commands import Trial
from tests.faults.hostile import sign
from tests.faults.trials import Result, Workshop

RAN = "RAN"
EVIL = f"""
open({RAN!r}, "w").close()
def make(**_):
    raise SystemExit(0)
class Bag:
    pass
"""


class Pickled:
    """An object that writes the file `RAN` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (RAN, "w")


def strangers(workshop: Workshop, trial: Trial, count: int, seed: int) -> Iterator[Result]:
    """Plant kinds of code that lie in a command's reach, one for each of at most `count` results."""
    planted = 0
    for label, plant in random.Random(f"{seed} {trial.arguments}").sample(PLANTS, len(PLANTS)):
        if planted == count:
            return
        folder = workshop.copy()
        with listening() as caller:
            (folder / "evil.py").write_text(EVIL)
            if not plant(folder, trial, caller.url):
                continue
            planted += 1
            path = f"{folder / 'bin'}:{os.environ['PATH']}"
            ended = workshop.program.run(list(trial.arguments), folder, PATH=path, PYTHONPATH=str(folder))
            is_right = not (folder / RAN).exists() and not caller.calls
            story = f"{label}: {ended.code}, {caller.calls} calls, {ended.errors.strip()[-300:]}"
            yield Result("strangers", trial.verb, is_right, story, ended.code != 0)


@dataclass
class Caller:
    """An address that nobody is to contact: its URL, and how often somebody did."""

    url: str
    calls: int = 0


@contextmanager
def listening() -> Iterator[Caller]:
    """Listen on the loopback and count connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = Caller(f"http://127.0.0.1:{server.getsockname()[1]}")

        def count() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                caller.calls += 1
                connection.close()

        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        try:
            yield caller
        finally:
            # A closed socket does not wake a thread that waits for a connection; shutting it down does.
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _settings(folder: Path, trial: Trial, url: str) -> bool:
    """Every table of seqdata.toml names a module of the working folder."""
    tables = (f"[{name}]\nmodel = 'evil:make'\n" for name in ("train", "describe", "index", "model"))
    (folder / "seqdata.toml").write_text("model = 'evil:make'\n" + "".join(tables))
    return "--model" not in trial.arguments


def _named_models(folder: Path, trial: Trial, url: str) -> bool:
    """Every checkpoint and record of a run names a module, and a dataset somewhere else."""
    paths = [*folder.glob("run/run.json"), *folder.glob("run/checkpoints/*.json"), *folder.glob("features/*.json")]
    for path in (*paths, *folder.glob("place.pack/manifest.json")):
        before = path.read_bytes()
        document = json.loads(before)
        for holder in (document, document.get("settings"), document.get("config"), document.get("model")):
            if isinstance(holder, dict):
                holder |= {"model": "evil:make", "name": "evil:make", "dataset_path": f"{url}/ds"}
        path.write_text(json.dumps(document))
        sign(path, before, folder)
    return bool({"run", "place.pack", "features", "index"} & set(trial.arguments))


def _pickles(folder: Path, trial: Trial, url: str) -> bool:
    """Every file of weights and arrays is a pickle: bare, and inside the zip of torch.save."""
    import torch

    bare = pickle.dumps(Pickled())
    file = io.BytesIO()
    torch.save({"state_dict": Pickled()}, file)
    inputs = [path for pattern in trial.inputs for path in folder.glob(pattern)]
    paths = [path for path in inputs if path.suffix in (".safetensors", ".npy", ".faiss", ".onnx", ".pt", ".npz")]
    for number, path in enumerate(paths):
        before = path.read_bytes()
        path.write_bytes(bare if number % 2 else file.getvalue())
        sign(path, before, folder)
    return bool(paths)


def _extension_types(folder: Path, trial: Trial, url: str) -> bool:
    """Tables whose Arrow schema names a Python class in a pickle (CVE-2023-47248)."""
    inputs = [path for pattern in trial.inputs for path in folder.glob(pattern) if path.suffix == ".parquet"]
    for path in inputs:
        before = path.read_bytes()
        table = pq.read_table(path)
        entries = {
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickle.dumps(Pickled()),
        }
        fields = [field.with_metadata(entries) for field in table.schema]
        pq.write_table(table.cast(pa.schema(fields, table.schema.metadata)), path)
        sign(path, before, folder)
    return bool(inputs)


def _postscript(folder: Path, trial: Trial, url: str) -> bool:
    """Pictures that are PostScript, with a Ghostscript on the way that says that it was called."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "gs"
    program.write_text(f"#!/bin/sh\ntouch {folder / RAN}\nexit 1\n")
    program.chmod(0o755)
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n%%EndComments\n{ } loop\nshowpage\n"
    paths = [path for name in ("raw", "more", "query", "place.pack/test") for path in folder.glob(f"{name}/*.jpg")]
    for path in paths:
        path.write_bytes(drawing)
    return bool({"raw", "more", "query", "place.pack"} & set(trial.arguments))


def _torch_programs(folder: Path, trial: Trial, url: str) -> bool:
    """A pack of the first releases, whose program names what is imported."""
    pack = folder / "place.pack"
    if "place.pack" not in trial.arguments:
        return False
    for program in pack.glob("*.onnx"):
        program.write_bytes(pickle.dumps(Pickled()))
        shutil.copyfile(program, program.with_suffix(".pt2"))
    return True


PLANTS: tuple[tuple[str, Callable[[Path, Trial, str], bool]], ...] = (
    ("settings that name a module", _settings),
    ("a run and a pack that name a module and an address", _named_models),
    ("pickles instead of weights", _pickles),
    ("pickled types of columns", _extension_types),
    ("PostScript instead of pictures", _postscript),
    ("a program of PyTorch in a pack", _torch_programs),
)
"""What is planted, and the function that does it: whether it lies in the command's reach."""
