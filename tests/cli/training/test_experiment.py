"""`seqdata experiment`: the ledger and the folder of runs, as a user types them."""

import csv
import json
from pathlib import Path

import pytest

from seqdata.dataset.dataset import Dataset
from tests.cli.training.test_models import run


def test_the_ledger_is_a_page_and_a_csv_beside_the_table(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("experiment", "sta-table1", "--dataset", str(dataset.path), "--protocol", "msls-sta")
    code, out, said = run(capfd, *words, "--out", str(tmp_path), "--ledger", "--json")
    assert code == 0, said
    files = [Path(path).name for path in json.loads(out)["files"]]
    assert files[-2:] == ["sta-table1-full-ledger.csv", "sta-table1-full-ledger.html"]
    with (tmp_path / files[-2]).open(newline="") as file:
        lines = {(line["row"], line["column"], line["quantity"]): line for line in csv.DictReader(file)}
    amman = lines["amman", "Images", "query"]
    assert (amman["published"], amman["ours"], amman["met"], amman["table"]) == ("835", "0", "no", "Table I")
    assert lines["oxford2-test", "Images", "query"]["reason"] == "ContractError: no robotcar dataset given"


def test_runs_that_are_not_there_or_not_used_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    absent = ("experiment", "sta-table2", "--runs", str(tmp_path / "runs"))
    for words, expected in (
        (absent, "no such folder; seqdata import KIND FILE --out"),
        (("experiment", "sta-table1", "--runs", str(tmp_path)), "experiment sta-table1 measures no recalls of runs"),
        (("experiment", "--ledger"), "--ledger: only together with the name of an experiment"),
    ):
        code, out, said = run(capfd, *words)
        assert (code, out) == (2, "") and expected in said and said.count("\n") == 1, said
