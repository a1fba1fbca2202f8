"""Poolings and fusions against slow, literal versions of their equations."""

import math
from typing import Any

import pytest
import torch

from seqdata.errors import ContractError
from train.models.fusion.basic import CentreFrame, Concatenate, Mean, SeqGeM
from train.models.fusion.temporal import AlignedFrames, Delta, FullyConnected, LastState, SeqNet
from train.models.pooling.basic import ClassToken, GeM, SeqPool
from train.models.pooling.salad import Salad, SaladOptions, transport
from train.models.pooling.vlad import NetVLAD, SeqVLAD


def randn(*shape: Any, seed: Any = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FRAMES = randn(7, 6)
ROWS = torch.tensor([[0, 1, 2, 3], [3, 4, 5, 6], [6, 2, 2, 0]])


def windows(rows: Any = ROWS) -> Any:
    return [[FRAMES[int(row)] for row in window] for window in rows]


def unit(vector: Any) -> Any:
    return vector / math.sqrt(sum(x**2 for x in vector.tolist()))


def assert_rows_close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, torch.stack([torch.as_tensor(row) for row in expected]), atol=1e-5, rtol=1e-4)


def test_fully_connected() -> None:
    layer = FullyConnected(6, 4, 5)
    literal = [
        torch.stack([sum(layer.linear.weight[o] * torch.cat(frames)) + layer.linear.bias[o] for o in range(5)])
        for frames in windows()
    ]
    assert_rows_close(layer.gather(FRAMES, ROWS), literal)
    assert layer.descriptor_size(6, 4) == 5 and layer.length == 4


@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_seqnet(kernel: Any) -> None:
    layer = SeqNet(6, 5, kernel)
    literal = []
    for frames in windows():
        total = torch.zeros(5)
        for start in range(4 - kernel + 1):
            for offset in range(kernel):
                total = total + layer.conv.weight[:, :, offset] @ frames[start + offset]
            total = total + layer.conv.bias
        literal.append(unit(total / (4 - kernel + 1)))
    assert_rows_close(layer.gather(FRAMES, ROWS), literal)


def test_seqnet_refuses_windows_below_its_kernel() -> None:
    with pytest.raises(ContractError, match="kernel of 5"):
        SeqNet(6, 5, 5).gather(FRAMES, ROWS)


def test_lstm() -> None:
    layer = LastState(6, 3)
    p = dict(layer.lstm.named_parameters())
    literal = []
    for frames in windows():
        hidden, cell = torch.zeros(3), torch.zeros(3)
        for frame in frames:
            gates = p["weight_ih_l0"] @ frame + p["bias_ih_l0"] + p["weight_hh_l0"] @ hidden + p["bias_hh_l0"]
            i, f, g, o = gates.chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        literal.append(unit(hidden))
    assert_rows_close(layer.gather(FRAMES, ROWS), literal)


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_delta(length: int) -> None:
    rows = torch.arange(length).unsqueeze(0)
    half = length // 2
    early = sum(FRAMES[i] for i in range(half)) / half
    late = sum(FRAMES[i] for i in range(length - half, length)) / half
    assert_rows_close(Delta("halves").gather(FRAMES, rows), [unit(late - early)])
    seqnet = sum((-2 if i < half else 2) / length * FRAMES[i] for i in range(length))
    assert_rows_close(Delta("seqnet").gather(FRAMES, rows), [unit(seqnet)])
    assert float(Delta("halves").weights(length).sum()) == pytest.approx(0, abs=1e-6)
    assert (abs(float(Delta("seqnet").weights(length).sum())) < 1e-6) == (length % 2 == 0)


def test_delta_refuses_single_frames() -> None:
    with pytest.raises(ContractError, match="two frames"):
        Delta().gather(FRAMES, ROWS[:, :1])


def test_aligned_frames() -> None:
    layer = AlignedFrames(6, 5)
    literal = [
        torch.cat([unit(layer.linear.weight @ frame + layer.linear.bias) for frame in frames]) for frames in windows()
    ]
    assert_rows_close(layer.gather(FRAMES, ROWS), literal)
    assert layer.distance == "aligned" and layer.descriptor_size(6, 4) == 20


def test_seqgem_is_a_mean_at_power_one_and_near_the_greatest_at_a_high_one() -> None:
    positive = FRAMES.abs() + 0.1
    one, high = SeqGeM(normalize=False, p=1.0), SeqGeM(normalize=False, p=60.0)
    torch.testing.assert_close(one.gather(positive, ROWS), Mean(normalize=False).gather(positive, ROWS))
    torch.testing.assert_close(high.gather(positive, ROWS), positive[ROWS].amax(1), rtol=0.05, atol=0)


def test_seqgem_against_its_formula() -> None:
    literal = []
    for frames in windows():
        powers = [[max(float(x), 1e-6) ** 3 for x in frame] for frame in frames]
        literal.append(unit(torch.tensor([(sum(column) / 4) ** (1 / 3) for column in zip(*powers, strict=True)])))
    assert_rows_close(SeqGeM().gather(FRAMES, ROWS), literal)


def test_gem_against_its_formula() -> None:
    tokens = randn(2, 5, 3, seed=2)
    literal = []
    for frame in tokens:
        units = [unit(token) for token in frame]
        powers = [[max(float(x), 1e-6) ** 3 for x in token] for token in units]
        literal.append(torch.tensor([(sum(column) / 5) ** (1 / 3) for column in zip(*powers, strict=True)]))
    assert_rows_close(GeM(3)(tokens), literal)
    for p in (0.0, -1.0):
        with pytest.raises(ValueError, match="p > 0"):
            GeM(3, p=p)


def test_centre_frame() -> None:
    torch.testing.assert_close(CentreFrame().gather(FRAMES, ROWS), FRAMES[[1, 4, 2]])


@pytest.mark.parametrize(
    ("fusion", "matters"),
    [
        (Mean(), False), (SeqGeM(), False), (Concatenate(), True), (FullyConnected(6, 4, 5), True),
        (SeqNet(6, 5, 2), True), (SeqNet(6, 5, 1), False), (Delta(), True), (LastState(6, 3), True),
        (AlignedFrames(6, 5), True),
    ],
)  # fmt: skip
def test_frame_order_matters_where_it_should(fusion: Any, matters: Any) -> None:
    forward, backward = fusion.gather(FRAMES, ROWS), fusion.gather(FRAMES, ROWS.flip(1))
    assert torch.allclose(forward, backward, atol=1e-5) is not matters


def test_class_token_and_seqpool() -> None:
    tokens = randn(2, 5, 6, seed=1)
    torch.testing.assert_close(ClassToken(6)(tokens[:, :1]), tokens[:, 0])
    layer = SeqPool(6)
    literal = []
    for frame in tokens:
        scores = [math.exp((layer.attention.weight[0] @ token + layer.attention.bias).item()) for token in frame]
        literal.append(sum(score / sum(scores) * token for score, token in zip(scores, frame, strict=True)))
    assert_rows_close(layer(tokens), literal)


def test_netvlad_is_seqvlad_of_one_frame() -> None:
    tokens = randn(3, 5, 6, seed=2)
    frame, window = NetVLAD(4, 6, seed=1), SeqVLAD(4, 6, seed=1)
    torch.testing.assert_close(frame(tokens), SeqVLAD.finish(window.frame_sums(tokens)))


def test_transport_gives_every_token_once_and_every_cluster_its_mass() -> None:
    scores, dustbin = randn(2, 3, 8, seed=3), torch.tensor(0.5)
    plan = transport(scores, dustbin, rounds=200)
    torch.testing.assert_close(plan.sum(2), torch.ones(2, 3), atol=1e-4, rtol=1e-4)
    full = [[[*row] for row in torch.cat([scores[b], dustbin.expand(1, 8)]).exp().tolist()] for b in range(2)]
    for table in full:  # literal Sinkhorn: rows to (1, 1, 1, 5), columns to 1, in turn
        for _ in range(200):
            for k, mass in enumerate((1, 1, 1, 5)):
                total = sum(table[k])
                table[k] = [mass * x / total for x in table[k]]
            for t in range(8):
                total = sum(table[k][t] for k in range(4))
                for k in range(4):
                    table[k][t] /= total
    torch.testing.assert_close(plan, torch.tensor(full)[:, :3], atol=1e-4, rtol=1e-3)


def test_salad_has_unit_length_and_ignores_token_order() -> None:
    options = SaladOptions(width=4, global_width=5, global_from="mean")
    layer, tokens = Salad(6, 3, options).eval(), randn(2, 8, 6, seed=4)
    out = layer(tokens)
    assert out.shape == (2, layer.size) == (2, 5 + 12)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(layer(tokens.flip(1)), out)


@pytest.mark.parametrize(
    "layer",
    [FullyConnected(6, 4, 3), SeqNet(6, 3, 2), LastState(6, 3), Delta(), AlignedFrames(6, 3), SeqGeM()],
    ids=lambda layer: type(layer).__name__,
)
def test_gradients_are_the_functions_own(layer: Any) -> None:
    layer = layer.double()
    features = (FRAMES.double().abs() + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer.gather(x, ROWS), (features,))
