"""Tables as spreadsheets, loggers and people write them: encodings, line ends, headers, numbers and degrees."""

import polars as pl
import pytest

from seqdata.errors import ContractError, InputError
from seqdata.sources.csv_tables import parse_columns, parse_degrees, parse_number, parse_text_csv

PLAIN = "image,latitude\n1.jpg,48.2\n2.jpg,48.3\n"
ROWS = [("1.jpg", "48.2"), ("2.jpg", "48.3")]


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        ("sep=;\n" + PLAIN.replace(",", ";")).encode(),
        ('"sep=,"\r\n' + PLAIN.replace("\n", "\r\n")).encode(),
        ("# made by a logger\n#\n" + PLAIN).encode(),
        ("# " + PLAIN).encode(),
        ("\n\n" + PLAIN).encode(),
        PLAIN.replace("\n", ",\n").encode(),
        PLAIN.replace("\n", ",,\n").encode(),
        PLAIN.replace(".2\n", ".2,\n").encode(),
    ],
)
def test_tables_as_programs_write_them(data: bytes) -> None:
    table = parse_text_csv(data, "p.csv")
    assert table.columns == ["image", "latitude"]
    assert table.rows() == ROWS


def test_a_line_with_too_many_cells_is_named() -> None:
    with pytest.raises(InputError, match=r"^p\.csv: line 3 from the header has 3 cells, the header 2 .*decimal comma"):
        parse_text_csv(b"image,latitude\n1.jpg,48\n2.jpg,48,3\n", "p.csv")


def test_a_missing_column_is_one_short_line_whatever_the_header_holds() -> None:
    header = ",".join(f"column{number}\x07" for number in range(2_000))
    with pytest.raises(ContractError) as raised:
        parse_columns(parse_text_csv(header.encode() + b"\n1\n", "p.csv"), "p.csv", {"image": pl.String()})
    assert len(str(raised.value)) < 400
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48,2", 48.2),
        ("\u221233,85", -33.85),
        ("5.339.437,15", 5_339_437.15),
        ("5,339,437.15", 5_339_437.15),
        ("5 339 437,15", 5_339_437.15),
        ("5\u202f339\u202f437.15", 5_339_437.15),
        ("5'339'437", 5_339_437.0),
        ("601.799,15", 601_799.15),
        ("5.339.437", 5_339_437.0),
        ("1e3", 1000.0),
        ("30 m", 30.0),
        ("48.2°", 48.2),
        ("1,2,3", None),
        ("1.2.3", None),
        ("12 34", None),
        ("north", None),
        ("", None),
        ("inf", None),
    ],
)
def test_numbers_as_people_write_them(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "latitude", "longitude"),
    [
        ("48.2", 48.2, 48.2),
        ("48.2N", 48.2, None),
        ("S 33,85", -33.85, None),
        ("16.5 w", None, -16.5),
        ("48°30'36\"N", 48.51, None),
        ("48° 30′ 36″", 48.51, 48.51),
        ("-48 30", -48.5, -48.5),
        ("48:30.6", 48.51, 48.51),
        ("48°75'N", None, None),
        ("-48.2S", None, None),
        ("48.2X", None, None),
    ],
)
def test_degrees_as_people_write_them(text: str, latitude: float | None, longitude: float | None) -> None:
    assert parse_degrees(text, "latitude") == pytest.approx(latitude)
    assert parse_degrees(text, "longitude") == pytest.approx(longitude)
