"""Predictions ready to be scored: the dataset and protocol that judge them, and the files that store them.

They come from the product's own files (`own_predictions`), from files or descriptors of other models
(`external_predictions`, `external_descriptors`), or from an index (`train.stages.evaluate.answer_protocols`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from indexer.evaluation import predictions
from indexer.evaluation.comparison import Comparison, Predicted, compare
from indexer.evaluation.external_descriptors import search_descriptors
from indexer.evaluation.external_files import IdKind, read_predictions
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.recall import Evaluation
from indexer.evaluation.scoring import record, score
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, OutputError


@dataclass(frozen=True)
class PredictionSet:
    """Predictions with the dataset and the protocol that judge them."""

    dataset: Dataset
    protocol: Protocol
    table: pl.DataFrame
    """Table contract `predictions`."""
    info: PredictionsInfo
    """What the table answers."""
    folder: Path | None = None
    """Folder in which evaluations are recorded; None for predictions whose evaluations are not."""
    path: Path | None = None
    """File that stores the table."""
    is_stored: bool = False
    """Whether `path` holds the table already."""
    source: Path | None = None
    """File that the table was read from, or made of."""
    reduced: tuple[Predicted, ...] = ()
    """What the same index answers by fewer dimensions."""

    def score(self, *, radius: float | None = None, full: bool = False, by: Sequence[str] = ()) -> Evaluation:
        """Measure the recall; see `indexer.evaluation.scoring.score`."""
        return score(self.dataset, self.protocol, self.table, self.info, radius=radius, full=full, by=by)

    def score_reduced(self) -> list[Evaluation]:
        """Measure the recall of each answer by fewer dimensions."""
        return [score(self.dataset, self.protocol, table, info) for table, info in self.reduced]

    def score_and_store(
        self, report: Callable[[str], None], *, full: bool = False, by: Sequence[str] = ()
    ) -> Evaluation:
        """Measure the recall; write the table to `path` and record the evaluation in `folder`, where they are given.

        Args:
            report: Called with a line about what was stored, or could not be.
            full: See `score`.
            by: See `score`.

        Raises:
            OutputError: If something cannot be stored; for the answer of an index that is only reported, because it
                can be computed again.
        """
        if self.path is not None and not self.is_stored:
            path = self.path
            self._store(lambda: predictions.write(path, self.table, self.info), report, str(path))
        evaluation = self.score(full=full, by=by)
        if self.folder is not None:
            folder = self.folder
            self._store(lambda: record(folder, evaluation), report)
        return evaluation

    def _store(self, write: Callable[[], object], report: Callable[[str], None], name: str | None = None) -> None:
        """Write something and report its name."""
        try:
            write()
        except OutputError as error:
            # Answers of an index can be computed again from it; those of another program are all there is.
            if self.info.index is None:
                raise
            report(f"not kept: {error}")
        else:
            if name is not None:
                report(f"predictions: {name}")


@dataclass(frozen=True)
class ExternalModel:
    """Another model: which windows its files answer, what it is called, and where its results are stored."""

    dataset: Dataset
    protocols: tuple[Protocol, ...]
    """Protocols that judge it, each by its own windows."""
    folder: Path
    """Folder below which each protocol gets a folder of its own."""
    split: str = "test"
    name: str | None = None
    """What tables of results call it; default: the name of its file."""
    out: Path | None = None
    """Folder for its results, in place of one below `folder`."""
    ids: IdKind = "auto"
    """What the ids in its predictions are, where keys of frames and row numbers both fit."""

    def _set(self, protocol: Protocol, predicted: Predicted, source: Path) -> PredictionSet:
        table, info = predicted
        name = f"{self.name or source.stem}-{protocol.name}-{self.dataset.id[:12]}"
        folder = self.out or self.folder / name
        path = folder / f"{protocol.hash}-{info.split}.parquet"
        return PredictionSet(self.dataset, protocol, table, info, folder, path, source=source)


def external_predictions(model: ExternalModel, path: Path) -> list[PredictionSet]:
    """Read ranked predictions of another model under each of its protocols.

    Raises:
        InputError: If there is no such file.
        ContractError: As `indexer.evaluation.external_files.read_predictions`.
    """
    return [
        model._set(protocol, read_predictions(model.dataset, protocol, model.split, path, model.name, model.ids), path)
        for protocol in model.protocols
    ]


def external_descriptors(
    model: ExternalModel,
    query: Path,
    database: Path,
    *,
    query_ids: Path | None = None,
    database_ids: Path | None = None,
    cosine: bool = False,
) -> list[PredictionSet]:
    """Search descriptors of another model exactly, under each of its protocols.

    Args:
        model: Whose descriptors they are.
        query: `.npy` file of query descriptors (n, d).
        database: `.npy` file of database descriptors (m, d).
        query_ids: File of the query rows' keys; default: rows in the order of the protocol's table.
        database_ids: File of the database rows' keys.
        cosine: Compare by cosine instead of plain L2.

    Raises:
        InputError, ContractError, NotEnoughDataError: As `external_descriptors.search_descriptors`.
    """
    sets = []
    for protocol in model.protocols:
        predicted = search_descriptors(
            model.dataset,
            protocol,
            model.split,
            query,
            database,
            query_ids=query_ids,
            database_ids=database_ids,
            cosine=cosine,
            name=model.name,
        )
        sets.append(model._set(protocol, predicted, query))
    return sets


def own_predictions(
    dataset: Dataset, path: Path, protocols: Sequence[Protocol] = (), split: str | None = None
) -> list[PredictionSet]:
    """Read predictions that the product stored, to be judged by each of some protocols.

    Args:
        dataset: The dataset that they answer.
        path: The predictions file.
        protocols: Protocols that judge; default: the one that they were made under.
        split: Split that they must answer, None for any.

    Raises:
        ContractError: If the file is damaged or answers another split, or its own protocol has changed since.
    """
    table, info = predictions.read(path)
    if split not in (None, info.split):
        raise ContractError(f"--split {split}: {path} answers split {info.split}")
    judges = list(protocols) or [_original_protocol(dataset, info, path)]
    return [PredictionSet(dataset, protocol, table, info, source=path) for protocol in judges]


def _original_protocol(dataset: Dataset, info: PredictionsInfo, path: Path) -> Protocol:
    """The protocol that predictions were made under. Raises: ContractError when it has changed since."""
    try:
        return dataset.load_protocol(f"{info.protocol}@{info.protocol_hash}")
    except ContractError:
        protocol = dataset.load_protocol(info.protocol)  # a file of the user's
    if protocol.hash != info.protocol_hash:
        raise ContractError(
            f"{path}: made under {info.protocol}@{info.protocol_hash}, the protocol is now {protocol.label}; name one "
            "with --protocol"
        )
    return protocol


def distinct_methods(sets: Sequence[PredictionSet]) -> list[PredictionSet]:
    """Give sets of one method's name different names: the index, else the file, is added in brackets."""
    labels: tuple[Callable[[PredictionSet], str], ...] = (
        lambda item: (item.info.index or "")[:8],
        lambda item: item.source.stem if item.source else "",
        lambda item: str(item.source or ""),
    )
    renamed = []
    for item in sets:
        twins = [other for other in sets if other.info.method == item.info.method]
        origins = len({(other.info.index, other.source) for other in twins})
        # The shortest label that differs wherever the origins do; the whole path always does.
        label = next((one for one in labels if len({one(other) for other in twins}) == origins), labels[-1])(item)
        method = f"{item.info.method} [{label}]" if origins > 1 and label else item.info.method
        # Copies: the sets themselves are stored under the names that they had.
        renamed.append(replace(item, info=item.info.model_copy(update={"method": method})))
    return renamed


def compare_sets(first: PredictionSet, second: PredictionSet) -> Comparison:
    """Compare two sets query by query under the first one's protocol; see `indexer.evaluation.comparison.compare`."""
    first, second = distinct_methods([first, second])
    return compare(first.dataset, first.protocol, (first.table, first.info), (second.table, second.info))
