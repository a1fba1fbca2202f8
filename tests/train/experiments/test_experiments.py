"""Experiments: every row can be built, cells are kept and taken up, failures keep their reason, forms agree."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

import seqdata
from cli.flags import command_line
from cli.training.experiment import experiment
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.toml_files import read_toml
from seqdata.errors import ContractError, Interrupted, MissingDependencyError, OutputError
from tests.conftest import write_drives
from train.experiments import grid
from train.experiments.measure import measures, scale
from train.experiments.measure.artifacts import frames_of
from train.experiments.measure.cells import CellStore, key_of
from train.experiments.measure.counts import Count
from train.experiments.measure.targets import Missing, bind, narrowed, protocol_toml
from train.experiments.measure.views import Backward, SharedCentres, shared_centres
from train.experiments.run import Request, run
from train.experiments.table import formats as forms
from train.experiments.table import page, results, table
from train.models import registry as models
from train.models.card import card
from train.profiling import matching as match_profiling
from train.settings import TrainSettings

TINY = """
name = "tiny"
source = "folder"
length = 5
radius = 5.0
[train]
positive_radius = 5.0
negative_radius = 15.0
[splits.train]
database = ["map-a"]
query = ["query-a"]
[splits.val]
database = ["map-b"]
query = ["query-b"]
[splits.test]
database = ["map-b"]
query = ["query-b"]
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A dataset of two pairs of drives, its protocol its own."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.toml").write_text(TINY)
    raw = write_drives(folder / "raw", {"map-a": 45, "query-a": 20, "map-b": 30, "query-b": 22})
    build(BuildRequest("folder", raw, folder / "dataset", protocol=protocols.load(folder / "tiny.toml")))
    return seqdata.open(folder / "dataset")


@pytest.fixture(scope="module")
def two_cities(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As `tiny`, with another pair of drives in its training split, in another city."""
    folder = tmp_path_factory.mktemp("cities")
    more = TINY.replace('["map-a"]', '["map-a", "map-c"]').replace('["query-a"]', '["query-a", "query-c"]')
    (folder / "tiny.toml").write_text(more)
    drives = {"map-a": 45, "query-a": 20, "map-b": 30, "query-b": 22, "map-c": 20, "query-c": 15}
    positions = write_drives(folder / "raw", drives) / "positions.csv"
    head, *rows = positions.read_text().splitlines()
    cities = [f"{row},{'south' if '-c,' in row else 'north'}" for row in rows]
    positions.write_text("\n".join([f"{head},city", *cities]) + "\n")
    protocol = protocols.load(folder / "tiny.toml")
    build(BuildRequest("folder", positions.parent, folder / "dataset", protocol=protocol))
    return seqdata.open(folder / "dataset")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder that the module's runs share."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="module")
def smoke_shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder that runs on `two_cities` share."""
    return tmp_path_factory.mktemp("smoke")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scale.SMALL_TRAINING, "round_queries", 4)
    monkeypatch.setitem(scale.SMALL_TRAINING, "kmeans_frames", 10)
    monkeypatch.setattr(scale, "SMALL_PCA", 16)


def request_of(tiny: Any, out: Any, name: Any = "seqvlad-table3", only: Any = ("gem-cat-r18",), **fields: Any) -> Any:
    return Request(name, out, [tiny], "smoke", only, device="cpu", **fields)


@pytest.mark.parametrize("name", grid.names())
def test_every_grid_names_rows_and_protocols_that_are_there(name: str) -> None:
    found = grid.load(name)
    assert set(found.protocols) <= set(protocols.names())
    for row in found.rows:
        if found.kind == "matching":
            assert grid.engine(row)[0] in match_profiling.ENGINES
            continue
        if found.kind == "counts":
            assert found.subjects[row].protocol in found.protocols
            continue
        method = grid.method(row)
        assert method.backbone is None or method.backbone in grid.backbones()
    of_mereu = ("figure4", "figure5", "matching", "one-city", "table1", "table2", "table3", "table4")
    of_zhang = ("ablations", "table1", "table2", "table3")
    assert grid.names() == [*(f"seqvlad-{n}" for n in of_mereu), *(f"sta-{n}" for n in of_zhang)]


def test_earlier_names_of_experiments_are_aliases() -> None:
    for earlier, name in (("p1-figure4", "seqvlad-figure4"), ("p2-ablations", "sta-ablations")):
        assert grid.load(earlier) == grid.load(name)
    with pytest.raises(ContractError, match="no experiment 'p1-table9'; there are seqvlad-figure4"):
        grid.load("p1-table9")


@pytest.mark.parametrize("size", ["full", "smoke"])
@pytest.mark.parametrize("name", grid.methods())
def test_every_row_resolves_to_a_preset_with_valid_options_and_a_recipe(name: str, size: Any) -> None:
    method = grid.method(name)
    found = scale.resolve(method, size)
    for recipe, settings in ((found.recipe, found.settings), ("seqvlad-triplet", found.base)):
        if settings is None:
            continue
        chosen = TrainSettings.create(recipe, **settings, protocol="own")
        models.resolve(chosen.model, chosen.options)
        assert chosen.epochs == (0 if method.epochs == 0 or settings is found.base else chosen.epochs)
    assert method.model in models.names()
    assert found.inputs() != scale.resolve(method, size, seed=1).inputs()
    if size == "full":
        weights = (found.base or found.settings)["weights"]
        assert weights == "pretrained" and found.pca in (None, 4096) and found.frames in (None, 4096)


def test_full_scale_models_have_the_sizes_that_the_papers_give() -> None:
    """Each is built without values and run once on the meta device: the largest would take five gigabytes."""
    sizes = {
        "gem-cat-r18": 1280, "gem-cat-r50": 5120, "netvlad-cat-r18": 16384 * 5, "netvlad-cat-r50": 65536 * 5,
        "cls-cat-vit": 768 * 5, "seqpool-cat-cct384": 384 * 5, "cls-fc-vit": 4096, "netvlad-fc-r50": 4096,
        "seqvlad-cct384": 24576, "r2plus1d-r50": 1024, "timesformer": 768, "sta": 24576,
    }  # fmt: skip
    for name, size in sizes.items():
        settings = scale.resolve(grid.method(name), "full").settings
        assert card(settings["model"], 5, **settings["options"])["descriptor"] == size, name


def test_cells_are_kept_taken_up_after_a_kill_and_made_again_when_inputs_change(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(line: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request_of(tiny, tmp_path), note=die)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "cells").iterdir()}
    assert len(kept) == 1
    told = []
    whole = run(request_of(tiny, tmp_path), note=told.append)
    assert whole.computed == 1 and len(told) == 1 and told[0].startswith("gem-cat-r18, Back.")
    assert (tmp_path / "cells" / next(iter(kept))).read_bytes() == next(iter(kept.values()))
    again = run(request_of(tiny, tmp_path))
    assert again.computed == 0 and again.cells == whole.cells
    assert len(list((tmp_path / "runs").iterdir())) == 1
    cell = whole.cells["gem-cat-r18"][0]
    assert (cell.protocol, cell.queries, cell.left_out, cell.database) == (
        tiny.manifest.protocol.label, 18, 0, 26,
    )  # fmt: skip
    assert 0 <= cell.values["r1"].interval[0] <= cell.values["r1"].value <= cell.values["r1"].interval[1] <= 1
    assert cell.facts["dimension"] == 128 * 5 and cell.facts["memory"] > 1e6
    (tmp_path / "cells" / f"{cell.key}.json").write_text("{")
    assert run(request_of(tiny, tmp_path)).computed == 1
    monkeypatch.setattr(measures, "recalls", lambda *arguments: {})
    assert run(request_of(tiny, tmp_path)).computed == 0
    assert run(request_of(tiny, tmp_path, seed=1)).computed == 2


@pytest.mark.parametrize(
    ("error", "ends"),
    [(Interrupted("stop"), True), (OutputError("full"), True), (RuntimeError("two\nlines"), False)],
)
def test_an_interruption_or_a_full_disk_ends_the_grid_any_other_error_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, ends: Any
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("train.experiments.measure.measures.matching", fail)
    request = Request("seqvlad-matching", tmp_path, (), "smoke", ("flat",), device="cpu")
    if ends:
        with pytest.raises(type(error)):
            run(request)
        assert not (tmp_path / "cells").exists()
    else:
        assert {cell.reason for cell in run(request).cells["flat"]} == {"RuntimeError: two lines"}
        assert run(request).computed == 4


@pytest.fixture(scope="module")
def mixed(tiny: Any, shelf: Any) -> Any:
    """One cell that cannot be, one that can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(scale.SMALL_TRAINING, "round_queries", 4)
        return run(request_of(tiny, shelf, "seqvlad-one-city"))


def test_a_cell_that_cannot_be_stays_empty_with_its_reason_and_the_grid_goes_on(
    mixed: Any, tiny: Any, shelf: Any
) -> None:
    first, second = mixed.cells["gem-cat-r18"]
    assert first.reason.startswith("NotEnoughDataError: protocol tiny: its train split has 1 city") and not first.values
    assert second.reason is None and second.values["r1"].interval
    assert CellStore(shelf / "cells").read(first.key) is None and mixed.computed == 1
    assert CellStore(shelf / "cells").read(second.key) == second


def test_weights_that_are_not_there_are_named_and_never_replaced_by_random_ones(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    found = run(request_of(tiny, tmp_path, "sta-ablations", ("both-none",), weights=str(tmp_path / "weights")))
    (cell,) = found.cells["both-none"]
    assert cell.reason.startswith("MissingDependencyError: no weights of resnet18 in")
    assert not (tmp_path / "runs").exists()
    assert "--weights random" in forms.to_text(table.make_table(found))
    (tmp_path / "weights" / "resnet18-old.pth").write_bytes(b"1")
    assert scale.find_weights("resnet18", str(tmp_path / "weights"), True).endswith("resnet18-old.pth")
    assert scale.find_weights("resnet18.tv_in1k", str(tmp_path / "weights"), True).endswith("resnet18-old.pth")
    for tag in ("orig_in21k", "orig_in21k_ft_in1k"):
        (tmp_path / "weights" / f"vit_base_patch16_224.{tag}.pth").write_bytes(b"1")
        tagged = scale.find_weights(f"vit_base_patch16_224.{tag}", str(tmp_path / "weights"), True)
        assert Path(tagged).name == f"vit_base_patch16_224.{tag}.pth"
    (tmp_path / "weights" / "resnet18.safetensors").write_bytes(b"2")
    with pytest.raises(ContractError, match="2 files of resnet18"):
        scale.find_weights("resnet18", str(tmp_path / "weights"), True)
    with pytest.raises(MissingDependencyError, match=r"vgg16\.safetensors"):
        scale.find_weights("vgg16", str(tmp_path / "weights"), False)
    with pytest.raises(ContractError, match="no such folder"):
        scale.find_weights("vgg16", "nowhere", False)


def test_the_four_forms_hold_the_same_numbers_counts_and_reasons(mixed: Any, tiny: Any) -> None:
    made = table.make_table(mixed)
    line = made.lines[0]
    assert [entry.mark for entry in line.entries] == ["a", "", "a"]
    number = mixed.cells["gem-cat-r18"][1].values["r1"]
    shown = [f"{100 * value:.1f}" for value in (number.value, *number.interval)]
    row = next(csv.DictReader(io.StringIO(forms.to_csv(made))))
    assert [row[f"All cities R@1{end}"] for end in ("", " low", " high")] == shown
    assert row["One city R@1"] == "" and row["reasons"].startswith("One city: NotEnoughDataError")
    assert [row[f"All cities {word}"] for word in ("protocol", "queries", "left out", "database")] == [
        mixed.cells["gem-cat-r18"][1].protocol, "18", "0", "26",
    ]  # fmt: skip
    written = f"{shown[0]} [{shown[1]}, {shown[2]}]"
    markdown = next(text for text in forms.to_markdown(made).splitlines() if "GeM" in text)
    assert [cell.strip() for cell in markdown.strip("|").split("|")][-3:] == ["– (a)", written, "– (a)"]
    html = page.to_html(mixed)
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    assert re.findall(r"<b>(.*?)</b>", body) == [shown[0]]
    assert f"{shown[1]} – {shown[2]}" in body and "(a)" in body
    text = forms.to_text(made, 100)
    for form in (text, forms.to_markdown(made).replace("\\", ""), html):
        assert "18 queries counted, 0 left out, 26 database windows" in form
        assert "tiny@" in form and "its train split has 1 city" in form and "smoke scale" in form.lower()
        assert "Seed 0; first weights: random." in form and tiny.id[:12] in form and "none is the paper" in form
    assert row["seed"] == "0"
    assert written in text and "http" not in html.replace("http-equiv", "")


def test_wide_tables_are_broken_into_blocks_that_all_name_the_rows(mixed: Any) -> None:
    made = table.make_table(mixed)
    narrow = forms.to_text(made, 50).splitlines()
    assert sum("GeM + CAT" in line for line in narrow) == 3
    assert max(len(line) for line in narrow if "GeM + CAT" in line) <= 70


def test_files_are_written_and_json_holds_every_cell(mixed: Any) -> None:
    files = results.write(mixed, table.make_table(mixed))
    assert [path.suffix for path in files] == [".md", ".csv", ".html", ".json"]
    stored = json.loads(files[-1].read_text())
    assert stored["scale"] == "smoke" and len(stored["rows"]["gem-cat-r18"]) == 2


def test_rows_that_are_not_asked_for_keep_what_was_measured_and_say_so_where_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.experiments.run.DIMENSIONS", {"smoke": 16})
    measure = measures.matching

    def fail(engine: Any, *sizes: Any) -> Any:
        return measure(engine, *sizes) if engine == "flat" else (_ for _ in ()).throw(ContractError("broken"))

    monkeypatch.setattr(measures, "matching", fail)

    def written(*only: Any, seed: Any = 0) -> Any:
        found = run(Request("seqvlad-matching", tmp_path, (), "smoke", only, device="cpu", seed=seed))
        files = results.write(found, table.make_table(found))
        return found, list(csv.DictReader(io.StringIO(files[1].read_text()))), json.loads(files[3].read_text())

    first = written("flat")[0].cells["flat"]
    written("imi")
    found, lines, stored = written("aligned-15")
    assert found.cells["flat"] == first and found.computed == 4
    assert [line["row"] for line in lines] == list(grid.load("seqvlad-matching").rows)
    assert set(stored["rows"]) == set(grid.load("seqvlad-matching").rows)
    told = {line["row"]: line["500 vectors ms a query"] or line["reasons"].split("; ")[0] for line in lines}
    assert (
        float(told.pop("flat")) > 0
        and told.pop("imi") == told.pop("aligned-15") == "500 vectors: ContractError: broken"
    )
    assert set(told.values()) == {"500 vectors: not run (--only)"} and len(told) == 7
    assert len(list((tmp_path / "cells").iterdir())) == 3 * 4
    assert {cell.reason for cell in written("imi", seed=1)[0].cells["flat"]} == {"not run (--only)"}


OF_THE_PAPERS = re.compile("msls|nordland|robotcar|oxford|melbourne|amman|boston|copenhagen|cph|san francisco|sf", re.I)


@pytest.mark.parametrize("name", grid.names())
def test_titles_and_columns_name_a_dataset_only_where_it_is_the_one_given(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise ContractError("not now")

    for kind in ("recalls", "extraction", "matching"):
        monkeypatch.setattr(measures, kind, fail)
    monkeypatch.setattr(Count, "measure", fail)
    found = run(Request(name, tmp_path, [tiny], "smoke", device="cpu"))
    made = table.make_table(found)
    for words in (made.title, *made.groups, *found.grid.notes):
        assert not OF_THE_PAPERS.search(words), words
    if found.grid.protocols and found.grid.kind == "recall":
        papers = run(Request(name, tmp_path, [tiny], "smoke", device="cpu", protocol=found.grid.protocols[0]))
        assert papers.title == found.grid.title and papers.labels == tuple(each.label for each in found.grid.groups)
    assert {entry.mark for line in made.lines for entry in line.entries} <= set(made.footnotes)


SMOKE = {
    "seqvlad-figure4": "gem-cat-r18",
    "seqvlad-figure5": "seqvlad-pca-r18",
    "seqvlad-matching": "fp16",
    "seqvlad-one-city": "gem-cat-r18",
    "seqvlad-table1": "tiny-5",
    "seqvlad-table2": "gem-cat-r18",
    "seqvlad-table3": "gem-cat-r18",
    "seqvlad-table4": "gem-cat-r18",
    "sta-ablations": "both-relative",
    "sta-table1": "tiny-test",
    "sta-table2": "netvlad-seqmatch",
    "sta-table3": "netvlad-vgg16",
}


@pytest.mark.parametrize("name", grid.names())
def test_every_grid_fills_a_row_on_small_data(two_cities: Any, smoke_shelf: Any, name: str) -> None:
    found = run(request_of(two_cities, smoke_shelf, name, (SMOKE[name],)))
    made = table.make_table(found)
    line = next(line for line in made.lines if line.name == SMOKE[name])
    assert [cell.reason for cell in found.cells[SMOKE[name]]] == [None] * len(found.labels)
    assert all(entry.text not in ("", table.EMPTY) and not entry.mark for entry in line.entries)
    if found.grid.kind == "recall":
        assert all(entry.low and entry.high for entry in line.entries[: len(found.labels)])
        assert {len(under) for under in line.under} == {4} and all("@" in under[0] for under in line.under)
    if name == "seqvlad-table4":
        fixed = [cell.queries + cell.left_out for cell in found.cells[SMOKE[name]][5:]]
        assert fixed == [22 - 14] * 5
        assert len({cell.queries for cell in found.cells[SMOKE[name]][5:]}) == 1


@pytest.mark.parametrize("row", ["seqslam-vgg16", "hvpr-vgg16", "seqmatchnet-vgg16", "delta-vgg16"])
def test_rows_on_stored_frame_vectors_share_them(two_cities: Any, smoke_shelf: Any, row: Any) -> None:
    found = run(request_of(two_cities, smoke_shelf, only=(row,)))
    forward, backward = found.cells[row]
    assert (forward.reason, backward.reason) == (None, None)
    assert len(list((smoke_shelf / "features").iterdir())) == 1
    assert forward.queries == backward.queries == 18 and backward.protocol.startswith("tiny-backward@")


def test_backward_windows_are_the_forward_ones_last_frame_first(tiny: Any) -> None:
    protocol = tiny.manifest.protocol
    view = Backward(tiny, "test")
    forward, turned = (each.sequences(protocol, "test", "database") for each in (tiny, view))
    assert np.array_equal(view.frame_rows(turned), tiny.frame_rows(forward)[:, ::-1])
    assert np.array_equal(turned["centre"], forward["centre"]) and turned.schema == forward.schema
    for split, role in (("test", "query"), ("train", "database")):
        assert view.sequences(protocol, split, role).equals(tiny.sequences(protocol, split, role))
    assert view.protocol_positives(protocol, "test").equals(tiny.protocol_positives(protocol, "test"))


def test_shared_centres_give_the_same_queries_and_the_same_truth_at_every_length(tiny: Any) -> None:
    base = tiny.manifest.protocol
    view = SharedCentres(tiny, "test", 9)
    seen = []
    for length in (1, 4, 5, 9):
        judged = shared_centres(base.variant(length=length), 9)
        query, database = (view.sequences(judged, "test", role) for role in ("query", "database"))
        pairs = view.protocol_positives(judged, "test").select("query", "database").sort("query", "database")
        centres = [query["centre"].to_list(), database["centre"].to_list()]
        seen.append((*centres, pairs.rows()))
        east = tiny.frame_columns("easting", "northing").to_numpy()
        apart = np.linalg.norm(east[centres[0]][:, None] - east[centres[1]][None], axis=-1)
        assert pairs.rows() == [tuple(map(int, pair)) for pair in np.argwhere(apart < 5.0)]
    assert all(each == seen[0] for each in seen) and len(seen[0][0]) == 22 - 8


def test_groups_of_the_paper_where_the_dataset_is_the_papers_else_its_own(tiny: Any) -> None:
    found = bind(grid.load("seqvlad-table2"), [tiny], "msls-seqvlad")
    assert [each.label for each in found][:2] == ["Train on Melbourne", "Train on MSLS"]
    assert isinstance(found[2], Missing) and found[2].reason == "no robotcar dataset given"
    assert found[0].trained.name == "msls-seqvlad-melbourne"
    (own,) = bind(grid.load("seqvlad-table2"), [tiny])
    assert own.tested.hash == tiny.manifest.protocol.hash
    city = bind(grid.load("sta-table2"), [tiny], "msls-sta")
    assert [each.tested.splits["test"].cities for each in city] == [("amman",), ("boston",), ("sf",), ("cph",)]
    assert len({each.tested.hash for each in city}) == 4 and len({each.trained.hash for each in city}) == 1


class Cities:
    """As much of a dataset as binding looks at: windows by city."""

    location = "cities"

    def __init__(self, **windows: Any) -> None:
        self.names = [city for city, count in windows.items() for _ in range(count)]

    def load_protocol(self, name: Any) -> Any:
        return protocols.load(name)

    def sequences(self, protocol: Any, split: Any, role: Any) -> Any:
        return pl.DataFrame({"city": self.names})


def test_each_test_city_has_columns_of_its_own_and_the_largest_training_city_is_found() -> None:
    each = bind(grid.load("sta-table2"), [Cities(b=3, a=5)], "own")
    assert [(one.label, one.tested.splits["test"].cities) for one in each] == [("a", ("a",)), ("b", ("b",))]
    largest, whole = bind(grid.load("seqvlad-one-city"), [Cities(b=3, a=5)], "msls-sta")
    assert largest.trained.splits["train"].cities == largest.tested.splits["train"].cities == ("a",)
    assert whole.trained.hash == protocols.load("msls-sta").hash
    mixture = [Cities(a=1), Cities(b=1)]
    mixture[1].location, mixture[1].load_protocol = "other", lambda name: protocols.load("own")
    with pytest.raises(ContractError, match=r"other: protocol own is no column of Mereu et al\..*, Table II"):
        bind(grid.load("seqvlad-table2"), mixture, "msls-seqvlad")


@pytest.mark.parametrize("name", protocols.names())
def test_a_protocol_made_here_is_read_back_from_its_file(name: str, tmp_path: Path) -> None:
    made = narrowed(protocols.load(name), next(iter(protocols.load(name).splits)), "a city")
    (tmp_path / "p.toml").write_text(protocol_toml(made))
    assert protocols.load(tmp_path / "p.toml").hash == made.hash
    assert read_toml(tmp_path / "p.toml")["name"] == made.name


def test_the_key_changes_with_every_input() -> None:
    inputs = {"dataset": "a", "method": {"pca": 4096, "models": [{"lr": 1e-5}]}}
    keys = {
        key_of(inputs),
        key_of({**inputs, "dataset": "b"}),
        key_of({**inputs, "method": {"pca": None, "models": [{"lr": 1e-5}]}}),
        key_of({**inputs, "method": {"pca": 4096, "models": [{"lr": 1e-4}]}}),
    }
    assert len(keys) == 4 and key_of(dict(reversed(inputs.items()))) in keys


def test_weights_count_by_their_bytes(tmp_path: Path) -> None:
    for name, data in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (scale.weights_id(str(tmp_path / name)) for name in ("a.pth", "b.pth", "c.pth"))
    assert a == b != c and scale.weights_id("random") == "random"


def test_frame_vectors_are_of_the_frames_that_the_protocol_uses(tiny: Any) -> None:
    rows = frames_of(tiny, tiny.manifest.protocol)
    assert np.array_equal(rows, np.arange(45 + 20 + 30 + 22))
    fewer = tiny.manifest.protocol.model_copy(update={"splits": {"test": tiny.manifest.protocol.splits["test"]}})
    frames = tiny.frames.select("trajectory").collect()["trajectory"]
    assert set(frames.gather(pl.Series(frames_of(tiny, fewer)))) == {"map-b", "query-b"}


def test_matching_and_extraction_need_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.experiments.run.DIMENSIONS", {"smoke": 16})
    found = run(Request("seqvlad-matching", tmp_path, (), "smoke", ("flat", "imi"), device="cpu"))
    assert found.labels[0] == "500 vectors" and found.cells["flat"][0].values["agreement"].value == 1.0
    assert found.cells["imi"][0].facts["factory"] == "IMI2x3,Flat"
    timed = run(Request("seqvlad-figure5", tmp_path, (), "smoke", ("seqvlad-pca-cct224",), device="cpu"))
    cell = timed.cells["seqvlad-pca-cct224"][0]
    assert 0 < cell.values["fusion"].value < cell.values["p50"].value <= cell.values["p95"].value
    assert "<svg" in page.to_html(timed)
    with pytest.raises(ContractError, match="needs a dataset"):
        run(Request("seqvlad-table2", tmp_path))


def test_the_command_lists_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    # The function alone, so nobody says what was typed: not what the command of an earlier test was.
    monkeypatch.setattr(command_line, "typed", {})
    app = typer.Typer()
    app.command()(experiment)
    listed = CliRunner().invoke(app, [])
    assert (
        listed.exit_code == 0
        and "seqvlad-table2" in listed.stdout
        and "Zhang et al., Learning Sequence Descriptor" in listed.stdout
    )
    assert isinstance(CliRunner().invoke(app, ["seqvlad-table2", "--scale", "tiny"]).exception, ContractError)
    assert isinstance(CliRunner().invoke(app, ["seqvlad-table9"]).exception, ContractError)
    with pytest.raises(ContractError, match="no row 'x'"):
        run(Request("seqvlad-matching", seqdata.__file__, (), "smoke", ("x",)))
