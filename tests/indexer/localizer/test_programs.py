"""ONNX files from strangers: looked through by their bytes before ONNX Runtime sees them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from indexer.localizer.programs.onnx_files import check_onnx
from indexer.localizer.programs.session import PROVIDERS, load_program, open_program
from seqdata.errors import ContractError, InputError, MissingDependencyError

OPSET = 20


def scale_model() -> onnx.ModelProto:
    """Y = x · (0, 1, 2), of one array (2, 3)."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [3], [0.0, 1.0, 2.0])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "weight"], ["y"])], "scale", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def model_with(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = scale_model()
    change(model)
    return model.SerializeToString()


def branch(model: onnx.ModelProto, inner: onnx.NodeProto) -> None:
    """Put a node into a graph inside a node."""
    body = helper.make_graph([inner], "body", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    model.graph.node.append(helper.make_node("If", ["x"], ["w"], then_branch=body, else_branch=body))


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


def constant_outside(model: onnx.ModelProto) -> None:
    tensor = TensorProto(dims=[3], data_type=TensorProto.FLOAT)
    tensor.external_data.add(key="location", value="/etc/passwd")
    branch(model, helper.make_node("Constant", [], ["z"], value=tensor))


def function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("mine", "Own", ["a"], ["b"], [node], [helper.make_opsetid("", OPSET)]))


def foreign_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.stranger"


def foreign_inner_node(model: onnx.ModelProto) -> None:
    branch(model, helper.make_node("Run", [], ["z"], domain="com.microsoft"))


def foreign_operators(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def test_a_program_gives_what_its_graph_says(tmp_path: Path) -> None:
    path = tmp_path / "scale.onnx"
    path.write_bytes(scale_model().SerializeToString())
    program = load_program(path, threads=1)
    x = np.random.default_rng(0).random((2, 3), np.float32)
    np.testing.assert_array_equal(program(x), x * np.array([0, 1, 2], np.float32))
    assert program.shape == (2, 3)
    assert check_onnx(path.read_bytes(), path) == OPSET


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (outside, "external data"),
        (constant_outside, "external data"),
        (function, "functions of its own"),
        (foreign_node, "'com.stranger'"),
        (foreign_inner_node, "'com.microsoft'"),
        (foreign_operators, "'com.microsoft'"),
        (lambda model: model.training_info.add(), "training graph"),
    ],
)
def test_what_reaches_beyond_the_standard_is_refused(
    change: Callable[[onnx.ModelProto], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model_with(change))
    with pytest.raises(ContractError, match=reason) as error:
        load_program(path)
    assert "foreign.onnx" in str(error.value)


def test_every_operator_of_a_nested_graph_is_looked_at() -> None:
    """Against onnx's own reader: the standard's operators pass at any depth that models have."""
    data = model_with(lambda model: branch(model, helper.make_node("Constant", [], ["z"], value_float=1.0)))
    assert check_onnx(data, Path("nested.onnx")) == OPSET


def test_what_is_no_onnx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="incomplete"):
        load_program(tmp_path / "absent.onnx")
    for number, data in enumerate(
        (b"", b"hello", b"\x00" * 20, b"\x0b\x08\x01", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
    ):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(data)
        with pytest.raises(ContractError, match=f"{number}.onnx: (not an ONNX file|has a field)"):
            load_program(path)


def test_damaged_programs_end_in_a_named_error(tmp_path: Path) -> None:
    """Random bytes changed or the end cut off: a named error or, where nothing that counts was hit, a program."""
    whole, generator, refused = scale_model().SerializeToString(), np.random.default_rng(0), 0
    path = tmp_path / "damaged.onnx"
    for round_ in range(200):
        data = bytearray(whole)
        if round_ % 3 == 0:
            del data[int(generator.integers(len(data))) :]
        else:
            for place in generator.integers(len(data), size=int(generator.integers(1, 9))):
                data[place] = int(generator.integers(256))
        path.write_bytes(data)
        try:
            load_program(path)
        except ContractError as error:
            assert "damaged.onnx" in str(error)
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


def test_a_provider_that_is_not_installed_is_named_with_those_that_are() -> None:
    data = scale_model().SerializeToString()
    installed = onnxruntime.get_available_providers()
    for device, provider in PROVIDERS.items():
        if provider not in installed:
            with pytest.raises(MissingDependencyError, match=rf"device {device}: .*it has cpu"):
                open_program(data, Path("scale.onnx"), device)
    with pytest.raises(ContractError, match="expected cpu, cuda, tensorrt, openvino, coreml"):
        open_program(data, Path("scale.onnx"), "tpu")


def test_a_program_of_other_ends_is_refused() -> None:
    def no_shape(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"

    def two_outputs(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Neg", ["x"], ["z"]))
        model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3]))

    for change, reason in ((no_shape, "no fixed shape"), (two_outputs, "from one array")):
        with pytest.raises(ContractError, match=reason):
            open_program(model_with(change), Path("scale.onnx"))
