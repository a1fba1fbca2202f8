"""Large tables are made once on a machine and mapped by every process; small ones are made as ever."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqdata.storage import table_cache
from seqdata.storage.table_cache import cache_folder, shared_array, shared_table

ROOT = Path(__file__).parents[3]
TABLE = pl.DataFrame({"name": ["a", None, "a name of more than twelve bytes"], "row": [1, 2, 3], "x": [0.5, None, 2.0]})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(table_cache, "SHARED_ROWS", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_large_table_is_made_once_by_many_at_a_time() -> None:
    made: list[int] = []
    tables: list[pl.DataFrame] = []

    def make() -> pl.DataFrame:
        made.append(1)
        return TABLE

    def ask() -> None:
        tables.append(shared_table("geometry of one", 3, make))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert all(table.equals(TABLE) and table.schema == TABLE.schema for table in tables)
    assert shared_table("geometry of another", 3, lambda: TABLE.head(1)).height == 1


def test_a_small_table_leaves_no_file() -> None:
    assert shared_table("small", 2, lambda: TABLE) is TABLE
    assert shared_array("small", 2, lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert not cache_folder().exists()


def test_an_array_is_mapped_for_reading() -> None:
    rows = np.arange(12, dtype=np.int64).reshape(6, 2)
    for _ in range(2):
        mapped = shared_array("rows", 6, lambda: rows)
        assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
        np.testing.assert_array_equal(mapped, rows)


READ = """
    import sys
    from pathlib import Path
    import numpy as np
    import polars as pl
    from seqdata.storage import table_cache

    def anonymous():
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) // 1024

    table_cache.SHARED_ROWS = 1000
    count = 2_000_000
    def make():
        key = pl.Series(np.arange(count)).cast(pl.String) + "-longer-than-twelve"
        return pl.DataFrame({"key": key, "x": np.zeros(count)})
    before = anonymous()
    table = table_cache.shared_table("large", count, make if sys.argv[1] == "make" else None)
    array = table_cache.shared_array("array", count, lambda: np.zeros((count, 8)))
    assert table["key"][count - 1] == f"{count - 1}-longer-than-twelve"
    assert float(table["x"].sum() + np.asarray(array).sum()) == 0
    print(anonymous() - before)
"""


def test_what_another_process_has_made_takes_none_of_ones_own_memory() -> None:
    """192 MB of table and array: a second process maps them, and its own memory hardly grows."""
    grown = []
    for word in ("make", "map"):
        command = [sys.executable, "-c", textwrap.dedent(READ), word]
        ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=os.environ)
        grown.append(int(ended.stdout))
    assert grown[1] < 60
