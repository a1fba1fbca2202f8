"""Files as a stranger may write them: tables, manifests, weights and text of the wrong form, with hashes that fit.

A command that meets one ends with an answer or with one line, and writes nothing outside its folder.
"""

import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xxhash

from tests.faults.commands import Trial
from tests.faults.shim import Outcome
from tests.faults.trials import ENDINGS, Result, Workshop

Chance = random.Random
Change = Callable[[bytes, Chance], bytes]
"""What the file holds, and a source of chance, to what it holds then."""

NUMBERS: tuple[Any, ...] = (-1, 0, 1 << 31, (1 << 63) - 1, -(1 << 63), float("nan"), float("inf"), 1e300)
TEXTS = ("", "..", "../../outside", "/outside", "a\x1b[31m\0b", "=1+1", "\u202e", "x" * 5000, "evil:make", "s3://none")


def hostile(workshop: Workshop, trial: Trial, count: int, seed: int) -> Iterator[Result]:
    """Put changed files in the place of a command's inputs, one for each result."""
    names = sorted(
        path.relative_to(workshop.base).as_posix()
        for pattern in (*trial.inputs, *trial.sources)
        for path in workshop.base.glob(pattern)
        if path.is_file() and path.suffix in CHANGES
    )
    chance = Chance(f"{seed} {trial.verb}")
    for _ in range(count if names else 0):
        # Kinds of files first: a pack has a dozen small ones, a dump one table.
        suffix = chance.choice(sorted({Path(name).suffix for name in names}))
        name = chance.choice([name for name in names if name.endswith(suffix)])
        label, change = chance.choice(CHANGES[suffix])
        folder = workshop.copy()
        beside = {path.name for path in workshop.scratch.iterdir()}
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(change(before, chance))
        sign(folder / name, before, folder)
        ended = workshop.program.run(list(trial.arguments), folder)
        is_inside = beside == {path.name for path in workshop.scratch.iterdir()}
        story = f"{name}: {label}: {ended.code} {ended.errors.strip()[-1500:]}"
        yield Result("hostile", trial.verb, is_right(ended) and is_inside, story, ended.code != 0)


def is_right(ended: Outcome) -> bool:
    """Whether a command gave an answer, or one line that is short and holds no control characters."""
    is_plain = not any(ord(letter) < 32 and letter not in "\n\r\t" for letter in ended.errors + ended.output)
    return ended.is_clean and ended.code in ENDINGS and is_plain


def sign(path: Path, before: bytes, root: Path) -> None:
    """Make the hash and size of a changed file fit in every manifest above it, as its author would."""
    old, new = (xxhash.xxh3_128_hexdigest(data) for data in (before, path.read_bytes()))
    (path.parent / "manifest.sha256").unlink(missing_ok=True)
    for folder in path.parents:
        manifest = folder / "manifest.json"
        if manifest.is_file() and manifest != path:
            text = manifest.read_bytes()
            if old.encode() in text:
                entry = f'"bytes": {len(before)}'.encode()
                signed = text.replace(old.encode(), new.encode())
                place = signed.index(new.encode())
                # The size stands beside the hash, before or behind it.
                at = max(signed.rfind(entry, 0, place), signed.find(entry, place))
                if at >= 0:
                    size = f'"bytes": {path.stat().st_size}'.encode()
                    signed = signed[:at] + size + signed[at + len(entry) :]
                manifest.write_bytes(signed)
                sign(manifest, text, root)
        if folder == root:
            return


def _any_bytes() -> list[tuple[str, Change]]:
    """Changes that need no reading of a file: it is none of its kind any more."""
    return [
        ("empty", lambda data, chance: b""),
        ("text", lambda data, chance: b"no such file\n" * 9),
        ("cut", lambda data, chance: data[: chance.randrange(len(data))]),
        ("tail cut", lambda data, chance: data[: -chance.randrange(1, 12)]),
        ("zeros", lambda data, chance: bytes(len(data))),
        ("noise", lambda data, chance: data[:8] + chance.randbytes(len(data))),
        ("twice", lambda data, chance: data + data),
        ("a number", _patched),
    ]


def _patched(data: bytes, chance: Chance) -> bytes:
    place = chance.randrange(max(1, len(data) - 8))
    return (
        data[:place] + chance.choice((0, 1, 1 << 31, 1 << 62, (1 << 64) - 1)).to_bytes(8, "little") + data[place + 8 :]
    )


def _tables() -> list[tuple[str, Change]]:
    """Changes of a Parquet table as a whole, then of one of its columns."""

    def through(change: Callable[[pl.DataFrame, Chance], pl.DataFrame]) -> Change:
        def changed(data: bytes, chance: Chance) -> bytes:
            file = io.BytesIO()
            change(pl.read_parquet(io.BytesIO(data)), chance).write_parquet(file)
            return file.getvalue()

        return changed

    def column(change: Callable[[pl.Series, Chance], pl.Series]) -> Change:
        def changed(table: pl.DataFrame, chance: Chance) -> pl.DataFrame:
            series = table[chance.choice(table.columns)]
            return table.with_columns(change(series, chance).alias(series.name))

        return through(changed)

    def number(series: pl.Series, chance: Chance) -> pl.Series:
        value = chance.choice(NUMBERS)
        values = [value if row % 3 == 0 else None for row in range(len(series))]
        return pl.Series(series.name, values, strict=False).cast(series.dtype, strict=False).fill_null(series)

    def text(series: pl.Series, chance: Chance) -> pl.Series:
        return pl.Series(series.name, [chance.choice(TEXTS)] * len(series))

    return [
        ("no rows", through(lambda table, chance: table.clear())),
        ("one row", through(lambda table, chance: table.head(1))),
        ("rows twice", through(lambda table, chance: pl.concat([table, table]))),
        ("rows in another order", through(lambda table, chance: table.reverse())),
        ("no columns", through(lambda table, chance: pl.DataFrame())),
        ("another table", through(lambda table, chance: pl.DataFrame({"a": [1, 2]}))),
        ("all text", through(lambda table, chance: table.with_columns(pl.all().exclude(pl.Binary).cast(pl.String)))),
        ("all null", through(lambda table, chance: table.with_columns(pl.all().shift(table.height)))),
        ("a column less", through(lambda table, chance: table.drop(chance.choice(table.columns)))),
        ("a column more", through(lambda table, chance: table.with_columns(pl.lit(1).alias("evil:make")))),
        ("numbers", column(lambda series, chance: series if series.dtype == pl.Binary else number(series, chance))),
        ("texts", column(text)),
        ("lists", column(lambda series, chance: pl.Series(series.name, [[1, 2]] * len(series)))),
        ("nulls", column(lambda series, chance: series.shift(max(1, len(series) // 2)))),
        ("short bytes", column(lambda series, chance: pl.Series(series.name, [b"ab"] * len(series)))),
    ]  # fmt: skip


def _documents() -> list[tuple[str, Change]]:
    """Changes of one value of a JSON document, wherever it stands."""

    def through(value: Callable[[Any, Chance], Any]) -> Change:
        def changed(data: bytes, chance: Chance) -> bytes:
            document = json.loads(data)
            holders = list(_holders(document))
            holder, key = chance.choice(holders)
            holder[key] = value(holder[key], chance)
            return json.dumps(document).encode()

        return changed

    def without(data: bytes, chance: Chance) -> bytes:
        document = json.loads(data)
        holder, key = chance.choice(list(_holders(document)))
        del holder[key]
        return json.dumps(document).encode()

    def renamed(data: bytes, chance: Chance) -> bytes:
        document = json.loads(data)
        holder, key = chance.choice([place for place in _holders(document) if isinstance(place[0], dict)])
        holder[chance.choice(TEXTS)] = holder.pop(key)
        return json.dumps(document).encode()

    return [
        ("a field less", without),
        ("a field of another name", renamed),
        ("a number", through(lambda _, chance: chance.choice(NUMBERS))),
        ("a text", through(lambda _, chance: chance.choice(TEXTS))),
        ("null", through(lambda _, chance: None)),
        ("a list", through(lambda value, chance: [value])),
        ("an object", through(lambda value, chance: {"a": value})),
        ("nothing but null", lambda data, chance: b"null"),
        ("a list of nothing", lambda data, chance: b"[]"),
        ("an object of nothing", lambda data, chance: b"{}"),
        ("deep", lambda data, chance: b"[" * 100_000 + b"]" * 100_000),
    ]


def _holders(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a value in a document: what holds it, and its key or index there."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield document, key
        if isinstance(value, dict | list):
            yield from _holders(value)


def _lines() -> list[tuple[str, Change]]:
    """Changes of text in lines: CSV of a dump, TOML of a protocol or of settings."""

    def field(data: bytes, chance: Chance) -> bytes:
        lines = data.split(b"\n")
        row = chance.randrange(len(lines))
        fields = lines[row].split(b",")
        fields[chance.randrange(len(fields))] = str(chance.choice((*NUMBERS, *TEXTS))).encode(errors="replace")
        return b"\n".join([*lines[:row], b",".join(fields), *lines[row + 1 :]])

    def without(data: bytes, chance: Chance) -> bytes:
        lines = data.split(b"\n")
        del lines[chance.randrange(len(lines))]
        return b"\n".join(lines)

    return [
        ("a field", field),
        ("a line less", without),
        ("no UTF-8", lambda data, chance: data.replace(b"a", b"\xff\xfe", 3)),
        ("UTF-16", lambda data, chance: data.decode(errors="replace").encode("utf-16")),
        ("a quote", lambda data, chance: data.replace(b",", b',"', 1).replace(b"=", b'="', 1)),
        ("NUL", lambda data, chance: data.replace(b"e", b"\0", 2)),
        ("one long line", lambda data, chance: data.replace(b"\n", b",")),
    ]


def _arrays() -> list[tuple[str, Change]]:
    """Changes of a `.npy` file: another shape or type, and objects, which only a pickle could bring back."""

    def of(array: Callable[[Any], Any]) -> Change:
        def changed(data: bytes, chance: Chance) -> bytes:
            file = io.BytesIO()
            np.save(file, array(np.load(io.BytesIO(data))), allow_pickle=True)
            return file.getvalue()

        return changed

    return [
        ("objects", of(lambda array: np.array([{"a": 1}] * 3, dtype=object))),
        ("one axis", of(lambda array: array.reshape(-1))),
        ("other columns", of(lambda array: array[:, :3])),
        ("no rows", of(lambda array: array[:0])),
        ("by columns", of(lambda array: np.asfortranarray(array))),
        ("NaN", of(lambda array: np.full_like(array, np.nan))),
        ("text", of(lambda array: array.astype("U8"))),
    ]  # fmt: skip


CHANGES: dict[str, list[tuple[str, Change]]] = {
    ".parquet": [*_any_bytes(), *_tables(), *_tables()],
    ".json": [*_any_bytes(), *_documents(), *_documents()],
    ".jsonl": [*_any_bytes(), *_documents()],
    ".csv": [*_any_bytes(), *_lines(), *_lines()],
    ".toml": [*_any_bytes(), *_lines()],
    ".safetensors": _any_bytes(),
    ".npy": [*_any_bytes(), *_arrays()],
    ".faiss": _any_bytes(),
    ".onnx": _any_bytes(),
    ".jpg": _any_bytes(),
    ".npz": _any_bytes(),
}
"""Changes by the ending of a file's name; those of its own kind come more often than any bytes."""
