"""Every file that the program writes goes through the one atomic door of `seqdata.storage`, or stands here by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("seqdata", "indexer", "train", "cli")
DOORS = {"atomic_path", "atomic_folder", "scratch_folder", "writing", "GrowingFile"}
"""What gives a path, or a file, whose bytes appear whole: writing to it is what it is for."""
WRITES = {
    "write_text", "write_bytes", "touch", "copyfile", "copy2", "copytree", "move", "symlink_to", "hardlink_to", "link",
    "save_file", "savez", "write_index", "write_parquet", "write_csv", "write_json", "write_ndjson", "sink_parquet",
    "tofile", "write_table", "SummaryWriter", "mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile",
}  # fmt: skip
INSIDE = "its path comes from a door of its caller"
ALLOWED = {
    "seqdata/storage/files.py": "the door itself",
    "seqdata/storage/leftovers.py": "the door itself",
    "seqdata/storage/parquet.py": INSIDE,
    "seqdata/storage/table_cache.py": INSIDE,
    "seqdata/synth/dumps/msls.py": INSIDE,
    "seqdata/synth/dumps/nordland.py": INSIDE,
    "seqdata/synth/dumps/robotcar.py": INSIDE,
    "seqdata/dataset/repair.py": INSIDE,
    "seqdata/build/dry_run.py": "a table in memory",
    "seqdata/build/plan.py": "text in memory, of which a hash is made",
    "seqdata/dataset/export/export.py": "text in memory, of which a hash is made",
    "indexer/evaluation/truth.py": "text in memory, of which a hash is made",
    "indexer/arrays.py": "a file without a name, which goes with the process",
    "indexer/search/file_layout.py": INSIDE,
    "indexer/search/flat_file.py": INSIDE,
    "indexer/builder/merge_lists.py": INSIDE,
    "indexer/localizer/track/files.py": INSIDE,
    "indexer/versions/published.py": "a mark without content",
    "train/profiling/matching.py": "counts bytes in memory",
    "train/stages/pack.py": INSIDE,
    "train/stages/quantise.py": "a folder that is removed at the end",
    "cli/evaluation/results.py": "text in memory, which a door then writes",
    "cli/output.py": "the log file, a line at a time",
}
"""Modules that write by themselves, and why nothing half-written can stand under a final name."""


def direct_writes(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls that write a file outside a `with` of a door."""
    sheltered = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and any(name_of(item.context_expr) in DOORS for item in block.items)
        for inner in ast.walk(block)
    }
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and id(call) not in sheltered and (name_of(call) in WRITES or opens(call)):
            yield call


def name_of(call: ast.expr) -> str:
    """Name of the function or method of a call, "" for anything else."""
    if not isinstance(call, ast.Call):
        return ""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def opens(call: ast.Call) -> bool:
    """Whether a call opens a file to write."""
    if name_of(call) != "open" and name_of(call) != "ZipFile":
        return False
    values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return any(text[:1] in ("w", "a", "x") or text in ("r+", "r+b", "rb+") for text in texts if len(text) <= 3)


def test_every_writer_goes_through_the_door() -> None:
    modules = {path.relative_to(ROOT).as_posix(): path for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    writers = {
        name: [f"{name}:{call.lineno} {ast.unparse(call)[:90]}" for call in direct_writes(ast.parse(path.read_text()))]
        for name, path in modules.items()
    }
    others = [line for name, lines in writers.items() if name not in ALLOWED for line in lines]
    assert not others, "write these through atomic_path, atomic_folder or GrowingFile of seqdata.storage.files"
    silent = [name for name in ALLOWED if not writers.get(name)]
    assert not silent, "these write nothing by themselves any more: take them off the list"


def test_a_write_beside_the_door_is_seen() -> None:
    program = """
with atomic_path(path) as temporary, temporary.open("wb") as file:
    temporary.write_bytes(data)
path.write_bytes(data)
path.open("a", encoding="utf-8")
open(path, mode="xb")
path.read_text()
path.open("rb")
"""
    assert [call.lineno for call in direct_writes(ast.parse(program))] == [4, 5, 6]
