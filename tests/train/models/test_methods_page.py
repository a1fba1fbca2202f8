"""docs/methods.md names modules that exist, and every anchor that code or documents refer to."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from train.models.fusion.registry import FUSIONS
from train.models.pooling.registry import POOLINGS
from train.recipes import ALIASES, RECIPES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
ANCHORS = set(re.findall(r'<a id="([a-z0-9-]+)"></a>', PAGE))


def texts() -> dict[Path, str]:
    """Source and documents of the repository."""
    files = [path for floor in ("seqdata", "indexer", "train", "cli", "docs") for path in (ROOT / floor).rglob("*.*")]
    return {p: p.read_text(encoding="utf-8") for p in files if p.suffix in (".py", ".md", ".toml")}


def test_every_module_on_the_page_exists() -> None:
    modules = set(re.findall(r"`((?:seqdata|indexer|train)(?:\.[a-z_0-9]+)+)`", PAGE))
    assert len(modules) > 30 and [name for name in sorted(modules) if find_spec(name) is None] == []


def test_every_reference_has_its_anchor() -> None:
    references = {
        (str(path.relative_to(ROOT)), anchor)
        for path, text in texts().items()
        for anchor in re.findall(r"methods\.md#([a-z0-9-]+)", text)
    }
    assert len(references) > 5 and [entry for entry in sorted(references) if entry[1] not in ANCHORS] == []


@pytest.mark.parametrize("room", ["train/models", "train/losses", "train/recipes.py", "train/settings.py"])
def test_papers_are_cited_by_title(room: str) -> None:
    """Neither a paper's private number nor a document that no reader has."""
    for path, text in texts().items():
        if str(path.relative_to(ROOT)).startswith(room):
            assert not re.search(r"\bP[12]\b|Source: methods|design, idea", text), path


def test_recipes_poolings_and_fusions_stand_on_the_page() -> None:
    assert [name for name in [*RECIPES, *ALIASES] if f"`{name}`" not in PAGE] == []
    models = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in [*POOLINGS, *FUSIONS] if f"`{name}`" not in models] == []
