"""The list of mutants: its modules and tests are there, and every accepted survivor still names a line."""

import re

import pytest

from tests.support.mutants import OPERATORS, ROOT, Accepted, changed_lines, read_list

MODULES, ACCEPTED = read_list()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_and_its_tests_are_there(module: str) -> None:
    assert (ROOT / module).is_file()
    assert MODULES[module] and all((ROOT / test).is_file() for test in MODULES[module])


@pytest.mark.parametrize("entry", ACCEPTED, ids=[entry.code for entry in ACCEPTED])
def test_an_accepted_survivor_names_a_line(entry: Accepted) -> None:
    modules = MODULES if entry.module == "*" else [entry.module]
    lines = [(module, line) for module in modules for line in (ROOT / module).read_text().splitlines()]
    assert any(entry.covers(module, line, entry.operator) for module, line in lines)
    assert len(entry.reason.split()) > 3


def test_the_nearest_operators_are_tried() -> None:
    assert OPERATORS.match("core/ReplaceComparisonOperator_Lt_LtE")
    assert not OPERATORS.match("core/ReplaceBinaryOperator_BitOr_Add"), "annotations such as int | None"


def test_changed_lines_are_those_of_a_diff(monkeypatch: pytest.MonkeyPatch) -> None:
    diff = "@@ -3,0 +4,2 @@ def f\n+a\n+b\n@@ -9 +12 @@\n-x\n+y\n@@ -20,2 +22,0 @@\n-z\n-z\n"
    monkeypatch.setattr("tests.support.mutants._git", lambda *arguments: diff)
    assert changed_lines("base", "module.py") == {4, 5, 12}


def test_reasons_are_no_copies() -> None:
    assert len({entry.reason for entry in ACCEPTED}) == len(ACCEPTED)
    assert all(re.compile(entry.code) for entry in ACCEPTED)
