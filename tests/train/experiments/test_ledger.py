"""The ledger: published values agree among each other, and cells stand beside those of the paper."""

import re
from pathlib import Path

import pytest

from seqdata import protocols
from seqdata.protocols import agrees
from train.experiments import grid as grids
from train.experiments.ledger.differences import facts
from train.experiments.ledger.published import FILE, Key, published

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
    known = facts()
    assert set(known.methods) <= set(grids.methods())
    assert set(known.experiments) <= set(grids.names())
    assert set(known.protocols) <= grids.paper_protocols()
    assert set(known.recipes) <= {method.recipe for method in grids.methods().values()}
    for experiment, rows in known.rows.items():
        assert set(rows) <= set(grids.load(experiment).rows)
