"""Read the CSV tables of a dump as text, and parse their numbers and positions.

Convention: latitude and longitude are WGS84 degrees. Numbers may be written as spreadsheets and people write them: with
a decimal comma, with signs for thousands, with a minus from a typeset text, and positions as 48.2N or 48°12'30"N.
"""

import codecs
import math
import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from seqdata.errors import ContractError, InputError
from seqdata.geometry import BoolArray, Float64Array
from seqdata.storage.faults import AGAIN, passing_error, read_again

_SEPARATORS = (",", ";", "\t")
_HEADER_WITHIN = 1 << 16
_SHOWN_COLUMNS = 12
_SHOWN_TEXT = 40

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# Excel's first line that names the separator.
_SEPARATOR_LINE = re.compile(rb"""["']?sep=(.)["']?\s*""", re.IGNORECASE)
# Degrees around 0° N, 0° E, about 100 metres of open sea: receivers without a fix write that place.
_NULL_ISLAND = 1e-3

_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2012": "-", "\ufe63": "-", "\uff0d": "-"})
_THOUSANDS = re.compile(r"(?<=\d)[ '\u2019\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_ANGLE = re.compile(
    r"""([+-]?\d+(?:\.\d*)?)(?:\s*[°º\s:]\s*(\d+(?:\.\d*)?)(?:\s*['\u2032\u2019:\s]\s*(\d+(?:\.\d*)?)?)?)?"""
    r"""\s*[°º'"\u2032\u2033\u2019\u201d]*\s*"""
)


def shorten(text: str) -> str:
    r"""Make a text of a file fit for one line of a message: no control characters, at most 40 characters.

    Example:
        >>> shorten("48.2" + chr(9) + "N")
        '48.2\\tN'
    """
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:_SHOWN_TEXT])
    return line + ("…" if len(text) > _SHOWN_TEXT else "")


def read_text_csv(path: Path) -> pl.DataFrame:
    """Read a CSV file as text, as `parse_text_csv` does.

    Raises:
        InputError: If the file is missing or no CSV.
        ContractError: If a column is there twice.
    """
    try:
        data = read_again(path.read_bytes)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the dump is incomplete") from error
    except OSError as error:
        advice = f"; {AGAIN}" if passing_error(error) else ""
        raise InputError(f"{path}: the table cannot be read ({error.strerror}){advice}") from error
    return parse_text_csv(data, path)


def parse_text_csv(data: bytes, path: Path | str) -> pl.DataFrame:
    r"""Parse a CSV, all columns as text.

    Read are commas, semicolons or tabs between the columns (Excel's line `sep=;` names them), UTF-8 or UTF-16, lines
    that end in CR LF, LF or CR alone, comment lines with `#` above the header, and separators without a cell behind
    them at the end of a line.

    Args:
        data: Bytes of the file.
        path: What messages call the table.

    Returns:
        One text column per column of the header, spaces around their names left out; empty cells are null.

    Raises:
        InputError: If it is no CSV; a line with too many cells is named.
        ContractError: If a column is there twice.

    Example:
        >>> parse_text_csv(b"sep=;\r\nimage; latitude\r\n1.jpg;48,2\r\n", "positions.csv").rows()
        [('1.jpg', '48,2')]
    """
    # All columns stay text: a guessed type would turn keys into numbers and drop their zeros.
    text, separator = _without_preamble(_as_utf8(data))
    try:
        table = _read_csv(text, separator)
    except pl.exceptions.ComputeError:
        table = _read_csv(_without_empty_tails(text, separator, path), separator, path)
    except pl.exceptions.PolarsError as error:
        raise _not_readable(path, error) from error
    names = [name.strip() for name in table.columns]
    # polars calls columns without a name "" and "_duplicated_0", …; a trailing separator makes them.
    unnamed = [
        column
        for column, name in zip(table.columns, names, strict=True)
        if (not name or re.fullmatch(r"_duplicated_\d+", name)) and table[column].is_null().all()
    ]
    names = [name for column, name in zip(table.columns, names, strict=True) if column not in unnamed]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ContractError(f"{path}: column '{shorten(repeated[0])}' is there twice")
    table = table.drop(unnamed)
    table.columns = names
    return table


def _read_csv(text: bytes, separator: str, path: Path | str | None = None) -> pl.DataFrame:
    try:
        return pl.read_csv(text, infer_schema=False, encoding="utf8-lossy", separator=separator)
    except pl.exceptions.PolarsError as error:
        if path is None:
            raise
        raise _not_readable(path, error) from error


def _not_readable(path: Path | str, error: Exception) -> InputError:
    first_line = str(error).splitlines()[0] if str(error) else "not a table"
    return InputError(f"{path}: not readable as CSV ({first_line[:200]})")


def _as_utf8(data: bytes) -> bytes:
    """The bytes of a table as UTF-8 without a byte-order mark, lines ended by LF."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            data = data[len(mark) :] if encoding == "utf-8" else _recode(data[len(mark) :], encoding)
            break
    else:
        # Without a mark UTF-16 shows by the zero bytes of its ASCII letters.
        head = data[:64]
        if len(head) >= 4 and (not any(head[1::2]) or not any(head[0::2])):
            data = _recode(data, "utf-16-le" if not any(head[1::2]) else "utf-16-be")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def _recode(data: bytes, encoding: str) -> bytes:
    return data.decode(encoding, errors="replace").encode()


def _without_preamble(data: bytes) -> tuple[bytes, str]:
    """A table from its header on, and the separator; comment lines and Excel's `sep=` line above it are left out."""
    separator = b""
    comment = b""
    while True:
        line, _, rest = data.partition(b"\n")
        separator_line = _SEPARATOR_LINE.fullmatch(line)
        if separator_line:
            separator = separator_line.group(1)
        elif line.lstrip().startswith(b"#"):
            comment = line.lstrip().lstrip(b"#")
        elif line.strip() or not rest:
            break
        data = rest
    head = line[:_HEADER_WITHIN].decode(errors="replace")
    best = separator.decode() if separator else max(_SEPARATORS, key=head.count)
    # A header may itself be a comment ("# image,latitude,longitude"): then the first plain line holds numbers already.
    cells = head.split(best)
    if comment.count(best.encode()) == len(cells) - 1 > 0 and any(_NUMBER.fullmatch(cell.strip()) for cell in cells):
        data = comment + b"\n" + data
    return data, best


def _without_empty_tails(data: bytes, separator: str, path: Path | str) -> bytes:
    """Cut separators without a cell behind them off the ends of lines. Raises: InputError for more cells than names."""
    mark = separator.encode()
    lines = data.split(b"\n")
    width = lines[0].count(mark)
    for number, line in enumerate(lines):
        # Separators inside quotes belong to a cell; such lines are left to the reader.
        if b'"' in line or line.count(mark) <= width:
            continue
        *cells, tail = line.split(mark, width + 1)
        if tail.replace(mark, b"").strip():
            raise InputError(
                f"{path}: line {number + 1} from the header has {line.count(mark) + 1} cells, the header {width + 1} "
                "(a decimal comma between commas? quote the number, or separate by semicolons)"
            )
        lines[number] = mark.join(cells)
    return b"\n".join(lines)


def parse_columns(table: pl.DataFrame, path: Path | str, needed: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Cast columns of a text table.

    Args:
        table: A table of text (see `parse_text_csv`).
        path: What messages call it.
        needed: Columns to cast, with their types. Booleans are True/False or 1/0; NaN and what is no number are null.

    Raises:
        ContractError: If a column is missing.
    """
    for name in needed:
        if name not in table.columns:
            columns = ", ".join(shorten(column) for column in table.columns[:_SHOWN_COLUMNS]) or "none"
            more = f" and {len(table.columns) - _SHOWN_COLUMNS} more" if len(table.columns) > _SHOWN_COLUMNS else ""
            raise ContractError(f"{path}: column '{name}' is missing; there are {columns}{more}")
    return table.with_columns(_parse(table[name], kind) for name, kind in needed.items())


def _parse(column: pl.Series, kind: pl.DataType) -> pl.Series:
    """A column of text as `kind`; booleans are written True/False by these dumps, and NaN counts as absent."""
    text = column.str.strip_chars()
    if kind == pl.Boolean():
        # The dumps write True and False as Python does, spreadsheets TRUE, databases 1.
        return text.str.to_lowercase().is_in(["true", "1"]).alias(column.name)
    if kind.is_float():
        return numbers(text).cast(kind).fill_nan(None)
    if kind.is_integer():
        return numbers(text).round().cast(kind, strict=False)
    return text


def numbers(text: pl.Series) -> pl.Series:
    """Parse a column of text as float64; what is no number is null (see `parse_number`)."""
    parsed = text.cast(pl.Float64, strict=False)
    # Almost all tables are plain numbers: only cells that the fast cast refuses go through Python.
    odd = parsed.is_null() & (text.fill_null("") != "")
    if not odd.any():
        return parsed
    return (
        text.to_frame()
        .select(
            pl.when(odd).then(pl.col(text.name).map_elements(parse_number, return_dtype=pl.Float64)).otherwise(parsed)
        )
        .to_series()
        .alias(text.name)
    )


def parse_number(text: str) -> float | None:
    """Parse one number as people write it.

    Convention: where comma and point both stand, the later one is the decimal sign; a single comma is a decimal sign,
    several of one sign are thousands.

    Args:
        text: Such as `48.2`, `48,2`, `−1.5`, `1.234,5`, `5 411 000` or `30 m`.

    Returns:
        The number, None for anything else.

    Example:
        >>> [parse_number(text) for text in ("48,2", "5.339.437,15", "5'339'437", "1e3", "north")]
        [48.2, 5339437.15, 5339437.0, 1000.0, None]
    """
    # Signs between groups of three digits (blank, apostrophe, narrow blanks) never are a decimal sign.
    plain = _THOUSANDS.sub("", text.translate(_MINUS).strip().removesuffix("m").rstrip("° "))
    comma, point = plain.rfind(","), plain.rfind(".")
    decimal = "," if comma > point and plain.count(",") == 1 else "."
    thousands = "." if decimal == "," else ","
    whole, mark, fraction = plain.partition(decimal)
    if decimal == "." and plain.count(".") > 1:
        whole, mark, fraction, thousands = plain, "", "", "."
    groups = whole.split(thousands)
    if len(groups) > 1 and not all(len(group) == 3 for group in groups[1:]):
        return None
    number = "".join(groups) + ("." if mark else "") + fraction
    return float(number) if _NUMBER.fullmatch(number) else None


def parse_degrees(text: str, axis: str) -> float | None:
    r"""Parse a latitude or longitude as people write it.

    Args:
        text: Such as `48.2`, `48,2N`, `S 33.85`, `48°12'30"N` or `48 12.5`: degrees, or degrees and minutes (and
            seconds); the letter of the hemisphere stands before or behind.
        axis: "latitude" or "longitude".

    Returns:
        Degrees, south and west negative; None for anything else.

    Example:
        >>> [parse_degrees(text, "latitude") for text in ("48°12'30\"N", "S 33,85", "48 30.0", "16.3E")]
        [48.208333333333336, -33.85, 48.5, None]
    """
    plain = text.translate(_MINUS).strip().upper()
    negative, positive = ("S", "N") if axis == "latitude" else ("W", "E")
    letter = next((letter for letter in (plain[:1], plain[-1:]) if letter in (negative, positive)), "")
    if letter:
        plain = (plain[1:] if plain.startswith(letter) else plain[:-1]).strip()
    sign = -1.0 if letter == negative else 1.0
    number = parse_number(plain)
    if number is None:
        match = _ANGLE.fullmatch(plain.replace(",", "."))
        if match is None:
            return None
        degrees, minutes, seconds = (float(part or 0) for part in match.groups())
        # Without a degree sign minutes have two digits: "4 8.2" is a slip of the pen for 48.2.
        is_slip = match[2] is not None and len(match[2].partition(".")[0]) < 2 and not re.search("[°º]", plain)
        if minutes >= 60 or seconds >= 60 or is_slip:
            return None
        number = math.copysign(abs(degrees) + minutes / 60 + seconds / 3600, -1.0 if plain.startswith("-") else 1.0)
    if letter and number < 0:
        return None
    return sign * number


def has_fix(latitude: str, longitude: str) -> pl.Expr:
    """Test whether two columns (degrees) are a position: the one rule for all sources of what is a GPS fix.

    Convention: see `is_fix`.

    Args:
        latitude: Name of the column of latitudes.
        longitude: Name of the column of longitudes.

    Returns:
        A boolean expression, false where a cell is null.
    """
    on_globe = pl.col(latitude).is_between(-80, 84) & pl.col(longitude).is_between(-180, 180)
    at_origin = (pl.col(latitude).abs() < _NULL_ISLAND) & (pl.col(longitude).abs() < _NULL_ISLAND)
    return (on_globe & ~at_origin).fill_null(value=False)


def is_fix(latitude: Float64Array, longitude: Float64Array) -> BoolArray:
    """Test which positions are a GPS fix.

    Convention: a fix is finite, lies where UTM does (80° S to 84° N), and is not 0° N, 0° E, which receivers and
    cameras write while they have none.

    Args:
        latitude: (n,) degrees.
        longitude: (n,) degrees.

    Returns:
        (n,) bool.

    Example:
        >>> import numpy as np
        >>> is_fix(np.array([48.2, 0.0, 91.0]), np.array([16.4, 0.0, 16.4]))
        array([ True, False, False])
    """
    positions = pl.DataFrame({"latitude": latitude, "longitude": longitude})
    return positions.select(has_fix("latitude", "longitude")).to_series().to_numpy()
