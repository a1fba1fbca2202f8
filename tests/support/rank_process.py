"""One rank of training runs on the fake dataset: `torchrun … rank_process.py FOLDER`; FOLDER/*.json are settings.

In the run "stopped" the second rank alone gets a SIGTERM, and both then go on with `resume`.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from seqdata.errors import Interrupted
from tests.support.fake_dataset import FakeDataset
from train.loop.fit import fit
from train.settings import TrainSettings


class EndingDataset(FakeDataset):
    """Asks its process to end at one reading of frames."""

    ends_at = -1

    def read_frames(self, rows: Any, size: Any = None) -> Any:
        self.ends_at -= 1
        if self.ends_at == 0:
            signal.raise_signal(signal.SIGTERM)
        return super().read_frames(rows, size)


torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    data, told, stopped = EndingDataset(), [], None
    chosen = TrainSettings.model_validate({**json.loads(path.read_text()), "cache_bytes": 0})
    show = lambda *event: told.append(event)  # noqa: B023, E731
    data.ends_at = 9 if path.stem == "stopped" and rank == 1 else -1
    try:
        fit(data, chosen, path.with_suffix(""), progress=show)
    except (Interrupted, SystemExit) as ended:
        stopped = ended.exit_code if rank == 0 else ended.code
        fit(data, chosen, path.with_suffix(""), progress=show, resume=True)
    report = {"events": len(told), "read": len(data.read_rows), "stopped": stopped}
    (path.parent / f"{path.stem}.rank{rank}").write_text(json.dumps(report))
torch.distributed.destroy_process_group()
