"""The ledger: published values agree among each other, and cells stand beside those of the paper."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.protocols import agrees
from tests.conftest import write_drives
from train.experiments import grid as grids
from train.experiments.ledger import files
from train.experiments.ledger.differences import facts
from train.experiments.ledger.entries import Entry, entries
from train.experiments.ledger.published import FILE, Key, published
from train.experiments.measure import measures
from train.experiments.measure.cells import Measured
from train.experiments.measure.counts import LENGTHS
from train.experiments.measure.targets import Target, are_papers, bind
from train.experiments.run import Request, Result, run
from train.experiments.table.table import make_table

NUMBER = re.compile(r"-|~?\d+(\.\d+)?k?|-\d+(\.\d+)?|\d+\*|\d+ · SL")


def number(experiment: str, row: str, column: str, quantity: str = "r1") -> float:
    value = published(experiment)[Key(row, column, quantity)].value(5)
    assert value is not None
    return value


@pytest.mark.parametrize("name", grids.names())
def test_every_published_value_has_a_cell_in_the_grid_and_reads_as_a_number(name: str) -> None:
    grid = grids.load(name)
    values = {key: value for key, value in published(name).items() if key.row in grid.rows}
    assert values
    assert {key.column for key in values} <= {"", *(group.label for group in grid.groups)}
    assert {key.quantity for key in values} <= {*grid.values, *grid.facts, "difference"}
    for value in values.values():
        assert NUMBER.fullmatch(value.text), value
        assert value.table and value.row and value.unit


def test_a_row_of_the_file_has_a_value_for_every_column(tmp_path: Path) -> None:
    grid = {name: {key.row for key in published(name)} for name in grids.names()}
    for name in ("seqvlad-table1", "seqvlad-table2", "seqvlad-table3", "seqvlad-table4", "sta-table1", "sta-table2"):
        assert grid[name] == set(grids.load(name).rows), name
    assert grid["sta-table3"] == set(grids.load("sta-table3").rows)
    assert FILE.is_file()


def test_tables_of_one_paper_repeat_each_other_s_values() -> None:
    """Table III's forward column and Table IV's at L = 5 are Table II's (of MSLS, else of Melbourne)."""
    columns = ("Train on MSLS", "Train on Melbourne")
    table2 = published("seqvlad-table2")
    for row in grids.load("seqvlad-table3").rows:
        texts = [table2[Key(row, column, "r1")].text for column in columns]
        expected = texts[1] if texts[0] == "-" else texts[0]
        assert published("seqvlad-table3")[Key(row, "Forw.", "r1")].text == expected, row
    for row in grids.load("seqvlad-table4").rows:
        assert number("seqvlad-table4", row, "SL 5") == number("seqvlad-table2", row, columns[0]), row


def test_dimensions_agree_between_the_tables() -> None:
    for name in ("seqvlad-table3", "seqvlad-table4"):
        for row in grids.load(name).rows:
            assert number(name, row, "", "dimension") == number("seqvlad-table2", row, "", "dimension"), (name, row)


def test_differences_of_table_3_are_those_of_its_columns() -> None:
    for row in grids.load("seqvlad-table3").rows:
        forward, backward = (number("seqvlad-table3", row, column) for column in ("Forw.", "Back."))
        text = published("seqvlad-table3")[Key(row, "", "difference")].text
        half = 0.5 / 10 ** len(text.partition(".")[2])
        assert abs(100 * (backward / forward - 1) - float(text)) <= half + 1e-9, row


def test_recalls_rise_with_n_and_lie_between_none_and_all() -> None:
    for name in ("sta-table2", "sta-table3"):
        for group in grids.load(name).groups:
            for row in grids.load(name).rows:
                values = [published(name)[Key(row, group.label, f"r{n}")].value(5) for n in (1, 5, 10)]
                present = [value for value in values if value is not None]
                assert present == sorted(present) and len(present) in (0, 3), (name, row, group.label)
                assert all(0 < value < 1 for value in present)
    for name in ("seqvlad-table2", "seqvlad-table3", "seqvlad-table4"):
        recalls = [value.value(5) for key, value in published(name).items() if key.quantity == "r1"]
        assert all(value is None or 10 < value < 100 for value in recalls)


@pytest.mark.parametrize("name", ["seqvlad-table1", "sta-table1"])
def test_counts_are_those_that_the_protocols_expect(name: str) -> None:
    """Both were copied from Table I, each by itself; the protocols hold some counts exactly."""
    grid = grids.load(name)
    for row, subject in grid.subjects.items():
        protocol = protocols.load(subject.protocol).variant(length=subject.length)
        for group in grid.groups:
            split = group.split or subject.split or ""
            for role in ("database", "query"):
                text = published(name)[Key(row, group.label, role)].text
                expected = protocol.expected_counts[split][f"{role}{subject.counted}"]
                assert expected == text or agrees(int(expected), int(text) if text.isdecimal() else text), (row, split)


def test_what_is_known_to_differ_names_what_there_is() -> None:
    sentences = facts()
    assert set(sentences.methods) <= set(grids.methods())
    assert set(sentences.experiments) <= set(grids.names())
    assert set(sentences.protocols) <= grids.paper_protocols()
    assert set(sentences.recipes) <= {method.recipe for method in grids.methods().values()}
    for experiment, rows in sentences.rows.items():
        assert set(rows) <= set(grids.load(experiment).rows)


CITIES = ("melbourne", "austin", "amman", "boston", "sf", "cph")
FIXED = {"r1": Measured(value=0.5, interval=(0.4, 0.6)), "r5": Measured(value=0.75), "r10": Measured(value=1.0)}


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A street in each of P2's cities: 20 database and 12 query frames."""
    folder = tmp_path_factory.mktemp("streets")
    drives = {f"{role}-{city}": count for city in CITIES for role, count in (("map", 20), ("query", 12))}
    positions = write_drives(folder / "raw", drives) / "positions.csv"
    head, *rows = positions.read_text().splitlines()
    of_city = [f"{row},{row.split('-')[1]}" for row in rows]
    positions.write_text("\n".join([f"{head},city", *of_city]) + "\n")
    build(BuildRequest("folder", positions.parent, folder / "dataset", protocol=protocols.load("own")))
    return seqdata.open(folder / "dataset")


@pytest.fixture
def fixed_recalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recall cell holds `FIXED`, without a model."""

    def measure(artifacts: object, method: object, target: Target, *runs: object) -> dict[str, Any]:
        counts = {"queries": 4, "left_out": 0, "database": 16, "conditions": "test", "interval_method": "test"}
        dimension = 256 * target.tested.length
        return {
            "values": FIXED,
            "protocol": target.tested.label,
            **counts,
            "facts": {"dimension": dimension, "memory": 2e9},
        }

    monkeypatch.setattr(measures, "recalls", measure)


def ledger(name: str, dataset: Dataset, out: Path, **fields: Any) -> tuple[Result, dict[tuple[str, ...], Entry]]:
    result = run(Request(name, out, [dataset], "smoke", device="cpu", **fields))
    lines = entries(result)
    return result, {(*entry.key, "ours" if entry.cell else "paper"): entry for entry in lines}


@pytest.mark.usefixtures("fixed_recalls")
def test_a_cell_stands_beside_the_paper_s_with_difference_protocol_and_counts(streets: Dataset, tmp_path: Path) -> None:
    result, lines = ledger("sta-table2", streets, tmp_path, protocol="msls-sta")
    entry = lines["sta", "Amman", "r1", "ours"]
    assert entry.printed is not None and entry.printed.text == "0.303" and entry.unit == "share"
    assert entry.ours == 0.5 and entry.interval == (0.4, 0.6) and entry.difference == pytest.approx(0.197)
    assert entry.cell is not None and str(entry.cell.protocol).startswith("msls-sta-test-amman@")
    counts = {(count.split, count.name): (count.published, count.counted, count.is_met) for count in entry.counts}
    assert counts["test", "database_images"] == (953, 20, False)
    assert counts["train", "query_images"] == (88118, 12, False) and entry.are_counts_met is False
    text = " ".join(entry.differs)
    assert "names no validation city" in text and "how long an epoch is" in text
    assert "weights random instead of pretrained" in text and "epochs 1 instead of 30" in text
    assert "model sta-small instead of sta" in text
    printed = published("sta-table2")
    assert all((*key, "ours") in lines and lines[(*key, "ours")].printed == value for key, value in printed.items())
    assert {entry.difference is None for entry in lines.values()} == {False}
    row = next(csv.DictReader(io.StringIO(files.to_csv("sta-table2", [entry]))))
    assert (row["published"], row["ours"], row["low"], row["high"], row["difference"]) == (
        "0.303", "0.500", "0.400", "0.600", "+0.197",
    )  # fmt: skip
    assert row["protocol"] == entry.cell.protocol and row["met"] == "no"
    assert "test database images 953: 20" in row["expected"]
    html = files.to_html(result, [entry])
    assert "0.303" in html and "+0.197" in html and str(entry.cell.protocol).partition("@")[2] in html


@pytest.mark.usefixtures("fixed_recalls")
@pytest.mark.parametrize("name", ["sta-table2", "seqvlad-table3"])
def test_numbers_of_another_protocol_stand_apart_and_have_no_difference(
    name: str, streets: Dataset, tmp_path: Path
) -> None:
    _, lines = ledger(name, streets, tmp_path)
    ours = [entry for entry in lines.values() if entry.cell is not None]
    papers = [entry for entry in lines.values() if entry.cell is None]
    assert {entry.key for entry in papers} == set(published(name))
    assert all(entry.printed is None and entry.difference is None for entry in ours)
    assert all(entry.ours is None and entry.reason for entry in papers)


@pytest.mark.usefixtures("fixed_recalls")
def test_dimensions_that_grow_with_the_length_are_written_so(streets: Dataset, tmp_path: Path) -> None:
    result, lines = ledger("seqvlad-table4", streets, tmp_path, protocol="msls-seqvlad", only=("gem-cat-r18",))
    line = make_table(result).lines[0]
    assert line.lead[-1] == "256 · SL"
    assert lines["gem-cat-r18", "SL 10", "r1", "ours"].difference == pytest.approx(50 - 79.8)
    fixed = lines["gem-cat-r18", "Fixed, SL 10", "r1", "ours"]
    assert fixed.printed is None and all(count.split != "test" for count in fixed.counts)
    assert lines["gem-cat-r50", "SL 10", "r1", "ours"].reason == "not run (--only)"


def test_table_1_counts_a_dataset_without_a_model(streets: Dataset, tmp_path: Path) -> None:
    _, lines = ledger("sta-table1", streets, tmp_path, protocol="msls-sta")
    amman = lines["amman", "Images", "database", "ours"]
    assert (amman.ours, amman.paper, amman.difference, amman.unit) == (20, 953, 20 - 953, "images")
    assert [str(count) for count in amman.counts] == ["Images database 953: 20"]
    nordland = lines["nordland-train", "Images", "query", "ours"]
    assert nordland.reason == "ContractError: no nordland dataset given" and nordland.paper == 15000
    _, windows = ledger("seqvlad-table1", streets, tmp_path, protocol="msls-seqvlad")
    # Of a street of n frames n − L + 1 windows are left; at even L the first is left out.
    for length, map_windows, query_windows in ((5, 16, 8), (10, 10, 2), (15, 6, 0)):
        test = [windows[f"msls-{length}", "Test", role, "ours"].ours for role in ("database", "query")]
        assert test == [2 * map_windows, 2 * query_windows], length
    assert LENGTHS == (5, 10, 15)
    _, own = ledger("seqvlad-table1", streets, tmp_path)
    assert {key[0] for key in own if key[3] == "ours"} == {f"own-{length}" for length in LENGTHS}


def test_a_dataset_of_one_of_the_papers_protocols_serves_the_tables_of_the_other(tmp_path: Path) -> None:
    class Paper:
        """As much of a dataset as choosing columns looks at."""

        location = "msls"
        manifest = type("Manifest", (), {"protocol": protocols.load("msls-seqvlad")})

        def load_protocol(self, name: str) -> Protocol:
            return protocols.load(name)

    dataset: Any = Paper()
    targets = bind(grids.load("sta-table2"), [dataset])
    assert [target.label for target in targets] == ["Amman", "Boston", "SF", "Cph"]
    assert are_papers(grids.load("sta-table2"), [dataset]) and not are_papers(
        grids.load("sta-table2"), [dataset], "msls-seqvlad"
    )
