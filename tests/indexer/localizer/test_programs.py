"""Exported programs from strangers: nothing in them is unpickled, evaluated or called before it was looked through."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.localizer.programs import check_program, load_program
from seqdata.errors import ContractError, InputError

torch.set_num_threads(1)


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x * self.weight, dim=-1)


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "scale.pt2"
    exported = torch.export.export(Scale(), (torch.ones(2, 3),))
    exported.example_inputs = None
    torch.export.save(exported, path)
    return path


def changed(program: Path, out: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> Path:
    """The archive with members changed (None drops one) and others added."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
        for name, data in more.items():
            new.writestr(f"scale/{name}", data)
    return out


def graph(change: Callable[[dict], None]) -> Callable[[str, bytes], bytes]:
    def apply(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return apply


def test_a_program_gives_what_the_module_gives(program: Path) -> None:
    x = torch.rand(2, 3)
    torch.testing.assert_close(load_program(program)(x), Scale()(x))


def test_an_untouched_copy_passes(program: Path, tmp_path: Path) -> None:
    check_program(changed(program, tmp_path / "copy.pt2", lambda _, data: data))


def test_pickles_are_never_opened(program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "trapped"
    trap = io.BytesIO()
    torch.save(Trap(mark), trap)

    def sample(name: str, data: bytes) -> bytes:
        return trap.getvalue() if name.endswith("sample_inputs/model.pt") else data

    def ask(name: str, data: bytes) -> bytes:
        return data.replace(b'"use_pickle": false', b'"use_pickle": true') if name.endswith("config.json") else data

    for number, (change, more) in enumerate(
        [
            (sample, {}),
            (ask, {}),
            (lambda _, data: data, {"data/constants/opaque_obj_0": pickle.dumps(Trap(mark))}),
            (lambda _, data: data, {"data/weights/model.pt": trap.getvalue()}),
        ]
    ):
        path = changed(program, tmp_path / f"{number}.pt2", change, **more)
        assert path.read_bytes() != program.read_bytes()
        with pytest.raises(ContractError, match=f"{number}.pt2"):
            load_program(path)
    assert not mark.exists()
    torch.load(io.BytesIO(trap.getvalue()), weights_only=False)
    assert mark.exists(), "the trap itself must work"


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.load", "torch.ops.load_library", "torch.ops.aten.from_file.default", "math.sqrt",
     "_operator.attrgetter", "#x:y", "torch.ops.aten.add.Tensor.__class__", "__import__('os')", 3],
)  # fmt: skip
def test_calls_outside_the_tensor_operators_are_refused(program: Path, tmp_path: Path, target: object) -> None:
    def point(document: dict) -> None:
        document["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(ContractError, match="no tensor operator"):
        load_program(changed(program, tmp_path / "calls.pt2", graph(point)))


def test_code_in_sizes_and_guards_is_refused(program: Path, tmp_path: Path) -> None:
    def size(document: dict) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        next(iter(values.values()))["sizes"][0] = {"as_expr": {"expr_str": "__import__('os').abort()", "hint": None}}

    def guard(document: dict) -> None:
        document["guards_code"] = ["__import__('os').abort()"]

    for change in (size, guard):
        with pytest.raises(ContractError, match="symbolic sizes or guards"):
            load_program(changed(program, tmp_path / "code.pt2", graph(change)))


def test_two_members_of_one_name_are_refused(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.pt2"
    with pytest.warns(UserWarning, match="Duplicate name"):
        changed(program, path, lambda _, data: data, **{"models/model.json": b"{}"})
    with pytest.raises(ContractError, match="holds 'scale/models/model\\.json'"):
        check_program(path)


def test_what_is_no_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_program(tmp_path / "absent.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(ContractError, match="not an exported program"):
        load_program(tmp_path / "text.pt2")
    with zipfile.ZipFile(tmp_path / "empty.pt2", "w"):
        pass
    with pytest.raises(ContractError, match="not an exported program of PyTorch"):
        load_program(tmp_path / "empty.pt2")


def test_damaged_programs_end_in_a_named_error(program: Path, tmp_path: Path) -> None:
    """Random bytes changed or the end cut off: a named error or, where nothing that counts was hit, a program."""
    whole = program.read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "damaged.pt2"
    refused = 0
    for round_ in range(60):
        data = bytearray(whole)
        if round_ % 3 == 0:
            del data[int(generator.integers(len(data))) :]
        else:
            for place in generator.integers(len(data), size=int(generator.integers(1, 40))):
                data[place] = int(generator.integers(256))
        path.write_bytes(data)
        try:
            load_program(path)
        except ContractError as error:
            assert "damaged.pt2" in str(error)
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20
