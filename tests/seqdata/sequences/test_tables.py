"""Tables of other lengths and radii are added to a sealed dataset, which stays as it is, and say what is computed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

import seqdata
from cli.dataset import sequences as commands
from cli.dataset.leakage import leakage as leakage_command
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings, TableInfo
from seqdata.contracts.protocol import Protocol, Split
from seqdata.contracts.tables import table_contract
from seqdata.dataset.extra_tables import read_added, table_infos
from seqdata.dataset.info import protocol_counts
from seqdata.errors import ContractError, InputError
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS, Sequencer, TrackPolicy
from seqdata.sequences.tables import MAX_RADIUS, nearest_name, positives_name, reach, track_name
from seqdata.storage.hashing import xxh3_file

FIXTURE = Path(__file__).parents[2] / "fixtures" / "dataset-v1"


@pytest.fixture
def own(dataset: Any, tmp_path: Path) -> seqdata.Dataset:
    """A copy of the dataset of two drives, to add to."""
    shutil.copytree(dataset.path, tmp_path / "own")
    return seqdata.open(tmp_path / "own")


@pytest.mark.parametrize("length", [10, 15])
def test_other_lengths_are_added_and_nothing_sealed_is_touched(own: Any, length: int, files_of: Any) -> None:
    before = files_of(own.path)
    chosen = own.load_protocol(f"own-L{length}")
    computed = own.protocol_pairs(chosen, "test"), own.nearest(chosen, "test"), own.answerable(chosen, "test")
    added = own.add_tables(chosen)
    after = files_of(own.path)
    assert {name: after[name] for name in before} == before
    opened = seqdata.open(own.path)
    assert opened.id == own.id
    assert read_added(opened.store, opened.id, chosen) == added
    for info in table_infos(opened.store, opened.id).values():
        stored = own.path / info.path
        assert (stored.stat().st_size, xxh3_file(stored)) == (info.bytes, info.hash)
        assert pl.read_parquet(stored).height == info.rows
        kind = stored.name.split("-")[0]
        table_contract(kind).validate(pl.read_parquet(stored), stored)
    assert set(table_infos(opened.store, opened.id)) == {name for name in after if name.endswith("parquet")} - set(
        before
    )
    assert opened.protocol_pairs(chosen, "test").equals(computed[0])
    assert opened.nearest(chosen, "test").equals(computed[1])
    assert opened.answerable(chosen, "test") == computed[2]
    windows = pl.read_parquet(own.path / added.tables[f"sequences-nopano-step100m-L{length}-s1.parquet"].path)
    assert windows.equals(opened.sequences(chosen))
    assert set(windows["length"]) == {length}


def list_again(dataset: seqdata.Dataset, protocol: Protocol, info: TableInfo) -> None:
    """Put an added table's present size, hash and rows into the list of a protocol's tables."""
    listed = dataset.path / "added" / dataset.id[:12] / f"{protocol.hash}.json"
    content = json.loads(listed.read_text())
    measured = TableInfo.measure(info.path, dataset.path / info.path)
    content["tables"][Path(info.path).name] = measured.model_dump(mode="json")
    listed.write_text(json.dumps(content))


def test_stored_pairs_are_really_read(own: Any) -> None:
    chosen = own.load_protocol("own-L10")
    info = next(info for name, info in own.add_tables(chosen).tables.items() if name.startswith("positives"))
    path = own.path / info.path
    metadata = {"radius": "25.0"}
    shrunk = pl.read_parquet(path).head(3)
    shrunk.write_parquet(path, metadata=metadata)
    list_again(own, chosen, info)
    assert own.protocol_pairs(chosen, "test").height == 3
    # Farther than the stored pairs reach it is computed.
    assert own.protocol_pairs(chosen, "test", 26.0).height > 3


def test_a_greater_radius_is_kept_beside_and_a_smaller_one_adds_nothing(own: Any) -> None:
    chosen = own.load_protocol("own-L10")
    first = own.add_tables(chosen)
    wide = own.add_tables(chosen, 60.0)
    stem = positives_name(chosen, "test").removesuffix(".parquet")
    assert set(wide.tables) - set(first.tables) == {f"{stem}@60.parquet"}
    assert own.add_tables(chosen, 40.0) == wide
    path = own.path / wide.tables[f"{stem}@60.parquet"].path
    assert reach(path, chosen, "test") == 60.0
    for radius in (5.0, 25.0, 60.0, 90.0):
        query, database = (own.sequences(chosen, "test", role) for role in ("query", "database"))
        computed = own.positives(query, database, radius)
        assert own.protocol_pairs(chosen, "test", radius).equals(computed)
        assert own.protocol_positives(chosen, "test", radius).equals(computed)
        last = own.positives(query, database, radius, "last")
        assert own.protocol_positives(chosen, "test", radius, "last").equals(last)
    assert pl.read_parquet(path)["min_distance"].max() > 25.0


def cut_track(dataset: seqdata.Dataset, key: str) -> pl.DataFrame:
    """The track table as it is computed where none is stored."""
    frames = dataset.frame_columns(*GEOMETRY_COLUMNS)
    settings = dataset.manifest.settings
    return Sequencer(frames, settings.resample_rule, settings.resample_metres).track(key)


def test_a_stored_track_of_another_spacing_is_read_and_equals_the_cut(own: Any, monkeypatch: Any) -> None:
    spaced = own.load_protocol("own").variant(length=3, spacing=3.0)
    key = TrackPolicy.from_protocol(spaced).key
    track, windows = cut_track(own, key), own.sequences(spaced)
    own.add_tables(spaced)
    monkeypatch.setattr(Sequencer, "_cut_track", lambda *_, **__: pytest.fail("the track was computed"))
    opened = seqdata.open(own.path)
    assert opened.sequencer.track(key).equals(track)
    assert opened.sequences(spaced).equals(windows)
    assert windows.height


def test_a_lost_track_is_computed_and_written_again(own: Any) -> None:
    spaced = own.load_protocol("own").variant(spacing=3.0)
    key = TrackPolicy.from_protocol(spaced).key
    path = own.path / own.add_tables(spaced).tables[track_name(key)].path
    path.unlink()
    opened = seqdata.open(own.path)
    opened.add_tables(spaced)
    assert pl.read_parquet(path).equals(cut_track(own, key))


def test_a_stored_track_of_frames_that_are_not_there_is_refused(own: Any) -> None:
    spaced = own.load_protocol("own").variant(spacing=3.0)
    key = TrackPolicy.from_protocol(spaced).key
    info = own.add_tables(spaced).tables[track_name(key)]
    path = own.path / info.path
    frames = own.manifest.counts.frames
    pl.read_parquet(path).with_columns(pl.lit(frames, pl.Int32).alias("frame")).write_parquet(path)
    list_again(own, spaced, info)
    with pytest.raises(ContractError, match=f"frames beyond the {frames}"):
        seqdata.open(own.path).sequences(spaced)


def test_the_datasets_own_tables_are_not_added_again(own: Any) -> None:
    protocol = own.manifest.protocol
    assert own.add_tables(protocol).tables == {}
    assert reach(own.path / positives_name(protocol, "test"), protocol, "test") == MAX_RADIUS
    assert nearest_name(protocol, "test") in own.manifest.tables
    assert list(own.add_tables(protocol, 30.0).tables) == [positives_name(protocol, "test")[:-8] + "@30.parquet"]


def test_what_is_there_is_not_written_again_and_what_is_lost_is(own: Any) -> None:
    chosen = own.load_protocol("own-L10")
    added = own.add_tables(chosen)
    paths = [own.path / info.path for info in added.tables.values()]
    for path in paths:
        os.utime(path, ns=(1, 1))
    assert own.add_tables(chosen) == added
    assert {path.stat().st_mtime_ns for path in paths} == {1}
    paths[0].unlink()
    assert own.add_tables(chosen) == added
    assert paths[0].stat().st_mtime_ns > 1


def test_tables_added_to_another_dataset_are_not_used(own: Any, tmp_path: Path) -> None:
    chosen = own.load_protocol("own-L10")
    own.add_tables(chosen)
    shutil.copytree(FIXTURE, tmp_path / "old")
    shutil.copytree(own.path / "added", tmp_path / "old" / "added")
    old = seqdata.open(tmp_path / "old")
    assert old.id != own.id
    assert read_added(old.store, old.id, chosen).tables == {}
    assert table_infos(old.store, old.id) == {}


def test_a_dataset_of_the_first_release_reads_its_pairs_and_takes_tables(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "old")
    old = seqdata.open(tmp_path / "old")
    protocol = old.manifest.protocol
    assert reach(old.path / positives_name(protocol, "test"), protocol, "test") == 25.0
    assert old.protocol_pairs(protocol, "test").height == 40
    assert old.nearest("own", "test").height == old.sequences("own", "test", "query").height
    old.add_tables(protocol.variant(length=3), 50.0)
    assert seqdata.open(old.path).id == old.id


def test_a_damaged_list_is_named(own: Any) -> None:
    chosen = own.load_protocol("own-L10")
    own.add_tables(chosen)
    listed = own.path / "added" / own.id[:12] / f"{chosen.hash}.json"
    listed.write_text(json.dumps({**json.loads(listed.read_text()), "kind": "dataset"}))
    with pytest.raises(ContractError, match=rf"{chosen.hash}.json: field 'kind'.*run seqdata sequences"):
        own.protocol_pairs(chosen, "test")


def test_the_build_stores_pairs_as_far_as_it_is_told(drives: Any, tmp_path: Path) -> None:
    request = BuildRequest(
        "folder", drives, tmp_path / "wide", settings=BuildSettings(max_radius=40.0), protocol=protocols.load("own")
    )
    build(request)
    wide = seqdata.open(tmp_path / "wide")
    path = wide.path / positives_name(wide.manifest.protocol, "test")
    assert reach(path, wide.manifest.protocol, "test") == 40.0
    assert 25.0 < pl.read_parquet(path)["min_distance"].max() < 40.0
    assert wide.protocol_pairs(wide.manifest.protocol, "test")["min_distance"].max() < 25.0


def test_windows_of_any_spacing_policy_and_edges_come_from_one_build(own: Any) -> None:
    counts = [own.sequences(length=5, spacing=spacing, role="database").height for spacing in (None, 1.0, 2.0, 5.0)]
    assert counts == [36, 36, 36, 16]
    assert own.sequences(length=5, max_step=2.0).height == 0
    assert own.sequences(length=5, edges="shift", role="query").height == 30
    assert own.sequences(length=5, panoramas="keep")["track"].unique().to_list() == ["all"]


def test_counts_with_and_without_a_heading_limit(own: Any) -> None:
    backwards = own.load_protocol("own").model_copy(update={"heading_max": 45.0})
    frames = own.sequencer.frames.with_columns(
        pl.when(pl.col("role") == "query")
        .then((pl.col("heading") + 180) % 360)
        .otherwise(pl.col("heading"))
        .alias("heading")
    )
    own.__dict__["sequencer"] = Sequencer(frames)
    counts = protocol_counts(own, backwards)["splits"]["test"]
    assert (counts["without_positive"], counts["without_positive_any_heading"]) == (26, 0)
    assert "without_positive_any_heading" not in protocol_counts(own, own.load_protocol("own"))["splits"]["test"]


def test_images_are_counted_before_panoramas_are_dropped_in_all_and_by_city(own: Any) -> None:
    frames = own.sequencer.frames.with_columns(panorama=pl.int_range(pl.len()) % 3 == 0)
    own.__dict__["sequencer"] = Sequencer(frames)
    is_database = frames["role"] == "database"
    city, count = frames.filter(is_database)["city"].value_counts().sort("city").row(0)
    expected = {"test": {"database_images": 1, f"database_images_{city}": count, "database_images_nowhere": 0}}
    changed = own.load_protocol("own").model_copy(update={"expected_counts": expected, "splits": {"test": Split()}})
    counts = protocol_counts(own, changed)["splits"]["test"]
    assert (counts["database_images"], counts[f"database_images_{city}"]) == (int(is_database.sum()), count)
    assert counts["differs_from_expected"] == ["database_images"]


def test_a_build_takes_its_protocols_rule_and_one_under_another_rule_ends_before_it_begins(
    drives: Any, tmp_path: Path
) -> None:
    arc = protocols.load("own").model_copy(update={"spacing": 2.0, "spacing_rule": "arc"})
    greedy = BuildSettings(resample_rule="greedy")
    with pytest.raises(InputError, match="wants --rule arc for its spacing, not greedy: give --rule arc"):
        build(BuildRequest("folder", drives, tmp_path / "out", settings=greedy, protocol=arc))
    assert not (tmp_path / "out" / "shards").exists()
    built = build(BuildRequest("folder", drives, tmp_path / "out", protocol=arc))
    assert built.settings.resample_rule == "arc"


def program() -> typer.Typer:
    app = typer.Typer()
    app.command("sequences")(commands.sequences)
    app.command("protocols")(commands.protocols)
    app.command("leakage")(leakage_command)
    return app


def run(*arguments: str) -> Any:
    return CliRunner().invoke(program(), list(arguments))


def test_the_commands(own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("sequences", str(own.path), "--length", "10", "--length", "15", "--max-radius", "30", "--json")
    assert done.exit_code == 0
    made = json.loads(done.stdout)["protocols"]
    assert [label.split("@")[0] for label in made] == ["own-L10", "own-L15"]
    assert all(len(entry["tables"]) == 3 for entry in made.values())
    assert "own-L10" in run("sequences", str(own.path), "--length", "10").stdout
    listed = run("protocols").stdout
    assert all(name in listed for name in protocols.names())
    shown = run("protocols", "show", "oxford1-sta", "--json").stdout
    assert json.loads(shown)["cut"]["buffer"] == 25.0
    assert "radius = 25.0" in run("protocols", "own").stdout
    for wrong in (
        ("protocols", "show"),
        ("protocols", "own", "own"),
        ("sequences", str(own.path), "--max-radius", "-1"),
    ):
        assert isinstance(run(*wrong).exception, ContractError)
    cut = tmp_path / "cut.toml"
    cut.write_text(
        'name = "cut"\nsource = "folder"\nlength = 3\n[splits.train]\ndatabase = ["map"]\nquery = []\n'
        '[splits.test]\ndatabase = []\nquery = ["query"]\n'
    )
    told = json.loads(run("leakage", str(own.path), "--protocol", str(cut), "--radius", "10", "--json").stdout)
    assert told["sentences"] == [
        "test shares its route with train: 100.0% of its query frames lie within 10 m of a training frame"
    ]
    assert "nearest" in run("leakage", str(own.path), "--protocol", str(cut)).stdout
