"""The record of a run: JSON that is no record of one ends every reader in one error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqdata.errors import ContractError
from train.runs.record import newest_unfinished, recorded_kernel, run_record


@pytest.mark.parametrize("text", ["[]", "null", '{"settings": null}', '{"settings": "resize"}'])
@pytest.mark.parametrize("read", [run_record, recorded_kernel, lambda run: newest_unfinished(run.parent)])
def test_another_json_is_refused_by_every_reader(read: Callable[[Path], Any], text: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(text)
    with pytest.raises(ContractError, match=r"run\.json: holds no object with settings"):
        read(run)
