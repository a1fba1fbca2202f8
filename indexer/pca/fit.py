"""PCA of descriptors in bounded memory: by Gram matrix, by covariance, or randomised, chosen by shape.

FAISS's own PCAMatrix grows as d³ and keeps a d×d matrix; here the eigenproblem is min(n, d) wide and k rows
are kept.
"""

import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from indexer.pca.eigen import exact_top, krylov_top
from indexer.pca.exact_product import round_to_grid
from indexer.pca.moments import Sample, Scatter, gather
from indexer.pca.transform import Transform
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import Float32Array, Float64Array
from seqdata.parallel.steps import step

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Route = Literal["auto", "exact", "gram", "covariance", "randomised"]

SOLVER = "krylov-1"
"""Name of the way in which `auto` finds directions: another one gives the same index another identity."""
RANDOMISED_FROM = 2048  # a smaller eigenproblem takes `eigh` about a second
RANDOMISED_SHARE = 4  # from there on, randomised pays when no more than a quarter of the directions is wanted
DENSE_LIMIT = 8192  # up to this eigenproblem the matrix (512 MiB) is formed, and `eigh` ends in minutes
TOLERANCE = 2e-4  # of the variance: where the Krylov space still gains more, the whole eigenproblem is solved
FLOOR = 1e-10  # an eigenvalue below this share of the largest is float32 rounding, not variance
MATRICES = 5  # of the eigenproblem's size in memory at once: itself, its vectors, and cuSOLVER's own
RANK_LIMIT = 2048  # up to this size a refusal also counts the independent descriptors


@step("fit the PCA")
def fit(
    sample: npt.NDArray[np.floating] | Iterable[npt.NDArray[np.floating]] | Scatter,
    k: int,
    *,
    whiten: bool = False,
    seed: int = 0,
    route: Route = "auto",
    device: str = "auto",
) -> Transform:
    """Fit a PCA of k directions to a sample of descriptors.

    See docs/methods.md#pca: both papers fit one after training, on descriptors of the training database, to 4,096
    values.

    Args:
        sample: An array or memmap (n, d), or an iterable of blocks (m, d), which is read once: no more than d rows are
            held before they are folded into a d×d covariance; or moments that were folded before.
        k: Directions, at most d and fewer than n.
        whiten: Divide by the standard deviation of each direction.
        seed: Seed of the randomised route.
        route: `gram` (n×n, for n < d) and `covariance` (d×d) are float64 with `torch.linalg.eigh`, `exact` is one of
            the two by shape; `randomised` is a block Krylov space, whose directions keep all but 0.02 % of the variance
            that exact ones do; `auto` takes it for eigenproblems from 2,048 on of which a quarter or less is needed,
            and the exact one after all where variances fall so slowly that the space does not reach this.
        device: Where matrices are formed and solved, as torch names it; `auto` is a GPU where torch is loaded and sees
            one whose free memory takes them. Directions of two devices differ by float64's rounding.

    Returns:
        The transform; its matrix lies on the grid of `indexer.pca.exact_product`.

    Raises:
        NotEnoughDataError: If n <= k, or fewer than k directions carry variance; the message names a --pca that works.
        ContractError: If k > d, or a descriptor is not finite.

    Example:
        >>> sample = np.array([[0, 0], [2, 0], [4, 1], [6, 1]], np.float32)
        >>> transform = fit(sample, 1)
        >>> transform.apply(sample).shape, round(transform.explained, 2)
        ((4, 1), 0.99)
    """
    data = gather(sample, pick_device(sample) if device == "auto" else device)
    _check_size(data, k)
    taken: str = route
    if route in ("auto", "exact"):
        taken = choose_route(data.count, data.size, k, exact=route == "exact")
    values, vectors, total, taken = _solve(data, k, taken, seed)
    _check_floor(values, k)
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    _fix_signs(matrix)
    if whiten:
        matrix /= np.sqrt(values).astype(np.float32)[:, None]
    # Stored as they are multiplied, so that no rounded copy of them is needed beside.
    matrix = round_to_grid(matrix)
    return Transform(
        mean=data.mean.astype(np.float32),
        matrix=matrix,
        eigenvalues=values,
        explained=float(values.sum() / total),
        route=taken,
        samples=data.count,
        whiten=whiten,
        seed=seed,
    )


def pick_device(sample: object) -> str:
    """The GPU where torch sees one and its free memory takes the eigenproblem of a sample, else the CPU.

    A stream's size is not known before it is read, so it is folded on the CPU.
    """
    # Looked up, not imported: an index without a PCA loads no torch.
    torch = sys.modules.get("torch")
    rows = sample.matrix if isinstance(sample, Scatter) else sample
    if torch is None or not torch.cuda.is_available() or not isinstance(rows, (np.ndarray, torch.Tensor)):
        return "cpu"
    if rows.ndim != 2:
        return "cpu"
    device = f"cuda:{torch.cuda.current_device()}"
    free, _ = torch.cuda.mem_get_info(device)
    return device if MATRICES * 8 * min(rows.shape) ** 2 < free else "cpu"


def choose_route(count: int, size: int, k: int, *, exact: bool = False) -> Literal["gram", "covariance", "randomised"]:
    """The route for n = `count` descriptors of d = `size` and k directions; see `fit`."""
    narrow = min(count, size)
    if not exact and narrow >= RANDOMISED_FROM and RANDOMISED_SHARE * k <= narrow:
        return "randomised"
    return "gram" if count < size else "covariance"


def _solve(
    data: Sample | Scatter, k: int, route: str, seed: int
) -> tuple[Float64Array, Float64Array | Float32Array, float, str]:
    """Variances (k,), directions (k, d), the whole variance, and the route that was taken in the end.

    With fewer descriptors than dimensions the eigenproblem is that of the Gram matrix, on the randomised route too:
    forming it costs less than one pass with directions of d values, and no more than k directions of d are ever held.
    """
    import torch  # heavy

    count = data.count - 1
    is_randomised = route == "randomised"
    if route == "gram" or (is_randomised and isinstance(data, Sample) and data.count < data.size):
        if isinstance(data, Scatter):
            raise ContractError("PCA route 'gram' needs fewer streamed descriptors than dimensions; use 'covariance'")
        gram = data.gram()
        values, vectors, is_exact = _top(gram, k, seed if is_randomised else None)
        # Not zero, which would divide by it; such directions are refused by `_check_floor` afterwards.
        directions = data.project(vectors, torch.sqrt(values.clamp_min(1e-300)))
        return (values / count).cpu().numpy(), directions, float(gram.trace()) / count, "gram" if is_exact else route
    if is_randomised and data.size > DENSE_LIMIT:
        values, vectors, gain = krylov_top(data.multiply, data.size, k, seed, data.device)
        _report_gain(gain)
        return (values / count).cpu().numpy(), vectors.T.cpu().numpy(), data.total() / count, route
    covariance = data.covariance()
    values, vectors, is_exact = _top(covariance, k, seed if is_randomised else None)
    total = float(covariance.trace()) / count
    return (values / count).cpu().numpy(), vectors.T.cpu().numpy(), total, "covariance" if is_exact else route


def _top(matrix: "torch.Tensor", k: int, seed: int | None) -> "tuple[torch.Tensor, torch.Tensor, bool]":
    """The k largest eigenpairs of a matrix, within a Krylov space where there is a seed, and whether they are exact."""
    if seed is not None:
        values, vectors, gain = krylov_top(lambda block: matrix @ block, len(matrix), k, seed, str(matrix.device))
        if gain <= TOLERANCE or len(matrix) > DENSE_LIMIT:
            _report_gain(gain)
            return values, vectors, False
    return *exact_top(matrix, k), True


def _report_gain(gain: float) -> None:
    """Say so where the directions may keep less variance than exact ones, whose eigenproblem is too large."""
    if gain > TOLERANCE:
        log.warning(
            "PCA: variances fall slowly; its directions may keep %.2f %% less variance than exact ones", 100 * gain
        )


def _check_size(data: Sample | Scatter, k: int) -> None:
    if k < 1:
        raise ContractError(f"--pca {k}: at least one direction is needed")
    if k > data.size:
        raise ContractError(f"--pca {k}: the descriptors have {data.size} dimensions; use --pca {data.size} or less")
    if data.count > k:
        if data.count < 2 * k:
            log.warning("PCA to %d from %d descriptors: twice as many are wanted for a stable fit", k, data.count)
        return
    usable = _usable(data)
    advice = f"--pca {usable} would work" if usable else "index without --pca, or build a larger training database"
    raise NotEnoughDataError(
        f"PCA to {k} dimensions: {data.count} descriptors exist, at least {k + 1} are needed; {advice}"
    )


def _usable(data: Sample | Scatter) -> int:
    """The greatest k that this sample carries: its rank where counting is cheap, n - 1 elsewhere."""
    most = max(min(data.count - 1, data.size), 0)
    # Counting ranks solves the eigenproblem for a refusal alone: beyond a few seconds that is not worth it.
    if most == 0 or isinstance(data, Scatter) or data.count > RANK_LIMIT:
        return most
    values, _ = exact_top(data.gram(), most)
    return int((values > FLOOR * values[0]).sum()) if float(values[0]) > 0 else 0


def _check_floor(values: Float64Array, k: int) -> None:
    usable = int((values > FLOOR * values[0]).sum()) if values[0] > 0 else 0
    if usable == k:
        return
    advice = f"--pca {usable} would work" if usable else "the descriptors are all equal: check the model"
    raise NotEnoughDataError(
        f"PCA to {k} dimensions: the sample varies in {usable} directions only, {k} are needed; {advice}"
    )


def _fix_signs(directions: Float32Array) -> None:
    """Turn each row, in place, so that its component of largest magnitude is positive."""
    for row in directions:
        if row[np.abs(row).argmax()] < 0:
            np.negative(row, out=row)
