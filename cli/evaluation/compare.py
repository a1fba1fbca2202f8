"""What `--compare` of `seqdata eval` names, and the paired comparison with it."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.evaluation.requests import Answered, Asked, told_apart

if TYPE_CHECKING:
    from indexer.evaluation.comparison import Comparison


def compared(asked: Asked, first: Answered, other: Path) -> "Comparison":
    """The paired comparison with what --compare names. Raises: as `other_of` and `comparison.compare`."""
    from indexer.evaluation.comparison import compare

    first, second = told_apart([first, other_of(asked, other, first)])
    return compare(first.dataset, first.protocol, (first.table, first.info), (second.table, second.info))


def other_of(asked: Asked, path: Path, first: Answered) -> Answered:
    """What --compare names: a predictions file, or the folder of a baseline, run or index with one that fits.

    Raises: InputError when there is none or more than one, ContractError when it answers under another protocol.
    """
    from indexer.evaluation import predictions
    from indexer.evaluation.external_files import is_own, read_predictions
    from seqdata.errors import ContractError, InputError

    if path.is_file() and not is_own(path):
        table, info = read_predictions(first.dataset, first.protocol, first.info.split, path)
        return Answered(first.dataset, first.protocol, table, info, origin=path)
    found = [path] if path.is_file() else [each for each in _stored_below(path) if _same_question(each, first)]
    if len(found) != 1:
        known = ", ".join(str(each) for each in found) or "none there"
        raise InputError(f"{path}: one predictions file of {first.protocol.label} is needed ({known}); name the file")
    table, info = predictions.read(found[0])
    if not asked.protocols and info.protocol_hash != first.info.protocol_hash:
        raise ContractError(
            f"{found[0]}: made under {info.protocol}@{info.protocol_hash}, the other under {first.info.protocol}@"
            f"{first.info.protocol_hash}; name what judges both with --protocol"
        )
    return Answered(first.dataset, first.protocol, table, info, origin=found[0])


def _stored_below(folder: Path) -> list[Path]:
    """Predictions files in a folder, in its predictions/, and, for an index, in those of the run beside it."""
    found = sorted([*folder.glob("*.parquet"), *folder.glob("predictions/*.parquet")])
    if not found and ((folder / "latest").is_file() or (folder / "manifest.json").is_file()):
        import indexer

        opened = indexer.open(folder)
        runs = opened.path.resolve().parents[3] / "runs"
        found = sorted(runs.glob(f"*/predictions/*-{opened.id}.parquet"))
    return found


def _same_question(path: Path, first: Answered) -> bool:
    from indexer.evaluation import predictions
    from indexer.evaluation.external_files import is_own

    if not is_own(path):
        return False
    info = predictions.read(path)[1]
    return (info.protocol_hash, info.split) == (first.info.protocol_hash, first.info.split)
