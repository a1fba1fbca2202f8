"""A training run on the fake dataset in a process of its own: `python run_process.py OUT SETTINGS.json [HOW WHERE]`.

HOW is "kill" or the name of a signal that the process sends itself at step WHERE (counted over the whole run).
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from seqdata.errors import SeqdataError
from tests.support.fake_dataset import FakeDataset
from train.loop.fit import fit
from train.settings import TrainSettings

torch.set_num_threads(1)
out, chosen = Path(sys.argv[1]), TrainSettings.model_validate(json.loads(Path(sys.argv[2]).read_text()))
how, where = (sys.argv[3], int(sys.argv[4])) if len(sys.argv) > 3 else ("", 0)
seen = 0


def watch(phase: Any, done: Any, total: Any, values: Any) -> None:
    global seen
    seen += phase == "train"
    if how and phase == "train" and seen == where:
        os.kill(os.getpid(), signal.Signals[how])


try:
    fit(FakeDataset(), chosen, out, progress=watch)
except SeqdataError as error:
    print(error)
    sys.exit(error.exit_code)
