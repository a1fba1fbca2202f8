"""Predictions of an index under protocols, each searched once and then re-scored, and predictions to compare with.

Here is the policy over several protocols and files: what is searched, what is re-scored, what may be compared. One
protocol's answer, searched or read, comes from `train.stages.evaluate`. Importing this loads no model: weights are
needed only where no stored answer serves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.evaluation import predictions
from indexer.evaluation.comparison import Predicted
from indexer.evaluation.external_files import is_own, read_predictions
from indexer.evaluation.prediction_sets import PredictionSet
from indexer.evaluation.truth import fits
from indexer.place_index import PlaceIndex
from indexer.versions.folders import evaluations_folder
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError
from seqdata.parallel import Engine, Progress
from train.data.describe_settings import DEFAULT, DescribeSettings
from train.runs.record import comparable_predictions, predictions_path
from train.stages import evaluate
from train.stages.answers.parts import QuerySearch


@dataclass(frozen=True)
class AnswerOptions:
    """How an index answers the queries of protocols."""

    sizes: tuple[int, ...] = ()
    """Numbers of first PCA components by which it also answers."""
    again: bool = False
    """Whether to search even where stored predictions serve."""
    settings: DescribeSettings = DEFAULT
    """Where the model runs, and where its code is; precision and runtime are those of the index's vectors."""
    workers: int = 1
    """Parts of the queries that are searched for at once."""
    parts_engine: Engine = "pool"
    """What runs several workers: "pool" (processes) or "ray"."""


def answer_protocols(
    dataset: Dataset,
    index: PlaceIndex,
    run: Path,
    protocols: Sequence[Protocol],
    options: AnswerOptions | None = None,
    *,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> list[PredictionSet]:
    """Answer the queries of several protocols by an index, each from stored predictions where some serve.

    Predictions serve under any protocol that cuts the same windows, so that another radius or rule needs no search.

    Args:
        dataset: The dataset that the index was built from.
        index: The index.
        run: Folder of the run that it was built from.
        protocols: Protocols whose queries are answered.
        options: See `AnswerOptions`.
        report: Called with a line about stored predictions that were used or passed over.
        progress: Called with queries described and queries in all.

    Returns:
        A set for each protocol, in order. Its `path` is the run's file for this index and protocol.

    Raises:
        ContractError: If index, run and dataset do not belong together, or a protocol cuts other windows.
        NotEnoughDataError: If the split has no query.
    """
    options = options or AnswerOptions()
    folder = evaluations_folder(index.path)
    sets: list[PredictionSet] = []
    for protocol in protocols:
        path = predictions_path(run, index, protocol)
        # Protocols that differ in radius or rule alone cut the same windows: one search answers them all.
        previous = next((item for item in sets if fits(dataset, protocol, item.info)), None)
        if previous is not None:
            info = previous.info.under(protocol)
            sets.append(replace(previous, protocol=protocol, info=info, path=path, is_stored=False))
            continue
        searches_again = options.again or bool(options.sizes)  # fewer dimensions are not stored
        earlier = None if searches_again else evaluate.stored_answer(dataset, index, run, protocol, report)
        if earlier is not None:
            (table, info), file = earlier
            report(f"re-scored stored predictions: {file} (--again searches anew)")
            sets.append(PredictionSet(dataset, protocol, table, info, folder, path, is_stored=file == path))
            continue
        in_parts = _answer_of_parts(QuerySearch(dataset, index, run, protocol, options.settings), options, progress)
        if in_parts is not None:
            sets.append(PredictionSet(dataset, protocol, *in_parts, folder, path, is_stored=True))
            continue
        (table, info), *reduced = evaluate.answer(
            dataset,
            index,
            run,
            protocol,
            sizes=options.sizes,
            settings=options.settings,
            progress=progress,
        )
        sets.append(PredictionSet(dataset, protocol, table, info, folder, path, reduced=tuple(reduced)))
    return sets


def _answer_of_parts(search: QuerySearch, options: AnswerOptions, progress: Progress | None) -> Predicted | None:
    """Answer by what array jobs have stored, or by several processes, and store it; None for the usual way."""
    if options.sizes:
        return None
    if options.again:
        search.remove_parts()
    if options.workers > 1 or options.parts_engine == "ray":
        answer: Predicted | None = search.search_on(options.parts_engine, options.workers, progress)
    else:
        answer = search.join_parts()
    if answer is not None:
        # Stored before the parts go: a kill in between loses nothing.
        predictions.write(predictions_path(search.run, search.index, search.protocol), *answer)
        search.remove_parts()
    return answer


def other_predictions(path: Path, first: PredictionSet, *, any_protocol: bool = False) -> PredictionSet:
    """Find the predictions to compare others with.

    Args:
        path: A predictions file of the product or of another model, or the folder of a run, a baseline or an index.
        first: The predictions that they are compared with; those of a folder must answer its protocol and split.
        any_protocol: Whether a file made under another protocol is judged by `first`'s as well.

    Raises:
        InputError: If the folder holds none that fit, or more than one.
        ContractError: If a file was made under another protocol, or does not fit.
    """
    if path.is_file() and not is_own(path):
        table, info = read_predictions(first.dataset, first.protocol, first.info.split, path)
        return PredictionSet(first.dataset, first.protocol, table, info, source=path)
    files = [path] if path.is_file() else comparable_predictions(path, first.info)
    if len(files) != 1:
        names = ", ".join(str(file) for file in files) or "none there"
        raise InputError(f"{path}: one predictions file of {first.protocol.label} is needed ({names}); name the file")
    table, info = predictions.read(files[0])
    if not any_protocol and info.protocol_hash != first.info.protocol_hash:
        raise ContractError(
            f"{files[0]}: made under {info.protocol}@{info.protocol_hash}, the other under {first.info.protocol}@"
            f"{first.info.protocol_hash}; name what judges both with --protocol"
        )
    return PredictionSet(first.dataset, first.protocol, table, info, source=files[0])
